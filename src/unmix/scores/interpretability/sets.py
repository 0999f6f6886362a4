"""Scores of sets of exciting images: how alike they are, what they have in common, and how they are spread."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.copies import contents
from unmix.core.errors import UsageError
from unmix.core.labels import known, plain
from unmix.core.seeds import Stream, as_stream
from unmix.scores.interpretability.base import Found, Judged, judged, matrix, scored
from unmix.scores.interpretability.ties import COLUMNS, Sets, extreme_sets
from unmix.scores.similarity.base import Alike, labelled

DRAWS = 1000
NEAREST = 1024  # rows compared with all others at once
ORDERS = 64  # of ties, over which a value is averaged where its mean is not known exactly
FEWER = 8  # of ties, for a standard error alone


def pairwise(sets: Tensor, alike: Alike, diagonal: bool = False) -> Tensor:
    """Mean similarity of the pairs inside sets [s, k] of image numbers: [s] float64.

    II = 2 / (k (k - 1)) sum_(i<j) s(i, j). diagonal: the mean over the whole k x k matrix, as the authors' code takes
    it, which is (k - 1) / k of that where s(i, i) = 0. Raises `UsageError` for sets of one.
    """
    return _mean_of_pairs(_within(sets, alike), diagonal)


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

    II(u) = 2 / (M (M - 1)) sum_(i<j) s(x_i, x_j) over the M images with the largest activation. Where several images
    share the last of these, the value is the mean over the orders of such ties: exactly for a cosine, else over 64.
    Copies of an image count once. The null are random sets of images; standard errors leave out one image after
    another (jackknife).
    activations: [n, m], one column a feature. alike: of the same n images. diagonal: as `pairwise`.
    Raises `UsageError` where the embedding is the activations, or for fewer than 2 images.
    Source: Klindt et al. 2023, arXiv 2310.11431.
    """
    return _of_pairs("interpretability_index", activations, alike, count, rng, draws, diagonal)


def clarity(activations: Any, alike: Alike, count: int = 5, rng: int | Stream = 0, draws: int = DRAWS) -> Judged:
    """Clarity: how long the mean of the unit vectors of the most exciting images is; equals the index with a cosine.

    (|mean e|^2 - 1/M) M / (M - 1). Arguments, ties and null as `interpretability_index`. Raises `UsageError` for a
    similarity that is no cosine.
    Source: Dreyer et al. 2025, SemanticLens, arXiv 2501.05398.
    """
    return _of_pairs("clarity", activations, alike.cosine(), count, rng, draws)


def _of_pairs(
    name: str,
    activations: Any,
    alike: Alike,
    count: int,
    rng: int | Stream,
    draws: int,
    diagonal: bool = False,
) -> Judged:
    given = scored(activations, alike)

    def measure(a: Tensor, stream: Stream) -> Found:
        sets = extreme_sets(a, count, stream)
        values, error = index_of(a, sets, given.alike, stream, diagonal)
        return Found(values, error, sets.tied.numpy(), sets.rows.numpy())

    ceiling = 1.0 if alike.is_cosine or alike.compare is not None else 0.0
    return judged(name, measure, given, as_stream(rng), draws, count, count, ceiling)


def index_of(
    activations: Tensor, sets: Sets, alike: Alike, rng: Stream, diagonal: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Mean similarity of the pairs inside sets of different images, over the orders of their ties; standard errors.

    activations: [n, m], those that the sets are of. Gives values [m] and errors [m] (jackknife).
    """
    within = _within(sets.rows, alike)
    values, error = _mean_of_pairs(within, diagonal), _jackknife(within)
    for j, orders in sets.orders(activations, FEWER if alike.is_cosine else ORDERS, rng):
        within = _within(orders, alike)
        values[j] = _mean_of_pairs(within, diagonal).mean()
        error[j] = _jackknife(within).square().mean().sqrt()
    if alike.is_cosine:
        for part in sets.tied.nonzero()[:, 0].split(COLUMNS):
            values[part] = _expected(activations[:, part], sets, part, alike.vectors, diagonal)
    return values.numpy(), error.numpy()


def _expected(activations: Tensor, sets: Sets, part: Tensor, vectors: Tensor, diagonal: bool) -> Tensor:
    """Mean over all orders of ties of the mean product of the pairs in sets: [j], of the features `part` [j].

    With sums S of the vectors of the c images that are sure and of the t among which ties choose r = k - c,
    E sum_(i != j) <e_i, e_j> = |S_c|^2 - Q_c + 2 r/t <S_c, S_t> + r (r - 1) / (t (t - 1)) (|S_t|^2 - Q_t), Q the sums
    of squared lengths.
    """
    from scipy.sparse import csr_array

    k, e = sets.rows.shape[1], vectors.double()
    sure = torch.arange(k) < sets.sure[part][:, None]
    chosen = e[sets.rows[part]] * sure[..., None]
    first, own = chosen.sum(1), chosen.square().sum((1, 2))
    among = activations == sets.values[part, -1]
    rest = among.sum(0) * 2 > len(among)  # where most images tie, those that do not are summed, and taken away
    member = csr_array((among ^ rest).T.numpy().astype(np.float64))
    both = torch.from_numpy(member @ torch.cat([e, e.square().sum(1, keepdim=True)], 1).numpy())
    whole = torch.cat([e.sum(0), e.square().sum()[None]])
    both = torch.where(rest[:, None], whole - both, both)
    second, other = both[:, :-1], both[:, -1]
    t, r = sets.tied[part].double(), (k - sets.sure[part]).double()
    pairs = first.square().sum(1) - own + 2 * r / t * (first * second).sum(1)
    pairs += r * (r - 1) / (t * (t - 1)) * (second.square().sum(1) - other)
    return (pairs + own + r / t * other) / k**2 if diagonal else pairs / (k * (k - 1))


def label_purity(
    activations: Any,
    labels: Any,
    count: int = 20,
    rng: int | Stream = 0,
    draws: int = DRAWS,
    images: Any = None,
) -> Judged:
    """Share of the most frequent label among the `count` most exciting images; minus its entropy is in the detail.

    max_c p_c, and sum_c p_c log p_c (nats; 0 where all labels agree), means over 64 orders of ties. labels: [n], text
    or numbers; images without one (`core.labels.plain`) are of no label. images: the n images, of which copies count
    once. The null are random sets of images. Detail: negative_entropy [m], label [m] (the most frequent one). Raises
    `UsageError` for another number of labels or images, or a single label.
    Source: Klindt et al. 2023, arXiv 2310.11431.
    """
    n = len(matrix(activations))
    given_labels = plain(labels)
    names = np.unique(given_labels[there := known(given_labels)])
    if len(there) != n or len(names) < 2:
        raise UsageError(f"labels: {len(there)} of {len(names)} kinds for {n} images; two kinds at least")
    names = names if there.all() else np.append(names, given_labels[~there][:1])
    alike = labelled(given_labels)
    if images is not None:
        alike = dataclasses.replace(alike, content=torch.from_numpy(contents(images)))
        if alike.content is None or len(alike.content) != n:
            raise UsageError(f"images: other than {n}, the rows of the activations")
    given = scored(activations, alike)
    one_hot = given.alike.vectors.double()

    def measure(a: Tensor, stream: Stream) -> Found:
        sets = extreme_sets(a, count, stream)
        share = one_hot[sets.rows].mean(1)
        values, entropy = share.amax(1), torch.special.xlogy(share, share).sum(1)
        for j, orders in sets.orders(a, ORDERS, stream):
            shares = one_hot[orders].mean(1)
            share[j], values[j] = shares.mean(0), shares.amax(1).mean()
            entropy[j] = torch.special.xlogy(shares, shares).sum(1).mean()
        error = (values * (1 - values) / count).sqrt().numpy()
        most = torch.where(values > 0, share.argmax(1), -1).numpy()
        detail = {"negative_entropy": entropy.numpy(), "label": names[most]}
        return Found(values.numpy(), error, sets.tied.numpy(), sets.rows.numpy(), detail)

    return judged("label_purity", measure, given, as_stream(rng), draws, count, count)


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


def _within(sets: Tensor, alike: Alike) -> Tensor:
    if sets.shape[1] < 2:
        raise UsageError(f"sets: need at least 2 images, got {sets.shape[1]}")
    return alike.within(sets).double()


def _mean_of_pairs(within: Tensor, diagonal: bool) -> Tensor:
    """Mean of the pairs, or of the whole matrix: [s] from [s, k, k]."""
    k = within.shape[1]
    if diagonal:
        return within.mean((1, 2))
    return (within.sum((1, 2)) - within.diagonal(dim1=1, dim2=2).sum(1)) / (k * (k - 1))


def _jackknife(within: Tensor) -> Tensor:
    """Standard error of the mean pairwise similarity, from the means without each image: [s] from [s, k, k]."""
    k = within.shape[1]
    if k < 3:
        return torch.full((len(within),), math.nan, dtype=within.dtype)
    off = within - torch.diag_embed(within.diagonal(dim1=1, dim2=2))
    without = (off.sum((1, 2))[:, None] - 2 * off.sum(2)) / ((k - 1) * (k - 2))
    return ((k - 1) / k * (without - without.mean(1, keepdim=True)).square().sum(1)).sqrt()
