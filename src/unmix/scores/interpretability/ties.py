"""Exciting images of features, and the ties among them: broken feature by feature, and averaged over their orders."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.scale import resolution, varies
from unmix.core.seeds import Stream
from unmix.kernels.exciting import Extremes

BLOCK = 4096  # rows of one block
MANY = 64  # images of a set from which sorting is cheaper than inserting one after another
SORTED = 1 << 22  # entries sorted at once
COLUMNS = 256  # features whose ties are looked up at once


@dataclass(frozen=True, eq=False)
class Sets:
    """The images that excite each of m features most (or least), most extreme first, ties in random order.

    rows: [m, k] image numbers. values: [m, k] activations. sure: [m] how many of them are more extreme than the last.
    tied: [m] how many images share the value of the last one, where the set has not room for all of them: its last
    k - sure places are drawn from these; 0 where the activations decide, and for features that do not vary.
    """

    rows: Tensor
    values: Tensor
    sure: Tensor
    tied: Tensor

    def orders(self, activations: Tensor, count: int, rng: Stream) -> Iterator[tuple[int, Tensor]]:
        """Each feature for which ties decide, with its images under `count` orders of the ties: number, [count, k].

        activations: [n, m], those that the sets are of. Places are drawn without replacement over the orders too, as
        far as the ties suffice.
        """
        draw, k = rng.child("orders of ties").numpy(), self.rows.shape[1]
        for part in self.tied.nonzero()[:, 0].split(COLUMNS):
            same = (activations[:, part] == self.values[part, -1]).T.contiguous()
            for j, own in zip(part.tolist(), same, strict=True):
                sure, candidates = int(self.sure[j]), own.nonzero()[:, 0]
                found = self.rows[j].repeat(count, 1)
                found[:, sure:] = candidates[_choices(draw, len(candidates), k - sure, count)]
                yield j, found


def extreme_sets(activations: Tensor, count: int, rng: Stream, least: bool = False) -> Sets:
    """The `count` images with the largest (or smallest) activations [n, m] of each feature, in one pass.

    Raises `UsageError` for more images than there are.
    """
    n, m = activations.shape
    if not 1 <= count <= n:
        raise UsageError(f"count={count}: there are {n} different images; give 1 to {n}")
    if count > MANY:
        sides = activations.split(max(1, SORTED // n), dim=1)
        rows = torch.cat([_first_places(side.T, count, least) for side in sides])
        values = activations[rows, torch.arange(m)[:, None]]
    else:
        best = Extremes(m, count, least, activations.dtype)
        for start in range(0, n, BLOCK):
            best.update(activations[start : start + BLOCK], start)
        rows, values = best.result()
    last = values[:, -1]
    sure = (values < last[:, None] if least else values > last[:, None]).sum(1)
    tied = torch.cat([(part == last).sum(0)[None] for part in activations.split(BLOCK)]).sum(0)
    tied = torch.where(tied > count - sure, tied, 0)
    sets = Sets(_shuffled(rows, values, rng), values, sure, tied)
    for j, order in sets.orders(activations, 1, rng):
        sets.rows[j] = order[0]
    return dataclasses.replace(sets, tied=torch.where(constant(activations), 0, tied))


def constant(activations: Tensor) -> Tensor:
    """Features [n, m] that do not vary, up to rounding: [m] bool."""
    return ~varies(activations, resolution(activations))


def resting(activations: Tensor) -> Tensor:
    """The value [m] of features [n, m] that are silent: the one that most images share, else the smallest.

    Most are more than half of them; the largest value is none, for a feature may be on almost always.
    """
    found = []
    for part in activations.split(max(1, SORTED // len(activations)), dim=1):
        low, high, middle = part.amin(0), part.amax(0), part.median(0).values
        shared = 2 * (part == middle).sum(0) > len(part)
        found.append(torch.where(shared & (middle < high), middle, low))
    return torch.cat(found)


def _shuffled(rows: Tensor, values: Tensor, rng: Stream) -> Tensor:
    """Rows [m, k] whose values are equal in a random order, feature by feature."""
    among = (values[:, 1:] == values[:, :-1]).any(1).nonzero()[:, 0].numpy()
    if not len(among):
        return rows
    kind = np.cumsum(np.diff(values[among].numpy(), axis=1, prepend=values[among, :1].numpy()) != 0, axis=1)
    order = np.lexsort((rng.child("ties").numpy().random(kind.shape), kind), axis=1)
    found = rows.clone()
    found[among] = rows[among].gather(1, torch.from_numpy(order))
    return found


def _choices(draw: np.random.Generator, size: int, width: int, count: int) -> np.ndarray:
    """Numbers below `size` [count, width], different in each line, and between lines as far as they suffice."""
    lines: list[np.ndarray] = []
    while (missing := count - len(lines)) > 0:
        whole = min(missing, size // width)
        lines += list(draw.choice(size, whole * width, replace=False).reshape(whole, width))
    return np.stack(lines)


def _first_places(columns: Tensor, count: int, least: bool) -> Tensor:
    """Places of the `count` largest (or smallest) entries of columns [m, n], ties in their order: [m, count]."""
    if columns.dtype != torch.float32:
        return columns.sort(dim=1, descending=not least, stable=True).indices[:, :count]
    # As integers with the place behind the value none are equal, and they sort ten times as fast; 0.0 makes -0.0 0.0.
    bits = (columns + 0.0).contiguous().numpy().view(np.int32)
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    keys = (rising if least else ~rising).astype(np.int64) << 32 | np.arange(columns.shape[1])
    keys.partition(count - 1, axis=1)
    return torch.from_numpy(np.sort(keys[:, :count], axis=1) & 0xFFFFFFFF)
