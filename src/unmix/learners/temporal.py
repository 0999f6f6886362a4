"""Learners that tell real context from broken context: time-contrastive, permutation-contrastive, generalised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners.base import Learner, count_of
from unmix.learners.contrastive import Paired, pairs
from unmix.learners.labels import UNKNOWN, check_labels
from unmix.learners.losses import gcl, pcl, tcl
from unmix.learners.parallel import gathered


class TimeContrastive(Learner):
    """Time-contrastive learning: a linear head tells in which segment of a series a row lies.

    segments: number of segments. length: rows of a segment; the segment of a row is time // length, and later rows
    belong to the last one. The parts are weights [segments, width] and bias [segments]. Up to a linear map h recovers
    the statistics that differ between segments, such as the squares of sources whose scales differ.
    """

    equation: ClassVar[str] = "L = mean -log softmax(W h(x_t) + b)_{segment of t}"
    reference: ClassVar[str] = "Hyvarinen, Morioka 2016, arXiv 1605.06336"
    needs: ClassVar[frozenset[str]] = frozenset({"x", "time"})

    segments: int = Field(ge=2)
    length: int = Field(ge=1)

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        head = nn.Linear(self.width, self.segments, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            head.weight.copy_(torch.randn(head.weight.shape, generator=rng.child("head").torch()) / self.width**0.5)
            head.bias.zero_()
        return nn.ModuleDict({"encoder": self._network().build(shape, self.width, rng), "head": head})

    def _loss(self, modules: nn.ModuleDict, batch: Sample, rng: Stream) -> tuple[Tensor, Mapping[str, Any]]:
        h, head = self._run(modules["encoder"], batch.x), cast(nn.Linear, modules["head"])
        segment = (batch.time // self.length).clamp(max=self.segments - 1)
        return tcl(h, head.weight, head.bias, segment), {}

    def _parts(self, modules: nn.ModuleDict) -> Mapping[str, Tensor]:
        head = cast(nn.Linear, modules["head"])
        return {"weights": head.weight, "bias": head.bias}

    def _take(self, modules: nn.ModuleDict, start: Any) -> None:
        super()._take(modules, start)
        for name, own in self._parts(modules).items():
            if name in start.parts and start.parts[name].shape == own.shape:
                own.copy_(start.parts[name])


class Components(nn.Module):
    """A small network for each component: values [n, d] from h [n, d] and u [n, k] or [n, d, k], one hidden layer.

    Component i sees h_i and u only, so that r is a sum over components, as the theory asks.
    """

    def __init__(self, width: int, inputs: int, units: int, rng: Stream) -> None:
        super().__init__()
        draw = rng.torch()
        self.first = nn.Parameter(torch.randn(width, 1 + inputs, units, generator=draw) / (1 + inputs) ** 0.5)
        self.shift = nn.Parameter(torch.randn(width, units, generator=draw))
        self.last = nn.Parameter(torch.randn(width, units, generator=draw) / units**0.5)
        self.offset = nn.Parameter(torch.zeros(width))

    def forward(self, h: Tensor, u: Tensor) -> Tensor:
        """[n, d]."""
        if u.ndim == 2:
            u = u.unsqueeze(1).expand(-1, h.shape[1], -1)
        hidden = torch.einsum("ndi,dik->ndk", torch.cat([h.unsqueeze(2), u], 2), self.first) + self.shift
        return (functional.leaky_relu(hidden, 0.1) * self.last).sum(2) + self.offset


class PermutationContrastive(Paired):
    """Permutation-contrastive learning: tells a row and the one before it from a row and a random one of the batch.

    units: hidden units of each component's comparison of its two values.
    """

    equation: ClassVar[str] = (
        "r(x, x') = sum_i B_i(h_i(x), h_i(x')),  logistic regression: (x_t, x_{t-1}) or (x_t, x_s)"
    )
    reference: ClassVar[str] = "Hyvarinen, Morioka 2017, Nonlinear ICA of temporally dependent stationary sources"

    units: int = Field(default=32, ge=1)
    head_rate: float = Field(default=5.0, gt=0)

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        modules = super()._build(shape, world, rng)
        modules["components"] = Components(self.width, 1, self.units, rng.child("components"))
        return modules

    def _compare(
        self, modules: nn.ModuleDict, anchors: Tensor, positives: Tensor, rng: Stream
    ) -> tuple[Tensor, Mapping[str, Any]]:
        return pcl(positives, anchors, _order(len(anchors), rng, anchors.device), modules["components"]), {}


class GeneralisedContrastive(Learner):
    """Generalised contrastive learning: tells a row with its own auxiliary value from a row with another's.

    auxiliary: y (a label, one-hot) or previous (the observation before, in a world of sequences). classes: number of
    labels; None asks the world. units: hidden units of each component's function of its value and the auxiliary one.
    """

    equation: ClassVar[str] = "r(x, u) = sum_i psi_i(h_i(x), u),  logistic regression: (x, u) or (x, u*)"
    reference: ClassVar[str] = "Hyvarinen, Sasaki, Turner 2019, arXiv 1805.08651"
    needs: ClassVar[frozenset[str]] = frozenset({"x", "y"})
    couples: ClassVar[bool] = True

    auxiliary: Literal["y", "previous"] = "y"
    classes: int | None = Field(default=None, ge=2)
    units: int = Field(default=32, ge=1)
    head_rate: float = Field(default=5.0, gt=0)

    def _needed(self) -> frozenset[str]:
        return self.needs if self.auxiliary == "y" else frozenset({"x", "group", "time"})

    def _check(self, world: Any, sample: Sample) -> None:
        super()._check(world, sample)
        if self.auxiliary == "y":
            check_labels(world, count_of(world, "y", self.classes, self.kind), self.kind)
            labels = getattr(world, "row_labels", None)
            if labels is not None and (labels == UNKNOWN).any():
                raise UsageError(
                    f"{self.kind}: {(labels == UNKNOWN).sum()} rows have no label; it needs one for each"
                )

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        if self.auxiliary == "y":
            inputs = count_of(world, "y", self.classes, self.kind)
        else:
            inputs = int(torch.Size(shape).numel())
        components = Components(self.width, inputs, self.units, rng.child("components"))
        return nn.ModuleDict({"encoder": self._network().build(shape, self.width, rng), "components": components})

    def _loss(self, modules: nn.ModuleDict, batch: Sample, rng: Stream) -> tuple[Tensor, Mapping[str, Any]]:
        h = self._run(modules["encoder"], batch.x)
        if self.auxiliary == "y":
            u = self._one_hot(batch.y, cast(Components, modules["components"]).first.shape[1] - 1)
        else:
            first = pairs(batch)
            h, u = h[first + 1], batch.x[first].flatten(1)
        h, u = gathered(h), gathered(u)
        return gcl(h, u, _order(len(h), rng, h.device), modules["components"]), {}

    def _one_hot(self, y: Tensor, classes: int) -> Tensor:
        low, high = (int(end) for end in torch.aminmax(y))
        if low < 0 or high >= classes:
            raise UsageError(f"{self.kind}: labels {low} to {high}, there are {classes} classes; they count from 0")
        return functional.one_hot(y, classes).float()


def _order(n: int, rng: Stream, device: torch.device) -> Tensor:
    """A permutation that breaks the pairs: the same in every process."""
    return torch.randperm(n, generator=rng.child("order").torch()).to(device)
