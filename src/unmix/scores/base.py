"""Score: a number with what makes it readable."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.recipe import Recipe
from unmix.core.seeds import Stream, as_stream


@dataclass(frozen=True, repr=False)
class Outcome:
    """A score's value with its chance level, its ceiling and a 95 % interval; NaN where there is none.

    detail: what the value is made of (a matching, signs), for pictures and tables; a `minimum` over dimensions that
    the mean would hide is shown wherever the value is.
    chance_interval: where 95 % of the values of unrelated results lie.
    """

    value: float
    chance: float = math.nan
    ceiling: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)
    detail: dict[str, Any] = field(default_factory=dict)
    chance_interval: tuple[float, float] = (math.nan, math.nan)

    @property
    def corrected(self) -> float:
        """(value - chance) / (1 - chance): 0 at chance, 1 when perfect; NaN where lower is better.

        A chance below 0 counts as 0, which a constant reaches: an R2 of fits to a few unrelated rows is far below 0,
        and a bad value would look near to perfect beside it.
        """
        if not self.chance < 1 or self.ceiling < self.chance:
            return math.nan
        chance = max(0.0, self.chance)
        return (self.value - chance) / (1 - chance)

    @property
    def at_chance(self) -> bool | None:
        """Whether the value cannot be told from chance: its interval reaches the values of unrelated results.

        The value stands for its interval where it has none; None where the spread of chance is not known.
        """
        low, high = self.chance_interval
        if math.isnan(self.value) or math.isnan(low):
            return None
        ends = [self.value if math.isnan(end) else end for end in self.interval]
        return bool(max(ends) >= low if self.ceiling < self.chance else min(ends) <= high)

    def __str__(self) -> str:
        low, high = self.interval
        parts = [f"{self.value:.4g}"]
        if not math.isnan(low):
            parts.append(f"[{low:.4g}, {high:.4g}]")
        if "minimum" in self.detail:
            parts[-1] += ","
            parts.append(f"minimum {self.detail['minimum']:.4g}")
        if not math.isnan(self.chance):
            corrected = "" if math.isnan(self.corrected) or self.chance <= 0 else f", corrected {self.corrected:.4g}"
            parts.append(f"(chance {self.chance:.4g}{corrected}{', at chance' if self.at_chance else ''})")
        return " ".join(parts)

    def __repr__(self) -> str:
        return f"Outcome({self})"


@dataclass(frozen=True, eq=False)
class Inputs:
    """What scores may need; give what you have.

    codes: `Codes` or [n, m]. z: [n, f] true latents (`Codes` where they are many). h, reconstruction: [n, d].
    atoms: [m, d]. truth: [f, d] true atoms. other: [m', d] atoms of another seed.
    parents: [f] number of each latent's parent, -1 for none. others: atoms of further seeds, each [m', d].
    readers: encoder directions [m, d] of this fit and of the others, in the order (atoms, *others).
    items: how to show the n rows (`TextItems` and the like).
    x: [n, ...] raw observations and untrained: [n, d] the same network's representation before training, for
    baselines. factors: kind of each latent in z. group: [n] sequence of each row, so that splits and the bootstrap
    never part a sequence.
    weights: [c, d] rows of a classifier's head, weight_classes: [c] the class of each, class_vectors: [classes, f]
    the world's; beta: the head's inverse temperature, concentration: the world's. loss, bayes_loss: cross-entropy
    reached and the best possible, in nats: [n] for the same rows, or one number each.
    """

    codes: Codes | None = None
    z: Codes | Tensor | None = None
    h: Tensor | None = None
    reconstruction: Tensor | None = None
    atoms: Tensor | None = None
    truth: Tensor | None = None
    other: Tensor | None = None
    parents: Tensor | None = None
    others: Sequence[Tensor] | None = None
    readers: Sequence[Tensor] | None = None
    items: Any = None
    x: Tensor | None = None
    untrained: Tensor | None = None
    factors: Sequence[Factor] | None = None
    group: Tensor | None = None
    weights: Tensor | None = None
    weight_classes: Tensor | None = None
    class_vectors: Tensor | None = None
    beta: float | Tensor | None = None
    concentration: float | None = None
    loss: float | Tensor | None = None
    bayes_loss: float | Tensor | None = None

    @property
    def provides(self) -> frozenset[str]:
        """Names of what is given."""
        return frozenset(f.name for f in fields(self) if getattr(self, f.name) is not None)


class Score(Recipe):
    """A score says what it needs of `Inputs`; its one verb is `measure`.

    better: "higher", "lower" or "" (a description, not a merit).
    """

    name: ClassVar[str]
    better: ClassVar[str] = "higher"

    def measure(self, inputs: Inputs, rng: int | Stream = 0) -> Outcome:
        """The score of the inputs; raises `UsageError` that names what is missing."""
        if missing := sorted(self.needs - inputs.provides):
            raise UsageError(f"{self.name}: needs {', '.join(missing)}, given {', '.join(sorted(inputs.provides))}")
        return self._measure(inputs, as_stream(rng).child(self.name))

    @abstractmethod
    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome: ...
