"""Typed association of codes with factors, and the mean correlation coefficient over the best matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.seeds import Stream, as_stream
from unmix.scores.base import Inputs, Outcome
from unmix.scores.disentanglement.data import (
    Disentanglement,
    Paired,
    angle,
    around,
    mean_ranks,
    paired,
    reweighted,
)
from unmix.scores.influence import tell_of_rows

Correlation = Literal["pearson", "spearman"]
PROJECTED_ROWS = 5000


class Associations:
    """|association| of every code with every factor, for any weighting of the rows.

    Each is a multiple correlation R = sqrt(s' S^-1 s / v) of the code with the columns that stand for the factor:
    its values (continuous, Pearson), ranks on both sides (ordinal and Spearman), one indicator for each category
    (the correlation ratio eta), or cosine and sine (circular: circular-linear correlation).
    """

    def __init__(self, pair: Paired, correlation: Correlation = "pearson") -> None:
        self.pair = pair
        ranked = [f.kind == "ordinal" or (f.kind == "continuous" and correlation == "spearman") for f in pair.factors]
        self.ranked = np.array(ranked)
        self.raw = _standard(pair.codes)
        self.ranks = _standard(np.apply_along_axis(mean_ranks, 0, pair.codes)) if any(ranked) else self.raw
        designs = [_design(pair.z[:, j], factor, ranked[j]) for j, factor in enumerate(pair.factors)]
        self.ends = np.cumsum([0, *(d.shape[1] for d in designs)])
        self.design = np.concatenate(designs, 1)

    def __call__(self, weights: np.ndarray | None = None, order: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        """|association| and its sign (0 for none), both [m, f]; weights [n], order [n] of the codes' rows."""
        n = len(self.design)
        w = np.full(n, 1 / n) if weights is None else weights / weights.sum()
        size, sign = (np.zeros((self.raw.shape[1], len(self.ranked))) for _ in "ab")
        d = self.design - w @ self.design
        for codes, wanted in ((self.raw, ~self.ranked), (self.ranks, self.ranked)):
            if not wanted.any():
                continue
            x = codes if order is None else codes[order]
            mean = w @ x
            variance = w @ (x * x) - mean**2
            cross = (x * w[:, None]).T @ d
            for j in np.flatnonzero(wanted & self.pair.varied):
                part = slice(self.ends[j], self.ends[j + 1])
                s, own = cross[:, part], (d[:, part] * w[:, None]).T @ d[:, part]
                explained = ((s @ np.linalg.pinv(own, hermitian=True)) * s).sum(1)
                with np.errstate(divide="ignore", invalid="ignore"):
                    square = np.where((variance > 1e-12) & self.pair.live, explained / variance, 0.0)
                size[:, j] = np.sqrt(np.clip(square, 0, 1))
                if s.shape[1] == 1:
                    sign[:, j] = np.sign(s[:, 0]) * (size[:, j] > 0)
        return size, sign


def typed_mcc(
    codes: Any,
    z: Any,
    factors: Sequence[Factor] | None = None,
    group: Any = None,
    rng: int | Stream = 0,
    correlation: Correlation = "pearson",
    null: Literal["projection", "shuffle"] = "projection",
    draws: int = 16,
    resamples: int = 60,
) -> Outcome:
    """Mean association of codes with factors of any kind, over the best one-to-one matching.

    MCC = (1/f) sum_j A(z_j, code_pi(j)), pi the assignment of largest sum (rectangular: codes may be left over, and a
    factor without a code counts 0). A is |Pearson| or |Spearman| for continuous factors, |Spearman| for ordinal, eta
    for categorical, the circular-linear correlation for circular ones. Constant codes have association 0; factors
    that do not vary are left out.
    codes: [n, m]. z: [n, f]. factors: kinds. group: [n] sequences, for the bootstrap. null: the chance level is that
    of random projections of the true factors to as many codes (a code that mixes everything), or of shuffled rows;
    the detail has both. The ceiling is below 1 for a continuous or ordinal factor with a symmetry, and for fewer
    codes than factors; codes above it see what the observation does not show.
    Detail: pairs [f] (code of each factor, -1 for none), associations [f], signs [f], matrix [m, f], unmatched (codes
    that vary and are nobody's), dead (codes that do not), left_out, ceilings [f], projection, shuffle.
    Raises `UsageError` as `paired` does. Source: Hyvarinen, Morioka 2016; Mardia 1976 for circular-linear.
    """
    pair, stream = paired(codes, z, factors, group, "typed_mcc"), as_stream(rng)
    measure = Associations(pair, correlation)
    size, sign = measure()
    rows, columns = _assign(size, pair.varied)
    count = int(pair.varied.sum())
    value = float(size[rows, columns].sum() / count)
    tell_of_rows("typed_mcc", value, pair.arrays, lambda kept: _mcc_of(pair.only(kept), correlation), pair.rows)
    pairs, strength, signs = np.full(len(pair.factors), -1), np.zeros(len(pair.factors)), np.zeros(len(pair.factors))
    pairs[columns], strength[columns] = pair.columns[rows], size[rows, columns]
    signs[columns] = sign[rows, columns]
    drawn = np.array([_value(measure(w)[0], pair.varied) for w in reweighted(pair, stream, resamples)])
    shuffled = np.array([_value(measure(None, order)[0], pair.varied) for order in _orders(pair, stream, draws)])
    projected = projections(pair, stream, correlation, draws)
    ceilings = np.array([_ceiling(pair, j, correlation) for j in range(len(pair.factors))])
    most = np.sort(ceilings[pair.varied])[::-1][: len(pair.columns)].sum() / count
    level = projected if null == "projection" else shuffled
    used = np.zeros(len(pair.columns), bool)
    used[rows] = True
    detail = {
        "pairs": pairs,
        "associations": strength,
        "signs": signs,
        "matrix": pair.back(size),
        "unmatched": np.sort(pair.columns[pair.live & ~used]).tolist(),
        "dead": np.sort(pair.columns[~pair.live]).tolist(),
        "left_out": pair.left_out,
        "ceilings": ceilings,
        "projection": float(projected.mean()),
        "shuffle": float(shuffled.mean()),
    }
    interval = around(value, drawn)
    return Outcome(value, float(level.mean()), max(value, float(most)), interval, detail, spread(level))


def projections(pair: Paired, rng: Stream, correlation: Correlation = "pearson", draws: int = 16) -> np.ndarray:
    """MCC of random projections of the true factors to as many codes: [draws].

    The standardised factors (categories as indicators, angles as cosine and sine), times a random rotation where
    there are no more codes than columns, else times a Gaussian matrix.
    """
    rows = np.arange(len(pair.z))
    if len(rows) > PROJECTED_ROWS:
        rows = np.sort(rng.child("projected rows").numpy().choice(len(rows), PROJECTED_ROWS, replace=False))
    z = pair.z[rows]
    parts = [_standard(_design(z[:, j], f, False)) for j, f in enumerate(pair.factors) if np.ptp(z[:, j]) > 0]
    columns = np.concatenate(parts, 1)
    m, p = len(pair.columns), columns.shape[1]
    values = []
    for draw in range(draws):
        mix = rng.child(f"projection {draw}").numpy().standard_normal((p, max(m, p)))
        mix = np.linalg.qr(mix[:, :p])[0][:, :m] if m <= p else mix[:, :m]
        mixed = Paired(
            columns @ mix, z, pair.factors, None, np.arange(m), np.ones(m, bool), np.ptp(z, axis=0) > 0, False, rows
        )
        values.append(_value(Associations(mixed, correlation)()[0], mixed.varied))
    return np.array(values)


def symmetry_ceiling(
    values: Any, low: float, high: float, symmetry: Any, correlation: Correlation = "pearson"
) -> float:
    """Largest correlation of a number that cannot tell symmetric values apart with the value itself.

    The best such number is E[z | z mod (high - low) / m]: correlation 1/m for uniform z, sqrt(mean 1/m^2) over rows
    with unlike symmetries m, where the number may depend on m.
    values: [n]. symmetry: m, or [n] one for each row. correlation: "spearman" is that of the same number by ranks.
    """
    z = np.asarray(values, dtype=np.float64)
    m = np.broadcast_to(np.asarray(symmetry, dtype=np.int64), z.shape)
    if not np.ptp(z):
        return 1.0
    best = z.copy()
    steps = np.diff(np.unique(z))
    for fold in np.unique(m[m > 1]):
        rows = np.flatnonzero(m == fold)
        period = (high - low) / fold
        count = max(1, int(period / max(steps.min(), period / 64) + 1e-9))
        place = np.minimum((np.mod(z[rows] - low, period) / period * count).astype(int), count - 1)
        with np.errstate(invalid="ignore"):
            mean = np.bincount(place, z[rows], count) / np.bincount(place, minlength=count)
        best[rows] = mean[place]
    if not np.ptp(best):
        return 0.0
    if correlation == "spearman":
        best, z = mean_ranks(best), mean_ranks(z)
    return float(abs(np.corrcoef(best, z)[0, 1]))


class TypedMcc(Disentanglement):
    """Codes against true factors, matched one to one by the association that fits each factor's kind.

    correlation: pearson or spearman, for continuous factors. null: chance is the level of random projections of the
    true factors, or of shuffled rows. draws: of chance. resamples: of the bootstrap.
    """

    name: ClassVar[str] = "typed_mcc"
    equation: ClassVar[str] = "(1/f) sum_j A(z_j, code_pi(j)), A by the kind of z_j"
    reference: ClassVar[str] = "Hyvarinen, Morioka 2016, arXiv 1605.06336; Klindt et al. 2021, arXiv 2007.10930"

    correlation: Correlation = "pearson"
    null: Literal["projection", "shuffle"] = "projection"
    draws: int = Field(default=16, ge=1)
    resamples: int = Field(default=60, ge=0)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return typed_mcc(inputs.codes, inputs.z, inputs.factors, inputs.group, rng, **fields)


def _mcc_of(pair: Paired, correlation: Correlation) -> float:
    return _value(Associations(pair, correlation)()[0], pair.varied)


def _value(size: np.ndarray, varied: np.ndarray) -> float:
    rows, columns = _assign(size, varied)
    return float(size[rows, columns].sum() / varied.sum())


def _assign(size: np.ndarray, varied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import linear_sum_assignment

    kept = np.flatnonzero(varied)
    rows, columns = linear_sum_assignment(size[:, kept], maximize=True)
    real = size[rows, kept[columns]] > 0
    return rows[real], kept[columns][real]


def _orders(pair: Paired, rng: Stream, draws: int) -> list[np.ndarray]:
    return [rng.child(f"shuffle {draw}").numpy().permutation(len(pair.z)) for draw in range(draws)]


def spread(level: np.ndarray) -> tuple[float, float]:
    """Where 95 % of the values of unrelated results lie, from a few of them."""
    if len(level) < 2:
        return float("nan"), float("nan")
    half = 1.96 * float(level.std(ddof=1))
    return float(level.mean()) - half, float(level.mean()) + half


def _ceiling(pair: Paired, j: int, correlation: Correlation) -> float:
    factor, column = pair.factors[j], pair.z[:, j]
    if factor.symmetry == 1 or factor.kind in ("categorical", "circular") or not pair.varied[j]:
        return 1.0
    if factor.low is None and factor.size is None:
        raise UsageError(f"factor {factor.name}: symmetry={factor.symmetry} needs low and high, or size")
    low, high = (factor.low, factor.high) if factor.low is not None else (0.0, float(factor.size or 1))
    rule = "spearman" if factor.kind == "ordinal" else correlation
    return symmetry_ceiling(column, float(low), float(high or 1.0), factor.symmetry, rule)


def _design(column: np.ndarray, factor: Factor, ranked: bool) -> np.ndarray:
    """Columns [n, p] that stand for a factor; a categorical one has an indicator for all values but the first."""
    if factor.kind == "categorical":
        values, label = np.unique(column, return_inverse=True)
        return np.eye(len(values))[label][:, 1:] if len(values) > 1 else np.zeros((len(column), 1))
    if factor.kind == "circular":
        turned = angle(column, factor)
        return np.stack([np.cos(turned), np.sin(turned)], 1)
    return _standard((mean_ranks(column) if ranked else column)[:, None])


def _standard(columns: np.ndarray) -> np.ndarray:
    away = columns - columns.mean(0)
    away[:, np.ptp(columns, axis=0) == 0] = 0
    deviation = away.std(0)
    return away / np.where(deviation > 0, deviation, 1)
