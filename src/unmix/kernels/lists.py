"""What training steps on sparse codes hand on: lists of codes, and what a pass over rows leaves."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unmix.kernels._compiled import parts_for


@dataclass
class Lists:
    """Sparse codes of b rows: those of row i are values, indices [nnz] at pointers[i] .. pointers[i + 1].

    each: the number in every row, where it is the same. A value of 0 is not active. slopes [nnz]: products of the
    error with the atoms; times `scale`, the gradient of the loss with respect to an active code.
    """

    pointers: Tensor
    indices: Tensor
    values: Tensor
    each: int | None = None
    scale: float = 1.0
    slopes: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.slopes = torch.empty_like(self.values)

    @property
    def batch(self) -> int:
        """Rows of the whole batch, of which these lists may hold a slice; from the scale, which is 2 over it."""
        return round(2.0 / self.scale)

    @property
    def rows(self) -> Tensor:
        """The row of every code [nnz]."""
        numbers = torch.arange(len(self.pointers) - 1, device=self.pointers.device)
        if self.each is not None:
            return numbers.unsqueeze(1).expand(-1, self.each).flatten()
        return torch.repeat_interleave(numbers, self.pointers.diff(), output_size=len(self.values))


@dataclass
class Pass:
    """What a pass forward over n rows of a batch leaves: inputs [n, d], errors, the lists of codes and spare codes.

    total [d]: gradient of the decoder's bias through x'. loss, aux, active: means over the n rows.
    """

    inputs: Tensor
    errors: Tensor
    passes: list[Lists]
    total: Tensor
    loss: Tensor
    aux: Tensor
    active: Tensor


def parts_of(rows: int, width: int) -> int:
    """Parts for a pass over `rows` rows: as many as threads, but none so small that handing it over costs more."""
    return parts_for(rows, max(16, 16384 // max(1, width)))


def rectangular(values: Tensor, indices: Tensor) -> Lists:
    """Lists of values, indices [b, k]."""
    b, k = values.shape
    return Lists(torch.arange(0, b * k + 1, k, device=values.device), indices.view(-1), values.view(-1), k)
