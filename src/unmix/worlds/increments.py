"""Transitions on a continuum: the next latents are the present ones and an independent difference."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from unmix.core.errors import Failure, UsageError
from unmix.core.factors import Factor
from unmix.worlds.transitions import Transition

ROUNDS = 10000


class Increments(Transition):
    """A law on a continuum: z + d with independent d. Subclasses draw d.

    d is in units of the factor's range, high - low, where it has one, else in units of the latent itself. Angles
    wrap; a factor with a range stays inside it (d is drawn again for a row that would leave, which gives the law
    given that it stays). Categorical factors stay.
    """

    @abstractmethod
    def _draw(self, n: int, factors: Sequence[Factor], draw: np.random.Generator) -> np.ndarray:
        """Differences [n, f]."""

    def check(self, factors: Sequence[Factor]) -> None:
        for factor in factors:
            if factor.kind == "ordinal" or (factor.size is not None and factor.kind != "categorical"):
                raise UsageError(
                    f"{self.kind}: {factor.name} has {factor.size or 'few'} values; use a continuum, or a law on a "
                    "grid such as LaplaceGrid"
                )
        if all(factor.kind == "categorical" for factor in factors):
            raise UsageError(f"{self.kind}: all factors are categorical, so none can move")

    def step(self, z: np.ndarray, factors: Sequence[Factor], draw: np.random.Generator) -> np.ndarray:
        span = np.array([1.0 if f.low is None or f.high is None else f.high - f.low for f in factors])
        span[[f.kind == "categorical" for f in factors]] = 0
        after, rows = z.copy(), np.arange(len(z))
        for _ in range(ROUNDS):
            if not len(rows):
                return after
            new = z[rows] + span * self._draw(len(rows), factors, draw)
            stays = np.ones(len(rows), bool)
            for i, f in enumerate(factors):
                if f.kind == "circular":
                    new[:, i] = f.low + (new[:, i] - f.low) % span[i]
                elif f.kind == "continuous" and f.low is not None:
                    stays &= (new[:, i] >= f.low) & (new[:, i] <= f.high)
            after[rows[stays]] = new[stays]
            rows = rows[~stays]
        raise Failure(f"{self}: after {ROUNDS} draws {len(rows)} rows still leave the range of their factors")


class GeneralisedLaplace(Increments):
    """Generalised Laplace steps: sparse for shape < 2, Gaussian at 2, Laplace at 1.

    shape: alpha. rate: lambda, larger is slower.
    """

    equation: ClassVar[str] = "p(d) = a r / (2 Gamma(1 / a)) exp(-(r |d|)^a)"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"

    shape: float = Field(default=0.5, gt=0)
    rate: float = Field(default=2.0, gt=0)

    def _draw(self, n: int, factors: Sequence[Factor], draw: np.random.Generator) -> np.ndarray:
        size = draw.gamma(1 / self.shape, size=(n, len(factors))) ** (1 / self.shape)
        return np.where(draw.random(size.shape) < 0.5, -size, size) / self.rate


class Laplace(Increments):
    """Laplace steps. rate: lambda, the mean of |d| is 1 / rate."""

    equation: ClassVar[str] = "p(d) = r / 2 exp(-r |d|)"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"

    rate: float = Field(default=2.0, gt=0)

    def _draw(self, n: int, factors: Sequence[Factor], draw: np.random.Generator) -> np.ndarray:
        return draw.laplace(scale=1 / self.rate, size=(n, len(factors)))


class ZeroInflated(Increments):
    """Each latent stays where it is, or makes a Laplace step. move: probability of a step. rate: as Laplace."""

    equation: ClassVar[str] = "d = b e,  b ~ Bernoulli(move),  p(e) = r / 2 exp(-r |e|)"
    reference: ClassVar[str] = "unmix"

    move: float = Field(default=0.5, gt=0, le=1)
    rate: float = Field(default=1.0, gt=0)

    def _draw(self, n: int, factors: Sequence[Factor], draw: np.random.Generator) -> np.ndarray:
        moves = draw.random((n, len(factors))) < self.move
        return np.where(moves, draw.laplace(scale=1 / self.rate, size=moves.shape), 0.0)


class Gaussian(Increments):
    """Gaussian steps, which leave rotations of the latents unidentified. scale: standard deviation."""

    equation: ClassVar[str] = "d ~ N(0, scale^2)"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"

    scale: float = Field(default=0.5, gt=0)

    def _draw(self, n: int, factors: Sequence[Factor], draw: np.random.Generator) -> np.ndarray:
        return self.scale * draw.standard_normal((n, len(factors)))


class Uniform(Increments):
    """Uniform steps, whose tails are lighter than a Gaussian's. width: |d| is at most half of it."""

    equation: ClassVar[str] = "d ~ U(-width / 2, width / 2)"
    reference: ClassVar[str] = "unmix"

    width: float = Field(default=1.0, gt=0)

    def _draw(self, n: int, factors: Sequence[Factor], draw: np.random.Generator) -> np.ndarray:
        return draw.uniform(-self.width / 2, self.width / 2, (n, len(factors)))
