"""Penalties on the activity of latents, and the weight that moves until a wanted sparsity is reached."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from unmix.core import parallel

SHARPNESS = 4.0
BOUNDS = 1e-7, 1e4  # of a weight that moves, for rows of scale 1


def l1(activity: Tensor) -> Tensor:
    """Sum of |a| over the latents: [n, m] -> [n]. With atoms of unit norm it is the norm-weighted l1 as well."""
    return activity.abs().sum(1)


def tanh(activity: Tensor) -> Tensor:
    """Sum of tanh(4 |a|): about l1 for small activities and about the count of large ones (no shrinkage of those)."""
    return (SHARPNESS * activity.abs()).tanh().sum(1)


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {"l1": l1, "tanh": tanh}


class SparsityWeight:
    """The weight of a penalty; where a sparsity is wanted it moves by itself until the mean count of codes is there.

    With e = log(L0 / wanted), clipped: weight <- weight exp(e / 2 - last e / 2 + rate e), rate = 10 / steps or less.
    The first part answers a falling count before it falls below what is wanted and latents die.
    """

    def __init__(self, wanted: float | None, steps: int, start: float) -> None:
        self.wanted, self.rate = wanted, min(0.03, 10 / steps)
        self.weight: float = 0.0 if wanted is None else start
        self.error: float = math.nan

    def update(self, codes: Tensor) -> None:
        """Move the weight after a batch of dense codes [n, m]."""
        if self.wanted is None:
            return
        count = float(parallel.mean(codes.count_nonzero().double())) / max(1, len(codes))
        error = min(2.0, max(-2.0, math.log(max(count, 0.05) / self.wanted)))
        change = 0.0 if math.isnan(self.error) else (error - self.error) / 2
        self.weight = min(max(self.weight * math.exp(change + self.rate * error), BOUNDS[0]), BOUNDS[1])
        self.error = error

    @property
    def at_bound(self) -> bool:
        """Whether the weight is where it may go no further."""
        return self.wanted is not None and self.weight in BOUNDS

    def state(self) -> Tensor:
        """Everything a resumed run needs: weight and last error."""
        return torch.tensor([self.weight, self.error], dtype=torch.float64)

    def load(self, state: Tensor) -> None:
        """Go on from `state()`."""
        self.weight, self.error = state.tolist()
