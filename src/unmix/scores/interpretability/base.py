"""What the scores of interpretability share: what is scored, a value for each feature, and its null."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
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
from unmix.scores.base import Outcome
from unmix.scores.interpretability.ties import constant, resting
from unmix.scores.similarity.base import Alike

EVEN = 1e-6  # share of the size of values below which their deviation is rounding


@dataclass(frozen=True, eq=False)
class Scored:
    """Activations [u, m] on different images, and what compares these; numbers [u]: of each among those given, the
    first of its copies; copies: how many more were given. Of copies with unlike activations it has the mean.
    """

    activations: Tensor
    alike: Alike
    numbers: np.ndarray
    copies: int


@dataclass(frozen=True, eq=False)
class Judged:
    """What a score makes of m features: values [m], NaN where there is none; standard error [m]; and the null, from
    chance features: its mean and deviation, each [m], and its draws [draws] or None.

    effective: [m] how many of the images of a set are active, or the effective sample size. active: [m] images on
    which a feature is above the value it rests at. tied: [m] among how many images of equal activation the last
    places of its set are drawn, 0 where activations decide; values are means over the orders of such ties.
    few: [m] features that vary, on fewer images than the sets need: they have values, which ties draw to chance, and
    are left out of means, tables and tests.
    """

    name: str
    values: np.ndarray
    effective: np.ndarray
    error: np.ndarray
    null_mean: np.ndarray
    null_deviation: np.ndarray
    active: np.ndarray
    tied: np.ndarray
    few: np.ndarray
    null: np.ndarray | None = None
    ceiling: float = 1.0
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def counted(self) -> np.ndarray:
        """Features that have a value and images enough: [m] bool."""
        return np.isfinite(self.values) & ~self.few

    @property
    def z(self) -> np.ndarray:
        """(value - mean of the null) / deviation of the null: [m]; NaN where the null does not vary."""
        deviation = np.where(self.null_deviation > 0, self.null_deviation, math.nan)
        return (self.values - self.null_mean) / deviation

    @cached_property
    def p(self) -> np.ndarray:
        """One-sided p-value [m]: (1 + draws of the null at least as large) / (1 + draws), or normal without draws."""
        if self.null is None:
            from scipy.stats import norm

            return norm.sf(self.z)
        ordered = np.sort(self.null)
        rounding = np.where(self.null_deviation > 0, EVEN * EVEN, EVEN) * np.abs(self.values)
        above = len(ordered) - np.searchsorted(ordered, self.values - rounding)
        return np.where(np.isnan(self.values), math.nan, (1 + above) / (1 + len(ordered)))

    @cached_property
    def q(self) -> np.ndarray:
        """p-values adjusted for the number of features counted (Benjamini, Hochberg): [m], NaN for the others.

        Of features with q < .05 no more than 5 % are expected to be at chance.
        """
        from scipy.stats import false_discovery_control

        found, tested = np.full(len(self.values), math.nan), self.counted & np.isfinite(self.p)
        if tested.any():
            found[tested] = false_discovery_control(self.p[tested])
        return found

    @property
    def interval(self) -> np.ndarray:
        """95 % interval of every feature's value: [m, 2], from its standard error."""
        return np.stack([self.values - 1.96 * self.error, self.values + 1.96 * self.error], 1)

    @property
    def mean(self) -> float:
        """Mean over the features that are counted; over all that have a value where none has images enough."""
        return self._mean(self.values)

    @property
    def mean_z(self) -> float:
        """Mean of z over the same features as `mean`."""
        return self._mean(self.z)

    def outcome(self, rng: Stream) -> Outcome:
        """The mean over the features counted, a bootstrap interval over them, and the null's mean and spread as
        chance; NaN where no feature has images enough. Detail: values, z, p, q, effective, active, few (each [m]).

        Chance of the mean is taken from a single feature's null over the square root of the number of features, which
        is too narrow where features share their images; detail has z of single features and `unique`.
        """
        seen = self.values[self.counted]
        names = ("values", "z", "p", "q", "effective", "active", "few")
        detail = {**{name: getattr(self, name) for name in names}, **self.detail}
        if not len(seen):
            return Outcome(math.nan, ceiling=self.ceiling, detail=detail)
        chance = _mean(self.null_mean[self.counted])
        half = 1.96 * _mean(self.null_deviation[self.counted]) / math.sqrt(len(seen))
        interval = bootstrap_mean(seen, rng)
        return Outcome(float(seen.mean()), chance, self.ceiling, interval, detail, (chance - half, chance + half))

    def frame(self) -> pd.DataFrame:
        """One row for every feature: feature, value, low, high, z, p, q, chance, effective, active, tied, few.

        What is not counted has no value.
        """
        low, high = self.interval.T
        columns = {"value": self.values, "low": low, "high": high, "z": self.z, "p": self.p, "q": self.q}
        told = {name: np.where(self.counted, column, math.nan) for name, column in columns.items()}
        more = {name: getattr(self, name) for name in ("effective", "active", "tied", "few")}
        return pd.DataFrame({"feature": np.arange(len(self.values)), **told, "chance": self.null_mean, **more})

    def _mean(self, values: np.ndarray) -> float:
        return _mean(values[self.counted] if self.counted.any() else values)


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


def scored(activations: Any, alike: Alike) -> Scored:
    """Activations [n, m] of images that can be compared, copies of an image taken for one.

    Raises `UsageError` as `matrix` and `Alike.guard` do.
    """
    given = matrix(activations)
    alike.guard(given)
    if not alike.seen and alike.content is not None and len(alike.different[1]) < len(alike):
        alike = alike.told_apart(given)
    own, first, group = alike.different
    return Scored(once(given, first, group), own, first, len(given) - len(first))


def once(given: Tensor, first: np.ndarray, group: np.ndarray) -> Tensor:
    """Rows [n, m] of different images [u, m]: the first of each; where copies differ their mean.

    first: [u] and group: [n], as `Alike.different` has them.
    """
    if len(first) == len(given):
        return given if bool((first[1:] > first[:-1]).all()) else given[torch.from_numpy(first)]
    found, place = given[torch.from_numpy(first)], torch.from_numpy(group)
    unlike = place[(given != found[place]).any(1)].unique()
    for own in unlike.tolist():
        part = given[place == own]
        same = (part == part[0]).all(0)
        found[own] = torch.where(same, part[0], part.double().mean(0).to(part.dtype))
    return found


def chance_features(n: int, draws: int, rng: Stream) -> Tensor:
    """Activations [n, draws] of features that know nothing of the images."""
    return torch.rand(n, draws, generator=rng.child("chance").torch())


@dataclass(frozen=True, eq=False)
class Found:
    """What a measure makes of m features: values and standard errors, each [m]; tied as in `Judged`, or None; rows
    [m, k] image numbers of their sets, or None; and a detail."""

    values: np.ndarray
    error: np.ndarray
    tied: np.ndarray | None = None
    rows: np.ndarray | None = None
    detail: dict[str, Any] = field(default_factory=dict)


Measure = Callable[[Tensor, Stream], Found]


def judged(
    name: str,
    measure: Measure,
    given: Scored,
    rng: Stream,
    draws: int,
    needed: int,
    most: int,
    ceiling: float = 1.0,
) -> Judged:
    """A measure of the features and of `draws` chance features, whose images are random, as the null.

    measure: from activations [n, m] of different images and a stream. needed: active images below which a feature is
    left out; most: images that a feature is judged by. Features that do not vary get NaN and an effective size of 0.
    Detail: constant (how many do not vary), copies (how many images were left out as such), rows [m, k] and unique
    (share of different images among those of the features counted) where there are sets.
    """
    if draws < 2:
        raise UsageError(f"draws={draws}: the null needs at least 2")
    a = given.activations
    found = measure(a, rng.child("features"))
    null = measure(chance_features(len(a), draws, rng), rng.child("null")).values
    dead = constant(a).numpy()
    active = np.where(dead, 0, (a > resting(a)).sum(0).numpy())
    few = ~dead & (active < needed)
    m, spread = len(found.values), float(null.std(ddof=1))
    spread = spread if spread > EVEN * float(np.abs(null).max()) else 0.0
    detail = {"constant": int(dead.sum()), "copies": given.copies, **found.detail}
    if found.rows is not None:
        kept = found.rows[~dead & ~few]
        detail["rows"] = given.numbers[found.rows]
        detail["unique"] = len(np.unique(kept)) / kept.size if kept.size else math.nan
    return Judged(
        name,
        values=np.where(dead, math.nan, found.values),
        effective=np.minimum(active, most),
        error=np.where(dead, math.nan, found.error),
        null_mean=np.full(m, null.mean()),
        null_deviation=np.full(m, spread),
        active=active,
        tied=np.zeros(m, np.int64) if found.tied is None else np.where(dead, 0, found.tied),
        few=few,
        null=null,
        ceiling=ceiling,
        detail=detail,
    )


def _mean(values: np.ndarray) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else math.nan
