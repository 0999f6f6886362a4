"""Exciting: the rows that excite each of many directions most and least, in one pass over any rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.rows import as_rows, as_tensor
from unmix.kernels.exciting import Extremes
from unmix.scores.similarity.images import first_copies


@dataclass(frozen=True, eq=False)
class Exciting:
    """For each of m directions rows [m, k] int64 and their values [m, k], most extreme first."""

    most: Tensor
    most_values: Tensor
    least: Tensor
    least_values: Tensor


def exciting(
    rows: Any, directions: Any = None, bias: Any = None, count: int = 10, images: Any = None, block: int = 4096
) -> Exciting:
    """The `count` most and least exciting rows of each direction, in one pass; ties go to the lowest row.

    a = (h - bias) D', with the columns themselves where no directions are given. Memory is count x m and one block.
    rows: an array [n, d] or `Rows`. directions: [m, d]. bias: [d], None is 0. images: [n, ...] or `ImageItems`; of
    images with the same content only the first counts. count: at most the number of different images.
    Raises `UsageError` for shapes that do not fit, NaN, or too few rows.
    """
    rows = as_rows(rows)
    n, d = rows.shape
    weight = None if directions is None else as_tensor(directions)
    shift = torch.zeros(d) if bias is None else as_tensor(bias)
    if weight is not None and (weight.ndim != 2 or weight.shape[1] != d):
        raise UsageError(f"directions: must be [m, {d}] for rows of width {d}, got {list(weight.shape)}")
    if shift.shape != (d,):
        raise UsageError(f"bias: must be [{d}], got {list(shift.shape)}")
    keep = np.ones(n, bool)
    if images is not None:
        if len(images) != n:
            raise UsageError(f"images: {len(images)} for {n} rows")
        keep = first_copies(images) == np.arange(n)
    if not 1 <= count <= keep.sum():
        raise UsageError(f"count={count}: there are {int(keep.sum())} different rows; give 1 to that many")
    m = d if weight is None else len(weight)
    most, least = Extremes(m, count), Extremes(m, count, smallest=True)
    start = 0
    for part in rows.blocks(block):
        kept = torch.from_numpy(keep[start : start + len(part)])
        numbers = torch.arange(start, start + len(part))
        start += len(part)
        if not bool(kept.all()):
            part, numbers = part[kept], numbers[kept]
        values = part.float()
        if weight is not None:
            values = (values - shift.float()) @ weight.float().T
        elif bias is not None:
            values = values - shift.float()
        for side in (most, least):
            side.update(values, numbers)
    return Exciting(*most.result(), *least.result())
