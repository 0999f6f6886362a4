"""Steer: changes of rows along one direction, and random directions of the same length beside them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unmix.activations.downstream import Change
from unmix.core.errors import UsageError
from unmix.core.seeds import Stream


def added(direction: Tensor, amount: float) -> Change:
    """h + amount * direction for every row; direction: [d]."""
    return lambda h: h + amount * direction.to(h)


def coded(direction: Tensor, code: Callable[[Tensor], Tensor], value: float = 0.0) -> Change:
    """h + (value - z(h)) * direction: the feature's code becomes `value`, what the codes miss of h is kept.

    direction: [d], what the feature adds to h for a code of 1. code: z, from rows [n, d] to codes [n].
    """
    return lambda h: h + (value - code(h)).to(h)[:, None] * direction.to(h)


def remembered(code: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function, which gives its last answer again for rows equal to the last ones."""
    last: list[Tensor] = []

    def asked(h: Tensor) -> Tensor:
        if not last or last[0].shape != h.shape or not torch.equal(last[0], h):
            last[:] = [h.clone(), code(h)]
        return last[1]

    return asked


def random_directions(direction: Tensor, draws: int, rng: Stream) -> Tensor:
    """Gaussian directions of the length of `direction` [d]: [draws, d]. Raises `UsageError` for a zero direction."""
    length = float(direction.norm())
    if length == 0 or draws < 1:
        raise UsageError(f"draws={draws}: needs at least 1, and a direction that is not zero")
    drawn = torch.randn(draws, len(direction), generator=rng.child("directions").torch(), dtype=torch.float64)
    return (length * torch.nn.functional.normalize(drawn)).to(direction)
