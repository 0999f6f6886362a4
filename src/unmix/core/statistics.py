"""Intervals: bootstrap over rows or pairs, and the t interval over a few seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unmix.core.seeds import Stream


def bootstrap_mean(values: np.ndarray, rng: Stream, draws: int = 400, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean of `values` [n]; a single value gives itself twice."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return float(values.mean()), float(values.mean())
    weights = rng.child("bootstrap").numpy().multinomial(len(values), np.full(len(values), 1 / len(values)), draws)
    low, high = np.quantile(weights @ values / len(values), [(1 - level) / 2, (1 + level) / 2])
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
