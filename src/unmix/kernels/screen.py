"""Pre-activations above a level, as lists by rows, from products in blocks; the dense matrix is never held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.kernels._compiled import array, parts_for, run_parts, run_queue

_SLAB = 4096  # rows of one product: fewer, and packing the weights again costs more
_BLOCK = 8 << 20  # bytes of a block of columns, which stay in the cache between the product and the collection
_DEVICE_BLOCK = 1 << 28


@dataclass
class Found:
    """Entries of some rows, in segments by blocks of columns: block t of row i is at pointers[t, i] .. [t, i + 1].

    pointers [blocks, n + 1], columns and values [nnz], columns rising within a row. rows: where the rows were.
    """

    rows: slice
    pointers: Any
    columns: Any
    values: Any


class Space:
    """Memory kept from call to call: fresh pages cost as much as a pass over them."""

    def __init__(self) -> None:
        self.tensors: dict[Any, Tensor] = {}
        self.lock = Lock()

    def take(self, name: Any, size: int, dtype: torch.dtype) -> Tensor:
        """A vector of that many numbers, whatever they are."""
        with self.lock:
            if name not in self.tensors or self.tensors[name].numel() < size or self.tensors[name].dtype != dtype:
                self.tensors[name] = torch.empty(size, dtype=dtype)
            return self.tensors[name][:size]


def slabs(n: int, width: int, limit: int = 1 << 24) -> list[slice]:
    """Rows in slices of at most 4,096, fewer where `width` columns beside them would be more than `limit` numbers."""
    height = max(64, min(_SLAB, limit // max(1, width)))
    return [slice(start, min(n, start + height)) for start in range(0, n, height)]


def collect_compiled(
    x: Tensor,
    rows: slice,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor,
    level: Tensor,
    space: Space,
    columns: Tensor | None = None,
    spare: Tensor | None = None,
) -> Found:
    """Entries of x[rows] @ weight.T with entry + shift > level of the row; their values are entry + bias.

    x [n, d], weight [m, d], bias, shift [m], level [n]. spare [rows, count] is filled with entry + bias of `columns`
    (rising), where given. Call it inside `own_threads`.
    """
    from unmix.kernels._screen_compiled import collect, copy_columns

    x, level = x[rows], level[rows]
    n, m = len(x), len(weight)
    parts = parts_for(m, max(64, (1 << 21) // (n * x.shape[1])))  # a smaller product is not worth a second thread
    # Blocks that the cache holds, but at least one for every thread.
    width = max(64, min(_BLOCK // (x.element_size() * n) // 64 * 64, -(-m // parts)))
    lefts = list(range(0, m, width))
    pointers = np.empty((len(lefts), n + 1), np.int64)
    pieces: list[Any] = [None] * len(lefts)
    given = array(bias), array(shift), array(level)

    def work(slot: int, number: int) -> None:
        part = slice(lefts[number], min(m, lefts[number] + width))
        size = part.stop - part.start
        block = space.take(("block", slot), n * size, x.dtype).view(n, size)
        torch.mm(x, weight[part].T, out=block)
        if columns is not None and spare is not None:
            ends = torch.searchsorted(columns, torch.tensor([part.start, part.stop]))
            own = array(columns[int(ends[0]) : int(ends[1])])
            copy_columns(block.numpy(), part.start, own, int(ends[0]), given[0], spare.numpy())
        room, used = max(4 * size, len(space.tensors.get(("values", slot), ()))), -1
        while used < 0:  # there was no room for all
            kept = space.take(("columns", slot), room, torch.int32), space.take(("values", slot), room, x.dtype)
            own_given = (g[part] for g in given[:2])
            filled = (t.numpy() for t in kept)
            used = collect(block.numpy(), part.start, *own_given, given[2], pointers[number], *filled)
            room *= 4
        pieces[number] = tuple(t[:used].numpy().copy() for t in kept)

    run_queue(work, range(len(lefts)), parts)
    sizes = [len(piece[0]) for piece in pieces]
    pointers += np.cumsum([0, *sizes[:-1]])[:, None]
    return Found(rows, pointers, *(np.concatenate(part) for part in zip(*pieces, strict=True)))


def gather_compiled(found: list[Found], least: float = -np.inf, count: int | None = None) -> tuple[Tensor, ...]:
    """Ragged lists of all rows: pointers [n + 1], columns (int64) and values [nnz].

    Only values of at least `least` are taken; `count` of them where given, ties to the first.
    """
    from unmix.kernels._screen_compiled import count_rows, gather_rows

    sizes = [part.rows.stop - part.rows.start for part in found]
    above, equal = np.empty(sum(sizes), np.int64), np.empty(sum(sizes), np.int64)
    dtype = found[0].values.dtype
    least = dtype.type(least)
    for part, size in zip(found, sizes, strict=True):
        into = above[part.rows], equal[part.rows]
        run_parts(count_rows, parts_for(size, 512), part.pointers, part.values, least, *into)
    if count is not None:
        left = count - above.sum() - (np.cumsum(equal) - equal)
        equal = np.clip(equal, 0, np.maximum(left, 0))
    pointers = np.concatenate([np.zeros(1, np.int64), np.cumsum(above + equal)])
    columns, values = np.empty(pointers[-1], np.int64), np.empty(pointers[-1], dtype)
    for part, size in zip(found, sizes, strict=True):
        given = part.pointers, part.columns, part.values, least, equal[part.rows], pointers[:-1][part.rows]
        run_parts(gather_rows, parts_for(size, 512), *given, columns, values)
    return tuple(torch.from_numpy(a) for a in (pointers, columns, values))


def blocks_plain(x: Tensor, weight: Tensor, bias: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Pre-activations x @ weight.T + bias of one block of rows after the other, on any device."""
    budget = (8 * _BLOCK if x.device.type == "cpu" else 4 * _DEVICE_BLOCK) // (x.element_size() * len(weight))
    height = max(64, budget)
    for start in range(0, len(x), height):
        rows = slice(start, min(len(x), start + height))
        yield rows, torch.addmm(bias, x[rows], weight.T)


class CompiledLists:
    """Entries above a level, in the segments they were found in."""

    def __init__(self, found: list[Found]) -> None:
        self.found = found

    def __len__(self) -> int:
        return sum(len(part.values) for part in self.found)

    def largest(self, rank: int) -> float:
        """The value of that rank, from 1 for the largest."""
        from unmix.kernels._topk_compiled import kth_largest

        return float(kth_largest(np.concatenate([part.values for part in self.found]), rank))

    def gather(self, least: float = -np.inf, count: int | None = None) -> tuple[Tensor, ...]:
        """As `gather_compiled`."""
        return gather_compiled(self.found, least, count)


class PlainLists:
    """Entries above a level, block of rows after block of rows: counts [n], columns and values [nnz] of each."""

    def __init__(self, parts: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        counts, self.columns, self.values = (torch.cat(part) for part in zip(*parts, strict=True))
        self.pointers = torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def __len__(self) -> int:
        return len(self.values)

    def largest(self, rank: int) -> float:
        """The value of that rank, from 1 for the largest."""
        return float(self.values.topk(rank, sorted=False).values.min())

    def gather(self, least: float = -np.inf, count: int | None = None) -> tuple[Tensor, ...]:
        """As `gather_compiled`."""
        if count is None:
            return self.pointers, self.columns, self.values
        equal = self.values == least
        mask = self.values > least
        mask |= equal & (equal.cumsum(0) <= count - mask.sum())
        pointers = torch.cat([self.pointers[:1], mask.cumsum(0)])[self.pointers]
        return pointers, self.columns[mask], self.values[mask]
