"""Rows: what a representation is to a finder; arrays in memory, memory maps and shards are Rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from unmix.core.digest import array_digest, digest
from unmix.core.errors import UsageError
from unmix.core.scale import size_of
from unmix.core.seeds import Stream


@runtime_checkable
class Rows(Protocol):
    """n rows of width d that can be read in blocks without holding them all."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def digest(self) -> str: ...

    def blocks(self, size: int, rng: Stream | None = None, device: str = "cpu") -> Iterator[Tensor]: ...

    def take(self, rows: np.ndarray) -> Tensor: ...


class ArrayRows:
    """Rows held in one array (numpy, a memory map, or torch).

    array: [n, d], real numbers, finite; nested lists and tables are taken as arrays. Raises `UsageError` for another
    shape, no rows, or NaN.
    """

    array: Any
    name: str

    def __init__(self, array: Any, name: str = "h", check: bool = True) -> None:
        array = as_array(array, name)
        array = array.detach() if isinstance(array, torch.Tensor) else array
        if array.ndim != 2:
            raise UsageError(f"{name}: rows must be a matrix [n, d], got shape {list(array.shape)}")
        if not array.shape[0] or not array.shape[1]:
            raise UsageError(f"{name}: no rows or no columns, shape {list(array.shape)}")
        self.array, self.name = array, name
        if check:
            for start, block in zip(range(0, len(array), 65536), self.blocks(65536), strict=True):
                require_finite(block, name, start)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self.array.shape[0], self.array.shape[1]

    @property
    def digest(self) -> str:
        """Digest of the content."""
        return array_digest(self.array)

    def blocks(self, size: int, rng: Stream | None = None, device: str = "cpu") -> Iterator[Tensor]:
        """Blocks [<= size, d] of one pass, in order, or shuffled by `rng`; types as `as_tensor`."""
        order = None if rng is None else rng.numpy().permutation(len(self.array))
        for start in range(0, len(self.array), size):
            if order is None:
                yield as_tensor(self.array[start : start + size]).to(device)
            else:
                yield self.take(order[start : start + size]).to(device)

    def take(self, rows: np.ndarray) -> Tensor:
        """The named rows: [len(rows), d]."""
        if isinstance(self.array, torch.Tensor):
            return as_tensor(self.array[torch.from_numpy(np.asarray(rows)).to(self.array.device)])
        return as_tensor(self.array[rows])

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape[0]} x {self.shape[1]})"


class Subset:
    """Some rows of other rows, by number; `index` [k] is kept in the order given."""

    rows: Rows
    index: np.ndarray

    def __init__(self, rows: Rows, index: np.ndarray) -> None:
        self.rows, self.index = rows, np.asarray(index, dtype=np.int64)
        if not len(self.index):
            raise UsageError("rows: an empty subset")

    @property
    def shape(self) -> tuple[int, int]:
        """(k, d)."""
        return len(self.index), self.rows.shape[1]

    @property
    def digest(self) -> str:
        """Digest of the content: of the other rows and of the numbers taken."""
        return digest([self.rows.digest, array_digest(self.index)])

    def blocks(self, size: int, rng: Stream | None = None, device: str = "cpu") -> Iterator[Tensor]:
        """Blocks of one pass, in the subset's order or shuffled by `rng`.

        Rows that do not fit into memory are shuffled as they shuffle themselves, and read once each.
        """
        if rng is not None and getattr(self.rows, "streams", False) and (inside := self._inside()) is not None:
            yield from self._streamed(inside, size, rng, device)
            return
        order = self.index if rng is None else rng.numpy().permutation(self.index)
        for start in range(0, len(order), size):
            yield self.rows.take(order[start : start + size]).to(device)

    def _inside(self) -> np.ndarray | None:
        """Which of the rows [n] are in the subset; None where some are so more than once."""
        inside = np.zeros(self.rows.shape[0], dtype=bool)
        inside[self.index] = True
        return inside if np.count_nonzero(inside) == len(self.index) else None

    def _streamed(self, inside: np.ndarray, size: int, rng: Stream, device: str) -> Iterator[Tensor]:
        waiting, held = [], 0
        for numbers, block in self.rows.numbered(size, rng):  # type: ignore[attr-defined]
            waiting.append(block[torch.from_numpy(inside[numbers])])
            held += len(waiting[-1])
            if held >= size:
                rows = torch.cat(waiting)
                for start in range(0, held - size + 1, size):
                    yield rows[start : start + size].to(device)
                waiting = [rows[held // size * size :]]
                held = len(waiting[0])
        if held:
            yield torch.cat(waiting).to(device)

    def take(self, rows: np.ndarray) -> Tensor:
        """Rows by their number inside the subset."""
        return self.rows.take(self.index[np.asarray(rows)])

    def __len__(self) -> int:
        return len(self.index)


def as_rows(rows: Any, name: str = "h") -> Rows:
    """Rows from Rows, an array, nested lists or a table (pandas); raises `UsageError` for anything else."""
    if hasattr(rows, "blocks") and hasattr(rows, "take"):
        return rows
    return ArrayRows(rows, name)


def as_array(values: Any, name: str = "values") -> Any:
    """Real numbers as a numpy array or a torch tensor: arrays and tensors as they are, nested lists, tables.

    Raises `UsageError` for what is sparse, complex, masked, or holds something else than numbers.
    """
    if np.ma.is_masked(values):
        raise UsageError(f"{name}: has masked entries; fill them, or leave their rows out")
    if hasattr(values, "toarray") or (isinstance(values, torch.Tensor) and values.layout != torch.strided):
        dense = "to_dense" if isinstance(values, torch.Tensor) else "toarray"
        raise UsageError(f"{name}: is sparse; give {name}.{dense}()")
    if isinstance(values, torch.Tensor):
        real = not values.is_complex()
    else:
        if not (isinstance(values, (list, tuple)) or hasattr(values, "__array__")):
            raise UsageError(f"{name}: expected rows or an array [n, d], got {type(values).__name__}")
        try:
            values = values if isinstance(values, np.ndarray) else np.asarray(values)  # memory maps stay
        except ValueError as error:  # lists of unlike lengths
            raise UsageError(f"{name}: expected an array [n, d] ({str(error)[:60]})") from None
        real = values.dtype.kind in "fiub"
    if not real:
        raise UsageError(f"{name}: must be real numbers, got {values.dtype}")
    return values


def as_tensor(array: Any, name: str = "values") -> Tensor:
    """Real numbers as a float tensor: float64 stays; whole numbers become float32 where it holds each of them, else
    float64; everything else becomes float32. Copies only where needed.

    Raises `UsageError` as `as_array` does, and for whole numbers from 2**53 on, which float64 does not tell apart.
    """
    array = as_array(array, name)
    if _may_be_large(array):
        return _whole(array, name)
    if not isinstance(array, torch.Tensor):
        held = array.dtype in (np.float16, np.float32, np.float64)  # of this machine's byte order, too
        if not array.flags.writeable or not array.flags.c_contiguous or not held:
            wide = array.dtype.kind == "f" and array.dtype.itemsize >= 8
            array = np.array(array, dtype=np.float64 if wide else np.float32)
        array = torch.from_numpy(array)
    return array if array.dtype == torch.float64 else array.float()


def _may_be_large(array: Any) -> bool:
    """Whether its type holds whole numbers that float32 does not."""
    if isinstance(array, torch.Tensor):
        return array.dtype.itemsize >= 4 and not array.dtype.is_floating_point
    return array.dtype.kind in "iu" and array.dtype.itemsize >= 4


def _whole(array: Any, name: str) -> Tensor:
    wide = array.double() if isinstance(array, torch.Tensor) else torch.from_numpy(np.array(array, dtype=np.float64))
    if (largest := size_of(wide)) >= 2**53:
        raise UsageError(
            f"{name}: whole numbers up to {largest:.4g}, of which float64 does not tell neighbours apart; take an "
            "offset off before, in whole numbers"
        )
    return wide if largest > 2**24 else wide.float()


def gather(rows: Rows, limit: int | None = None, rng: Stream | None = None) -> Tensor:
    """All rows, or `limit` of them drawn without replacement by `rng`, as one tensor [n, d].

    Raises `UsageError` that names a row which holds NaN or infinity.
    """
    count = rows.shape[0]
    if limit is None or limit >= count:
        found = torch.cat(list(rows.blocks(65536)))
        require_finite(found, "rows")
        return found
    chosen = np.sort((rng or Stream(0)).child("gather").numpy().choice(count, limit, replace=False))
    found = rows.take(chosen)
    if not math.isfinite(size_of(found)):
        first = int((~torch.isfinite(found)).any(1).nonzero()[0])
        require_finite(found[first : first + 1], "rows", int(chosen[first]))
    return found


def require_finite(block: Tensor, name: str, start: int = 0) -> None:
    """Raise `UsageError` that names the first row and column that is NaN or infinite."""
    if not math.isfinite(size_of(block)):
        row, column = (~torch.isfinite(block)).nonzero()[0].tolist()
        raise UsageError(
            f"{name}: row {start + row}, column {column} is {block[row, column].item()}; "
            "drop or repair such rows first"
        )
