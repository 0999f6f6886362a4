"""Learners that compare two views of each datum: SimCLR, Barlow Twins, VICReg, spectral contrastive, BYOL."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners.contrastive import pairs as neighbours
from unmix.learners.losses import spectral_contrastive
from unmix.learners.parallel import gathered
from unmix.learners.representation import Representation
from unmix.learners.view_losses import barlow_twins, byol, nt_xent, vicreg
from unmix.learners.views import ViewLearner
from unmix.networks.mlp import MLP


class Projected(ViewLearner):
    """A learner of two views of each row, which meet after a projector that is dropped.

    pairs: views (two random views of each row) or time (a view of a row and one of the next of its sequence; needs
    `group` and `time`). hidden: units of the projector's hidden layers. projection: its number of outputs, None for
    no projector: the features themselves are compared.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"x"})

    pairs: Literal["views", "time"] = "views"
    hidden: tuple[int, ...] = (256,)
    projection: int | None = Field(default=128, ge=2)

    def _needed(self) -> frozenset[str]:
        return super()._needed() | ({"group", "time"} if self.pairs == "time" else frozenset())

    def _check(self, world: Any, sample: Sample) -> None:
        super()._check(world, sample)
        same = self.augment is None or (self.augment == "auto" and sample.x.ndim != 4)
        if self.pairs == "views" and same:
            raise UsageError(
                f"{self.kind}.augment: two views must differ; give augment=Noise for rows that are no images, or "
                "pairs=time for sequences"
            )

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        modules = super()._build(shape, world, rng)
        modules["projector"] = nn.Identity()
        if self.projection is not None:
            modules["projector"] = self._layers(self.width, rng.child("projector"))
        return modules

    def _layers(self, width: int, rng: Stream) -> nn.Module:
        """Layers from `width` columns to those that are compared."""
        return MLP(hidden=self.hidden, activation="relu").build((width,), self.projection or self.width, rng)

    def _views(self, batch: Sample, rng: Stream) -> tuple[Tensor, Tensor, Tensor]:
        """Observations, and which of their rows are first and which second views."""
        if self.pairs == "time":
            first = neighbours(batch)
            return self._view(batch.x, rng), first, first + 1
        # One pass through the network: both views share the statistics of its norms.
        both = torch.cat([self._view(batch.x, rng.child(name)) for name in ("first", "second")])
        rows = torch.arange(len(both), device=both.device)
        return both, rows[: len(batch)], rows[len(batch) :]


class TwoViews(Projected):
    """A learner whose loss compares all projections of a batch with one another. A subclass writes `_compare`."""

    couples: ClassVar[bool] = True

    def _objective(
        self, modules: nn.ModuleDict, batch: Sample, rng: Stream
    ) -> tuple[Tensor, Tensor, Mapping[str, Any]]:
        x, first, second = self._views(batch, rng)
        h = self._run(modules["encoder"], x)
        z = self._run(modules["projector"], h)
        one, other = gathered(z[first]), gathered(z[second])
        if len(one) < 2:
            raise UsageError(f"{self.kind}: needs a batch of at least 2 pairs")
        return self._compare(one, other), h[: len(batch)], {}

    @abstractmethod
    def _compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Loss of projections [n, projection] of the two views, those of all processes."""


class SimCLR(TwoViews):
    """SimCLR: the other view of a datum is told from all other views of the batch by its cosine.

    temperature: of the softmax.
    """

    equation: ClassVar[str] = "L = -mean log [ exp(cos(z, z') / t) / sum_k exp(cos(z, z_k) / t) ]"
    reference: ClassVar[str] = "Chen et al. 2020, arXiv 2002.05709"

    temperature: float = Field(default=0.5, gt=0)

    def _compare(self, first: Tensor, second: Tensor) -> Tensor:
        return nt_xent(first, second, self.temperature)


class BarlowTwins(TwoViews):
    """Barlow Twins: columns agree between two views and do not depend on one another.

    off_diagonal: weight of the correlations between unlike columns.
    """

    equation: ClassVar[str] = "L = sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2"
    reference: ClassVar[str] = "Zbontar et al. 2021, arXiv 2103.03230"

    off_diagonal: float = Field(default=5e-3, ge=0)

    def _compare(self, first: Tensor, second: Tensor) -> Tensor:
        return barlow_twins(first, second, self.off_diagonal)


class VICReg(TwoViews):
    """VICReg: views agree, every column keeps its variance, and no two columns vary together.

    invariance, variance, covariance: weights of the three.
    """

    equation: ClassVar[str] = "L = lambda mean (z - z')^2 + sum_views mu mean_j max(0, 1 - sd_j) + nu / d sum C_ij^2"
    reference: ClassVar[str] = "Bardes, Ponce, LeCun 2021, arXiv 2105.04906"

    invariance: float = Field(default=25.0, ge=0)
    variance: float = Field(default=25.0, ge=0)
    covariance: float = Field(default=1.0, ge=0)

    def _compare(self, first: Tensor, second: Tensor) -> Tensor:
        return vicreg(first, second, self.invariance, self.variance, self.covariance)


class SpectralContrastive(TwoViews):
    """The spectral contrastive loss: an eigenvector problem of the graph of pairs, learnt by a network.

    Its fields are those of every learner of two views; the eigenvector problem is that of the features themselves
    where projection is None.
    """

    equation: ClassVar[str] = "L = -2 E <z, z'> + E <z, y>^2,  (z, z') a pair, y independent"
    reference: ClassVar[str] = "HaoChen et al. 2021, arXiv 2106.04156"

    def _compare(self, first: Tensor, second: Tensor) -> Tensor:
        return spectral_contrastive(first, second)


class BYOL(Projected):
    """BYOL: a predictor of one view meets the other view in a slow copy of the network; there are no negatives.

    tau: share of itself that the copy keeps in the first step; it rises along a cosine to 1 in the last. The result's
    parts hold projector, predictor and the copy (target.).
    """

    equation: ClassVar[str] = (
        "L = 2 - 2 cos(q(z), z'_slow) + 2 - 2 cos(q(z'), z_slow),  slow <- tau slow + (1 - tau) own"
    )
    reference: ClassVar[str] = "Grill et al. 2020, arXiv 2006.07733"

    tau: float = Field(default=0.99, ge=0, le=1)

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        modules = super()._build(shape, world, rng)
        modules["predictor"] = self._layers(self.projection or self.width, rng.child("predictor"))
        slow = nn.Sequential(copy.deepcopy(modules["encoder"]), copy.deepcopy(modules["projector"]))
        modules["target"] = slow.requires_grad_(False)
        return modules

    def _objective(
        self, modules: nn.ModuleDict, batch: Sample, rng: Stream
    ) -> tuple[Tensor, Tensor, Mapping[str, Any]]:
        x, first, second = self._views(batch, rng)
        h = self._run(modules["encoder"], x)
        made = self._run(modules["predictor"], self._run(modules["projector"], h))
        with torch.no_grad():
            slow = self._run(modules["target"], x)
        loss = byol(made[first], slow[second]) + byol(made[second], slow[first])
        return loss, h[: len(batch)], {}

    def kept(self, step: int) -> float:
        """tau in step `step`, from 0: 1 - (1 - tau) (1 + cos(pi step / steps)) / 2."""
        return 1 - (1 - self.tau) * (1 + math.cos(math.pi * step / self.steps)) / 2

    def _after_step(self, modules: nn.ModuleDict, step: int) -> None:
        own: list[Tensor] = [*modules["encoder"].parameters(), *modules["projector"].parameters()]
        torch._foreach_lerp_([*modules["target"].parameters()], own, 1 - self.kept(step))

    def _take(self, modules: nn.ModuleDict, start: Representation) -> None:
        super()._take(modules, start)
        if not any(name.startswith("target.") for name in start.parts):
            cast(nn.Sequential, modules["target"])[0].load_state_dict(modules["encoder"].state_dict())
