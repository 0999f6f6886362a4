"""Reliability: how far responses would come again, from halves of their repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from unmix.core.errors import UsageError
from unmix.core.scale import resolution
from unmix.core.seeds import Stream, as_stream


@dataclass(frozen=True, eq=False)
class Reliability:
    """How far the responses of d neurons would come again.

    half: [d] correlation over the images of the means of two random halves of the repeats, averaged over the splits.
    full: [d] the same of two full sets of repeats, 2 half / (1 + half) (Spearman, Brown). ceiling: [d] the largest
    correlation that a model can have with the mean responses, sqrt(full), 0 where full is negative. interval: [d, 2]
    of half, over the splits. images: images with at least two repeats, which alone count.
    """

    half: np.ndarray
    full: np.ndarray
    ceiling: np.ndarray
    interval: np.ndarray
    images: int

    def unreliable(self, threshold: float = 0.3) -> np.ndarray:
        """Neurons [d] whose `full` is below a threshold, or that cannot be judged."""
        return ~(self.full >= threshold)


def split_half(repeats: Any, splits: int = 100, rng: int | Stream = 0) -> Reliability:
    """Reliability of every neuron from single presentations, halves drawn anew for every image in every split.

    repeats: [n, d, r], NaN where a presentation is missing, in all neurons or in some. A neuron has NaN that has
    fewer than 3 images with two repeats, or does not vary but for rounding, over all or in some half. Raises
    `UsageError` where no neuron has so many.
    """
    given = np.asarray(repeats, dtype=np.float64)
    if given.ndim != 3 or given.shape[2] < 2:
        raise UsageError(f"repeats: must be [images, neurons, at least 2], got {list(given.shape)}")
    if splits < 1 or np.isinf(given).any():
        raise UsageError(f"repeats: must be finite, or NaN where there was none, and splits={splits} at least 1")
    enough = judged(given)
    if not enough.any():
        raise UsageError("repeats: no neuron has 3 images with two repeats")
    there = np.isfinite(given)
    counted = (there.sum(2) >= 2) & enough
    # Less the mean and by the size that is left, so that units and offsets make no difference.
    whole = np.moveaxis(np.where(there, given, np.nan), 1, 2).reshape(-1, given.shape[1])
    away = given - np.nanmean(np.where(there.any((0, 2)), whole, 0.0), 0)[:, None]
    size = np.where(there, np.abs(away), 0).max((0, 2))
    filled = np.where(there, away / np.where(size > 0, size, 1)[:, None], 0.0) * varies(whole)[:, None]
    draw = as_stream(rng).child("halves").numpy()
    found = np.empty((splits, given.shape[1]))
    for split in range(splits):
        # Missing ones come last, so that both halves of what is there differ by one presentation at most.
        rank = np.where(there, draw.random(given.shape), 2.0).argsort(2).argsort(2)
        count = there.sum(2, keepdims=True)
        first = (rank < count // 2) & there
        second = ~first & there
        one, other = ((filled * half).sum(2) / np.maximum(half.sum(2), 1) for half in (first, second))
        found[split] = _correlation(one, other, counted)
    half = found.mean(0)
    full = 2 * half / np.maximum(1 + half, 1e-12)
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    ceiling = np.sqrt(np.clip(full, 0, 1))
    return Reliability(half, full, ceiling, np.stack([low, high], 1), int(counted[:, enough].all(1).sum()))


def judged(repeats: np.ndarray) -> np.ndarray:
    """Neurons [d] with at least 3 images that have two repeats."""
    return (np.isfinite(repeats).sum(2) >= 2).sum(0) >= 3


def _correlation(a: np.ndarray, b: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Correlation over the kept images, neuron by neuron: [d], of sizes near 1; NaN where one does not vary."""
    count = np.maximum(keep.sum(0), 1)
    a = np.where(keep, a - (a * keep).sum(0) / count, 0)
    b = np.where(keep, b - (b * keep).sum(0) / count, 0)
    scale = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    varies = np.minimum((a**2).sum(0), (b**2).sum(0)) > 1e-24 * count
    return np.where(varies, (a * b).sum(0) / np.where(varies, scale, 1), np.nan)


def varies(columns: np.ndarray) -> np.ndarray:
    """Which columns [d] of [n, d] vary by more than rounding; NaN counts for nothing."""
    low, high = (pick.reduce(columns, axis=0, initial=None) for pick in (np.fmin, np.fmax))
    return high - low > resolution(columns) * np.maximum(np.abs(low), np.abs(high))
