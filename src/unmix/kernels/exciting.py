"""Extremes: the rows in which each of many columns is largest or smallest, over a stream of dense blocks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.rows import require_finite
from unmix.kernels._compiled import Backend, array, check_matrix, compiled_wanted, parts_for, run_parts


class Extremes:
    """The `size` rows in which each of `width` columns is largest (or smallest), over blocks of rows in rising order.

    Ties go to the row that came first. Memory is width x size, whatever the number of rows; a block costs one
    comparison an entry, and an insertion where an entry is among the best so far, about size ln(rows / size) times.
    smallest: the least exciting rows instead. backend: "torch" sorts blocks, on any device; "numba" compares.
    """

    def __init__(
        self,
        width: int,
        size: int,
        smallest: bool = False,
        dtype: torch.dtype = torch.float32,
        backend: Backend = "auto",
    ) -> None:
        if width < 1 or size < 1:
            raise UsageError(f"width, size: must be at least 1, got {width} and {size}")
        if not dtype.is_floating_point:
            raise UsageError(f"dtype: must be floating point, got {dtype}")
        self.width, self.size, self.smallest, self.backend = width, size, smallest, backend
        self._values = torch.full((width, size), -torch.inf, dtype=dtype)
        self._rows = torch.full((width, size), -1, dtype=torch.int64)
        self._least = torch.full((width,), -torch.inf, dtype=dtype)
        self._last = -1

    def update(self, block: Tensor, numbers: Tensor | int = 0) -> None:
        """Take in a block [n, width]; numbers [n] int64 are its rows' numbers, or the first of consecutive ones.

        Numbers must rise, within a block and from block to block. Raises `UsageError` where they do not, for another
        shape or dtype, and for NaN or infinite entries.
        """
        block = block.detach()
        check_matrix("block", block, self.width)
        if block.dtype != self._values.dtype:
            raise UsageError(f"block: must be {self._values.dtype}, got {block.dtype}")
        if not len(block):
            return
        given = torch.arange(numbers, numbers + len(block)) if isinstance(numbers, int) else numbers.cpu().long()
        if given.shape != (len(block),):
            raise UsageError(f"numbers: must be [{len(block)}] like the rows of the block, got {list(given.shape)}")
        if int(given[0]) <= self._last or bool((given.diff() <= 0).any()):
            raise UsageError("numbers: must rise from row to row and block to block; ties go to the first row")
        if compiled_wanted(self.backend, block):
            self._insert(block, given)
        else:
            if not bool(torch.isfinite(block.sum())):
                require_finite(block, "block", int(given[0]))
            self._merge(block, given)
        self._last = int(given[-1])

    def result(self) -> tuple[Tensor, Tensor]:
        """rows [width, size] (int64, -1 where there were fewer) and their values (0 there), most extreme first."""
        values = -self._values if self.smallest else self._values
        return self._rows.clone(), torch.where(self._rows < 0, 0, values)

    def _insert(self, block: Tensor, numbers: Tensor) -> None:
        """Entries are looked at once; where one is not finite, all is as before the block."""
        from unmix.kernels._exciting_compiled import insert_rows

        # Nothing here may wake torch's own threads, which would spin on the cores that ours need: copies are numpy's.
        kept = [part.numpy() for part in (self._values, self._rows, self._least)]
        before, parts = [part.copy() for part in kept], parts_for(self.width, 512)
        given = array(block)
        finite, sign = np.ones(parts, bool), given.dtype.type(-1 if self.smallest else 1)
        run_parts(insert_rows, parts, given, numbers.numpy(), sign, np.finfo(given.dtype).max, *kept, finite)
        if not finite.all():
            for part, old in zip(kept, before, strict=True):
                part[:] = old
            require_finite(block, "block", int(numbers[0]))

    def _merge(self, block: Tensor, numbers: Tensor) -> None:
        """Old entries before new ones, then a stable sort: ties stay with the first."""
        fresh = (-block if self.smallest else block).T
        old = self._values.to(block.device)
        values, order = torch.cat([old, fresh], 1).sort(dim=1, descending=True, stable=True)
        rows = torch.cat([self._rows, numbers.expand(self.width, -1)], 1)
        self._values = values[:, : self.size].cpu().contiguous()
        self._rows = rows.gather(1, order[:, : self.size].cpu())
        self._least = self._values[:, -1].contiguous()
