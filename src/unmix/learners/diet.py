"""DIET: the number of each datum is its label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unmix.core.digest import digest
from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners import parallel
from unmix.learners.base import _first, count_of
from unmix.learners.heads import (
    FusedHead,
    GroupedHead,
    IndexHead,
    LowRankHead,
    ShardedHead,
    drawn,
    require_memory,
)
from unmix.learners.loop import moved
from unmix.learners.mixing import cutmix, mixup
from unmix.learners.representation import Representation
from unmix.learners.row_heads import RowHead, StoredHead
from unmix.learners.views import ViewLearner
from unmix.networks.base import Network
from unmix.networks.wrapped import OnSphere

ROWWISE = ("batch", "sampled")  # heads that use some rows in a step


class Diet(ViewLearner):
    """DIET: a network and a linear head trained to tell from one augmented view which datum it is of.

    smoothing: eps of the targets. unit_features: features on the sphere. beta: factor on the features before the
    head, which has no bias. mixup, cutmix: parameters of the Beta distributions of mixed pairs of rows, and of
    pictures with a box of another, targets mixed alike; 0 for none; of both each batch takes one. mix_share: share of
    the batches that are mixed. classes: number of data N; None asks the world.
    head: exact (by chunks of classes), fused (the same, moved in the backward pass: no gradient [N, d], AdamW only),
    sharded (fused, its rows split over the processes of torchrun), batch (softmax over the labels of the batch alone,
    each once; another loss, whose rows move lazily as dense AdamW would move them), sampled (batch and `negatives`
    more rows at random: an approximation of exact), low_rank (W = U V of rank `rank`: an approximation), or grouped
    (data are dealt at random to `groups` classes: another loss). negatives: of sampled. rank: of low_rank. groups: of
    grouped. store: folder for the head of batch or sampled as memory-mapped files; None keeps it in memory. It
    changes no number and is no part of the recipe's digest. The result's parts are beta () and the head's: weights
    [N, width], for low_rank rows [N, rank] and projection [rank, width], for grouped group_weights [groups, width]
    and groups [N]; none where it is stored.
    Raises `UsageError` for settings that a head cannot have.
    """

    equation: ClassVar[str] = "L = mean CE_eps(beta W f(T(x_n)), n),  target (1 - eps) e_n + eps / N"
    reference: ClassVar[str] = "Ibrahim et al. 2023, arXiv 2302.10260"
    needs: ClassVar[frozenset[str]] = frozenset({"x", "index"})
    label: ClassVar[str] = "index"

    smoothing: float = Field(default=0.8, ge=0, lt=1)
    unit_features: bool = False
    beta: float = Field(default=1.0, gt=0)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    mix_share: float = Field(default=1.0, gt=0, le=1)
    classes: int | None = Field(default=None, ge=2)
    head: Literal["exact", "fused", "sharded", "batch", "sampled", "low_rank", "grouped"] = "exact"
    negatives: int = Field(default=4096, ge=1)
    rank: int = Field(default=64, ge=1)
    groups: int = Field(default=10_000, ge=2)
    store: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values, without `store`: where a head lies changes no result."""
        return {name: value for name, value in super().as_dict().items() if name != "store"}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        moves = self.head in ("fused", "sharded", *ROWWISE)
        if moves and self.optimiser not in ("adamw", "muon"):
            raise ValueError(f"head={self.head} moves by AdamW; give optimiser=adamw or muon, not {self.optimiser}")
        if moves and (self.accumulate > 1 or self.clip is not None):
            raise ValueError(f"head={self.head} moves in the backward pass; give accumulate=1 and clip=None")
        if self.store is not None and self.head not in ROWWISE:
            raise ValueError(f"store={self.store}: head={self.head} uses all rows in every step; give head=batch")
        if self.head == "low_rank" and self.rank >= self.width:
            raise ValueError(f"rank={self.rank}: saves nothing at width {self.width}; give a smaller one")
        for name, head in (("negatives", "sampled"), ("rank", "low_rank"), ("groups", "grouped")):
            given, default = getattr(self, name), type(self).model_fields[name].default
            if given != default and self.head != head:
                raise ValueError(f"{name}={given} belongs to head={head}, not to head={self.head}")
        return self

    def flops(self, world: Any) -> float:
        """Floating-point operations of one step: the network's, counted, and three products of the head."""
        from torch.utils.flop_counter import FlopCounterMode

        stream = Stream(0).child("flops")
        sample = moved(_first(world, self.batch, stream), "cpu")
        encoder = self._network().build(tuple(sample.x.shape[1:]), self.width, stream)
        with FlopCounterMode(display=False) as counter:
            encoder(sample.x).sum().backward()
        rows, columns = count_of(world, "index", self.classes, self.kind), self.width
        if self.head in ROWWISE:
            rows = min(rows, len(sample) + (self.negatives if self.head == "sampled" else 0))
        if self.head == "low_rank":
            columns = min(self.rank, self.width)
        if self.head == "grouped":
            rows = min(rows, self.groups)
        return float(counter.get_total_flops()) + 6.0 * len(sample) * rows * columns

    def _check(self, world: Any, sample: Sample) -> None:
        super()._check(world, sample)
        classes = count_of(world, "index", self.classes, self.kind)
        if classes < 2:
            raise UsageError(f"{self.kind}: {world.kind} has one datum; there is nothing to tell it from")
        if self.head == "batch" and len(sample) < 2:
            raise UsageError(f"{self.kind}.batch={self.batch}: head=batch tells rows of a batch apart; give 2")
        if self.head == "grouped" and self.groups >= classes:
            raise UsageError(f"{self.kind}.groups={self.groups}: there are {classes} data; give fewer groups")
        if parallel.ranks() > 1 and self.head in ("fused", *ROWWISE):
            raise UsageError(
                f"{self.kind}.head={self.head}: trains in one process; give exact or sharded for several"
            )
        if self.cutmix and sample.x.ndim != 4:
            raise UsageError(f"{self.kind}.cutmix={self.cutmix}: cuts images, {world.kind} has rows of other kinds")

    def _network(self) -> Network:
        return OnSphere(network=self.network) if self.unit_features else self.network

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        modules = super()._build(shape, world, rng)
        classes = count_of(world, "index", self.classes, self.kind)
        modules["head"] = self._head(classes, world, rng)
        return modules

    def _head(self, classes: int, world: Any, rng: Stream) -> IndexHead:
        width, draw = self.width, rng.child("head")
        if parallel.ranks() > 1 and self.head in ("fused", *ROWWISE):
            raise UsageError(
                f"{self.kind}.head={self.head}: trains in one process; give exact or sharded for several"
            )
        lrs = [self.head_rate * self.rate(step) for step in range(self.steps)]
        if self.store is not None:
            whose = digest([self.as_dict(), world.digest, rng.number])[:16]
            negatives = self.negatives if self.head == "sampled" else 0
            return StoredHead(Path(self.store) / whose, classes, width, draw, lrs, self.weight_decay, negatives)
        if self.head == "low_rank":
            require_memory(self.kind, classes, self.rank)
            projection = drawn(self.rank, width, draw.child("projection"))
            return LowRankHead(drawn(classes, self.rank, draw), projection)
        if self.head == "grouped":
            require_memory(self.kind, self.groups, width)
            return GroupedHead(drawn(self.groups, width, draw), classes, draw)
        begin, end = parallel.share(classes) if self.head == "sharded" else (0, classes)
        require_memory(self.kind, end - begin, width, 4 if self.head == "exact" else 3)
        weights = drawn(classes, width, draw, begin, end)
        if self.head == "exact":
            return IndexHead(weights)
        if self.head == "fused":
            return FusedHead(weights, lrs, self.weight_decay)
        if self.head == "sharded":
            return ShardedHead(weights, lrs, self.weight_decay, classes)
        return RowHead(weights, lrs, self.weight_decay, self.negatives if self.head == "sampled" else 0)

    def _objective(
        self, modules: nn.ModuleDict, batch: Sample, rng: Stream
    ) -> tuple[Tensor, Tensor, Mapping[str, Any]]:
        x, y, shares = self._mixed(self._view(batch.x, rng), batch.index, rng.child(f"mix {parallel.rank()}"))
        h = self._run(modules["encoder"], x)
        loss, excess = cast(IndexHead, modules["head"]).loss(self.beta * h, y, self.smoothing, shares, rng)
        return loss, h, {"excess": excess}

    def _drawn(self, modules: nn.ModuleDict, shape: tuple[int, ...]) -> list[str]:
        mixed = ["mixed rows"] if self.mix_share and (self.mixup or self.cutmix) else []
        return [*super()._drawn(modules, shape), *mixed]

    def _mixed(self, x: Tensor, y: Tensor, rng: Stream) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows, labels [n] or [n, 2] and, of mixed ones, shares [n, 2]."""
        ways = [(way, alpha) for way, alpha in ((mixup, self.mixup), (cutmix, self.cutmix)) if alpha]
        draw = rng.numpy()
        if not ways or draw.random() >= self.mix_share:
            return x, y, None
        way, alpha = ways[draw.integers(len(ways))]
        return way(x, y, alpha, rng.child("rows"))

    def _after_step(self, modules: nn.ModuleDict, step: int) -> None:
        cast(IndexHead, modules["head"]).stepped()

    def _parts(self, modules: nn.ModuleDict) -> Mapping[str, Tensor]:
        own = {**cast(IndexHead, modules["head"]).parts(), "beta": torch.tensor(self.beta)}
        probe = modules["probe"].state_dict() if self.online else {}
        return {**own, **{f"probe.{name}": tensor for name, tensor in probe.items()}}

    def _take(self, modules: nn.ModuleDict, start: Representation) -> None:
        super()._take(modules, start)
        cast(IndexHead, modules["head"]).take(start.parts)
