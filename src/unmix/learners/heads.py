"""Heads with as many classes as data: exact, fused with their optimiser, split over processes, approximate."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unmix.core.errors import Failure
from unmix.core.seeds import Stream
from unmix.kernels.index_loss import AdamWSteps, Shard, index_cross_entropy, index_cross_entropy_step
from unmix.learners import parallel
from unmix.learners.losses import smoothing_floor, soft_floor

BLOCK = 4096  # rows that are drawn at a time


class IndexHead(nn.Module):
    """Weights [N, d], one row for each datum, as a parameter; the loss is exact and made by chunks of classes."""

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def loss(
        self, h: Tensor, y: Tensor, smoothing: float, shares: Tensor | None, rng: Stream
    ) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of features h [n, d] with labels y [n] or [n, k], and its excess over its floor."""
        loss = index_cross_entropy(h, self.weights, y, smoothing, shares)
        return loss, excess(loss, len(self.weights), smoothing, y, shares)

    def stepped(self) -> None:
        """Called after every step."""

    def parts(self) -> dict[str, Tensor]:
        """What a result keeps of the head as it is after all steps: by default weights [N, d]."""
        return {"weights": self.weights}

    def take(self, parts: Mapping[str, Tensor]) -> None:
        """Begin from the parts of another head where they have the same shapes."""
        for name, own in self.parts().items():
            if name in parts and parts[name].shape == own.shape:
                own.copy_(parts[name])


class GroupedHead(IndexHead):
    """A row [G, d] for each group of data, to which data are dealt at random: another loss, with fewer classes."""

    groups: Tensor

    def __init__(self, weights: Tensor, count: int, rng: Stream) -> None:
        super().__init__(weights)
        dealt = rng.child("groups").numpy().permutation(count) % len(weights)
        self.register_buffer("groups", torch.from_numpy(dealt))

    def loss(
        self, h: Tensor, y: Tensor, smoothing: float, shares: Tensor | None, rng: Stream
    ) -> tuple[Tensor, Tensor]:
        return super().loss(h, self.groups[y], smoothing, shares, rng)

    def parts(self) -> dict[str, Tensor]:
        """group_weights [G, d] and groups [N]."""
        return {"group_weights": self.weights, "groups": self.groups}


class LowRankHead(IndexHead):
    """Weights W = U V of rank r: rows U [N, r] and a projection V [r, d] of features, which all data share."""

    def __init__(self, weights: Tensor, projection: Tensor) -> None:
        super().__init__(weights)
        self.projection = nn.Parameter(projection)

    def loss(
        self, h: Tensor, y: Tensor, smoothing: float, shares: Tensor | None, rng: Stream
    ) -> tuple[Tensor, Tensor]:
        return super().loss(h @ self.projection.T, y, smoothing, shares, rng)

    def parts(self) -> dict[str, Tensor]:
        """rows [N, r] and projection [r, d]."""
        return {"rows": self.weights, "projection": self.projection}


class MovingHead(IndexHead):
    """A head that moves its own rows by AdamW; `lrs` are the learning rates of all steps."""

    taken: Tensor
    first: Tensor
    second: Tensor

    def __init__(self, weights: Tensor, lrs: Sequence[float], weight_decay: float) -> None:
        nn.Module.__init__(self)
        self.steps = AdamWSteps(torch.tensor(lrs, dtype=torch.float64), weight_decay)
        self.register_buffer("taken", torch.zeros((), dtype=torch.long))
        self._keep(weights)

    def _keep(self, weights: Tensor) -> None:
        self.register_buffer("weights", weights)
        self.register_buffer("first", torch.zeros_like(weights))
        self.register_buffer("second", torch.zeros_like(weights))

    def stepped(self) -> None:
        self.taken += 1


class FusedHead(MovingHead):
    """As `IndexHead`, but the backward pass moves the weights chunk by chunk: there is no gradient [N, d]."""

    shard: Shard | None = None

    def loss(
        self, h: Tensor, y: Tensor, smoothing: float, shares: Tensor | None, rng: Stream
    ) -> tuple[Tensor, Tensor]:
        step = self.steps[int(self.taken)]
        loss = index_cross_entropy_step(
            h, self.weights, self.first, self.second, y, step, smoothing, shares, shard=self.shard
        )
        count = len(self.weights) if self.shard is None else self.shard.total
        return loss, excess(loss, count, smoothing, y, shares)


class ShardedHead(FusedHead):
    """As `FusedHead`, its rows split over the processes: each holds its share, loss and gradients are exact.

    weights: this process's rows, those of `shard`. Every process sees the features of all. `state_dict` and `parts`
    gather all rows, so that every process must ask for them; a state is taken up by any number of processes.
    """

    shard: Shard
    sharded: ClassVar[bool] = True  # its tensors are not averaged over processes

    def __init__(self, weights: Tensor, lrs: Sequence[float], weight_decay: float, total: int) -> None:
        super().__init__(weights, lrs, weight_decay)
        self.shard = Shard(parallel.share(total)[0], total, parallel.stacked)

    def loss(
        self, h: Tensor, y: Tensor, smoothing: float, shares: Tensor | None, rng: Stream
    ) -> tuple[Tensor, Tensor]:
        shares = None if shares is None else parallel.stacked(shares).flatten(0, 1)
        return super().loss(parallel.gathered(h), parallel.stacked(y).flatten(0, 1), smoothing, shares, rng)

    def parts(self) -> dict[str, Tensor]:
        """weights [N, d], all of them; nothing before the first step, so that one process may ask."""
        if not int(self.taken):
            return {}
        return {"weights": parallel.whole(self.weights, self.shard.total)}

    def take(self, parts: Mapping[str, Tensor]) -> None:
        given = parts.get("weights")
        if given is not None and given.shape == (self.shard.total, self.weights.shape[1]):
            self.weights.copy_(self._own(given))

    def _own(self, rows: Tensor) -> Tensor:
        return rows[self.shard.begin : self.shard.begin + len(self.weights)]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("weights", "first", "second"):
            destination[prefix + name] = parallel.whole(destination[prefix + name], self.shard.total)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        for name in ("weights", "first", "second"):
            state_dict[prefix + name] = self._own(state_dict[prefix + name])
        super()._load_from_state_dict(state_dict, prefix, *others)


def excess(loss: Tensor, classes: int, smoothing: float, y: Tensor, shares: Tensor | None) -> Tensor:
    """A loss less the least that its targets allow."""
    floor = smoothing_floor(classes, smoothing) if shares is None else soft_floor(classes, smoothing, y, shares)
    return loss.detach() - floor


def blocks(classes: int, width: int, rng: Stream) -> Iterator[tuple[int, Tensor]]:
    """Initial rows N(0, 1 / width) as blocks [4096, width] with their first place; the same for any share of them."""
    draw = rng.torch()
    for begin in range(0, classes, BLOCK):
        rows = min(BLOCK, classes - begin)
        yield begin, torch.randn(rows, width, generator=draw) / math.sqrt(width)


def drawn(classes: int, width: int, rng: Stream, begin: int = 0, end: int | None = None) -> Tensor:
    """Rows begin .. end - 1 of `blocks`, without the others in memory."""
    end = classes if end is None else end
    made = torch.empty(end - begin, width)
    for place, block in blocks(classes, width, rng):
        low, high = max(place, begin), min(place + len(block), end)
        if low < high:
            made[low - begin : high - begin] = block[low - place : high - place]
    return made


def require_memory(kind: str, rows: int, width: int, tables: int = 4) -> None:
    """Raise `Failure` where so many tables of a head (weights, gradient, moments) cannot fit into this machine."""
    needed = 4 * tables * rows * width
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system says
        return
    if needed > there:
        raise Failure(
            f"{kind}: a head of {rows:,} rows of width {width} takes {needed / 1e9:.1f} GB with its optimiser, "
            f"this machine has {there / 1e9:.1f} GB; give a smaller width, fewer data, head=batch with store=FOLDER, "
            "or an approximation (head=low_rank or grouped)"
        )
