"""Learners that compare pairs of a batch: InfoNCE and anisotropic InfoNCE."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners.base import Learner
from unmix.learners.loop import moved
from unmix.learners.losses import Similarity, anisotropic_info_nce, info_nce
from unmix.learners.parallel import gathered
from unmix.networks.base import Network
from unmix.networks.wrapped import OnSphere


def pairs(batch: Sample) -> Tensor:
    """Numbers [p] of the rows whose next row is the next time of the same sequence.

    Raises `UsageError` where there is none.
    """
    follows = (batch.group[1:] == batch.group[:-1]) & (batch.time[1:] > batch.time[:-1])
    first = follows.nonzero()[:, 0]
    if not len(first):
        raise UsageError(
            "pairs: no two rows of one group follow each other; give a world of sequences, a larger batch"
        )
    return first


class Paired(Learner):
    """A learner of pairs: a row and the next one of its sequence. A subclass writes `_compare`.

    All other pairs of the batch are negatives. It needs a world of sequences (`group` and `time`).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"x", "group", "time"})
    couples: ClassVar[bool] = True

    def _check(self, world: Any, sample: Sample) -> None:
        super()._check(world, sample)
        if (count := len(pairs(moved(sample, "cpu")))) < 2:
            raise UsageError(f"{self.kind}.batch={self.batch}: holds {count} pair; others are what it is told from")

    def _loss(self, modules: nn.ModuleDict, batch: Sample, rng: Stream) -> tuple[Tensor, Mapping[str, Any]]:
        first = pairs(batch)
        h = self._run(modules["encoder"], batch.x)
        return self._compare(modules, gathered(h[first]), gathered(h[first + 1]), rng)

    @abstractmethod
    def _compare(
        self, modules: nn.ModuleDict, anchors: Tensor, positives: Tensor, rng: Stream
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Loss and facts of features [n, d] of pairs, those of all processes."""

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": self._network().build(shape, self.width, rng)})


class _Positive(nn.Module):
    """A positive number, or one for each column, kept as its logarithm."""

    def __init__(self, value: float, width: int | None, learn: bool) -> None:
        super().__init__()
        logs = torch.full(() if width is None else (width,), math.log(value))
        self.log = nn.Parameter(logs, requires_grad=learn)

    def forward(self) -> Tensor:
        return self.log.exp()


class InfoNCE(Paired):
    """InfoNCE on pairs, with the similarity that fits how a pair's latents differ.

    similarity: vmf (inner product, features on the sphere), normal or laplace (distances, free features). beta:
    inverse temperature to begin with. learn_beta: whether it is learnt. symmetric: whether both rows of a pair are
    anchors. The result's part is beta ().
    """

    equation: ClassVar[str] = "L = -mean_i log [ exp(beta s(h_i, h'_i)) / sum_j exp(beta s(h_i, h'_j)) ]"
    reference: ClassVar[str] = "van den Oord et al. 2018, arXiv 1807.03748; Zimmermann et al. 2021, arXiv 2102.08850"

    similarity: Similarity = "vmf"
    beta: float = Field(default=1.0, gt=0)
    learn_beta: bool = True
    symmetric: bool = True

    def _network(self) -> Network:
        return OnSphere(network=self.network) if self.similarity == "vmf" else self.network

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        modules = super()._build(shape, world, rng)
        modules["beta"] = _Positive(self.beta, None, self.learn_beta)
        return modules

    def _compare(
        self, modules: nn.ModuleDict, anchors: Tensor, positives: Tensor, rng: Stream
    ) -> tuple[Tensor, Mapping[str, Any]]:
        beta = modules["beta"]()
        return info_nce(anchors, positives, self.similarity, beta, self.symmetric), {"beta": beta.detach()}

    def _parts(self, modules: nn.ModuleDict) -> Mapping[str, Tensor]:
        return {"beta": modules["beta"]()}

    def _take(self, modules: nn.ModuleDict, start: Any) -> None:
        super()._take(modules, start)
        if "beta" in start.parts:
            cast(_Positive, modules["beta"]).log.copy_(start.parts["beta"].log())


class AnisotropicInfoNCE(Paired):
    """InfoNCE with a learnt diagonal metric, for pairs whose latents change by unlike amounts.

    Features lie on the sphere. metric: its entries to begin with. symmetric: whether both rows of a pair are anchors.
    The result's part is metric [width].
    """

    equation: ClassVar[str] = "L = -mean_i log softmax_j(-(h_i - h'_j)^T Lambda (h_i - h'_j))_i,  Lambda diagonal > 0"
    reference: ClassVar[str] = "Rusak et al. 2024, arXiv 2407.00143"

    metric: float = Field(default=1.0, gt=0)
    symmetric: bool = True

    def _network(self) -> Network:
        return OnSphere(network=self.network)

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        modules = super()._build(shape, world, rng)
        modules["metric"] = _Positive(self.metric, self.width, True)
        return modules

    def _compare(
        self, modules: nn.ModuleDict, anchors: Tensor, positives: Tensor, rng: Stream
    ) -> tuple[Tensor, Mapping[str, Any]]:
        metric = modules["metric"]()
        least, most = metric.detach().aminmax()
        return anisotropic_info_nce(anchors, positives, metric, self.symmetric), {"least": least, "most": most}

    def _parts(self, modules: nn.ModuleDict) -> Mapping[str, Tensor]:
        return {"metric": modules["metric"]()}

    def _take(self, modules: nn.ModuleDict, start: Any) -> None:
        super()._take(modules, start)
        own = cast(_Positive, modules["metric"]).log
        if "metric" in start.parts and start.parts["metric"].shape == own.shape:
            own.copy_(start.parts["metric"].log())
