"""Losses of learners as plain functions of tensors; each is usable alone."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from unmix.core.errors import UsageError

Similarity = Literal["vmf", "normal", "laplace"]


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
