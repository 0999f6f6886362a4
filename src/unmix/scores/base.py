"""Score: a number with what makes it readable."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe
from unmix.core.seeds import Stream, as_stream


@dataclass(frozen=True)
class Outcome:
    """A score's value with its chance level, its ceiling and a 95 % interval; NaN where there is none.

    detail: what the value is made of (a matching, signs), for pictures and tables.
    """

    value: float
    chance: float = math.nan
    ceiling: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def corrected(self) -> float:
        """(value - chance) / (1 - chance): 0 at chance, 1 when perfect."""
        return (self.value - self.chance) / (1 - self.chance) if self.chance < 1 else math.nan

    def __str__(self) -> str:
        low, high = self.interval
        parts = [f"{self.value:.4g}"]
        if not math.isnan(low):
            parts.append(f"[{low:.4g}, {high:.4g}]")
        if not math.isnan(self.chance):
            parts.append(f"(chance {self.chance:.4g})")
        return " ".join(parts)


@dataclass(frozen=True, eq=False)
class Inputs:
    """What scores may need; give what you have.

    codes: `Codes` or [n, m]. z: [n, f] true latents. h, reconstruction: [n, d]. atoms: [m, d].
    truth: [f, d] true atoms. other: [m', d] atoms of another seed.
    items: how to show the n rows (`TextItems` and the like).
    """

    codes: Codes | None = None
    z: Tensor | None = None
    h: Tensor | None = None
    reconstruction: Tensor | None = None
    atoms: Tensor | None = None
    truth: Tensor | None = None
    other: Tensor | None = None
    items: Any = None

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
