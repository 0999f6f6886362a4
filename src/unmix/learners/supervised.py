"""Classification by a linear head, with labels or the number of each datum; regression on real targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners import parallel
from unmix.learners.base import Learner, _first, count_of
from unmix.learners.labels import UNKNOWN, check_labels, labelled_count
from unmix.learners.loop import moved
from unmix.learners.losses import cross_entropy_head, smoothing_floor
from unmix.learners.representation import Representation
from unmix.networks.base import Network
from unmix.networks.mlp import MLP
from unmix.networks.wrapped import OnSphere


class Head(nn.Module):
    """Weights [C, d] on the sphere or free, inverse temperature exp(log_beta), bias [C] or none."""

    def __init__(
        self, classes: int, width: int, unit: bool, beta: float, learn_beta: bool, bias: bool, rng: Stream
    ) -> None:
        super().__init__()
        drawn = torch.randn(classes, width, generator=rng.torch()) / math.sqrt(width)
        self.raw, self.unit = nn.Parameter(functional.normalize(drawn) if unit else drawn), unit
        self.log_beta = nn.Parameter(torch.tensor(math.log(beta)), requires_grad=learn_beta)
        self.bias = nn.Parameter(torch.zeros(classes)) if bias else None

    @property
    def weights(self) -> Tensor:
        """The weights as they are used."""
        return functional.normalize(self.raw) if self.unit else self.raw

    def forward(self, h: Tensor) -> Tensor:
        """Logits [n, C] of h [n, d]."""
        logits = self.log_beta.exp() * h @ self.weights.T
        return logits if self.bias is None else logits + self.bias

    def parts(self) -> dict[str, Tensor]:
        """weights [C, d], beta () and, where there is one, bias [C]."""
        found = {"weights": self.weights, "beta": self.log_beta.exp()}
        return found if self.bias is None else {**found, "bias": self.bias}

    def take(self, parts: Mapping[str, Tensor]) -> None:
        """Begin from `parts()` of another head where they have the same shape."""
        if "weights" in parts and parts["weights"].shape == self.raw.shape:
            self.raw.copy_(parts["weights"])
        if "beta" in parts:
            self.log_beta.copy_(parts["beta"].log())
        if self.bias is not None and "bias" in parts and parts["bias"].shape == self.bias.shape:
            self.bias.copy_(parts["bias"])


class Supervised(Learner):
    """A network and a linear head trained to predict the label y by cross-entropy.

    classes: number of labels C; None asks the world. unit_features, unit_weights: on the sphere or free; the four
    cases of the theory are C1 (both), C2 (features), C3 (weights), C4 (neither). beta: inverse temperature to begin
    with. learn_beta: whether it is learnt. bias: whether the head has one (it absorbs unlike class frequencies).
    smoothing: of the targets. Rows whose label is -1 have none and are left out of the loss. The result's parts are
    weights [C, d], beta () and bias [C].
    """

    equation: ClassVar[str] = "L = mean -log softmax(beta W f(x) + b)_y"
    reference: ClassVar[str] = "Reizinger et al. 2024, arXiv 2410.21869"
    needs: ClassVar[frozenset[str]] = frozenset({"x", "y"})
    label: ClassVar[str] = "y"

    classes: int | None = Field(default=None, ge=2)
    unit_features: bool = False
    unit_weights: bool = False
    beta: float = Field(default=1.0, gt=0)
    learn_beta: bool = True
    bias: bool = False
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    head_rate: float = Field(default=5.0, gt=0)

    def _network(self) -> Network:
        return OnSphere(network=self.network) if self.unit_features else self.network

    def _check(self, world: Any, sample: Sample) -> None:
        super()._check(world, sample)
        classes = count_of(world, self.label, self.classes, self.kind)
        if self.label == "y":
            check_labels(world, classes, self.kind)
        elif classes < 2:
            raise UsageError(f"{self.kind}: {world.kind} has one datum; there is nothing to tell it from")

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        classes = count_of(world, self.label, self.classes, self.kind)
        made = (classes, self.width, self.unit_weights, self.beta, self.learn_beta, self.bias, rng.child("head"))
        return nn.ModuleDict({"encoder": self._network().build(shape, self.width, rng), "head": Head(*made)})

    def _loss(self, modules: nn.ModuleDict, batch: Sample, rng: Stream) -> tuple[Tensor, Mapping[str, Any]]:
        head = cast(Head, modules["head"])
        h = self._run(modules["encoder"], batch.x)
        beta = head.log_beta.exp()
        labels, share = getattr(batch, self.label), 1.0
        known = labels != UNKNOWN
        if not bool(known.all()):
            h, labels, share = h[known], labels[known], known.sum() / labelled_count(known)
        weights, bias, labels = self._rows(head, labels)
        if len(labels):
            loss = share * cross_entropy_head(h, weights, beta, bias, labels, self.smoothing)
        else:
            loss = 0.0 * (h.sum() + weights.sum())
        facts = {"beta": beta.detach()}
        if self.smoothing:
            facts["excess"] = loss.detach() - smoothing_floor(len(weights), self.smoothing)
        return loss, facts

    def _rows(self, head: Head, labels: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Weights and bias of the classes that the softmax is over, and the label of every row among them."""
        return head.weights, head.bias, labels

    def _parts(self, modules: nn.ModuleDict) -> Mapping[str, Tensor]:
        return cast(Head, modules["head"]).parts()

    def _take(self, modules: nn.ModuleDict, start: Representation) -> None:
        super()._take(modules, start)
        cast(Head, modules["head"]).take(start.parts)


class InstanceDiscrimination(Supervised):
    """A network and a linear head trained to predict the number of each datum, so that no labels are needed.

    The head has one row of weights for every datum; the fields are those of `Supervised`, `classes` the number of
    data. Rows of one datum are its augmentations, or draws of its class.
    among: all data, or those of the batch alone, each once. A softmax over the batch costs the same for any number of
    data, and where all are equally frequent its least is at the same logits; with smoothing it is not.
    Raises `UsageError` for among=batch with smoothing, or in several processes.
    """

    equation: ClassVar[str] = "L = mean -log softmax(beta W f(x) + b)_index"
    reference: ClassVar[str] = "Ibrahim et al. 2023, arXiv 2302.10260; Reizinger et al. 2024, arXiv 2410.21869"
    needs: ClassVar[frozenset[str]] = frozenset({"x", "index"})
    label: ClassVar[str] = "index"

    among: Literal["all", "batch"] = "all"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.among == "batch" and self.smoothing:
            raise ValueError(f"smoothing={self.smoothing}: would be over the batch alone; give 0 or among=all")
        return self

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values; `among` came later: the default is left out, so that digests stay."""
        found = super().as_dict()
        return found if self.among == "batch" else {name: found[name] for name in found if name != "among"}

    def _check(self, world: Any, sample: Sample) -> None:
        super()._check(world, sample)
        if self.among == "batch" and len(sample) < 2:
            raise UsageError(f"{self.kind}.batch={self.batch}: among=batch tells rows of a batch apart; give 2")
        if self.among == "batch" and parallel.ranks() > 1:
            raise UsageError(f"{self.kind}.among=batch: every process would have a batch of its own; give among=all")

    def _rows(self, head: Head, labels: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        if self.among == "all":
            return super()._rows(head, labels)
        there, labels = labels.unique(return_inverse=True)
        weights = head.raw[there]
        bias = None if head.bias is None else head.bias[there]
        return functional.normalize(weights) if head.unit else weights, bias, labels


class Regression(Learner):
    """A network trained to predict real targets y by squared error, through a linear head or by itself.

    head: whether a linear head stands between the representation and the targets; without it the representation is
    the prediction, and width must be the number of targets. The result's parts are the head's weight and bias.
    """

    equation: ClassVar[str] = "L = mean |g(f(x)) - y|^2 / 2, g linear or the identity"
    reference: ClassVar[str] = "Gauss 1809; Kunin et al. 2024, arXiv 2406.06158"
    needs: ClassVar[frozenset[str]] = frozenset({"x", "y"})

    head: bool = True

    def _check(self, world: Any, sample: Sample) -> None:
        super()._check(world, sample)
        y = moved(Sample(y=sample.y), "cpu").y
        if not (y.is_floating_point() and bool(torch.isfinite(y).all())):
            raise UsageError(f"Regression: y of {world.kind} must be real and finite; for classes use Supervised")
        if not self.head and self.width != math.prod(y.shape[1:]):
            raise UsageError(f"Regression.width={self.width}: without a head it must be {math.prod(y.shape[1:])}")

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        encoder = self._network().build(shape, self.width, rng)
        if not self.head:
            return nn.ModuleDict({"encoder": encoder})
        targets = math.prod(_first(world, self.batch, rng.child("targets")).y.shape[1:])
        return nn.ModuleDict({"encoder": encoder, "head": MLP(hidden=()).build((self.width,), targets, rng)})

    def _loss(self, modules: nn.ModuleDict, batch: Sample, rng: Stream) -> tuple[Tensor, Mapping[str, Any]]:
        made = self._run(modules["encoder"], batch.x)
        made = modules["head"](made) if self.head else made
        return (made - batch.y.reshape(made.shape)).square().sum(1).mean() / 2, {}
