"""What learners of images share: augmentations, and a probe that is trained beside the network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners import parallel
from unmix.learners.augment import AUGMENTATIONS, Augment
from unmix.learners.base import Learner, count_of
from unmix.learners.labels import check_labels, labelled_cross_entropy
from unmix.networks import NETWORKS
from unmix.networks.resnet import ResNet


def _augmentation(value: Any) -> Any:
    return value if value in (None, "auto") else AUGMENTATIONS.make(value)


class ViewLearner(Learner):
    """A learner of augmented views. A subclass writes `_objective`.

    augment: random views; "auto" is `Augment()` for images and nothing for other rows, None is nothing. online:
    whether a linear probe of the label y is trained beside the network, on features that pass no gradient back; its
    accuracy on training batches is logged as `online`, and the result's parts hold probe.weight and probe.bias; rows
    without a label teach it nothing.
    """

    network: Annotated[Any, BeforeValidator(NETWORKS.make)] = ResNet(channels=16, blocks=(1, 1, 1))
    width: int = Field(default=64, ge=1)
    batch: int = Field(default=256, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    schedule: Literal["constant", "cosine", "warm-cosine", "warm-decay"] = "warm-cosine"
    warm: float = Field(default=0.1, ge=0, lt=1)
    optimiser: Literal["adam", "adamw", "sgd", "muon"] = "adamw"
    weight_decay: float = Field(default=0.05, ge=0)
    augment: Annotated[Any, BeforeValidator(_augmentation)] = "auto"
    online: bool = False

    def _needed(self) -> frozenset[str]:
        return self.needs | {"y"} if self.online else self.needs

    def _check(self, world: Any, sample: Sample) -> None:
        super()._check(world, sample)
        if self.online:
            check_labels(world, count_of(world, "y", None, self.kind), self.kind)

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        modules = nn.ModuleDict({"encoder": self._network().build(shape, self.width, rng)})
        if self.online:
            with torch.random.fork_rng(devices=[]):
                torch.random.manual_seed(rng.child("probe").number)
                modules["probe"] = nn.Linear(self.width, count_of(world, "y", None, self.kind))
        return modules

    def _way(self, shape: tuple[int, ...]) -> Any:
        if self.augment == "auto":
            return Augment() if len(shape) == 3 else None
        return self.augment

    def _drawn(self, modules: nn.ModuleDict, shape: tuple[int, ...]) -> list[str]:
        views = [] if self._way(shape) is None else ["augmented views"]
        return [*super()._drawn(modules, shape), *views]

    def _view(self, x: Tensor, rng: Stream) -> Tensor:
        """One view of every row."""
        augment = self._way(tuple(x.shape[1:]))
        return x if augment is None else augment(x, rng.child(f"view {parallel.rank()}"))

    def _loss(self, modules: nn.ModuleDict, batch: Sample, rng: Stream) -> tuple[Tensor, Mapping[str, Any]]:
        loss, h, facts = self._objective(modules, batch, rng)
        if not self.online:
            return loss, facts
        logits = modules["probe"](h.detach())
        probe, right = labelled_cross_entropy(logits, batch.y[: len(logits)])
        return loss + probe, {"loss": loss.detach(), "online": right, **facts}

    @abstractmethod
    def _objective(
        self, modules: nn.ModuleDict, batch: Sample, rng: Stream
    ) -> tuple[Tensor, Tensor, Mapping[str, Any]]:
        """Loss, features [n, width] of one view of the batch's rows, and facts."""
