"""Labelled: a world whose classes are one of its own categorical factors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, model_validator

from unmix.core.digest import digest
from unmix.core.factors import Factor
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.worlds import WORLDS
from unmix.worlds.base import World
from unmix.worlds.sprites import SpritesWorld


class Labelled(World):
    """Another world, with the value of a categorical factor as the label y.

    world: that world. factor: name of its factor; the codes 0, 1, ... become y, and stay in z as well.
    """

    equation: ClassVar[str] = "y = z[factor]"
    reference: ClassVar[str] = "as the disentanglement experiments of arXiv 2410.21869"

    world: Annotated[Any, BeforeValidator(WORLDS.make)] = SpritesWorld()
    factor: str = "shape"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        named = {f.name: f for f in self.world.factor_kinds}
        known = ", ".join(f.name for f in named.values() if f.kind == "categorical" and f.size) or "none"
        if self.factor not in named or named[self.factor].kind != "categorical" or not named[self.factor].size:
            raise ValueError(f"factor={self.factor}: must be a categorical factor of {self.world.kind} ({known})")
        return self

    @property
    def digest(self) -> str:
        """Digest of the factor and of the world's own digest, which knows no path."""
        return digest([self.kind, self.factor, self.world.digest])

    @property
    def provides(self) -> frozenset[str]:  # type: ignore[override]
        """What a sample holds: what the world gives, and y."""
        return frozenset(self.world.provides | {"y"})

    @property
    def classes(self) -> int:
        """Number of labels."""
        return int(self.factor_kinds[self._place].size)  # type: ignore[arg-type]

    @property
    def size(self) -> int | None:
        return self.world.size

    @property
    def factors(self) -> tuple[str, ...]:
        return self.world.factors

    @property
    def factor_kinds(self) -> tuple[Factor, ...]:
        return self.world.factor_kinds

    @property
    def held_out(self) -> Labelled:
        return self.but(world=self.world.held_out)

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        return self._labelled(self.world.sample(n, rng))

    def batches(self, batch: int, steps: int, rng: Stream, start: int = 0) -> Iterator[tuple[int, Sample]]:
        for step, sample in self.world.batches(batch, steps, rng, start):
            yield step, self._labelled(sample)

    @property
    def _place(self) -> int:
        return list(self.world.factors).index(self.factor)

    def _labelled(self, sample: Sample) -> Sample:
        return replace(sample, y=sample.z[:, self._place].round().long())
