"""Where rows are centred before a fit, and how large they are around it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from unmix.core.rows import Rows, gather
from unmix.core.scale import kept
from unmix.core.seeds import Stream
from unmix.finders.base import centre_and_scale, require_no_offset

Centre = Literal["mean", "median", "none"]


def geometric_median(x: Tensor, tolerance: float = 1e-6, iterations: int = 500) -> Tensor:
    """The point with the least sum of distances to the rows of x [n, d]: [d], in float64.

    y <- sum_i x_i / |x_i - y| over sum_i 1 / |x_i - y| (Weiszfeld), corrected where y is itself a row; it stops where
    a step is shorter than `tolerance` times the mean distance. Source: Vardi, Zhang 2000.
    """
    x = x.double()
    y = x.mean(0)
    for _ in range(iterations):
        distance = (x - y).norm(dim=1)
        mean = distance.mean()
        at_row = distance <= 1e-12 * mean
        weight = torch.where(at_row, 0.0, 1 / distance.clamp_min(1e-300))
        total = weight.sum()
        if total == 0:
            return y
        pull = (weight @ x) / total - y
        if at_row.any():
            # A row under y holds it back with as much force as there are copies of it.
            pull = pull * (1 - at_row.sum() / (total * pull.norm()).clamp_min(1e-300)).clamp_min(0)
        y = y + pull
        if pull.norm() <= tolerance * mean:
            break
    return y


def frame(rows: Rows, rng: Stream, centre: Centre = "mean", scaled: bool = True) -> tuple[Tensor, float]:
    """Centre [d] (mean, geometric median, or the origin), and root mean square of entries around it, or 1.

    Raises `UsageError` where all rows are equal.
    """
    middle, scale = centre_and_scale(rows, rng)
    if centre == "none":
        require_no_offset("centre='none'", middle, scale)
    if centre != "mean":
        sample = gather(rows, 16384, rng.child("frame"))
        found = geometric_median(sample) if centre == "median" else torch.zeros_like(sample[0]).double()
        scale = (sample.double() - found).square().mean().sqrt().item()
        middle = kept(found, scale, sample.dtype)
    return middle, scale if scaled else 1.0
