"""Penalties on the activity of latents, and the weight that moves until a wanted sparsity is reached."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

SHARPNESS = 4.0


def l1(activity: Tensor) -> Tensor:
    """Sum of |a| over the latents: [n, m] -> [n]. With atoms of unit norm it is the norm-weighted l1 as well."""
    return activity.abs().sum(1)


def tanh(activity: Tensor) -> Tensor:
    """Sum of tanh(4 |a|): about l1 for small activities and about the count of large ones (no shrinkage of those)."""
    return (SHARPNESS * activity.abs()).tanh().sum(1)


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {"l1": l1, "tanh": tanh}


class SparsityWeight:
    """The weight of a penalty; where a sparsity is wanted it moves by itself until the mean count of codes is there.

    weight <- weight exp(rate log(L0 / wanted)), clipped; a weight of 0 stays 0 where nothing is wanted.
    """

    def __init__(self, wanted: float | None, start: float = 1e-3, rate: float = 0.03) -> None:
        self.wanted, self.rate = wanted, rate
        self.weight = 0.0 if wanted is None else start

    def update(self, codes: Tensor) -> None:
        """Move the weight after a batch of dense codes [n, m]."""
        if self.wanted is not None:
            count = (codes != 0).sum().item() / max(1, len(codes))
            step = min(max(count, 0.1) / self.wanted, 8.0)
            self.weight = min(max(self.weight * step**self.rate, 1e-7), 1e2)
