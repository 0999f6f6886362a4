"""Monosemanticity: similarity of all pairs of images, weighted by activations, in time linear in the images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.scores.interpretability.base import EVEN, Judged, scored
from unmix.scores.interpretability.ties import BLOCK, constant
from unmix.scores.similarity.base import Alike


def monosemanticity(
    activations: Any, alike: Alike, rng: int | Stream = 0, draws: int = 20, errors: bool = True
) -> Judged:
    """Activation-weighted monosemanticity of each feature over all images, in O(n m p).

    MS = sum_(i<j) a_i a_j s_ij / sum_(i<j) a_i a_j, a scaled to 0 .. 1 for each feature; with a cosine of unit e_i
    that is (|sum a_i e_i|^2 - sum a_i^2 |e_i|^2) / ((sum a_i)^2 - sum a_i^2). The null are the same activations on
    shuffled images: its mean is the mean similarity of all pairs, exactly; its deviation comes from `draws` shuffles.
    Effective is Kish's (sum a)^2 / sum a^2; features that are active on a single image have no pair. errors: standard
    errors by leaving out one image after another, two more products. activations: [n, m]. Raises `UsageError` as
    `interpretability_index`.
    Source: Pach et al. 2025, arXiv 2504.02821; linear time: arXiv 2602.12403.
    """
    found = scored(activations, alike)
    given, vectors, stream = found.activations, found.alike.unit, as_stream(rng)
    low, high, dead = given.amin(0), given.amax(0), constant(given)
    if len(given) < 2:
        raise UsageError(f"monosemanticity: needs 2 different images, got {len(given)}")
    scale = torch.where(dead, torch.ones_like(high), high - low)
    norms = vectors.square().sum(1)
    sums, own = _sums(given, low, scale, vectors, norms)
    total, squares = _totals(given, low, scale)
    values = _ratio(sums.square().sum(1) - own, total.square() - squares)
    error = (
        _errors(given, low, scale, vectors, norms, sums, total, squares, own)
        if errors
        else torch.full_like(values, math.nan)
    )
    shuffled = []
    for draw in range(draws):
        order = torch.from_numpy(stream.child(f"shuffle {draw}").numpy().permutation(len(given)))
        moved, apart = _sums(given, low, scale, vectors, norms, order)
        shuffled.append(_ratio(moved.square().sum(1) - apart, total.square() - squares))
    resultant = torch.stack([part.sum(0) for part in vectors.split(BLOCK)]).double().sum(0)
    whole = resultant.square().sum() - norms.sum(dtype=torch.float64)
    mean = float(whole / (len(given) * (len(given) - 1)))
    spread = torch.stack(shuffled).sub(mean).square().mean(0).sqrt() if draws else torch.full_like(values, math.nan)
    spread = torch.where(spread > EVEN * abs(mean), spread, 0)
    same = (spread == 0) & ((values - mean).abs() <= EVEN * abs(mean))
    effective = torch.where(dead, torch.zeros_like(total), total.square() / squares.clamp_min(1e-300))
    active = torch.where(dead, 0, (given > low).sum(0))
    return Judged(
        "monosemanticity",
        values=torch.where(dead, math.nan, values).numpy(),
        effective=effective.numpy(),
        error=torch.where(dead, math.nan, error).numpy(),
        null_mean=torch.where(same, values, mean).numpy(),
        null_deviation=spread.numpy(),
        active=active.numpy(),
        tied=np.zeros(len(values), np.int64),
        few=(~dead & (active < 2)).numpy(),
        detail={"constant": int(dead.sum()), "copies": found.copies},
    )


def monosemanticity_pairwise(activations: Any, alike: Alike, block: int = 2048) -> np.ndarray:
    """The same number from all pairs, O(n^2 (m + p)), for any rule of similarity: [m]; NaN for constant features."""
    found = scored(activations, alike)
    given, alike = found.activations, found.alike
    low, high, dead = given.amin(0), given.amax(0), constant(given)
    a = ((given - low) / torch.where(dead, torch.ones_like(high), high - low)).double()
    top, bottom = torch.zeros(a.shape[1], dtype=torch.float64), torch.zeros(a.shape[1], dtype=torch.float64)
    numbers = torch.arange(len(a))
    for left in numbers.split(block):
        weight = torch.zeros(len(a), a.shape[1], dtype=torch.float64)
        for right in numbers.split(block):
            pairs = alike.between(left[None], right[None])[0].double()
            later = right[None] > left[:, None]
            top += (a[left] * ((pairs * later) @ a[right])).sum(0)
            weight[left] += later.double() @ a[right]
        bottom += (a[left] * weight[left]).sum(0)
    return torch.where(dead, math.nan, _ratio(top, bottom)).numpy()


def _sums(
    a: Tensor, low: Tensor, scale: Tensor, vectors: Tensor, norms: Tensor, order: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """sum a e [m, p] and sum a^2 |e|^2 [m], float64; with an order, row i of a is beside vector order[i]."""
    m = a.shape[1]
    sums, own = torch.zeros(m, vectors.shape[1], dtype=torch.float64), torch.zeros(m, dtype=torch.float64)
    for start in range(0, len(a), BLOCK):
        part = (a[start : start + BLOCK] - low) / scale
        beside = slice(start, start + BLOCK) if order is None else order[start : start + BLOCK]
        sums += part.T @ vectors[beside].to(part.dtype)
        own += part.square_().T @ norms[beside].to(part.dtype)
    return sums, own


def _totals(a: Tensor, low: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """sum a and sum a^2: [m] float64."""
    total, squares = (torch.zeros(a.shape[1], dtype=torch.float64) for _ in range(2))
    for start in range(0, len(a), BLOCK):
        part = (a[start : start + BLOCK] - low) / scale
        total += part.sum(0, dtype=torch.float64)
        squares += part.square_().sum(0, dtype=torch.float64)
    return total, squares


def _errors(
    a: Tensor,
    low: Tensor,
    scale: Tensor,
    vectors: Tensor,
    norms: Tensor,
    sums: Tensor,
    total: Tensor,
    squares: Tensor,
    own: Tensor,
) -> Tensor:
    """Jackknife standard errors [m]: the score without each image follows from the same sums."""
    top, bottom, n = sums.square().sum(1) - own, total.square() - squares, len(a)
    first, second = torch.zeros_like(total), torch.zeros_like(total)
    base = _ratio(top, bottom)
    for start in range(0, n, BLOCK):
        part = ((a[start : start + BLOCK] - low) / scale).double()
        e, norm = vectors[start : start + BLOCK], norms[start : start + BLOCK, None]
        near = (e @ sums.T.to(e.dtype)).double() - part * norm
        without = _ratio(top - 2 * part * near, bottom - 2 * part * (total - part)) - base
        first += without.sum(0)
        second += without.square().sum(0)
    return ((n - 1) / n * (second - first.square() / n).clamp_min(0)).sqrt()


def _ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """top / bottom, NaN where a feature has weight on fewer than two images."""
    return torch.where(bottom > 1e-12, top / bottom.clamp_min(1e-300), torch.full_like(top, math.nan))
