"""DIET: the number of each datum is its label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners import parallel
from unmix.learners.base import _first, count_of
from unmix.learners.heads import FusedHead, IndexHead, RowHead, require_memory
from unmix.learners.loop import moved
from unmix.learners.representation import Representation
from unmix.learners.views import ViewLearner
from unmix.networks.base import Network
from unmix.networks.wrapped import OnSphere


class Diet(ViewLearner):
    """DIET: a network and a linear head trained to tell from one augmented view which datum it is of.

    smoothing: eps of the targets. unit_features: features on the sphere. beta: factor on the features before the
    head, which has no bias. mixup: parameter of the Beta distribution of mixed pairs of rows with mixed targets; 0
    for none. classes: number of data N; None asks the world. head: exact (by chunks of classes), fused (the same,
    moved in the backward pass: no gradient [N, d], AdamW only), batch (softmax over the labels of the batch alone,
    each once; another loss, whose rows move lazily as dense AdamW would move them), or sampled (batch and `negatives`
    more rows at random: an approximation of exact). negatives: of sampled. The result's parts are weights [N, width]
    and beta ().
    Raises `UsageError` for a head that moves itself with another optimiser, slices of a batch, or several processes.
    """

    equation: ClassVar[str] = "L = mean CE_eps(beta W f(T(x_n)), n),  target (1 - eps) e_n + eps / N"
    reference: ClassVar[str] = "Ibrahim et al. 2023, arXiv 2302.10260"
    needs: ClassVar[frozenset[str]] = frozenset({"x", "index"})
    label: ClassVar[str] = "index"

    smoothing: float = Field(0.8, ge=0, lt=1)
    unit_features: bool = False
    beta: float = Field(1.0, gt=0)
    mixup: float = Field(0.0, ge=0)
    classes: int | None = Field(None, ge=2)
    head: Literal["exact", "fused", "batch", "sampled"] = "exact"
    negatives: int = Field(4096, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.head != "exact" and self.optimiser != "adamw":
            raise ValueError(f"head={self.head} moves by AdamW; give optimiser=adamw, not {self.optimiser}")
        if self.head != "exact" and (self.accumulate > 1 or self.clip is not None):
            raise ValueError(f"head={self.head} moves in the backward pass; give accumulate=1 and clip=None")
        return self

    def flops(self, world: Any) -> float:
        """Floating-point operations of one step: the network's, counted, and three products of the head."""
        from torch.utils.flop_counter import FlopCounterMode

        stream = Stream(0).child("flops")
        sample = moved(_first(world, self.batch, stream), "cpu")
        encoder = self._network().build(tuple(sample.x.shape[1:]), self.width, stream)
        with FlopCounterMode(display=False) as counter:
            encoder(sample.x).sum().backward()
        rows = count_of(world, "index", self.classes, self.kind)
        if self.head in ("batch", "sampled"):
            rows = min(rows, len(sample) + (self.negatives if self.head == "sampled" else 0))
        return float(counter.get_total_flops()) + 6.0 * len(sample) * rows * self.width

    def _network(self) -> Network:
        return OnSphere(network=self.network) if self.unit_features else self.network

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        modules = super()._build(shape, world, rng)
        classes = count_of(world, "index", self.classes, self.kind)
        if classes < 2:
            raise UsageError(f"{self.kind}: {world.kind} has one datum; there is nothing to tell it from")
        require_memory(self.kind, classes, self.width)
        weights = torch.randn(classes, self.width, generator=rng.child("head").torch()) / math.sqrt(self.width)
        if self.head == "exact":
            modules["head"] = IndexHead(weights)
            return modules
        if parallel.ranks() > 1:
            raise UsageError(f"{self.kind}.head={self.head}: trains in one process; give head=exact for several")
        lrs = [self.head_rate * self.rate(step) for step in range(self.steps)]
        if self.head == "fused":
            modules["head"] = FusedHead(weights, lrs, self.weight_decay)
        else:
            negatives = self.negatives if self.head == "sampled" else 0
            modules["head"] = RowHead(weights, lrs, self.weight_decay, negatives)
        return modules

    def _objective(
        self, modules: nn.ModuleDict, batch: Sample, rng: Stream
    ) -> tuple[Tensor, Tensor, Mapping[str, Any]]:
        x, y, shares = self._view(batch.x, rng), batch.index, None
        if self.mixup:
            draw = rng.child(f"mixup {parallel.rank()}").numpy()
            order = torch.from_numpy(draw.permutation(len(x))).to(x.device)
            share = torch.from_numpy(draw.beta(self.mixup, self.mixup, len(x))).to(x)
            own = share.view(-1, *[1] * (x.ndim - 1))
            x, y = own * x + (1 - own) * x[order], torch.stack([y, y[order]], 1)
            shares = torch.stack([share, 1 - share], 1)
        h = self._run(modules["encoder"], x)
        loss, excess = modules["head"].loss(self.beta * h, y, self.smoothing, shares, rng)
        return loss, h, {} if self.mixup else {"excess": excess}

    def _after_step(self, modules: nn.ModuleDict, step: int) -> None:
        modules["head"].stepped()

    def _parts(self, modules: nn.ModuleDict) -> Mapping[str, Tensor]:
        own = {"weights": modules["head"].settled(), "beta": torch.tensor(self.beta)}
        probe = modules["probe"].state_dict() if self.online else {}
        return {**own, **{f"probe.{name}": tensor for name, tensor in probe.items()}}

    def _take(self, modules: nn.ModuleDict, start: Representation) -> None:
        super()._take(modules, start)
        weights = modules["head"].weights
        if "weights" in start.parts and start.parts["weights"].shape == weights.shape:
            weights.copy_(start.parts["weights"])
