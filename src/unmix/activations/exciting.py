"""Exciting: the rows or images that excite each of many directions most and least, in one pass over any rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.copies import first_copies
from unmix.core.errors import UsageError
from unmix.core.rows import Rows, as_rows, as_tensor
from unmix.kernels.exciting import Extremes


@dataclass(frozen=True, eq=False)
class Exciting:
    """For each of m directions images [m, k] int64 and their values [m, k], most extreme first.

    places: [m, k] the position in each image at which it has that value; 0 where an image is one row. tied: [m]
    whether images that are left out have the same value as the last one: ties then decide which of them are here.
    """

    most: Tensor
    most_values: Tensor
    most_places: Tensor
    most_tied: Tensor
    least: Tensor
    least_values: Tensor
    least_places: Tensor
    least_tied: Tensor


def exciting(
    rows: Any,
    directions: Any = None,
    bias: Any = None,
    count: int = 10,
    images: Any = None,
    block: int = 4096,
    positions: int = 1,
) -> Exciting:
    """The `count` most and least exciting images of each direction, in one pass.

    Ties go to the lowest number, and the result says where they decide.

    a = (h - bias) D', with the columns themselves where no directions are given; an image of several positions has
    the value of its peak, the largest of them. Memory is count x m and one block.
    rows: an array [n positions, d] or `Rows`, the positions of an image one after another, as pooling="all" gives
    them. directions: [m, d]. bias: [d], None is 0. images: [n, ...] or `ImageItems`; of images with the same content
    only the first counts. count: at most the number of different images. `images.crops` cuts out what is at a peak.
    Raises `UsageError` for shapes that do not fit, NaN, or too few images.
    """
    rows = as_rows(rows)
    d = rows.shape[1]
    weight = None if directions is None else as_tensor(directions)
    shift = torch.zeros(d) if bias is None else as_tensor(bias)
    if weight is not None and (weight.ndim != 2 or weight.shape[1] != d):
        raise UsageError(f"directions: must be [m, {d}] for rows of width {d}, got {list(weight.shape)}")
    if shift.shape != (d,):
        raise UsageError(f"bias: must be [{d}], got {list(shift.shape)}")
    if positions < 1 or rows.shape[0] % positions:
        raise UsageError(f"positions={positions}: {rows.shape[0]} rows are no whole number of images")
    n = rows.shape[0] // positions
    keep = np.ones(n, bool)
    if images is not None:
        if len(images) != n:
            raise UsageError(f"images: {len(images)} for {n} rows" + (f" of {positions} positions" * (positions > 1)))
        keep = first_copies(images) == np.arange(n)
    if not 1 <= count <= keep.sum():
        raise UsageError(f"count={count}: there are {int(keep.sum())} different images; give 1 to that many")
    m, one_more = d if weight is None else len(weight), min(count + 1, int(keep.sum()))
    most, least = Extremes(m, one_more), Extremes(m, one_more, smallest=True)
    start = 0
    for part in rows.blocks(max(1, block // positions) * positions):
        values = _values(part, weight, shift)
        if positions > 1:
            values = values.view(-1, positions, m).amax(1)
        kept = torch.from_numpy(keep[start : start + len(values)])
        numbers = torch.arange(start, start + len(values))
        start += len(values)
        if not bool(kept.all()):
            values, numbers = values[kept], numbers[kept]
        for side in (most, least):
            side.update(values, numbers)
    found = []
    for every, of_all in (most.result(), least.result()):
        numbers, values = every[:, :count], of_all[:, :count]
        tied = of_all[:, -1] == values[:, -1] if one_more > count else torch.zeros(m, dtype=torch.bool)
        places = torch.zeros_like(numbers) if positions == 1 else _peaks(rows, numbers, positions, weight, shift)
        found += [numbers, values, places, tied]
    return Exciting(*found)


def _values(part: Tensor, weight: Tensor | None, shift: Tensor) -> Tensor:
    moved = part.float() - shift.float()
    return moved if weight is None else moved @ weight.float().T


def _peaks(rows: Rows, numbers: Tensor, positions: int, weight: Tensor | None, shift: Tensor) -> Tensor:
    """Where in each of the images [m, k] of a direction it is largest: [m, k]."""
    found = torch.empty_like(numbers)
    for j, images in enumerate(numbers):
        part = rows.take((images[:, None] * positions + torch.arange(positions)).flatten().numpy())
        values = _values(part, weight[j : j + 1], shift)[:, 0] if weight is not None else part[:, j] - shift[j]
        found[j] = values.view(len(images), positions).argmax(1)
    return found
