"""Duality: features and weights are transposed inverses up to the concentration, which can so be read off both."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.rows import as_tensor
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_mean, members, percentiles
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.identifiability.explained import baselines, moderate
from unmix.scores.identifiability.linear import LeastSquares
from unmix.scores.identifiability.maps import linear_map, resampled
from unmix.scores.identifiability.spectrum import positive
from unmix.scores.identifiability.weights import vectors_of

SPANNED = 1e-5  # class vectors in float32 leave a direction of 1e-7 of their size where they span none


def duality(
    h: Any,
    latents: Any,
    weights: Any,
    class_vectors: Any,
    beta: Any = 1.0,
    weight_classes: Any = None,
    rng: int | Stream = 0,
    group: Any = None,
    concentration: float | None = None,
    untrained: Any = None,
) -> Outcome:
    """Estimate of the concentration kappa from features and weights: beta tr(A_w' A_h) / f.

    Where h = A_h z and w = A_w v + psi minimise the cross-entropy, beta A_w' A_h = kappa I, whatever was normalised:
    beta <w_i - w_j, h(z)> = kappa <v_i - v_j, z> for all i, j and z. Both maps are least squares with an offset.
    h: [n, d]. latents: [n, f]. weights: [c, d]. class_vectors: [classes, f]. beta: inverse temperature of the head.
    untrained: [n, d] the network's features before training, as a baseline with the same head.
    Detail: matrix [f, f] (beta A_w' A_h), anisotropy |matrix - kappa I| / |kappa I| (0 where the theory holds), error
    (relative, where the concentration is given), baselines. Chance is 0: unrelated rows have a map of 0.
    Interval: bootstrap over rows or groups, the weights as they are.
    Raises `UsageError` for unlike widths, or class vectors or latents whose affine span is less than f dimensions.
    """
    a, z = moderate("duality", 4, h=h, latents=latents)
    w, v, _ = vectors_of(weights, class_vectors, weight_classes)
    if w.shape[1] != a.shape[1] or v.shape[1] != z.shape[1]:
        raise UsageError(
            f"duality: h has {a.shape[1]} columns and weights {w.shape[1]}, latents {z.shape[1]} and class vectors "
            f"{v.shape[1]}; each two must be equal"
        )
    f, scale = z.shape[1], positive(beta, "beta")
    rank = int(torch.linalg.matrix_rank(v - v.mean(0), rtol=SPANNED))
    if rank < f:
        raise UsageError(f"duality: the class vectors span {rank} of {f} dimensions up to an offset")
    to_weights = LeastSquares(v).coefficients(w)[0]

    def estimate(mapped: Tensor) -> np.ndarray:
        return (scale * to_weights @ mapped).numpy()

    matrix = estimate(linear_map(z, a, True, "duality"))
    value = float(np.trace(matrix) / f)
    drawn = resampled(
        z, a, True, members(group, len(a)), as_stream(rng), lambda mapped: np.trace(estimate(mapped)) / f
    )
    off = matrix - value * np.eye(f)
    size = abs(value) * math.sqrt(f)
    detail: dict[str, Any] = {"matrix": matrix, "anisotropy": float(np.linalg.norm(off)) / size if size else math.inf}

    def beside(source: Tensor) -> dict[str, float] | None:
        if source.shape[1] != w.shape[1]:
            return None
        return {"value": float(np.trace(estimate(linear_map(z, source, True, "duality"))) / f)}

    detail["baselines"] = baselines("duality", latents, beside, untrained=untrained)
    if concentration is not None:
        detail["error"] = value / positive(concentration, "concentration") - 1
    return Outcome(value, 0.0, math.nan, percentiles(drawn), detail)


def excess_loss(loss: Any, bayes_loss: Any, rng: int | Stream = 0, classes: int | None = None) -> Outcome:
    """Cross-entropy above the best possible, in nats: mean loss - mean Bayes loss.

    loss, bayes_loss: [n] for the same rows, or one number each. Below 0 by more than sampling error means that the
    two are not of the same world or rows. classes: number of labels, for the chance level ln(classes) - mean Bayes
    loss, that of logits which say nothing. Interval: bootstrap over rows, paired; none where a mean is all that is
    given. Raises `UsageError` for unlike rows, no rows, or NaN.
    """
    parts = [_losses(part, key) for part, key in ((loss, "loss"), (bayes_loss, "bayes_loss"))]
    if all(part.ndim for part in parts):
        if len(parts[0]) != len(parts[1]):
            raise UsageError(f"excess_loss: loss has {len(parts[0])} rows, bayes_loss {len(parts[1])}")
        interval = bootstrap_mean(parts[0] - parts[1], as_stream(rng))
    else:
        interval = (math.nan, math.nan)
    reached, best = (float(part.mean()) for part in parts)
    chance = math.nan if classes is None else math.log(classes) - best
    return Outcome(reached - best, chance, 0.0, interval, {"loss": reached, "bayes_loss": best})


class Duality(Score):
    """The concentration as features and weights of a classifier imply it, whichever of them was normalised.

    Untrained features are a baseline, under the trained head. Raw observations are none: no head was trained on them.
    """

    name: ClassVar[str] = "duality"
    better: ClassVar[str] = ""
    equation: ClassVar[str] = "kappa = beta tr(A_w' A_h) / f, h ~ A_h z + b, w ~ A_w v + psi"
    reference: ClassVar[str] = "from the core identity of arXiv 2410.21869"
    needs: ClassVar[frozenset[str]] = frozenset({"h", "z", "weights", "class_vectors", "weight_classes", "beta"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        head = (inputs.weights, inputs.class_vectors, inputs.beta, inputs.weight_classes)
        return duality(inputs.h, inputs.z, *head, rng, inputs.group, inputs.concentration, inputs.untrained)


class ExcessLoss(Score):
    """Cross-entropy above the best possible, in nats: 0 at the optimum, never below it but for sampling error.

    No baselines: raw observations have no loss until a head is trained on them, and before training the logits are
    random, with a loss about the chance level (that of equal logits, known where the head's weights are given).
    """

    name: ClassVar[str] = "excess_loss"
    better: ClassVar[str] = "lower"
    equation: ClassVar[str] = "mean loss - mean Bayes loss"
    reference: ClassVar[str] = "arXiv 2410.21869"
    needs: ClassVar[frozenset[str]] = frozenset({"loss", "bayes_loss"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        classes = None if inputs.weights is None else len(inputs.weights)
        return excess_loss(inputs.loss, inputs.bayes_loss, rng, classes)


def _losses(values: Any, name: str) -> np.ndarray:
    given = values if isinstance(values, torch.Tensor) else np.asarray(values)
    array = as_tensor(given, name).detach().cpu().double().numpy()
    if array.ndim > 1 or not array.size or not np.isfinite(array).all():
        raise UsageError(f"{name}: expected finite losses [n] or one number, got shape {list(array.shape)}")
    return array
