"""Losses of learners as plain functions of tensors; each is usable alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional

from unmix.core.errors import UsageError
from unmix.kernels.index_loss import index_cross_entropy

MANY = 4096  # classes from which the exact loss by chunks is faster than whole logits
Loss = TypeVar("Loss", bound=Callable[..., Tensor])
Similarity = Literal["vmf", "normal", "laplace"]
Component = Callable[[Tensor, Tensor], Tensor]


def in_float32(loss: Loss) -> Loss:
    """The same loss with half-precision arguments as float32 and autocast off: logits need more than eight bits."""

    @functools.wraps(loss)
    def full(*given: Any, **named: Any) -> Tensor:
        device = next(value.device.type for value in (*given, *named.values()) if isinstance(value, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*map(_full, given), **{name: _full(value) for name, value in named.items()})

    return cast(Loss, full)


def _full(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value


@in_float32
def cross_entropy_head(
    h: Tensor, weights: Tensor, beta: Tensor | float, bias: Tensor | None, y: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy of a linear head, L = mean -log softmax(beta h W^T + b)_y, in nats.

    h: [n, d]. weights: [C, d]. beta: inverse temperature, a scalar. bias: [C] or None. y: [n] integers below C.
    smoothing: eps of the targets (1 - eps) e_y + eps / C. Raises `UsageError` for a label out of range.
    Source: Reizinger et al. 2024, arXiv 2410.21869; with y the number of the datum it is the parametric instance
    discrimination of Ibrahim et al. 2023, arXiv 2302.10260.
    """
    classes = len(weights)
    low, high = (int(end) for end in torch.aminmax(y))
    if low < 0 or high >= classes:
        raise UsageError(f"labels: {low} to {high}, the head has {classes} classes; they count from 0")
    scaled = h * beta
    if bias is None and classes >= MANY and scaled.dtype == weights.dtype:
        return index_cross_entropy(scaled, weights, y, smoothing)
    logits = scaled @ weights.T if bias is None else torch.addmm(bias, scaled, weights.T)
    return functional.cross_entropy(logits, y, label_smoothing=smoothing)


def smoothing_floor(classes: int, smoothing: float) -> float:
    """Least cross-entropy that smoothed targets allow, their entropy in nats; 0 without smoothing.

    -(1 - e + e/C) log(1 - e + e/C) - (C - 1) (e/C) log(e/C). A loss is comparable between numbers of classes C only
    less this floor.
    """
    if smoothing == 0:
        return 0.0
    rest = smoothing / classes
    top = 1 - smoothing + rest
    return -top * math.log(top) - (classes - 1) * rest * math.log(rest)


def soft_floor(classes: int, smoothing: float, y: Tensor, shares: Tensor) -> Tensor:
    """`smoothing_floor` of mixed targets t = (1 - eps) sum_k s_k e_(y_k) + eps / C: the mean entropy, in nats.

    y: [n, k] integers below C; one that comes twice in a row counts once, with both shares. shares: [n, k], rows sum
    to 1.
    """
    same = y[:, :, None] == y[:, None, :]
    mass = (1 - smoothing) * (same * shares[:, None, :]).sum(2) + smoothing / classes
    first = ~(same.tril(-1).any(2))  # the place where a label comes first stands for all its places
    own = -(torch.special.xlogy(mass, mass) * first).sum(1)
    if smoothing == 0:
        return own.mean()
    rest = smoothing / classes
    return (own - (classes - first.sum(1)).to(own) * rest * math.log(rest)).mean()


def similarities(first: Tensor, second: Tensor, similarity: Similarity, scale: Tensor | None = None) -> Tensor:
    """Similarities [n, m] of rows first [n, d] and second [m, d] under the conditional that they stand for.

    vmf: <a, b>. normal: -|a - b|^2. laplace: -|a - b|_1. scale: [d] positive weights of the columns in these sums.
    Raises `UsageError` for another name. Source: Zimmermann et al. 2021, arXiv 2102.08850.
    """
    if similarity == "vmf":
        return (first if scale is None else first * scale) @ second.T
    if similarity == "laplace":
        left, right = (first, second) if scale is None else (first * scale, second * scale)
        return -torch.cdist(left, right, p=1)
    if similarity == "normal":
        root = None if scale is None else scale.sqrt()
        left, right = (first, second) if root is None else (first * root, second * root)
        return 2 * left @ right.T - left.square().sum(1, keepdim=True) - right.square().sum(1)
    raise UsageError(f"similarity={similarity}: vmf, normal or laplace")


@in_float32
def info_nce(
    anchors: Tensor,
    positives: Tensor,
    similarity: Similarity = "vmf",
    beta: Tensor | float = 1.0,
    symmetric: bool = True,
    scale: Tensor | None = None,
) -> Tensor:
    """L = -mean_i log [ exp(beta s(a_i, p_i)) / sum_j exp(beta s(a_i, p_j)) ], in nats; log n at chance.

    anchors, positives: [n, d], row i of one the partner of row i of the other; the other rows are its negatives.
    beta: inverse temperature. symmetric: the mean of both directions. scale: as in `similarities`.
    Raises `UsageError` for fewer than 2 pairs.
    Source: van den Oord, Li, Vinyals 2018, arXiv 1807.03748; with these similarities Zimmermann et al. 2021,
    arXiv 2102.08850.
    """
    _check_pairs(anchors, positives)
    logits = similarities(anchors, positives, similarity, scale) * beta
    own = torch.arange(len(anchors), device=anchors.device)
    loss = functional.cross_entropy(logits, own)
    return (loss + functional.cross_entropy(logits.T, own)) / 2 if symmetric else loss


def anisotropic_info_nce(anchors: Tensor, positives: Tensor, metric: Tensor, symmetric: bool = True) -> Tensor:
    """`info_nce` with s(a, p) = -(a - p)^T diag(metric) (a - p): latents may change by unlike amounts.

    anchors, positives: [n, d]. metric: [d], positive. Source: Rusak et al. 2024, arXiv 2407.00143.
    """
    return info_nce(anchors, positives, "normal", 1.0, symmetric, metric)


@in_float32
def spectral_contrastive(anchors: Tensor, positives: Tensor) -> Tensor:
    """L = -2 mean_i <a_i, p_i> + mean_{i != j} <a_i, p_j>^2.

    anchors, positives: [n, d]. For a linear map of x it is -2 tr(A S A^T) + tr((A C A^T)^2) in expectation, C the
    second moment of x and S that of pairs: its minimum is -sum of the squares of the d largest eigenvalues of (S, C).
    Raises `UsageError` for fewer than 2 pairs. Source: HaoChen et al. 2021, arXiv 2106.04156.
    """
    _check_pairs(anchors, positives)
    products = anchors @ positives.T
    own = products.diagonal()
    n = len(anchors)
    return (products.square().sum() - own.square().sum()) / (n * (n - 1)) - 2 * own.mean()


def tcl(h: Tensor, weights: Tensor, bias: Tensor, segment: Tensor) -> Tensor:
    """Time-contrastive loss, the cross-entropy of the segment: L = mean -log softmax(h W^T + b)_segment.

    h: [n, d]. weights: [segments, d]. bias: [segments]. segment: [n] integers.
    Source: Hyvarinen, Morioka 2016, arXiv 1605.06336.
    """
    return cross_entropy_head(h, weights, 1.0, bias, segment)


@in_float32
def logistic(true: Tensor, broken: Tensor) -> Tensor:
    """L = [mean log(1 + exp(-r)) over true + mean log(1 + exp(r)) over broken] / 2; log 2 where nothing is learnt.

    true, broken: [n] values of the regression function r on real pairs and on pairs put together at random.
    """
    return (functional.softplus(-true).mean() + functional.softplus(broken).mean()) / 2


def pcl(now: Tensor, before: Tensor, order: Tensor, component: Component) -> Tensor:
    """Permutation-contrastive loss: `logistic` of r(h, h') = sum_i B_i(h_i, h'_i), real neighbours against permuted.

    now, before: [n, d] features of rows and of the rows before them. order: [n] a permutation to break pairs.
    component: B, from [n, d] and [n, d, 1] to [n, d].
    Source: Hyvarinen, Morioka 2017, Nonlinear ICA of temporally dependent stationary sources, AISTATS.
    """
    return gcl(now, before.unsqueeze(2), order, component)


@in_float32
def gcl(h: Tensor, auxiliary: Tensor, order: Tensor, component: Component) -> Tensor:
    """Generalised contrastive loss: `logistic` of r(h, u) = sum_i psi_i(h_i, u), the row's own u against another's.

    h: [n, d]. auxiliary: u, [n, k] the same for all components or [n, d, k] one for each. order: [n] a permutation.
    component: psi, from [n, d] and u to [n, d]. Source: Hyvarinen, Sasaki, Turner 2019, arXiv 1805.08651.
    """
    true, broken = (component(h, u).sum(1) for u in (auxiliary, auxiliary[order]))
    return logistic(true, broken)


def _check_pairs(anchors: Tensor, positives: Tensor) -> None:
    if anchors.shape != positives.shape or anchors.ndim != 2 or len(anchors) < 2:
        raise UsageError(
            f"pairs: need two matrices [n, d] of the same shape with n of at least 2, got {list(anchors.shape)} and "
            f"{list(positives.shape)}"
        )
