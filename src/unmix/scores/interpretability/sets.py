"""Scores of sets of exciting images: how alike they are, what they have in common, and how they are spread."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.scores.interpretability.base import Judged, extreme_sets, judged, matrix
from unmix.scores.similarity.base import Alike

DRAWS = 1000
NEAREST = 1024  # rows compared with all others at once


def pairwise(sets: Tensor, alike: Alike, diagonal: bool = False) -> Tensor:
    """Mean similarity of the pairs inside sets [s, k] of image numbers: [s] float64.

    II = 2 / (k (k - 1)) sum_(i<j) s(i, j). diagonal: the mean over the whole k x k matrix, as the authors' code takes
    it, which is (k - 1) / k of that where s(i, i) = 0. Raises `UsageError` for sets of one.
    """
    within = _within(sets, alike)
    k = sets.shape[1]
    if diagonal:
        return within.mean((1, 2))
    return (within.sum((1, 2)) - within.diagonal(dim1=1, dim2=2).sum(1)) / (k * (k - 1))


def clarity_of(sets: Tensor, alike: Alike) -> Tensor:
    """(|mean of the unit vectors|^2 - 1/k) k / (k - 1) of sets [s, k]: [s] float64; the pairwise cosine in O(k)."""
    vectors = alike.unit[sets].double()
    k = sets.shape[1]
    if k < 2:
        raise UsageError(f"sets: need at least 2 images, got {k}")
    return (vectors.mean(1).square().sum(1) - vectors.square().sum((1, 2)) / k**2) * k / (k - 1)


def interpretability_index(
    activations: Any, alike: Alike, count: int = 5, rng: int | Stream = 0, draws: int = DRAWS, diagonal: bool = False
) -> Judged:
    """Interpretability index: mean pairwise similarity of the `count` most exciting images of each feature.

    II(u) = 2 / (M (M - 1)) sum_(i<j) s(x_i, x_j) over the M images with the largest activation. The null are random
    sets of images; standard errors leave out one image after another (jackknife).
    activations: [n, m], one column a feature. alike: of the same n images. diagonal: as `pairwise`.
    Raises `UsageError` where the embedding is the activations, or for fewer than 2 images.
    Source: Klindt et al. 2023, arXiv 2310.11431.
    """
    given = _ready(activations, alike)

    def measure(a: Tensor, stream: Stream) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        sets = extreme_sets(a, count, stream)
        within = _within(sets.rows, alike)
        values = pairwise(sets.rows, alike, diagonal).numpy()
        return values, sets.effective.numpy(), _jackknife(within), {"rows": sets.rows.numpy(), "unique": sets.unique}

    ceiling = 1.0 if alike.rule == "cosine" or alike.compare is not None else 0.0
    return judged("interpretability_index", measure, given, as_stream(rng), draws, ceiling)


def clarity(activations: Any, alike: Alike, count: int = 5, rng: int | Stream = 0, draws: int = DRAWS) -> Judged:
    """Clarity: how long the mean of the unit vectors of the most exciting images is; equals the index with a cosine.

    (|mean e|^2 - 1/M) M / (M - 1). Arguments and null as `interpretability_index`. Raises `UsageError` for a
    similarity that is no cosine.
    Source: Dreyer et al. 2025, SemanticLens, arXiv 2501.05398.
    """
    given = _ready(activations, alike)

    def measure(a: Tensor, stream: Stream) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        sets = extreme_sets(a, count, stream)
        error = _jackknife(_within(sets.rows, alike))
        detail = {"rows": sets.rows.numpy(), "unique": sets.unique}
        return clarity_of(sets.rows, alike).numpy(), sets.effective.numpy(), error, detail

    return judged("clarity", measure, given, as_stream(rng), draws)


def label_purity(activations: Any, labels: Any, count: int = 20, rng: int | Stream = 0, draws: int = DRAWS) -> Judged:
    """Share of the most frequent label among the `count` most exciting images; minus its entropy is in the detail.

    max_c p_c, and sum_c p_c log p_c (nats; 0 where all labels agree). labels: [n], text or numbers. The null are
    random sets of images. Detail: negative_entropy [m], label [m] (the most frequent one). Raises `UsageError` for
    another number of labels, or a single one.
    Source: Klindt et al. 2023, arXiv 2310.11431.
    """
    given = matrix(activations)
    names, places = np.unique(np.asarray(labels), return_inverse=True)
    if len(places) != len(given) or len(names) < 2:
        raise UsageError(f"labels: {len(places)} of {len(names)} kinds for {len(given)} images; two kinds at least")
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(places).long(), len(names)).double()

    def measure(a: Tensor, stream: Stream) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        sets = extreme_sets(a, count, stream)
        share = one_hot[sets.rows].mean(1)
        most = share.max(1)
        entropy = torch.special.xlogy(share, share).sum(1).numpy()
        error = (most.values * (1 - most.values) / count).sqrt().numpy()
        detail = {"negative_entropy": entropy, "label": names[most.indices.numpy()]}
        return most.values.numpy(), sets.effective.numpy(), error, detail

    return judged("label_purity", measure, given, as_stream(rng), draws)


def redundancy(sets: Tensor, alike: Alike) -> np.ndarray:
    """Largest cosine of a feature's mean vector over its images with that of any other feature: [m].

    sets: [m, k] exciting images. One feature alone has NaN.
    Source: Dreyer et al. 2025, SemanticLens, arXiv 2501.05398.
    """
    means = torch.nn.functional.normalize(alike.unit[sets].double().mean(1))
    if len(means) < 2:
        return np.full(len(means), math.nan)
    return nearest(means).numpy()


def nearest(unit: Tensor, absolute: bool = False) -> Tensor:
    """Largest cosine (or |cosine|) of each row of unit norm [m, p] with another one: [m], m >= 2."""
    found = []
    for start in range(0, len(unit), NEAREST):
        cosines = unit[start : start + NEAREST] @ unit.T
        cosines = cosines.abs() if absolute else cosines
        cosines[:, start:].fill_diagonal_(-math.inf)
        found.append(cosines.amax(1))
    return torch.cat(found)


def polysemanticity(sets: Tensor, alike: Alike) -> np.ndarray:
    """1 - cosine of the two clusters' means when a feature's images are split in two: [m], 0 for one concept.

    The split is the best of 2-means on the unit vectors started at every pair of images; sets [m, k], k >= 2.
    Source: Dreyer et al. 2025, SemanticLens, arXiv 2501.05398.
    """
    vectors = alike.unit[sets].double()
    s, k, _ = vectors.shape
    if k < 2:
        raise UsageError(f"sets: need at least 2 images, got {k}")
    gram = vectors @ vectors.transpose(1, 2)  # all there is to know: means and their cosines are sums of it
    best, cosine = torch.full((s,), -math.inf, dtype=torch.float64), torch.ones(s, dtype=torch.float64)
    for i, j in zip(*np.triu_indices(k, 1), strict=True):
        second = gram[:, :, j] > gram[:, :, i]
        second[:, i], second[:, j] = False, True
        for _ in range(5):
            toward, length, _ = _two_means(second, gram)
            moved = toward[:, 1] / length[:, 1:] > toward[:, 0] / length[:, :1]
            whole = moved.any(1) & ~moved.all(1)
            before, second = second, torch.where(whole[:, None], moved, second)
            if torch.equal(before, second):
                break
        _, length, across = _two_means(second, gram)
        fit = length.sum(1)
        cosine = torch.where(fit > best + 1e-12, across / length.prod(1), cosine)
        best = torch.maximum(fit, best)
    return (1 - cosine).numpy()


def _two_means(second: Tensor, gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Products of images and both clusters' sums [s, 2, k], the sums' lengths [s, 2], and their product [s]."""
    member = torch.stack([~second, second], 1).double()
    toward = member @ gram
    inside = toward @ member.transpose(1, 2)
    return toward, inside.diagonal(dim1=1, dim2=2).clamp_min(1e-24).sqrt(), inside[:, 0, 1]


def _ready(activations: Any, alike: Alike) -> Tensor:
    given = matrix(activations)
    alike.guard(given)
    return given


def _within(sets: Tensor, alike: Alike) -> Tensor:
    if sets.shape[1] < 2:
        raise UsageError(f"sets: need at least 2 images, got {sets.shape[1]}")
    return alike.within(sets).double()


def _jackknife(within: Tensor) -> np.ndarray:
    """Standard error of the mean pairwise similarity, from the means without each image: [s] from [s, k, k]."""
    k = within.shape[1]
    if k < 3:
        return np.full(len(within), math.nan)
    off = within - torch.diag_embed(within.diagonal(dim1=1, dim2=2))
    without = (off.sum((1, 2))[:, None] - 2 * off.sum(2)) / ((k - 1) * (k - 2))
    return ((k - 1) / k * (without - without.mean(1, keepdim=True)).square().sum(1)).sqrt().numpy()
