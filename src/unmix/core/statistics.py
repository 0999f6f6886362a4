"""Intervals: bootstrap over rows or pairs, and the t interval over a few seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream


def members(group: Any, n: int, name: str = "group") -> np.ndarray:
    """Number [n] from 0 of each row's group; every row is its own where no group is given.

    group: [n] numbers or text, or None. Raises `UsageError` for another shape, or NaN.
    """
    if group is None:
        return np.arange(n)
    labels = np.asarray(group.detach().cpu() if hasattr(group, "detach") else group)
    if labels.shape != (n,):
        raise UsageError(f"{name}: expected [{n}], one for each row, got {list(labels.shape)}")
    missing = [label is None or label != label for label in labels.tolist()] if labels.dtype.kind in "fO" else [False]
    if any(missing):
        raise UsageError(f"{name}: row {missing.index(True)} has none; leave such rows out")
    labels = labels.astype(str) if labels.dtype.kind == "O" else labels
    return np.unique(labels, return_inverse=True)[1]


def bootstrap_mean(values: np.ndarray, rng: Stream, draws: int = 400, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean of `values` [n]; a single value gives itself twice."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return float(values.mean()), float(values.mean())
    weights = rng.child("bootstrap").numpy().multinomial(len(values), np.full(len(values), 1 / len(values)), draws)
    low, high = np.quantile(weights @ values / len(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_ratio(top: np.ndarray, bottom: np.ndarray, rng: Stream, draws: int = 200) -> tuple[float, float]:
    """95 % percentile interval of sum(top) / sum(bottom) over rows, both [n]; a single row gives its ratio twice."""
    generator = rng.child("bootstrap").numpy()
    ratios = []
    for _ in range(draws if len(top) > 1 else 1):
        rows = generator.integers(len(top), size=len(top))
        ratios.append(top[rows].sum() / max(bottom[rows].sum(), 1e-300))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_sums(
    rows: np.ndarray, rng: Stream, group: np.ndarray | None = None, draws: int = 400, blocks: int = 2048
) -> np.ndarray:
    """Sums over resampled rows: [draws, k] from `rows` [n, k]; whole groups are drawn where `group` [n] is given.

    More than `blocks` rows or groups are first joined at random into as many equal parts, which bounds the work and
    leaves the variance of the sums as it is in expectation.
    """
    rows = np.asarray(rows, dtype=np.float64)
    generator = rng.child("bootstrap").numpy()
    part = members(group, len(rows))
    count = int(part.max()) + 1
    if count > blocks:
        part, count = generator.permutation(count)[part] % blocks, blocks
    order = np.argsort(part, kind="stable")
    sums = np.add.reduceat(rows[order], np.searchsorted(part[order], np.arange(count)), axis=0)
    return generator.multinomial(count, np.full(count, 1 / count), draws) @ sums


def percentiles(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of resampled values [draws]."""
    low, high = np.quantile(np.asarray(draws, dtype=np.float64), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def seed_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student t interval over seeds; one seed has no interval (NaN bounds)."""
    from scipy import stats

    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf((1 + level) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, mean - half, mean + half
