"""What the scores of interpretability share: exciting images, a value for each feature, and its null."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.rows import as_tensor, require_finite
from unmix.core.seeds import Stream
from unmix.core.statistics import bootstrap_mean
from unmix.kernels.exciting import Extremes
from unmix.scores.base import Outcome

BLOCK = 4096  # rows of one block
MANY = 64  # images of a set from which sorting is cheaper than inserting one after another
SORTED = 1 << 22  # entries sorted at once


@dataclass(frozen=True, eq=False)
class Sets:
    """The images that excite each of m features most (or least), most extreme first, ties in random order.

    rows: [m, k] image numbers. values: [m, k] activations. effective: [m] how many of them are above the feature's
    smallest activation (below its largest, for the least exciting): the others are ties that say nothing.
    constant: [m] features that do not vary; their images mean nothing.
    """

    rows: Tensor
    values: Tensor
    effective: Tensor
    constant: Tensor

    @property
    def unique(self) -> float:
        """Share of different images among all of them: 1 where no two features have an image in common."""
        rows = self.rows[~self.constant]
        return len(rows.unique()) / rows.numel() if rows.numel() else math.nan


@dataclass(frozen=True, eq=False)
class Judged:
    """What a score makes of m features: values [m], NaN where there is none; effective sample size [m]; standard
    error [m]; and the null, from chance features: its mean and deviation, each [m], and its draws [draws] or None.
    """

    name: str
    values: np.ndarray
    effective: np.ndarray
    error: np.ndarray
    null_mean: np.ndarray
    null_deviation: np.ndarray
    null: np.ndarray | None = None
    ceiling: float = 1.0
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def z(self) -> np.ndarray:
        """(value - mean of the null) / deviation of the null: [m]; NaN where the null does not vary."""
        deviation = np.where(self.null_deviation > 0, self.null_deviation, math.nan)
        return (self.values - self.null_mean) / deviation

    @property
    def p(self) -> np.ndarray:
        """One-sided p-value [m]: (1 + draws of the null at least as large) / (1 + draws), or normal without draws."""
        if self.null is None:
            from scipy.stats import norm

            return norm.sf(self.z)
        ordered = np.sort(self.null)
        above = len(ordered) - np.searchsorted(ordered, self.values - 1e-12)
        return np.where(np.isnan(self.values), math.nan, (1 + above) / (1 + len(ordered)))

    @property
    def interval(self) -> np.ndarray:
        """95 % interval of every feature's value: [m, 2], from its standard error."""
        return np.stack([self.values - 1.96 * self.error, self.values + 1.96 * self.error], 1)

    @property
    def mean(self) -> float:
        """Mean over the features that have a value; NaN where none has."""
        return _mean(self.values)

    @property
    def mean_z(self) -> float:
        """Mean of z over the features that have one."""
        return _mean(self.z)

    def outcome(self, rng: Stream) -> Outcome:
        """The mean over features, a bootstrap interval over them, and the null's mean and spread as chance.

        Chance of the mean is taken from a single feature's null over the square root of the number of features, which
        is too narrow where features share their images; detail has z of single features and `unique`.
        """
        seen = self.values[np.isfinite(self.values)]
        detail = {"values": self.values, "z": self.z, "p": self.p, "effective": self.effective, **self.detail}
        if not len(seen):
            return Outcome(math.nan, ceiling=self.ceiling, detail=detail)
        chance = _mean(self.null_mean)
        half = 1.96 * _mean(self.null_deviation) / math.sqrt(len(seen))
        interval = bootstrap_mean(seen, rng)
        return Outcome(float(seen.mean()), chance, self.ceiling, interval, detail, (chance - half, chance + half))

    def frame(self) -> pd.DataFrame:
        """One row for every feature: feature, value, low, high, z, p, chance, effective."""
        low, high = self.interval.T
        columns = {"value": self.values, "low": low, "high": high, "z": self.z, "p": self.p}
        columns |= {"chance": self.null_mean, "effective": self.effective}
        return pd.DataFrame({"feature": np.arange(len(self.values)), **columns})


def matrix(activations: Any) -> Tensor:
    """Activations [n, m] of m features on n images, float32 or float64, from codes or an array.

    Raises `UsageError` for another shape or NaN.
    """
    given = activations.dense() if isinstance(activations, Codes) else as_tensor(activations, "activations")
    given = given.detach().cpu()
    if given.ndim != 2 or not given.numel():
        raise UsageError(f"activations: must be [images, features], got {list(given.shape)}")
    if not bool(torch.isfinite(given.sum())):  # much the faster test; it may be infinite without an entry that is
        require_finite(given, "activations")
    return given


def extreme_sets(activations: Tensor, count: int, rng: Stream, least: bool = False) -> Sets:
    """The `count` images with the largest (or smallest) activations [n, m] of each feature, in one pass.

    Raises `UsageError` for more images than there are.
    """
    n, m = activations.shape
    if not 1 <= count <= n:
        raise UsageError(f"count={count}: there are {n} images; give 1 to {n}")
    order = torch.from_numpy(rng.child("ties").numpy().permutation(n))
    if count > MANY:
        sides = activations.split(max(1, SORTED // n), dim=1)
        places = torch.cat([_first_places(side[order].T, count, least) for side in sides])
        values = activations[order[places], torch.arange(m)[:, None]]
    else:
        best = Extremes(m, count, least, activations.dtype)
        for start in range(0, n, BLOCK):
            best.update(activations[order[start : start + BLOCK]], start)
        places, values = best.result()
    low, high = activations.amin(0), activations.amax(0)
    effective = (values < high[:, None] if least else values > low[:, None]).sum(1)
    return Sets(order[places], values, effective, low == high)


def _first_places(columns: Tensor, count: int, least: bool) -> Tensor:
    """Places of the `count` largest (or smallest) entries of columns [m, n], ties in their order: [m, count]."""
    if columns.dtype != torch.float32:
        return columns.sort(dim=1, descending=not least, stable=True).indices[:, :count]
    # As integers with the place behind the value none are equal, and they sort ten times as fast; 0.0 makes -0.0 0.0.
    bits = (columns + 0.0).contiguous().numpy().view(np.int32)
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    keys = (rising if least else ~rising).astype(np.int64) << 32 | np.arange(columns.shape[1])
    keys.partition(count - 1, axis=1)
    return torch.from_numpy(np.sort(keys[:, :count], axis=1) & 0xFFFFFFFF)


def chance_features(n: int, draws: int, rng: Stream) -> Tensor:
    """Activations [n, draws] of features that know nothing of the images."""
    return torch.rand(n, draws, generator=rng.child("chance").torch())


Measure = Callable[[Tensor, Stream], tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]]


def judged(name: str, measure: Measure, activations: Tensor, rng: Stream, draws: int, ceiling: float = 1.0) -> Judged:
    """A measure of the features and of `draws` chance features, whose images are random, as the null.

    measure: (activations [n, m], rng) -> values [m], effective [m], standard errors [m] and a detail.
    Features that do not vary get NaN and an effective size of 0.
    """
    if draws < 2:
        raise UsageError(f"draws={draws}: the null needs at least 2")
    values, effective, error, detail = measure(activations, rng.child("features"))
    null = measure(chance_features(len(activations), draws, rng), rng.child("null"))[0]
    low, high = activations.amin(0), activations.amax(0)
    dead = (low == high).numpy()
    values, error = np.where(dead, math.nan, values), np.where(dead, math.nan, error)
    effective = np.where(dead, 0, effective)
    m, spread = len(values), float(null.std(ddof=1))
    detail = {"constant": int(dead.sum()), **detail}
    return Judged(name, values, effective, error, np.full(m, null.mean()), np.full(m, spread), null, ceiling, detail)


def _mean(values: np.ndarray) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else math.nan
