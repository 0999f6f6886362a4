"""Classification of augmented views: what learners without labels are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from pydantic import Field
from torch import Tensor, nn

from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners.base import count_of
from unmix.learners.labels import check_labels, labelled_cross_entropy
from unmix.learners.supervised import Head
from unmix.learners.views import ViewLearner


class SupervisedViews(ViewLearner):
    """A network and a linear head trained to tell the label y from one augmented view, on the terms of `Diet`.

    smoothing: of the targets. Rows whose label is -1 are left out. The result's parts are weights [C, width], beta ()
    and bias [C].
    """

    equation: ClassVar[str] = "L = mean -log softmax(W f(T(x)) + b)_y"
    reference: ClassVar[str] = "He, Zhang, Ren, Sun 2015, arXiv 1512.03385"
    needs: ClassVar[frozenset[str]] = frozenset({"x", "y"})
    label: ClassVar[str] = "y"

    smoothing: float = Field(default=0.0, ge=0, lt=1)

    def _check(self, world: Any, sample: Sample) -> None:
        super()._check(world, sample)
        check_labels(world, count_of(world, "y", None, self.kind), self.kind)

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        modules = super()._build(shape, world, rng)
        classes = count_of(world, "y", None, self.kind)
        modules["head"] = Head(classes, self.width, False, 1.0, False, True, rng.child("head"))
        return modules

    def _objective(
        self, modules: nn.ModuleDict, batch: Sample, rng: Stream
    ) -> tuple[Tensor, Tensor, Mapping[str, Any]]:
        h = self._run(modules["encoder"], self._view(batch.x, rng))
        logits = modules["head"](h)
        loss, right = labelled_cross_entropy(logits, batch.y, self.smoothing)
        return loss, h, {"accuracy": right}

    def _parts(self, modules: nn.ModuleDict) -> Mapping[str, Tensor]:
        probe = modules["probe"].state_dict() if self.online else {}
        return {**cast(Head, modules["head"]).parts(), **{f"probe.{name}": tensor for name, tensor in probe.items()}}

    def _take(self, modules: nn.ModuleDict, start: Any) -> None:
        super()._take(modules, start)
        cast(Head, modules["head"]).take(start.parts)
