"""Learning curve: what more rows to fit on would bring, on held-out rows and where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unmix.core.errors import Failure, UsageError
from unmix.study.engines import Engine
from unmix.study.verbs import fit

WORTH = {"fvu": 0.05, "dictionary_mcc": 0.01}  # a doubling of the rows is worth it from this gain: relative, absolute
NAMES = {"fvu": "held-out FVU", "dictionary_mcc": "recovery of the true atoms (mean cosine)"}


@dataclass(frozen=True, eq=False)
class Curve:
    """One recipe fitted at several sample sizes.

    table: one line for each size: samples, seeds, and for fvu (and dictionary_mcc, found, where the truth is known)
    the mean over seeds with its standard error.
    """

    recipe: str
    table: pd.DataFrame

    @property
    def measure(self) -> str:
        """What the sentence speaks of: recovery where the truth is known, else the held-out FVU."""
        return "dictionary_mcc" if "dictionary_mcc" in self.table else "fvu"

    def gain(self) -> tuple[float, float]:
        """Gain of the last step for one doubling of the rows (relative for fvu), and its standard error."""
        name, (before, after) = self.measure, (self.table.iloc[-2], self.table.iloc[-1])
        doublings = math.log2(after["samples"] / before["samples"])
        error = math.hypot(before[f"{name}_error"], after[f"{name}_error"]) / doublings
        if name == "fvu":
            scale = max(before["fvu"], 1e-12)
            return (before["fvu"] - after["fvu"]) / scale / doublings, error / scale
        return (after[name] - before[name]) / doublings, error

    @property
    def sentence(self) -> str:
        """Whether more rows would help, in a sentence."""
        name, (before, after) = self.measure, (self.table.iloc[-2], self.table.iloc[-1])
        gain, error = self.gain()
        change = f"{gain:+.1%}" if name == "fvu" else f"{gain:+.3f}"
        told = (
            f"{self.recipe}: from {before['samples']:,.0f} to {after['samples']:,.0f} rows the {NAMES[name]} "
            f"goes from {before[name]:.3f} to {after[name]:.3f}, a gain of {change} a doubling (standard error "
            f"{f'{error:.1%}' if name == 'fvu' else f'{error:.3f}'})"
        )
        if gain > WORTH[name] and gain > 2 * error:
            return told + ": more rows would help."
        if gain + 2 * error < WORTH[name]:
            return told + ": it has levelled off, more rows would change little."
        return told + ": too close to tell whether more rows would help; add seeds or a larger sample."


def learning_curve(
    world: Any,
    finder: Any,
    folder: str | Path,
    samples: Sequence[int | None],
    seeds: Sequence[int] = (0,),
    engine: Engine | None = None,
    test: int = 8192,
) -> Curve:
    """Fit one recipe at several sample sizes into a run folder; rows held out are the same for all sizes.

    samples: at least two sizes; None is all there are. Standard errors are those over rows (a quarter of the 95 %
    interval) or, with several seeds, over seeds, whichever is larger.
    Raises `UsageError` for fewer than two sizes, `Failure` where fits failed.
    """
    if len(set(samples)) < 2:
        raise UsageError(f"samples={list(samples)}: a learning curve needs at least two sizes")
    results = fit(world, (finder,), folder, seeds, tuple(samples), engine, test)
    by_size: dict[int, list[dict[str, Any]]] = {}
    for cell, outcome in results.cells():
        same = cell.finder == finder and cell.encoder is None and cell.world.digest == world.digest
        if same and cell.samples in samples and cell.seed in seeds and cell.test == test:
            by_size.setdefault(outcome["samples"], []).append(outcome)
    if len(by_size) < 2:
        raise Failure(f"learning curve: fits failed; first: {(results.failures or ['none kept'])[0]}")
    rows = []
    for size, outcomes in sorted(by_size.items()):
        row: dict[str, Any] = {"samples": size, "seeds": len(outcomes)}
        for name in ("fvu", "dictionary_mcc", "found"):
            if all(name in outcome["scores"] for outcome in outcomes):
                scores = [outcome["scores"][name] for outcome in outcomes]
                row[name], row[f"{name}_error"] = _mean_and_error(scores)
                if scores[0]["chance"] is not None and name == "dictionary_mcc":
                    row[f"{name}_chance"] = float(np.mean([score["chance"] for score in scores]))
        rows.append(row)
    return Curve(str(finder), pd.DataFrame(rows))


def _mean_and_error(scores: list[dict[str, float]]) -> tuple[float, float]:
    values = np.array([score["value"] for score in scores])
    inside = float(np.mean([(score["high"] - score["low"]) / 4 for score in scores]))
    between = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
    return float(values.mean()), max(inside, between)
