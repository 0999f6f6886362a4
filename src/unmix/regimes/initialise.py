"""Initialisation recipes: where a network's scale sits before it learns."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe
from unmix.regimes.balance import Report, balance, scale_layers, symmetrise
from unmix.regimes.probes import Probe


class Initialisation(Recipe):
    """Changes the weights of a freshly built module in place; its one verb is `apply`.

    pairs: of layers, by hand and instead of those that are found: FIRST -> SECOND, then maybe a kind and heads, such
    as "block.q -> block.k query-key 4".
    """

    reference: ClassVar[str] = "Kunin et al. 2024, arXiv 2406.06158"

    pairs: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values; without `pairs` where none is given."""
        # Digests from before pairs could be given stay what they were.
        return {name: value for name, value in super().as_dict().items() if name != "pairs" or value}

    def apply(self, module: nn.Module, probe: Probe = None) -> Report:
        """Rescale the module's weights in place; the report says what was moved, what was left and why, and can undo.

        probe: what to run the module on, to see that the function is kept; made from what its layers take where none
        is given. No global random number is drawn. Raises `UsageError` where nothing in the module can be rescaled
        or it cannot be run; its weights are then as they were.
        """
        return self._apply(module, probe)

    @abstractmethod
    def _apply(self, module: nn.Module, probe: Probe) -> Report: ...


class Upstream(Initialisation):
    """A small first layer, which then learns faster: rich learning with little motion of the weights.

    alpha: above 1; first layers over alpha, what follows times alpha, so that the function at the start is kept.
    layers: "pairs" for every pair of layers with homogeneous units between; "first" for the first linear or
    convolutional layer, "embeddings" or "convolutions" alone, without compensation: the function changes.
    """

    equation: ClassVar[str] = "w <- w / alpha, a <- a alpha, alpha > 1"

    alpha: float = Field(default=10.0, gt=1)
    layers: Literal["pairs", "first", "embeddings", "convolutions"] = "pairs"

    def _apply(self, module: nn.Module, probe: Probe) -> Report:
        return _scaled(module, self.alpha, self.layers, self.pairs or None, probe)


class Downstream(Initialisation):
    """A large first layer, which then learns slower: lazy at first, rich with a delay.

    alpha: above 1; first layers times alpha, what follows over alpha. layers: as in `Upstream`.
    """

    equation: ClassVar[str] = "w <- w alpha, a <- a / alpha, alpha > 1"

    alpha: float = Field(default=10.0, gt=1)
    layers: Literal["pairs", "first", "embeddings", "convolutions"] = "pairs"

    def _apply(self, module: nn.Module, probe: Probe) -> Report:
        return _scaled(module, 1 / self.alpha, self.layers, self.pairs or None, probe)


class Balanced(Initialisation):
    """The same balance for every unit, keeping the function; zero is balanced.

    delta: what |outgoing|^2 - |incoming|^2 of each unit becomes; positive is upstream. symmetric: first make the
    outputs zero by pairs of units with opposite signs (the kernel is not zero).
    """

    equation: ClassVar[str] = "r^2 = [delta + sqrt(delta^2 + 4 |a|^2 |w|^2)] / (2 |a|^2), w <- w / r, a <- a r"

    delta: float = 0.0
    symmetric: bool = False

    def _apply(self, module: nn.Module, probe: Probe) -> Report:
        if not self.symmetric:
            return balance(module, delta=self.delta, pairs=self.pairs or None, probe=probe)
        first = symmetrise(module, probe)
        try:
            report = balance(module, delta=self.delta, pairs=self.pairs or None, probe=probe)
        except BaseException:
            first.undo(module)
            raise
        report.before, report.preserved = first.before, False
        report.notes = (*first.notes, *report.notes)
        for name, (before, after) in first.kept.items():
            report.kept[name] = (before, report.kept.get(name, (before, after))[1])
        return report


def _scaled(module: nn.Module, alpha: float, layers: str, pairs: tuple[str, ...] | None, probe: Probe) -> Report:
    if layers == "pairs":
        return balance(module, alpha=alpha, pairs=pairs, probe=probe)
    if pairs:
        raise UsageError(f"layers={layers}: scales layers alone; pairs given by hand need layers=pairs")
    plain = (nn.Linear, nn.Conv1d, nn.Conv2d)
    kinds = {"first": plain, "embeddings": (nn.Embedding,), "convolutions": (nn.Conv1d, nn.Conv2d)}[layers]
    return scale_layers(module, alpha, kinds, first=layers == "first")
