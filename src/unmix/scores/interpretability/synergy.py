"""Synergy: pairs of features that together are more interpretable than either, with false discoveries controlled."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.scores.interpretability.base import scored
from unmix.scores.interpretability.sets import index_of
from unmix.scores.interpretability.ties import constant, extreme_sets
from unmix.scores.similarity.base import Alike

PAIRS = 512  # pairs whose sums are held at once


def synergy(
    activations: Any,
    alike: Alike,
    pairs: Any,
    count: int = 5,
    rng: int | Stream = 0,
    draws: int = 500,
    level: float = 0.05,
) -> dict[str, np.ndarray]:
    """Pairs of features whose sum of z-scores is more interpretable than either alone, false discoveries controlled.

    gain = II(z_i + z_j) - max(II(z_i), II(z_j)). The null are the sums of one feature with another that was shuffled
    over the images: it adds nothing but noise. p is one-sided; rejected controls the rate of false discoveries at
    `level` (Benjamini, Yekutieli: the pairs depend on each other), so that many pairs need many draws.
    activations: [n, m]. pairs: [q, 2] feature numbers. draws: sums of the null, shared by the pairs.
    Gives gain, p, q_value and rejected, each [q]. Raises `UsageError` for features that do not vary or no pair.
    Source: Klindt et al. 2023, arXiv 2310.11431 (feature synergy).
    """
    from scipy.stats import false_discovery_control

    found = scored(activations, alike)
    given, alike = found.activations.double(), found.alike
    both = np.asarray(pairs, dtype=np.int64)
    if both.ndim != 2 or both.shape[1] != 2 or not len(both) or both.min() < 0 or both.max() >= given.shape[1]:
        raise UsageError(f"pairs: must be [pairs, 2] of numbers 0 .. {given.shape[1] - 1}, got {list(both.shape)}")
    if bool((dead := constant(found.activations)).any()):
        raise UsageError(f"activations: feature {int(dead.nonzero()[0])} does not vary; leave it out")
    z, stream = (given - given.mean(0)) / given.std(0), as_stream(rng).child("synergy")

    def index(a: Tensor) -> np.ndarray:
        return index_of(a, extreme_sets(a, count, stream), alike, stream)[0]

    alone = index(z)
    better = np.where(alone[both[:, 0]] >= alone[both[:, 1]], both[:, 0], both[:, 1])
    parts = [both[start : start + PAIRS] for start in range(0, len(both), PAIRS)]
    together = np.concatenate([index(z[:, part[:, 0]] + z[:, part[:, 1]]) for part in parts])
    gain = together - alone[both].max(1)
    draw, n = stream.numpy(), len(z)
    own, other = draw.choice(better, draws), draw.integers(0, z.shape[1], draws)
    # Partners on other images: a random order of the images, and for each draw a place in it to begin.
    moved = z[torch.from_numpy(draw.permutation(n))]
    rows = (torch.arange(n)[:, None] + torch.from_numpy(draw.integers(0, n, draws))) % n
    null = index(z[:, own] + moved[rows, torch.from_numpy(other)]) - np.maximum(alone[own], alone[other])
    above = len(null) - np.searchsorted(np.sort(null), gain - 1e-12)
    p = (1 + above) / (1 + len(null))
    q_value = false_discovery_control(p, method="by")
    return {"gain": gain, "p": p, "q_value": q_value, "rejected": q_value <= level}
