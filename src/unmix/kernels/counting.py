"""Counting over codes: how often latents fire, and the rows that drive each of them most."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.kernels._compiled import Backend, array, compiled_wanted


def firing(values: Tensor, indices: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """How many codes of each latent are not zero, and their sum: counts [width] int64, sums [width] float64.

    values and indices of the same shape, in any layout of sparse codes. Raises `UsageError` for an index outside
    0..width-1.
    """
    _check_indices(values, indices, width)
    flat, where = values.detach().flatten().double(), indices.flatten().long()
    used = flat != 0
    counts = torch.bincount(where[used], minlength=width)
    return counts, torch.zeros(width, dtype=torch.float64, device=flat.device).index_add_(0, where[used], flat[used])


class TopRows:
    """The `size` rows in which each of `width` latents has its largest codes, over a stream of blocks of codes.

    The result does not depend on how the stream was cut or on the order of its blocks: ties go to the lowest row
    number, which must be given to one block only. Codes that are zero are not counted. Memory is width x size.
    """

    def __init__(self, width: int, size: int, backend: Backend = "auto") -> None:
        if width < 1 or size < 1:
            raise UsageError(f"width, size: must be at least 1, got {width} and {size}")
        self.width, self.size, self.backend = width, size, backend
        self._values = torch.full((width, size), -torch.inf, dtype=torch.float64)
        self._rows = torch.full((width, size), -1, dtype=torch.int64)

    def update(
        self, values: Tensor, indices: Tensor | None, row_offset: int = 0, pointers: Tensor | None = None
    ) -> None:
        """Take in a block: values, indices [n, k], or [nnz] with pointers [n + 1], or dense [n, width] and None.

        The rows of the block are row_offset, row_offset + 1, ... Raises `UsageError` where shapes do not fit.
        """
        values = values.detach()
        if indices is None:
            if values.ndim != 2 or values.shape[1] != self.width:
                raise UsageError(f"values: must be [n, {self.width}] without indices, got {list(values.shape)}")
            rows, latents = values.nonzero(as_tuple=True)
            found = values[rows, latents]
        else:
            _check_indices(values, indices, self.width)
            if pointers is not None:
                numbers = torch.arange(len(pointers) - 1, device=values.device)
                rows = torch.repeat_interleave(numbers, pointers.diff())
            else:
                rows = torch.arange(len(values), device=values.device).unsqueeze(1).expand_as(values).flatten()
            found, latents = values.flatten(), indices.flatten().long()
            used = found != 0
            rows, latents, found = rows[used], latents[used], found[used]
        found, latents, rows = found.double().cpu(), latents.cpu(), rows.cpu() + row_offset
        if compiled_wanted(self.backend, found):
            from unmix.kernels._counting_compiled import insert

            insert(array(found), array(latents), array(rows), self._values.numpy(), self._rows.numpy())
        else:
            self._merge(found, latents, rows)

    def result(self) -> tuple[Tensor, Tensor]:
        """rows [width, size] (int64, -1 where there are fewer) and values [width, size] (0 there), largest first."""
        return self._rows.clone(), torch.where(self._rows < 0, 0, self._values)

    def _merge(self, found: Tensor, latents: Tensor, rows: Tensor) -> None:
        """Sort old and new entries by latent, falling value, rising row, and keep the first of each latent."""
        old = (self._rows >= 0).nonzero(as_tuple=True)
        found = torch.cat([self._values[old], found])
        latents, rows = torch.cat([old[0], latents]), torch.cat([self._rows[old], rows])
        order = torch.from_numpy(np.lexsort((rows.numpy(), -found.numpy(), latents.numpy())))
        found, latents, rows = found[order], latents[order], rows[order]
        first = torch.searchsorted(latents, torch.arange(self.width))
        place = torch.arange(len(latents)) - first[latents]
        keep = place < self.size
        self._values.fill_(-torch.inf)
        self._rows.fill_(-1)
        self._values[latents[keep], place[keep]] = found[keep]
        self._rows[latents[keep], place[keep]] = rows[keep]


def _check_indices(values: Tensor, indices: Tensor, width: int) -> None:
    if values.shape != indices.shape:
        raise UsageError(f"indices: must be {list(values.shape)} like values, got {list(indices.shape)}")
    if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= width):
        raise UsageError(f"indices: must be in 0..{width - 1}, got {int(indices.min())}..{int(indices.max())}")
