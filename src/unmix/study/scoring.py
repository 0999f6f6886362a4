"""Scoring arrays: true latents and codes as they lie in files, with every score that they allow."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from unmix.core.errors import UnmixError, UsageError, suggest
from unmix.core.factors import Factor
from unmix.core.rows import as_array, as_tensor, require_finite
from unmix.core.seeds import Stream
from unmix.core.store import read_json
from unmix.scores import SCORES
from unmix.scores.base import Inputs, Outcome

DEFAULT = ("mcc", "r2")
# Scores of codes that the raw observations and the untrained network are measured with as well.
BESIDE = ("mcc",)
# Scores of which entries fire: of sparse codes and latents, or of sparse latents alone.
FIRING = {"support": ("latents", "codes"), "exact_support": ("latents", "codes"), "rare_recovery": ("latents",)}
DENSE = 0.5  # share of entries that are not zero
KINDS = ("continuous", "ordinal", "categorical", "circular")


@dataclass(frozen=True, eq=False)
class Scored:
    """Outcomes by name of score, for the others why they could not be measured, and notes on the arrays."""

    outcomes: dict[str, Outcome]
    reasons: dict[str, str]
    notes: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """One row for every score: score, value, minimum, low, high, chance, ceiling, x, x_minimum, untrained,
        untrained_minimum, better, meaning, reason; NaN where there is none.
        """
        rows = []
        for name, outcome in self.outcomes.items():
            beside = outcome.detail.get("baselines") or {}
            row: dict[str, Any] = {
                "score": name,
                "value": outcome.value,
                "minimum": minimum_of(outcome),
                "low": outcome.interval[0],
                "high": outcome.interval[1],
                "chance": outcome.chance,
                "ceiling": outcome.ceiling,
            }
            for key in ("x", "untrained"):
                row[key] = beside.get(key, {}).get("value", math.nan)
                row[f"{key}_minimum"] = beside.get(key, {}).get("minimum", math.nan)
            rows.append({**row, **_about(name), "reason": ""})
        rows += [{"score": name, **_about(name), "reason": reason} for name, reason in self.reasons.items()]
        return pd.DataFrame(rows)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values: scores (with their detail) and not_measured; None for NaN."""
        scores = {
            name: {
                "value": outcome.value,
                "interval": list(outcome.interval),
                "chance": outcome.chance,
                "chance_interval": list(outcome.chance_interval),
                "ceiling": outcome.ceiling,
                "detail": outcome.detail,
            }
            for name, outcome in self.outcomes.items()
        }
        plain: dict[str, Any] = _plain({"scores": scores, "not_measured": self.reasons, "notes": list(self.notes)})
        return plain


def score_arrays(
    latents: Any,
    codes: Any,
    metrics: str | Iterable[str] = DEFAULT,
    factors: Any = None,
    x: Any = None,
    untrained: Any = None,
    group: Any = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores of codes against true latents as a table; the columns are those of `Scored.table`.

    latents: [n, f] or [n]. codes: [n, m], rows in the same order. metrics: names of scores, or "all" for every score
    that compares codes or a representation with latents; what these arrays do not allow, or what says nothing about
    them (which entries fire, where most do), is listed with the reason.
    factors: kind of each latent, as `factors_of` reads them. x: [n, ...] raw observations and untrained: [n, d] the
    network's representation before training, for baselines. group: [n] sequence of each row. seed: of shuffles,
    splits and bootstrap. Raises `UsageError` for unlike rows, NaN, or a score asked for by name that is impossible.
    """
    return scored(latents, codes, metrics, factors, x, untrained, group, seed).table()


def scored(
    latents: Any,
    codes: Any,
    metrics: str | Iterable[str] = DEFAULT,
    factors: Any = None,
    x: Any = None,
    untrained: Any = None,
    group: Any = None,
    seed: int = 0,
) -> Scored:
    """The outcomes behind `score_arrays`, with its arguments and errors."""
    z, h = _matrix(latents, "latents"), _matrix(codes, "codes")
    kinds = None if factors is None else factors_of(factors, z.shape[1])
    given = {"codes": h, "x": _flat(x, "x"), "untrained": _flat(untrained, "untrained")}
    for name, matrix in given.items():
        if matrix is not None and len(matrix) != len(z):
            sides = matrix.shape[1] == len(z) or len(matrix) == z.shape[1]
            turned = "; one of them may have to be transposed" if sides else ""
            raise UsageError(
                f"{name}: {len(matrix)} rows, latents {len(z)}; row i must be the same datum in both{turned}"
            )
    numbers = None if group is None else np.asarray(group.cpu() if isinstance(group, Tensor) else group).reshape(-1)
    if numbers is not None and len(numbers) != len(z):
        raise UsageError(f"group: {len(numbers)} numbers for {len(z)} rows")
    inputs = Inputs(
        codes=h,  # type: ignore[arg-type]
        z=z,
        h=h,
        x=given["x"],
        untrained=given["untrained"],
        factors=kinds,
        group=numbers,  # type: ignore[arg-type]
    )
    everything = metrics == "all"
    outcomes: dict[str, Outcome] = {}
    reasons: dict[str, str] = {}
    for name in _names(metrics):
        if everything and (reason := _no_support(name, inputs)):
            reasons[name] = reason
            continue
        try:
            outcome = SCORES[name]().measure(inputs, Stream(seed))
        except UnmixError as error:
            if not everything:
                raise
            reasons[name] = str(error).removeprefix(f"{name}: ")
            continue
        outcomes[name] = _with_baselines(name, outcome, inputs, seed) if name in BESIDE else outcome
    return Scored(outcomes, reasons, _notes(z, h, kinds))


def factors_of(given: Any, count: int) -> tuple[Factor, ...]:
    """Factors from factors, from text, or from a JSON file: one for each of `count` latents.

    Text: "x:continuous,shape:categorical,angle:circular"; a name alone is continuous, and a circular factor has the
    period 2 pi unless "angle:circular:0:360" says another range. JSON: a list of objects with the fields of `Factor`.
    Raises `UsageError` for another number of factors, an unknown kind, or a file that holds something else.
    """
    if isinstance(given, (str, Path)):
        text = str(given)
        if text.endswith(".json"):
            held = read_json(text)
            if not isinstance(held, list) or not all(isinstance(entry, dict) for entry in held):
                raise UsageError(
                    f"factors={text}: expected a list of objects such as {{'name': 'x', 'kind': 'ordinal'}}"
                )
            given = [_from_json(entry, text) for entry in held]
        else:
            given = [_from_text(word.strip()) for word in text.split(",")]
    found = tuple(given)
    if len(found) != count:
        raise UsageError(f"factors: {len(found)} given for {count} latents")
    return found


def minimum_of(outcome: Outcome) -> float:
    """The smallest of what the value is a mean of, dimensions or matched |correlations|; NaN without one."""
    if "minimum" in outcome.detail:
        return float(outcome.detail["minimum"])
    if "correlations" in outcome.detail:
        return float(np.abs(outcome.detail["correlations"]).min())
    return math.nan


def _names(metrics: str | Iterable[str]) -> list[str]:
    if metrics == "all":
        every = [name for name in SCORES if "z" in SCORES[name].needs]
        first = ("typed_mcc", *DEFAULT)
        return [*first, *(name for name in every if name not in first)]
    words = metrics.split(",") if isinstance(metrics, str) else metrics
    names = list(dict.fromkeys(word.strip() for word in words if word.strip()))
    for name in names:
        if name not in SCORES:
            raise UsageError(f"metrics={name}: no such score; {suggest(name, SCORES)}")
    if not names:
        raise UsageError("metrics: names of scores or all, such as mcc,r2")
    return names


def _notes(z: Tensor, h: Tensor, kinds: Sequence[Factor] | None) -> tuple[str, ...]:
    """What in the arrays themselves makes scores misleading: constant or equal columns, fewer codes than latents."""
    names = [factor.name for factor in kinds] if kinds else [f"z{j}" for j in range(z.shape[1])]
    flat = [names[j] for j in range(z.shape[1]) if bool((z[:, j] == z[0, j]).all())]
    dead = [i for i in range(h.shape[1]) if bool((h[:, i] == h[0, i]).all())]
    first: dict[bytes, int] = {}
    for i, column in enumerate(h.cpu().numpy().T):
        first.setdefault(column.tobytes(), i)
    again = sorted(set(range(h.shape[1])) - set(first.values()) - set(dead))
    found = []
    if flat:
        found.append(f"latents: {_listed(flat)} never changes; scores of factors leave it out, others count it as 0")
    if dead:
        found.append(f"codes: column {_listed(dead)} is constant")
    if again:
        found.append(
            f"codes: column {_listed(again)} repeats another; mig and sap are 0 where a factor is kept twice"
        )
    if h.shape[1] < z.shape[1]:
        found.append(
            f"codes: {h.shape[1]} for {z.shape[1]} latents; one to one, a mean over all cannot exceed "
            f"{h.shape[1] / z.shape[1]:.2g}"
        )
    return tuple(found)


def _listed(names: Sequence[Any]) -> str:
    """A few of the names."""
    return ", ".join(map(str, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _no_support(name: str, inputs: Inputs) -> str:
    """Why which entries fire says nothing in these arrays, or nothing where the score does not ask or it does."""
    matrices = {"latents": inputs.z, "codes": inputs.codes}
    for which in FIRING.get(name, ()):
        share = float((matrices[which] != 0).float().mean())  # type: ignore[union-attr]
        if share > DENSE:
            told = f"asks which entries are zero, and {share:.0%} of these {which} are not; for sparse ones"
            return f"{told} (ask for it by name to have it all the same)"
    return ""


def _with_baselines(name: str, outcome: Outcome, inputs: Inputs, seed: int) -> Outcome:
    beside = {}
    for key in ("x", "untrained"):
        source = getattr(inputs, key)
        if source is not None:
            other = SCORES[name](draws=1).measure(Inputs(codes=source, z=inputs.z), Stream(seed))
            beside[key] = {"value": other.value, "minimum": minimum_of(other)}
    return replace(outcome, detail={**outcome.detail, "baselines": beside})


def _about(name: str) -> dict[str, str]:
    cls = SCORES[name]
    return {"better": cls.better, "meaning": (cls.__doc__ or "").split("\n")[0]}


def _matrix(values: Any, name: str) -> Tensor:
    array = as_array(values, name)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not array.shape[0] or not array.shape[1]:
        raise UsageError(f"{name}: expected [n, columns], got {list(array.shape)}")
    matrix = as_tensor(array).detach()
    require_finite(matrix, name)
    return matrix


def _flat(values: Any, name: str) -> Tensor | None:
    if values is None:
        return None
    array = as_array(values, name)
    return _matrix(array.reshape(len(array), -1), name)


def _from_text(word: str) -> Factor:
    name, *rest = word.split(":")
    kind = rest[0] if rest else "continuous"
    if not name or kind not in KINDS or len(rest) not in (0, 1, 3):
        raise UsageError(f"factors: {word!r}: write NAME:KIND or NAME:KIND:LOW:HIGH; kinds are {', '.join(KINDS)}")
    try:
        low, high = (float(part) for part in rest[1:]) if len(rest) == 3 else (None, None)
    except ValueError:
        raise UsageError(f"factors: {word!r}: low and high must be numbers") from None
    if kind == "circular" and low is None:
        low, high = 0.0, 2 * math.pi
    return Factor(name, kind, None, low, high)  # type: ignore[arg-type]


def _from_json(entry: dict[str, Any], file: str) -> Factor:
    try:
        return Factor(**entry)
    except TypeError:
        raise UsageError(
            f"factors={file}: {json.dumps(entry)}: fields are name, kind, size, low, high, symmetry"
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (bool, int, str)) or value is None else str(value)
