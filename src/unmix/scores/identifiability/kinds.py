"""Kinds of factors: which columns stand for a factor in a linear read-out, and the read-out of categories."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.scale import centred, near_one
from unmix.core.seeds import Stream, as_stream, untouched
from unmix.core.statistics import bootstrap_sums, members, percentiles
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.identifiability.explained import aligned, baselines, halves


def described(factors: Sequence[Factor], z: Tensor) -> Sequence[Factor]:
    """The factors, one for each column of z [n, f]; raises `UsageError` for another number."""
    if len(factors) != z.shape[1]:
        raise UsageError(f"factors: {len(factors)} given for {z.shape[1]} latents")
    return factors


def require_numbers(name: str, factors: Sequence[Factor] | None) -> None:
    """Raise `UsageError` where a factor is no number that a rotation or a singular value could mean anything for."""
    for factor in factors or ():
        if factor.kind in ("categorical", "circular"):
            raise UsageError(f"{name}: factor {factor.name} is {factor.kind}; a map of numbers means nothing for it")


def targets(z: Tensor, factors: Sequence[Factor] | None) -> tuple[Tensor, np.ndarray, list[str] | None]:
    """Columns [n, c] to read out, the dimension [c] of each, and the dimensions' names where factors are given.

    An angle becomes (cos, sin) of `symmetry` turns a period; categories are left out. Raises `UsageError` where
    nothing is left, or where the values of an angle span more than its period.
    """
    if factors is None:
        return z, np.arange(z.shape[1]), None
    columns: list[Tensor] = []
    owners: list[int] = []
    names: list[str] = []
    for place, factor in enumerate(described(factors, z)):
        if factor.kind == "categorical":
            continue
        column = z[:, place : place + 1]
        if factor.kind == "circular":
            period = float(factor.high) - float(factor.low)  # type: ignore[arg-type]
            span = float(column.max() - column.min())
            if span > period * (1 + 1e-6):
                raise UsageError(f"factor {factor.name}: its values span {span:.4g}, its period is {period:.4g}")
            angle = (column - float(factor.low)) * (2 * math.pi * factor.symmetry / period)  # type: ignore[arg-type]
            column = torch.cat([angle.cos(), angle.sin()], 1)
        columns.append(column)
        owners += [len(names)] * column.shape[1]
        names.append(factor.name)
    if not columns:
        raise UsageError("r2: every factor is categorical; balanced_accuracy is for those")
    return torch.cat(columns, 1), np.asarray(owners), names


def balanced_accuracy(
    h: Any,
    latents: Any,
    factors: Sequence[Factor],
    rng: int | Stream = 0,
    group: Any = None,
    x: Any = None,
    untrained: Any = None,
) -> Outcome:
    """Balanced accuracy of a logistic regression from h to each categorical factor, fitted on one half of the rows.

    (1/K) sum_k P(guess = k | class = k) on the other half, averaged over the categorical factors; columns of h are
    scaled to unit deviation, classes weigh the same, C = 1.
    h: [n, d]. latents: [n, f]. factors: kind of each latent. group: [n], kept on one side of the split.
    x: [n, ...] raw observations, untrained: [n, d'], for baselines.
    Detail: minimum, per_dimension, worst, baselines (value and minimum each). Chance is 1 / K.
    Raises `UsageError` where no factor is categorical, or one has a single class among the rows to fit on.
    """
    a, z = aligned("balanced_accuracy", 4, h=h, latents=latents)
    wanted = [i for i, factor in enumerate(described(factors, z)) if factor.kind == "categorical"]
    if not wanted:
        raise UsageError("balanced_accuracy: no factor is categorical")
    stream = as_stream(rng)
    member = members(group, len(a))
    fit, held = halves(member, stream)
    labels = [z[:, place].numpy() for place in wanted]
    for place, y in zip(wanted, labels, strict=True):
        if len(np.unique(y[fit])) < 2:
            raise UsageError(
                f"balanced_accuracy: factor {factors[place].name} has one class among the rows to fit on"
            )
    classes = [y[held][:, None] == np.unique(y[held]) for y in labels]

    def guessed(source: Tensor) -> list[np.ndarray]:
        """For each factor: right and of class k, and of class k, of every held-out row."""
        source = near_one(source)
        deviation = centred(source[fit]).square().mean(0).sqrt()
        scaled = (source - source[fit].mean(0)) / torch.where(deviation > 0, deviation, torch.inf)
        right = [_guesses(scaled[fit].numpy(), y[fit], scaled[held].numpy()) == y[held] for y in labels]
        return [np.concatenate([k & r[:, None], k], axis=1) for k, r in zip(classes, right, strict=True)]

    def values(found: list[np.ndarray]) -> np.ndarray:
        return np.array([_balanced(rows.sum(0)[None])[0] for rows in found])

    def beside(source: Tensor) -> dict[str, float]:
        own = values(guessed(source))
        return {"value": float(own.mean()), "minimum": float(own.min())}

    found = guessed(a)
    each = values(found)
    drawn = [_balanced(bootstrap_sums(rows, stream, member[held])) for rows in found]
    chance = float(np.mean([1 / k.shape[1] for k in classes]))
    detail = {
        "minimum": float(each.min()),
        "per_dimension": each,
        "worst": factors[wanted[int(each.argmin())]].name,
        "names": [factors[place].name for place in wanted],
        "baselines": baselines("balanced_accuracy", latents, beside, x=x, untrained=untrained),
    }
    return Outcome(float(each.mean()), chance, 1.0, percentiles(np.mean(drawn, axis=0)), detail)


class BalancedAccuracy(Score):
    """Categorical factors read out of h by logistic regression: balanced accuracy on held-out rows."""

    name: ClassVar[str] = "balanced_accuracy"
    equation: ClassVar[str] = "(1/K) sum_k P(guess = k | class = k)"
    reference: ClassVar[str] = "as the probes of arXiv 2410.21869, on balanced classes"
    needs: ClassVar[frozenset[str]] = frozenset({"h", "z", "factors"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        rest = (inputs.group, inputs.x, inputs.untrained)
        return balanced_accuracy(inputs.h, inputs.z, inputs.factors or (), rng, *rest)


def _balanced(sums: np.ndarray) -> np.ndarray:
    """Mean over the classes that were drawn of right / rows: [draws] from [draws, 2 K]."""
    right, rows = np.split(sums, 2, axis=1)
    return np.where(rows > 0, right / np.maximum(rows, 1), 0).sum(1) / np.maximum((rows > 0).sum(1), 1)


def _guesses(x: np.ndarray, y: np.ndarray, held: np.ndarray) -> np.ndarray:
    with untouched():
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(class_weight="balanced", max_iter=1000).fit(x, y).predict(held)
