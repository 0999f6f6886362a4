"""Maps: the linear map from latents to a representation and its resamples, for what is said about the map itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.scores.identifiability.linear import LeastSquares

DRAWS = 200
ENTRIES = 1 << 24


def linear_map(z: Tensor, h: Tensor, intercept: bool, name: str) -> Tensor:
    """Least-squares A [d, f] with h ~ A z (+ b) over all rows: z [n, f], h [n, d].

    Raises `UsageError` for fewer than f + 2 rows, or latents that are constant or linear in one another.
    """
    if len(z) < z.shape[1] + 2:
        raise UsageError(f"{name}: needs at least {z.shape[1] + 2} rows for {z.shape[1]} latents, got {len(z)}")
    solver = LeastSquares(z, intercept)
    if solver.rank < z.shape[1]:
        raise UsageError(
            f"{name}: the {z.shape[1]} latents span {solver.rank} dimensions; their map is not determined"
        )
    return solver.coefficients(h)[0].T


def resampled(
    z: Tensor, h: Tensor, intercept: bool, member: np.ndarray, rng: Stream, statistic: Callable[[Tensor], np.ndarray]
) -> np.ndarray:
    """A statistic of the map under a bootstrap over groups of rows, joined at random to at most 256 blocks."""
    scale = z.square().mean(0).sqrt()
    design = z / scale
    if intercept:
        design = torch.cat([design - design.mean(0), torch.ones(len(z), 1, dtype=z.dtype)], 1)
    p, d = design.shape[1], h.shape[1]
    generator = rng.child("bootstrap").numpy()
    count = int(member.max()) + 1
    blocks = min(count, max(16, min(256, ENTRIES // (p * (p + d)))))
    part = generator.permutation(count)[member] % blocks
    moments = torch.empty(blocks, p * (p + d), dtype=z.dtype)
    for block in range(blocks):
        rows = torch.from_numpy(np.flatnonzero(part == block))
        own = design[rows]
        moments[block] = (own.T @ torch.cat([own, h[rows]], 1)).reshape(-1)
    drawn = torch.from_numpy(generator.multinomial(blocks, np.full(blocks, 1 / blocks), DRAWS)).double()
    found = []
    for weights in drawn:
        both = (weights @ moments).reshape(p, p + d)
        read = torch.linalg.pinv(both[:, :p], hermitian=True) @ both[:, p:]
        found.append(statistic((read[: len(scale)] / scale[:, None]).T))
    return np.asarray(found)


def widened(interval: tuple[float, float], value: float) -> tuple[float, float]:
    """An interval that holds the value: resampling moves a largest error up, away from the value itself."""
    return min(interval[0], value), max(interval[1], value)
