"""SynthSAEBench: a large world with Zipf frequencies, trees of exclusive latents and correlated firing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.worlds import dictionaries, supports
from unmix.worlds.base import DictionaryWorld

BLOCK = 1024


class SynthSAEBench(DictionaryWorld):
    """A world in the style of SynthSAEBench-16k (arXiv 2602.14687): 16,384 latents, width 768, about 34 active.

    The same recipe as the published one with draws of our own seed, and with the dictionary made a nearly tight frame
    in place of gradient steps on the squared cosines. A row is drawn by a Gaussian copula of low rank; a latent below
    the roots is looked at only where its parent fires, and of firing children of one parent one at random is kept.
    latents: N. width: d. exponent, most, least: base rate of latent j, `most` for j = 0, falling as (j + 1)^-exponent
    to `least`. compensate: rates are raised, at most to 1, by what parents and siblings will take away on average.
    rank, scale: loadings of the copula are Gaussian [N, rank] times scale.
    roots, branching, depth: trees numbered breadth first; latents left over have no parent and no children.
    exclusive: at most one child of a parent fires. scaled: a child's amplitude is multiplied by that of its parent,
    relative to the parent's mean.
    first, last: mean amplitude of the most and the least frequent latent, linear between; deviation, spread: their
    standard deviations are |N(deviation, spread^2)|, one for each latent. seed: fixes all but the rows.
    `sample` gives z as ragged `Codes`: dense, 10,000 rows would take 655 MB.
    """

    equation: ClassVar[str] = "x = z D,  z_j = b_j max(0, mean_j + deviation_j e),  b from a copula gated by trees"
    reference: ClassVar[str] = "arXiv 2602.14687"
    provides: ClassVar[frozenset[str]] = frozenset({"x", "z", "atoms"})

    latents: int = Field(default=16384, ge=2)
    width: int = Field(default=768, ge=1)
    exponent: float = Field(default=0.5, gt=0)
    most: float = Field(default=0.4, gt=0, le=1)
    least: float = Field(default=5e-4, gt=0, le=1)
    rank: int = Field(default=25, ge=1)
    scale: float = Field(default=0.1, ge=0)
    roots: int = Field(default=128, ge=1)
    branching: int = Field(default=4, ge=1)
    depth: int = Field(default=3, ge=0)
    exclusive: bool = True
    compensate: bool = True
    scaled: bool = True
    first: float = Field(default=5.0, gt=0)
    last: float = Field(default=4.0, gt=0)
    deviation: float = Field(default=0.5, ge=0)
    spread: float = Field(default=0.5, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least={self.least} must be at most most={self.most}")
        if self.roots > self.latents:
            raise ValueError(f"roots={self.roots} must be at most latents={self.latents}")
        return self

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(f"z{j}" for j in range(self.latents))

    @property
    def parents(self) -> Tensor:
        return torch.from_numpy(self._forest())

    @property
    def atoms(self) -> Tensor:
        return dictionaries.spread(self.latents, self.width, self._stream("dictionary")).clone()

    @property
    def base_rates(self) -> np.ndarray:
        """Rates before trees and exclusion [N], falling from most to least."""
        weights = np.arange(1, self.latents + 1, dtype=np.float64) ** -self.exponent
        return self.least + (self.most - self.least) * (weights - weights[-1]) / (weights[0] - weights[-1])

    @property
    def rates(self) -> np.ndarray:
        """What each latent is drawn with [N], given that its parent fires: the base rate, compensated or not."""
        base, parents = self.base_rates, self._forest()
        if not self.compensate:
            return base
        child = np.flatnonzero(parents >= 0)
        above = parents[child]
        raised = base.copy()
        raised[child] /= base[above]
        if self.exclusive:
            family = np.bincount(above, base[child], self.latents)
            raised[child] *= 1 + (family[above] - base[child]) / base[above]
        return raised.clip(max=1.0)

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        stream = as_stream(rng).child("synth sae bench")
        noise, draw = stream.child("copula").torch(), stream.child("codes").numpy()
        rule = _Rule.of(self)
        counts, columns, values = [], [], []
        for start in range(0, n, BLOCK):
            z = rule.draw(min(BLOCK, n - start), noise, draw)
            r, c = np.nonzero(z)
            counts.append(np.bincount(r, minlength=len(z)))
            columns.append(c)
            values.append(z[r, c])
        pointers = torch.from_numpy(np.concatenate([[0], *counts]).cumsum())
        indices = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *columns]))
        active = torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *values]))
        codes = Codes(active, indices, self.latents, pointers)
        return Sample(x=codes.decode(self.atoms), z=codes)

    def _forest(self) -> np.ndarray:
        return supports.forest(self.latents, self.roots, self.branching, self.depth)

    def _stream(self, name: str) -> Stream:
        return Stream(self.seed, ("synth sae bench", name))


@dataclass(frozen=True)
class _Rule:
    """What a block of rows is drawn with: bars that scores must exceed, loadings, amplitudes, trees; each [N]."""

    bars: np.ndarray
    loadings: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    parents: np.ndarray
    trees: list[np.ndarray]
    exclusive: bool
    scaled: bool

    @staticmethod
    def of(world: SynthSAEBench) -> _Rule:
        from scipy.special import ndtri

        loadings = world.scale * world._stream("copula").numpy().standard_normal((world.latents, world.rank))
        norms = np.square(loadings).sum(1)
        if norms.max() > 0.99:
            loadings *= np.sqrt(0.99 / norms.max())
        own = np.sqrt(1 - np.square(loadings).sum(1))
        spread = world._stream("amplitudes").numpy().standard_normal(world.latents)
        parents = world._forest()
        return _Rule(
            (-ndtri(world.rates) / own).astype(np.float32),
            (loadings / own[:, None]).astype(np.float32),
            np.linspace(world.first, world.last, world.latents),
            np.abs(world.deviation + world.spread * spread),
            parents,
            supports.levels(parents),
            world.exclusive,
            world.scaled,
        )

    def draw(self, rows: int, noise: torch.Generator, draw: np.random.Generator) -> np.ndarray:
        """Latents of some rows, dense [rows, N], float32."""
        z = np.zeros((rows, len(self.bars)), dtype=np.float32)
        common = torch.randn(rows, self.loadings.shape[1], generator=noise).numpy()
        top = np.flatnonzero(self.parents < 0)
        own = torch.randn(rows, len(top), generator=noise).numpy()
        r, c = np.nonzero(own + common @ self.loadings[top].T > self.bars[top])
        self._fill(z, r, top[c], draw)
        for level in self.trees:
            r, c = np.nonzero(z[:, self.parents[level]])
            c = level[c]
            fires = draw.standard_normal(len(r)) + (common[r] * self.loadings[c]).sum(1) > self.bars[c]
            r, c = r[fires], c[fires]
            if self.exclusive:
                order = draw.permutation(len(r))
                family = r[order] * z.shape[1] + self.parents[c[order]]
                kept = np.sort(order[np.unique(family, return_index=True)[1]])
                r, c = r[kept], c[kept]
            self._fill(z, r, c, draw)
        return z

    def _fill(self, z: np.ndarray, r: np.ndarray, c: np.ndarray, draw: np.random.Generator) -> None:
        size = np.maximum(0, self.mean[c] + self.deviation[c] * draw.standard_normal(len(c)))
        above = self.parents[c]
        if self.scaled and len(c) and above[0] >= 0:
            size *= z[r, above] / self.mean[above]
        z[r, c] = size
