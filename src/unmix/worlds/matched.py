"""MatchedWorld: a world whose truth is known, made to look like a representation whose truth is not."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core.rows import as_rows, gather
from unmix.core.sample import Sample
from unmix.core.scale import kept, unit
from unmix.core.seeds import Stream, as_stream
from unmix.worlds.base import DictionaryWorld

GRID = 65


class MatchedWorld(DictionaryWorld):
    """Sparse latents whose rows have a given spectrum, sparsity and noise: h = offset + z D + e.

    latents: N, number of true atoms. spectrum: [d] eigenvalues of the covariance of the rows, descending.
    noise: [d] variance of the noise along the same directions (what the measured features left unexplained).
    rates: firing rates of the latents at evenly spaced ranks, descending; amplitudes: mean value of a firing
    latent at the same ranks. shape: quantiles of value / mean among firing latents. mean_norm: norm of the mean.
    negative: share of the firing latents whose value is negative. seed: fixes the dictionary, the eigenvectors and
    which latent has which rate.
    Latents fire independently. All numbers are in the units of the rows. Signal and noise covariances add up to the
    spectrum exactly when N >= d. Rows come in float64 where their offset is large beside their scale.
    """

    equation: ClassVar[str] = "h = offset + z D + e,  z_j = b_j a_j,  b_j ~ Bernoulli(rate_j),  cov(h) = given"
    reference: ClassVar[str] = "unmix"
    provides: ClassVar[frozenset[str]] = frozenset({"h", "z", "atoms"})

    latents: int = Field(ge=1)
    spectrum: tuple[float, ...]
    noise: tuple[float, ...]
    rates: tuple[float, ...]
    amplitudes: tuple[float, ...]
    shape: tuple[float, ...]
    mean_norm: float = Field(default=0.0, ge=0)
    negative: float = Field(default=0.0, ge=0, le=1)
    seed: int = 0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(self.noise) != len(self.spectrum):
            raise ValueError(f"noise has {len(self.noise)} entries, spectrum {len(self.spectrum)}")
        if len(self.rates) != len(self.amplitudes):
            raise ValueError(f"rates has {len(self.rates)} entries, amplitudes {len(self.amplitudes)}")
        if not all(0 <= rate <= 1 for rate in self.rates):
            raise ValueError("rates must lie in [0, 1]")
        if min((*self.spectrum, *self.noise, *self.amplitudes, *self.shape), default=0) < 0:
            raise ValueError("spectrum, noise, amplitudes and shape must not be negative")
        return self

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values; without `negative` where no latent is."""
        # Digests from before there were signed latents stay what they were.
        return {name: value for name, value in super().as_dict().items() if name != "negative" or value}

    @classmethod
    def of(cls, features: Any, rows: Any, seed: int = 0, limit: int = 32768) -> Self:
        """The world matched to features (atoms, bias, encoder) and the rows they were found in.

        Measures spectrum, firing rates, amplitudes and unexplained variance on at most `limit` rows.
        """
        h = gather(as_rows(rows), limit, Stream(seed).child("matched world"))
        codes = features.encode(h)
        x = h.double()
        mean = x.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((x - mean).T, correction=0).reshape(x.shape[1], x.shape[1]))
        spectrum = values.flip(0).clamp_min(0)
        residual = (x - features.decode(codes).double()) @ vectors.flip(1)
        noise = torch.minimum(residual.var(0, correction=0), 0.99 * spectrum)
        _, columns, active = codes.nonzero()
        negative = float((active < 0).double().mean()) if len(active) else 0.0
        active = active.abs().double()
        counts = torch.bincount(columns, minlength=codes.width).double()
        sums = torch.zeros_like(counts).index_add_(0, columns, active)
        alive = counts > 0
        means = torch.where(alive, sums / counts.clamp_min(1), torch.zeros_like(sums))
        relative = (active / means[columns]).numpy()
        order = counts[alive].argsort(descending=True, stable=True)
        rates, amplitudes = (counts[alive] / len(h))[order].numpy(), means[alive][order].numpy()
        if not len(rates):
            rates, amplitudes, relative = np.array([0.0]), np.array([0.0]), np.array([1.0])
        return cls(
            latents=max(1, len(rates)),
            spectrum=_rounded(spectrum.numpy()),
            noise=_rounded(noise.numpy()),
            rates=_rounded(_at_ranks(rates)),
            amplitudes=_rounded(_at_ranks(amplitudes)),
            shape=_rounded(np.quantile(relative, np.linspace(0, 1, GRID))),
            mean_norm=float(f"{mean.norm().item():.6g}"),
            negative=float(f"{negative:.6g}"),
            seed=seed,
        )

    @property
    def width(self) -> int:
        """d, dimensions of a row."""
        return len(self.spectrum)

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(f"z{j}" for j in range(self.latents))

    @property
    def atoms(self) -> Tensor:
        return unit(self._dictionary()[0]).float()

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        stream = as_stream(rng).child("matched world")
        draw, noise = stream.child("codes").numpy(), stream.child("noise").torch()
        dictionary, root, offset = self._dictionary()
        norms = dictionary.norm(dim=1)
        rates, amplitudes = self._latents()
        quantiles = np.asarray(self.shape)
        z = torch.zeros(n, self.latents)
        # Rows with an offset that is large beside their scale are told apart in float64 alone.
        scale = float(np.sqrt(np.mean(self.spectrum)))
        h = torch.zeros(n, self.width, dtype=kept(offset, scale, offset.dtype).dtype)
        expected = torch.from_numpy(rates * amplitudes * self._mean) @ dictionary
        for start in range(0, n, 8192):
            rows = min(8192, n - start)
            fires = draw.random((rows, self.latents)) < rates
            r, c = np.nonzero(fires)
            size = np.interp(draw.random(len(r)), np.linspace(0, 1, len(quantiles)), quantiles)
            if self.negative:
                size = np.where(draw.random(len(r)) < self.negative, -size, size)
            block = torch.zeros(rows, self.latents, dtype=torch.float64)
            block[r, c] = torch.from_numpy(size * amplitudes[c])
            white = torch.randn(rows, self.width, generator=noise, dtype=torch.float64)
            h[start : start + rows] = (block @ dictionary - expected + white @ root + offset).to(h.dtype)
            z[start : start + rows] = (block * norms).float()
        return Sample(h=h, z=z)

    @property
    def _mean(self) -> float:
        """Mean of value / mean size among firing latents."""
        return (1 - 2 * self.negative) * _moments(np.asarray(self.shape))[0]

    def _latents(self) -> tuple[np.ndarray, np.ndarray]:
        """Rate and mean amplitude of each latent: [N], [N]."""
        ranks, grid = np.linspace(0, 1, self.latents), np.linspace(0, 1, len(self.rates))
        return np.interp(ranks, grid, self.rates), np.interp(ranks, grid, self.amplitudes)

    def _dictionary(self) -> tuple[Tensor, Tensor, Tensor]:
        """Atoms before normalising [N, d], a root of the noise covariance [d, d], the offset [d]; float64."""
        stream = Stream(self.seed, ("matched world", "dictionary"))
        d = self.width
        gaussian = torch.randn(self.latents, d, generator=stream.child("atoms").torch(), dtype=torch.float64)
        spectrum, noise = (torch.tensor(v, dtype=torch.float64) for v in (self.spectrum, self.noise))
        signal = (spectrum - noise).clamp_min(0).sqrt()
        rates, amplitudes = self._latents()
        second = _moments(np.asarray(self.shape))[1]
        variance = torch.from_numpy(rates * amplitudes**2 * second - (rates * amplitudes * self._mean) ** 2)
        raw = unit(gaussian * signal)
        covariance = (raw.T * variance.clamp_min(0)) @ raw
        # T with T' covariance T = diag(signal^2): the same sparse latents, with exactly the wanted spectrum.
        values, vectors = torch.linalg.eigh(covariance)
        keep = values > 1e-10 * values[-1].clamp_min(1e-300)
        inverse = torch.where(keep, values.clamp_min(1e-300).rsqrt(), torch.zeros_like(values))
        shaped = raw @ (vectors * inverse) @ vectors.T * signal
        rotation = torch.linalg.qr(
            torch.randn(d, d, generator=stream.child("rotation").torch(), dtype=torch.float64)
        )[0]
        direction = torch.randn(d, generator=stream.child("offset").torch(), dtype=torch.float64)
        offset = self.mean_norm * direction / direction.norm()
        return shaped @ rotation, noise.sqrt()[:, None] * rotation, offset


def _moments(quantiles: np.ndarray) -> tuple[float, float]:
    """Mean and mean square of the distribution that is uniform between neighbouring quantiles."""
    if len(quantiles) == 1:
        return float(quantiles[0]), float(quantiles[0] ** 2)
    low, high = quantiles[:-1], quantiles[1:]
    return float((low + high).mean() / 2), float((low * low + low * high + high * high).mean() / 3)


def _at_ranks(values: np.ndarray) -> np.ndarray:
    ranks = np.linspace(0, 1, min(GRID, len(values)))
    return np.interp(ranks, np.linspace(0, 1, len(values)), values)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
