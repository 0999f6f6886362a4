"""Factors: what kind of thing a true latent is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unmix.core.errors import UsageError

Kind = Literal["continuous", "ordinal", "categorical", "circular"]


@dataclass(frozen=True)
class Factor:
    """One true latent: its name, kind and, where they are known, its number of values, range and symmetry.

    kind: continuous or ordinal (the order means something), categorical (codes 0, 1, ... without order), circular
    (an angle: `high` is `low` again). size: number of distinct values, None for a continuum. low, high: range of the
    values. symmetry: m where a turn by (high - low) / m gives the same observation. Raises `UsageError` for a range
    that is empty, or a circular factor without one.
    """

    name: str
    kind: Kind = "continuous"
    size: int | None = None
    low: float | None = None
    high: float | None = None
    symmetry: int = 1

    def __post_init__(self) -> None:
        if self.kind not in ("continuous", "ordinal", "categorical", "circular"):
            raise UsageError(f"factor {self.name}: kind={self.kind}: continuous, ordinal, categorical or circular")
        if (self.low is None) != (self.high is None) or (self.low is not None and not self.low < self.high):  # type: ignore[operator]
            raise UsageError(f"factor {self.name}: low={self.low}, high={self.high}: give both, low below high")
        if self.kind == "circular" and self.low is None:
            raise UsageError(f"factor {self.name}: a circular factor needs low and high, such as 0 and 6.2832")
        if self.symmetry < 1 or (self.size is not None and self.size < 1):
            raise UsageError(f"factor {self.name}: symmetry={self.symmetry}, size={self.size}: at least 1")
