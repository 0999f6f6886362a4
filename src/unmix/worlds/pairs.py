"""PairWorld: latents that move from one time to the next, the world of contrastive learning."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.worlds import sphere
from unmix.worlds.latents import LatentWorld


class PairWorld(LatentWorld):
    """Sequences of `length` latents: the first from the marginal, each later one around the one before.

    length: T, rows of a sequence, 2 for pairs; rows are ordered by `group` (the sequence) and `time` 0 .. T - 1.
    memory: rho in R^d, where z' scatters around rho z; below 1 the first latent is normal with the stationary
    variance, which for the normal conditional is the stationary Ornstein-Uhlenbeck process.
    The first latent is uniform on the sphere or in the box, and standard normal in R^d with memory 1.
    """

    equation: ClassVar[str] = "z_0 ~ p,  z_{t+1} ~ exp(-k distance(z_{t+1}, rho z_t)),  x = g(z)"
    reference: ClassVar[str] = "Zimmermann et al. 2021, arXiv 2102.08850; Rusak et al. 2024, arXiv 2407.00143"
    provides: ClassVar[frozenset[str]] = frozenset({"x", "z", "group", "time"})

    length: int = Field(default=2, ge=2)
    memory: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.memory != 1 and self.space != "euclidean":
            raise ValueError(f"memory={self.memory}: only with space='euclidean', not on the {self.space}")
        return self

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        """n rows of n / length sequences. Raises `UsageError` where length does not divide n."""
        if n % self.length:
            raise UsageError(f"n={n}: must be a multiple of length={self.length}, rows come in whole sequences")
        draw = as_stream(rng).child("pair world").numpy()
        scatter, count = self.scatter, n // self.length
        z = np.empty((count, self.length, self.latents))
        z[:, 0] = self._first(count, draw)
        for time in range(1, self.length):
            z[:, time] = scatter.sample(self.memory * z[:, time - 1], draw)
        latents = torch.from_numpy(z.reshape(n, self.latents)).float()
        return Sample(
            x=self.map(latents),
            z=latents,
            group=torch.arange(count).repeat_interleave(self.length),
            time=torch.arange(self.length).repeat(count),
        )

    def _first(self, n: int, draw: np.random.Generator) -> np.ndarray:
        if self.space == "sphere":
            return sphere.uniform(n, self.latents, draw)
        if self.space == "box":
            return draw.uniform(-1, 1, (n, self.latents))
        deviation = math.sqrt(self.scatter.variance / (1 - self.memory**2)) if self.memory < 1 else 1.0
        return deviation * draw.standard_normal((n, self.latents))
