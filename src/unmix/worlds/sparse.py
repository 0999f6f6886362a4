"""SparseWorld: sparse non-negative latents seen through a dictionary with fewer dimensions than atoms."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.worlds.base import DictionaryWorld


class SparseWorld(DictionaryWorld):
    """x = z D + noise, with exactly `active` of `latents` non-zero in each row (arXiv 2411.13117, section 5).

    latents: N, atoms of the true dictionary. width: M, dimensions of x. active: K non-zeros in each row.
    amplitudes: distribution of a non-zero: |N(0, 1)|, uniform on [0, 1], exponential or one.
    dictionary: Gaussian rows of unit norm, or orthogonal rows (then latents <= width).
    zipf: latent j is chosen with weight (j + 1)^-zipf; 0 chooses uniformly.
    noise: standard deviation of white noise on every dimension of x. seed: fixes the dictionary.
    """

    equation: ClassVar[str] = "x = z D + noise, |z|_0 = K, z >= 0"
    reference: ClassVar[str] = "O'Neill, Gumran, Klindt 2024, arXiv 2411.13117"
    provides: ClassVar[frozenset[str]] = frozenset({"x", "z", "atoms"})

    latents: int = Field(16, ge=1)
    width: int = Field(8, ge=1)
    active: int = Field(3, ge=1)
    amplitudes: Literal["halfnormal", "uniform", "exponential", "one"] = "halfnormal"
    dictionary: Literal["gaussian", "orthogonal"] = "gaussian"
    zipf: float = Field(0.0, ge=0)
    noise: float = Field(0.0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _possible(self) -> SparseWorld:
        if self.active > self.latents:
            raise ValueError(f"active={self.active} must be at most latents={self.latents}")
        if self.dictionary == "orthogonal" and self.latents > self.width:
            raise ValueError(f"orthogonal atoms need latents <= width, got {self.latents} > {self.width}")
        return self

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(f"z{j}" for j in range(self.latents))

    @property
    def atoms(self) -> Tensor:
        rng = Stream(self.seed, ("sparse world", "dictionary")).torch()
        if self.dictionary == "orthogonal":
            return torch.linalg.qr(torch.randn(self.width, self.width, generator=rng))[0][: self.latents]
        return torch.nn.functional.normalize(torch.randn(self.latents, self.width, generator=rng))

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        stream = as_stream(rng).child("sparse world")
        draw = stream.child("codes").numpy()
        weights = np.arange(1, self.latents + 1, dtype=np.float64) ** -self.zipf
        z = np.zeros((n, self.latents), dtype=np.float32)
        for start in range(0, n, 65536):
            rows = min(65536, n - start)
            # Largest keys of Gumbel noise plus log weights: draws without replacement (Efraimidis-Spirakis).
            keys = draw.gumbel(size=(rows, self.latents)) + np.log(weights)
            chosen = np.argpartition(-keys, self.active - 1, axis=1)[:, : self.active]
            np.put_along_axis(z[start : start + rows], chosen, self._amplitudes(draw, rows), axis=1)
        codes = torch.from_numpy(z)
        x = codes @ self.atoms
        if self.noise:
            x += self.noise * torch.randn(x.shape, generator=stream.child("noise").torch())
        return Sample(x=x, z=codes)

    def _amplitudes(self, draw: np.random.Generator, rows: int) -> np.ndarray:
        shape = (rows, self.active)
        values = {
            "halfnormal": lambda: np.abs(draw.standard_normal(shape)),
            "uniform": lambda: draw.uniform(size=shape),
            "exponential": lambda: draw.exponential(size=shape),
            "one": lambda: np.ones(shape),
        }[self.amplitudes]()
        return values.astype(np.float32)
