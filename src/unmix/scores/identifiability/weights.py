"""Weights of a classifier's head: how far they are the class vectors of the world, and alike within a class."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.scale import centred, near_one, together_near_one
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_sums, members, percentiles
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.identifiability.explained import (
    CHANCE_DRAWS,
    chance_of,
    explained,
    shuffle,
    with_chance,
)
from unmix.scores.identifiability.linear import LeastSquares
from unmix.scores.pairing import columns_of

FOLDS = 10


def vectors_of(weights: Any, class_vectors: Any, weight_classes: Any = None) -> tuple[Tensor, Tensor, np.ndarray]:
    """Weights [c, d], the class vector [c, f] of each, and the class [c] of each; row i is class i by default.

    Raises `UsageError` for another number of classes, or a class without a vector.
    """
    w, v = (columns_of(part, key).cpu() for part, key in ((weights, "weights"), (class_vectors, "class_vectors")))
    if weight_classes is None:
        if len(w) != len(v):
            raise UsageError(f"weights: {len(w)} rows for {len(v)} class vectors; give weight_classes")
        return w, v, np.arange(len(w))
    numbers = _classes(weight_classes, len(w))
    if numbers.min() < 0 or numbers.max() >= len(v):
        raise UsageError(f"weight_classes: from {numbers.min()} to {numbers.max()}, but {len(v)} class vectors")
    return w, v[torch.from_numpy(numbers)], numbers


def weights_r2(
    weights: Any, class_vectors: Any, weight_classes: Any = None, rng: int | Stream = 0, intercept: bool = True
) -> Outcome:
    """Mean over dimensions of the R2 of class vectors from weights by least squares, every class held out in turn.

    R2_j = 1 - sum_i (v_C(i)j - a_j w_i - b_j)^2 / sum_i (v_C(i)j - mean)^2; a class is predicted by the fit to the
    other parts of ten (to all other classes where there are fewer than ten).
    weights: [c, d]. class_vectors: [classes, f]. weight_classes: [c] class of each row; None where row i is class i.
    Chance: the weights' classes shuffled. Interval: bootstrap over classes.
    Detail: minimum, minimum_interval, per_dimension [f], worst, back (v to w: value and minimum).
    Raises `UsageError` for fewer than d + 2 classes, unlike sizes, or NaN.
    """
    w, v, classes = vectors_of(weights, class_vectors, weight_classes)
    member = members(classes, len(w))
    count = int(member.max()) + 1
    if count < w.shape[1] + 2:
        raise UsageError(f"weights_r2: needs at least {w.shape[1] + 2} classes for width {w.shape[1]}, got {count}")
    w, v, stream = near_one(w), near_one(v), as_stream(rng)
    fold = (stream.child("folds").numpy().permutation(count) % min(FOLDS, count))[member]

    def errors(source: Tensor, truth: Tensor) -> Tensor:
        error = torch.empty_like(truth)
        for part in range(int(fold.max()) + 1):
            held = torch.from_numpy(fold == part)
            slope, offset = LeastSquares(source[~held], intercept).coefficients(truth[~held])
            error[held] = (truth[held] - source[held] @ slope - offset).square()
        return error

    owners = np.arange(v.shape[1])
    value = explained(errors(w, v), v, owners, stream, member)
    back = explained(errors(v, w), w, np.arange(w.shape[1]))
    detail = {"back": {"value": back.value, "minimum": back.minimum}}

    def shuffled(order: np.ndarray) -> Any:
        # Whole classes change places, so that weights of one class still share a vector.
        first = np.unique(member, return_index=True)[1]
        other = shuffle(v[torch.from_numpy(first)], order)[torch.from_numpy(member)]
        return explained(errors(w, other), other, owners)

    return with_chance(value, shuffled, count, stream, detail)


def within_class(weights: Any, weight_classes: Any, rng: int | Stream = 0) -> Outcome:
    """Share of the weights' variance that lies within classes: sum |w_i - mean_C(i)|^2 / sum |w_i - mean|^2.

    weights: [c, d]. weight_classes: [c]. 0 where instances of a class have one weight, as the theory has it.
    Chance: the classes shuffled. Interval: bootstrap over classes. Detail: classes, weights.
    Raises `UsageError` where no class has two weights, all weights are equal, or for NaN.
    """
    w = together_near_one(columns_of(weights, "weights").cpu())[0]
    member = members(_classes(weight_classes, len(w)), len(w))
    count = int(member.max()) + 1
    if count == len(w):
        raise UsageError("within_class: every class has one weight; there is nothing to scatter")
    total = centred(w).square().sum(1).numpy()
    if not total.sum() > 0:
        raise UsageError("within_class: all weights are equal")

    def scatter(number: np.ndarray) -> np.ndarray:
        places = torch.from_numpy(number)
        sums = torch.zeros(count, w.shape[1], dtype=w.dtype).index_add_(0, places, w)
        means = sums / torch.from_numpy(np.bincount(number, minlength=count))[:, None]
        return (w - means[places]).square().sum(1).numpy()

    stream = as_stream(rng)
    inside = scatter(member)
    draws = [
        scatter(stream.child(f"shuffle {draw}").numpy().permutation(member)).sum() / total.sum()
        for draw in range(CHANCE_DRAWS)
    ]
    chance, around = chance_of(draws)
    sums = bootstrap_sums(np.stack([inside, total], 1), stream, member)
    interval = percentiles(sums[:, 0] / np.maximum(sums[:, 1], 1e-300))
    detail = {"classes": count, "weights": len(w)}
    return Outcome(float(inside.sum() / total.sum()), chance, 0.0, interval, detail, around)


class WeightsR2(Score):
    """Class vectors read out of the head's weights by an affine map, every class held out in turn: mean R2.

    intercept: fits an offset as well. No baselines: raw observations have no head, and a head before training is a
    random draw, for which the chance level (weights and class vectors that do not belong together) stands.
    """

    name: ClassVar[str] = "weights_r2"
    equation: ClassVar[str] = "(1/f) sum_j 1 - |v_j - a_j w - b_j|^2 / |v_j - mean v_j|^2, held-out classes"
    reference: ClassVar[str] = "arXiv 2410.21869"
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "class_vectors", "weight_classes"})

    intercept: bool = True

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return weights_r2(inputs.weights, inputs.class_vectors, inputs.weight_classes, rng, self.intercept)


class WithinClass(Score):
    """Share of the variance of the head's weights that lies within classes; 0 where instances of a class agree.

    No baselines: raw observations have no head, and a head before training is a random draw, for which the chance
    level (classes shuffled) stands.
    """

    name: ClassVar[str] = "within_class"
    better: ClassVar[str] = "lower"
    equation: ClassVar[str] = "sum_i |w_i - mean_C(i)|^2 / sum_i |w_i - mean|^2"
    reference: ClassVar[str] = "arXiv 2410.21869: C(i) = C(j) implies w_i = w_j"
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "weight_classes"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return within_class(inputs.weights, inputs.weight_classes, rng)


def _classes(weight_classes: Any, count: int) -> np.ndarray:
    given = (
        weight_classes.detach().cpu().numpy() if isinstance(weight_classes, Tensor) else np.asarray(weight_classes)
    )
    if given.shape != (count,) or given.dtype.kind not in "iu":
        raise UsageError(f"weight_classes: expected [{count}] whole numbers, got {list(given.shape)} {given.dtype}")
    return given.astype(np.int64)
