"""Whether scale can be moved between two layers: tried on copies of the model with other weights of the same form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.regimes.jacobian import Forward
from unmix.regimes.paths import Run, recorded
from unmix.regimes.probes import Probe, found_input
from unmix.regimes.running import ROUNDING, copied, difference, first_line, precision, real_numbers
from unmix.regimes.sides import ATTENTION, inputs_of, obstacle, outputs_of, shared, sides

if TYPE_CHECKING:
    from unmix.regimes.pairs import Pair

SPREAD = {
    torch.float64: 40,
    torch.float32: 20,
}  # powers of two that trial factors go up and down; 2 in half precision
CHANGED = "the outputs change: its weights are used elsewhere too, or what lies between mixes or bends its units"
HEADS = "the model's output changes: its heads lie otherwise than by their names"
TRIED = 1e-9  # change of an output in float64 beside its size, which rounding stays below


class Trial:
    """A model and an input to run it on; everything is done to copies.

    Units that are off and read-outs that start at zero hide what scale does to the outputs, so the copies that pairs
    are tried on have other weights of like size. Factors are powers of two of a wide spread: no product with them is
    rounded, and limits such as that of ReLU6 are met.
    """

    def __init__(self, model: nn.Module, probe: Probe = None, forward: Forward | None = None) -> None:
        self.model, self.input = model, found_input(model, probe, forward)
        self.shared = shared(model)
        self.dtype: torch.dtype | None = torch.float64
        self._draw = Stream(0).child("balance").torch()
        try:
            self.base = self._varied(torch.float64)
            self.before = self._outputs(self.base)
        except Exception:  # a model that makes numbers of its own type inside cannot be run in another
            self.dtype = None
            self.base = self._varied(None)
            self.before = self._outputs(self.base)
        self.tried = TRIED if self.dtype else ROUNDING.get(precision(model), 1e-3) / 100
        if difference(self.before, self._outputs(self.base)) > self.tried:
            raise UsageError("model: two runs on the same input differ, so that nothing can be compared")

    def record(self) -> Run:
        """What follows what in the model."""
        self.run = recorded(copied(self.base), self.input, self.dtype)
        return self.run

    def now(self) -> list[Tensor]:
        """The model's outputs as its weights are, in its own precision: in evaluation mode and in its own."""
        return self.input.outputs(copied(self.model), self.model)

    def changed(self, before: list[Tensor], after: list[Tensor]) -> bool:
        """Whether two of these differ by more than rounding."""
        one, two, typical = real_numbers(before), real_numbers(after), real_numbers(self.before)
        return not difference(one, two, typical) <= ROUNDING.get(precision(self.model), 1e-3)

    def holds(self, pairs: Sequence[Pair]) -> bool:
        """Whether the outputs stay when scale is moved through all of the pairs at once, at random for each unit."""
        twin, self.trouble = copied(self.base), ""
        spread = SPREAD.get(precision(twin), 2)
        try:
            for pair in pairs:
                both = sides(twin, pair)
                powers = torch.randint(-spread, spread + 1, (both.units,), generator=self._draw)
                both.scale(torch.ldexp(torch.ones(both.units, dtype=torch.float64), powers))
            return difference(self.before, self._outputs(twin)) <= self.tried
        except Exception as error:  # whatever a foreign module raises on other weights
            self.trouble = f"it could not be tried ({first_line(error)})"
            return False

    def failing(self, pairs: Sequence[Pair]) -> list[tuple[Pair, str]]:
        """The pairs that do not hold, found by halving, each with what was raised on it if anything was."""
        if not pairs or self.holds(pairs):
            return []
        if len(pairs) == 1:
            return [(pairs[0], self.trouble)]
        half = len(pairs) // 2
        return [*self.failing(pairs[:half]), *self.failing(pairs[half:])]

    def forbidden(self, pair: Pair) -> str:
        """Why a pair cannot be moved whatever lies between its layers, or nothing."""
        for name in dict.fromkeys((pair.first, pair.second)):
            if why := obstacle(self.model, name):
                return why
        try:
            tensors = sides(self.model, pair).tensors()
        except UsageError:
            return "the inputs of the second are not units of the first"
        for name in dict.fromkeys((pair.first, pair.second)):
            for part, held in self.model.get_submodule(name).named_parameters():
                others = {n for n in self.shared.get(id(held), ()) if n != f"{name}.{part}".strip(".")}
                if others and any(held is tensor for tensor in tensors):
                    return f"{name} shares its weights with {min(others)}"
        if pair.first == pair.second and pair.kind == "units":
            return f"{pair.first} is used {self.run.calls.get(pair.first, 0)} times and follows itself"
        return ""

    def felt(self, pair: Pair) -> bool:
        """Whether the outputs depend on both sides of a pair at this input."""
        names = {id(p): name for name, p in self.model.named_parameters()}
        both = sides(self.model, pair)
        return all(
            any(names.get(id(part.tensor)) in self.run.felt for part in parts)
            for parts in (both.incoming, both.outgoing)
        )

    def judged(self, pairs: Sequence[Pair], reasons: dict[int, tuple[str, bool]]) -> list[Pair]:
        """The pairs, legal where they hold, or with the reason; reasons: what was met between, and whether scale
        cannot pass there for sure, by the place of a pair.
        """
        made = list(pairs)
        for place, pair in enumerate(made):
            met, hopeless = reasons.get(place, ("", False))
            why = self.forbidden(pair) or (met if hopeless else "")
            if not why and not self.felt(pair):
                why = "the outputs do not depend on it at this input"
            made[place] = replace(pair, legal=not why, why=why)
        failed = {id(pair): trouble for pair, trouble in self.failing([pair for pair in made if pair.legal])}
        for place, pair in enumerate(made):
            if id(pair) not in failed:
                continue
            turned = replace(pair, interleaved=True)
            if self._several(pair) and self.holds([turned]):
                made[place] = turned
                continue
            why = HEADS if pair.kind in ATTENTION else reasons.get(place, ("", False))[0] or CHANGED
            made[place] = replace(pair, legal=False, why=failed[id(pair)] or why)
        return made

    def _several(self, pair: Pair) -> bool:
        """Whether the second layer takes several numbers for each unit of the first."""
        layers = (self.model.get_submodule(pair.first), self.model.get_submodule(pair.second))
        return pair.kind not in ATTENTION and inputs_of(layers[1]) > outputs_of(layers[0])

    def _outputs(self, base: nn.Module) -> list[Tensor]:
        return self.input.outputs(copied(base), self.model, self.dtype)

    def _varied(self, dtype: torch.dtype | None) -> nn.Module:
        twin = copied(self.model, dtype)
        with torch.no_grad():
            for parameter in twin.parameters():
                if not parameter.is_floating_point() or parameter.layout != torch.strided:
                    continue
                wide = parameter.double().cpu()
                size = float(wide.square().mean().sqrt()) if wide.numel() else 0.0
                noise = torch.randn(wide.shape, generator=self._draw, dtype=torch.float64)
                near = torch.where(wide == 0, 0.3 * (size or 0.3) * noise, wide * torch.exp(0.3 * noise))
                parameter.copy_(near)
        return twin
