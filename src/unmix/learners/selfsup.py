"""Learners that compare two augmented views of each datum: SimCLR and Barlow Twins."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners.parallel import gathered
from unmix.learners.views import ViewLearner
from unmix.networks.mlp import MLP


class TwoViews(ViewLearner):
    """A learner of two views of each row, compared after a projector that is dropped. A subclass writes `_compare`.

    hidden: units of the projector's hidden layers. projection: its number of outputs.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"x"})
    couples: ClassVar[bool] = True

    hidden: tuple[int, ...] = (256,)
    projection: int = Field(128, ge=2)

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        if self.augment is None or (self.augment == "auto" and len(shape) != 3):
            raise UsageError(
                f"{self.kind}.augment: two views must differ; give augment=Noise for rows that are no images"
            )
        modules = super()._build(shape, world, rng)
        projector = MLP(hidden=self.hidden, activation="relu")
        modules["projector"] = projector.build((self.width,), self.projection, rng.child("projector"))
        return modules

    def _objective(
        self, modules: nn.ModuleDict, batch: Sample, rng: Stream
    ) -> tuple[Tensor, Tensor, Mapping[str, Any]]:
        # One pass through the network: both views share the statistics of its norms.
        both = torch.cat([self._view(batch.x, rng.child(name)) for name in ("first", "second")])
        h = self._run(modules["encoder"], both)
        first, second = (gathered(part) for part in self._run(modules["projector"], h).chunk(2))
        if len(first) < 2:
            raise UsageError(f"{self.kind}: needs a batch of at least 2 rows")
        loss, facts = self._compare(first, second)
        return loss, h[: len(batch)], facts

    @abstractmethod
    def _compare(self, first: Tensor, second: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        """Loss and facts of projections [n, projection] of the two views, those of all processes."""


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """L = mean over all 2n views of -log [ exp(s(a, p) / t) / sum over the other 2n - 1 views ], s the cosine.

    first, second: [n, d], row i of one the other view of row i. Source: Chen et al. 2020, arXiv 2002.05709.
    """
    z = functional.normalize(torch.cat([first, second]))
    logits = z @ z.T / temperature
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(first))
    return functional.cross_entropy(logits, partner)


def barlow_twins(first: Tensor, second: Tensor, off_diagonal: float) -> Tensor:
    """L = sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2, C the correlations of columns between views.

    first, second: [n, d]. Source: Zbontar et al. 2021, arXiv 2103.03230.
    """
    a, b = ((z - z.mean(0)) / z.std(0, unbiased=False).clamp_min(1e-5) for z in (first, second))
    correlations = a.T @ b / len(a)
    diagonal = correlations.diagonal()
    rest = correlations.square().sum() - diagonal.square().sum()
    return (1 - diagonal).square().sum() + off_diagonal * rest


class SimCLR(TwoViews):
    """SimCLR: the other view of a datum is told from all other views of the batch by its cosine.

    temperature: of the softmax.
    """

    equation: ClassVar[str] = "L = -mean log [ exp(cos(z, z') / t) / sum_k exp(cos(z, z_k) / t) ]"
    reference: ClassVar[str] = "Chen et al. 2020, arXiv 2002.05709"

    temperature: float = Field(0.5, gt=0)

    def _compare(self, first: Tensor, second: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        return nt_xent(first, second, self.temperature), {}


class BarlowTwins(TwoViews):
    """Barlow Twins: columns agree between two views and do not depend on one another.

    off_diagonal: weight of the correlations between unlike columns.
    """

    equation: ClassVar[str] = "L = sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2"
    reference: ClassVar[str] = "Zbontar et al. 2021, arXiv 2103.03230"

    off_diagonal: float = Field(5e-3, ge=0)

    def _compare(self, first: Tensor, second: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        return barlow_twins(first, second, self.off_diagonal), {}
