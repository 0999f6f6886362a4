"""Explained variance of held-out rows: splits that keep groups whole, R2 of each dimension, its chance level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.scale import LARGEST, centred
from unmix.core.seeds import Stream
from unmix.core.statistics import bootstrap_sums, percentiles
from unmix.scores.base import Outcome
from unmix.scores.pairing import columns_of

CHANCE_DRAWS = 8


def aligned(name: str, least: int, **given: Any) -> list[Tensor]:
    """Arrays [n, columns] of the same n rows as float64 on the CPU.

    Raises `UsageError`, naming the array, for unlike rows, fewer than `least`, another shape, or NaN with its column.
    """
    matrices = {key: columns_of(value, key).cpu() for key, value in given.items()}
    counts = {key: len(matrix) for key, matrix in matrices.items()}
    if len(set(counts.values())) > 1:
        raise UsageError(f"{name}: {', '.join(f'{key} has {count} rows' for key, count in counts.items())}")
    if next(iter(counts.values())) < least:
        raise UsageError(f"{name}: needs at least {least} rows, got {next(iter(counts.values()))}")
    return list(matrices.values())


def moderate(name: str, least: int, **given: Any) -> list[Tensor]:
    """As `aligned`, for scores in which units matter, so that columns cannot be scaled before they are squared.

    Raises `UsageError` that names a column with a number above 1e100, or an array with none above 1e-100 but zeros.
    """
    matrices = aligned(name, least, **given)
    for key, matrix in zip(given, matrices, strict=True):
        largest = matrix.abs().amax(0)
        column = int(largest.argmax())
        reached = largest[column].item()
        if reached > LARGEST:
            raise UsageError(f"{name}: column {column} of {key} reaches {reached:.3g}; give smaller units")
        if 0 < reached < 1 / LARGEST:
            raise UsageError(f"{name}: {key} reaches {reached:.3g} at most; give larger units")
    return matrices


def baselines(
    name: str, latents: Any, measure: Callable[[Tensor], dict[str, float] | None], **given: Any
) -> dict[str, dict[str, float]]:
    """What a score says of other arrays in place of h: `x` [n, ...] and `untrained` [n, d'], where they are given.

    measure: from columns [n, k] to value (and minimum), or None where such columns have none.
    """
    found = {}
    for key, values in given.items():
        if values is not None:
            columns = aligned(name, 1, **{"latents": latents, key: values.reshape(len(values), -1)})[1]
            if (numbers := measure(columns)) is not None:
                found[key] = numbers
    return found


def halves(member: np.ndarray, rng: Stream) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to fit on and to score on: about half each, drawn at random, whole groups on one side.

    Raises `UsageError` where a half would have fewer than 2 rows.
    """
    count = int(member.max()) + 1
    order = rng.child("halves").numpy().permutation(count)
    taken = np.cumsum(np.bincount(member)[order])
    first = max(1, int(np.searchsorted(taken, len(member) / 2, side="right")))
    fit = np.zeros(count, bool)
    fit[order[:first]] = True
    inside = fit[member]
    if min(inside.sum(), (~inside).sum()) < 2:
        raise UsageError(f"group: {count} of them; no half can be held out, for whole groups stay together")
    return np.flatnonzero(inside), np.flatnonzero(~inside)


@dataclass(frozen=True, eq=False)
class Explained:
    """R2 of each of k dimensions [k], their mean and minimum with 95 % intervals (None where none was asked)."""

    each: np.ndarray
    interval: tuple[float, float] | None = None
    minimum_interval: tuple[float, float] | None = None

    @property
    def value(self) -> float:
        """The mean."""
        return float(self.each.mean())

    @property
    def minimum(self) -> float:
        """The smallest."""
        return float(self.each.min())


def explained(
    error: Tensor, truth: Tensor, owners: np.ndarray, rng: Stream | None = None, group: np.ndarray | None = None
) -> Explained:
    """R2 of each dimension: 1 - sum error / sum (truth - mean)^2, and 0 where a dimension does not vary.

    error: [n, c] squared errors. truth: [n, c]. owners: [c] the dimension of each column (an angle has two).
    rng: for intervals over rows, or over whole groups [n].
    """
    away = centred(truth).numpy()
    ones = np.ones((len(away), 1))
    rows = np.concatenate([error.numpy(), away, away**2, ones], axis=1)
    floor = len(away) * (1e-14 * truth.abs().amax(0).numpy()) ** 2
    each = _ratios(rows.sum(0)[None], floor, owners)[0]
    if rng is None:
        return Explained(each)
    drawn = _ratios(bootstrap_sums(rows, rng, group), floor, owners)
    return Explained(each, percentiles(drawn.mean(1)), percentiles(drawn.min(1)))


def with_chance(
    value: Explained, shuffled: Callable[[np.ndarray], Explained], n: int, rng: Stream, detail: dict[str, Any]
) -> Outcome:
    """An outcome with the chance level of `shuffled`, which measures the truth in another order of its n rows."""
    draws = [shuffled(rng.child(f"shuffle {draw}").numpy().permutation(n)).value for draw in range(CHANCE_DRAWS)]
    chance, around = chance_of(draws)
    names: Sequence[Any] = detail.pop("names", None) or range(len(value.each))
    detail = {
        "minimum": value.minimum,
        "minimum_interval": value.minimum_interval,
        "per_dimension": value.each,
        "worst": names[int(value.each.argmin())],
        **detail,
    }
    return Outcome(value.value, chance, 1.0, value.interval or (np.nan, np.nan), detail, around)


def chance_of(draws: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Mean of a score over unrelated data, and where 95 % of such values lie."""
    mean, spread = float(np.mean(draws)), float(np.std(draws, ddof=1))
    return mean, (mean - 1.96 * spread, mean + 1.96 * spread)


def _ratios(sums: np.ndarray, floor: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """R2 [draws, k] from sums [draws, 3 c + 1] of errors, values, squares and rows."""
    c = len(owners)
    error, total = sums[:, :c], sums[:, 2 * c : 3 * c] - sums[:, c : 2 * c] ** 2 / np.maximum(sums[:, -1:], 1)
    varies = total > floor
    member = np.eye(int(owners.max()) + 1)[owners]
    top, bottom = np.where(varies, error, 0) @ member, np.where(varies, total, 0) @ member
    return np.where(bottom > 0, 1 - top / np.where(bottom > 0, bottom, 1), 0.0)


def shuffle(columns: Tensor, order: np.ndarray) -> Tensor:
    """The rows in another order."""
    return columns[torch.from_numpy(order)]
