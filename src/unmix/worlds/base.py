"""World: the protocol of everything that observations are drawn from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from torch import Tensor

from unmix.core.factors import Factor
from unmix.core.recipe import Recipe
from unmix.core.sample import Sample
from unmix.core.seeds import Stream


class World(Recipe):
    """Something that samples are drawn from; its own seed fixes dictionary and rules, `rng` only draws."""

    @property
    def size(self) -> int | None:
        """Number of data, or None where there is no end."""
        return None

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of the true latents; empty for data."""
        return ()

    @property
    def factor_kinds(self) -> tuple[Factor, ...]:
        """Kind and range of every true latent, in the order of `factors`; continuous where nothing is said."""
        return tuple(Factor(name) for name in self.factors)

    @property
    def parents(self) -> Tensor | None:
        """Number of each latent's parent [N], -1 for a root; None where there is no hierarchy."""
        return None

    @property
    def held_out(self) -> World:
        """The world that a study draws its held-out rows from: this one, unless it keeps something back."""
        return self

    @abstractmethod
    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        """n rows, the same for the same rng."""

    def batches(self, batch: int, steps: int, rng: Stream, start: int = 0) -> Iterator[tuple[int, Sample]]:
        """Steps `start` .. `steps` - 1 of training with `batch` rows each; a start in the middle changes no batch.

        A world without end draws fresh rows in every step; a world with a size overrides this and passes through its
        rows in a seeded order.
        """
        for step in range(start, steps):
            yield step, self.sample(batch, rng.child(f"step {step}"))


class DictionaryWorld(World):
    """A world whose observations are sparse sums of true atoms: x = offset + z D + noise."""

    @property
    @abstractmethod
    def atoms(self) -> Tensor:
        """The true dictionary [latents, width], unit norm."""
