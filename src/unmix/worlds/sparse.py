"""SparseWorld: sparse non-negative latents seen through a dictionary with fewer dimensions than atoms."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core.digest import digest
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.worlds import dictionaries, supports
from unmix.worlds.base import DictionaryWorld

FIRST = ("latents", "width", "active", "amplitudes", "dictionary", "zipf", "noise", "seed")
BLOCK = 65536


class SparseWorld(DictionaryWorld):
    """x = z D + noise, with exactly `active` of `latents` non-zero in each row (arXiv 2411.13117, section 5).

    latents: N, atoms of the true dictionary. width: M, dimensions of x. active: K non-zeros in each row.
    rates: None for exactly `active`; else latents fire one by one: a number is the mean rate (latent j has a share
    (j + 1)^-zipf of it), N numbers are the rates; with a hierarchy a child's rate is given that its parent fires.
    amplitudes: distribution of a non-zero: |N(0, 1)|, uniform on [0, 1], exponential, one, lognormal (median 1, the
    logarithm has standard deviation .5) or bounded (uniform on [.5, 1.5]).
    dictionary: Gaussian rows of unit norm; orthogonal rows (then latents <= width); coherent rows, whose largest
    |cosine| is `coherence`; or hierarchical rows, where the cosine of a child with its parent is `similarity`.
    coherence, similarity: see dictionary.
    zipf: latent j is chosen with weight (j + 1)^-zipf; 0 chooses uniformly.
    correlation: of the Gaussian copula of the latents in one block of `block` consecutive ones; they fire together.
    roots, branching, depth: with roots, latents form trees and a child fires only if its parent fires; they are
    numbered breadth first, `branching` children each, `depth` levels below the roots (None: until all are used up).
    exclusive: at most one child of a parent fires.
    banned: share of the pairs of latents that are banned, by the seed. pairs: "all" takes no notice of them, in
    "train" rows no banned pair fires together, in "held-out" rows at least one does; "split" draws like "train", and
    a study tests on "held-out" rows of it.
    noise: standard deviation of white noise on every dimension of x. seed: fixes the dictionary and the banned pairs.
    """

    equation: ClassVar[str] = "x = z D + noise, |z|_0 = K, z >= 0"
    reference: ClassVar[str] = "O'Neill, Gumran, Klindt 2024, arXiv 2411.13117"
    provides: ClassVar[frozenset[str]] = frozenset({"x", "z", "atoms"})

    latents: int = Field(default=16, ge=1)
    width: int = Field(default=8, ge=1)
    active: int = Field(default=3, ge=1)
    rates: float | tuple[float, ...] | None = None
    amplitudes: Literal["halfnormal", "uniform", "exponential", "one", "lognormal", "bounded"] = "halfnormal"
    dictionary: Literal["gaussian", "orthogonal", "coherent", "hierarchical"] = "gaussian"
    coherence: float = Field(default=0.9, gt=0, lt=1)
    similarity: float = Field(default=0.5, ge=0, lt=1)
    zipf: float = Field(default=0.0, ge=0)
    correlation: float = Field(default=0.0, ge=0, lt=1)
    block: int = Field(default=2, ge=1)
    roots: int | None = Field(default=None, ge=1)
    branching: int = Field(default=2, ge=1)
    depth: int | None = Field(default=None, ge=0)
    exclusive: bool = False
    banned: float = Field(default=0.1, ge=0, le=1)
    pairs: Literal["all", "train", "held-out", "split"] = "all"
    noise: float = Field(default=0.0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.active > self.latents:
            raise ValueError(f"active={self.active} must be at most latents={self.latents}")
        if self.dictionary == "orthogonal" and self.latents > self.width:
            raise ValueError(f"orthogonal atoms need latents <= width, got {self.latents} > {self.width}")
        if self.dictionary == "coherent":
            dictionaries.coherent(self.latents, self.width, self.coherence, self._stream("dictionary"))
        if self.roots is None and (self.dictionary == "hierarchical" or self.exclusive):
            given = "dictionary='hierarchical'" if self.dictionary == "hierarchical" else "exclusive=True"
            raise ValueError(f"{given} needs roots, the number of trees")
        if self.roots is not None and self.roots > self.latents:
            raise ValueError(f"roots={self.roots} must be at most latents={self.latents}")
        if self.rates is None:
            if self.exclusive and (most := self._most_active()) < self.active:
                raise ValueError(
                    f"active={self.active}: with exclusive children at most {most} latents fire together"
                )
        else:
            self._check_rates()
        if self.pairs != "all" and not len(self.banned_pairs):
            raise ValueError(f"pairs={self.pairs!r} needs banned pairs, banned={self.banned} of them is none")
        return self

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(f"z{j}" for j in range(self.latents))

    @property
    def digest(self) -> str:
        """Digest of kind and fields; options that came later count where they are used: older runs stay valid."""
        fields = type(self).model_fields
        used = {
            name: value
            for name, value in self.as_dict().items()
            if name == "kind" or name in FIRST or getattr(self, name) != fields[name].default
        }
        return digest(used)

    @property
    def atoms(self) -> Tensor:
        rng = self._stream("dictionary")
        if self.dictionary == "orthogonal":
            return dictionaries.orthogonal(self.latents, self.width, rng)
        if self.dictionary == "coherent":
            return dictionaries.coherent(self.latents, self.width, self.coherence, rng).clone()
        if self.dictionary == "hierarchical":
            return dictionaries.family(self._forest(), self.width, self.similarity, rng)
        return dictionaries.gaussian(self.latents, self.width, rng)

    @property
    def parents(self) -> Tensor | None:
        return None if self.roots is None else torch.from_numpy(self._forest())

    @property
    def held_out(self) -> SparseWorld:
        return self.but(pairs="held-out") if self.pairs == "split" else self

    @property
    def banned_pairs(self) -> np.ndarray:
        """The banned pairs [P, 2] of this seed; a latent and its ancestors are never a pair."""
        parents = None if self.roots is None else self._forest()
        return supports.banned_pairs(self.latents, self.banned, parents, self._stream("banned pairs"))

    def firing_rates(self) -> np.ndarray:
        """How often each latent fires [N], if correlation is 0 and pairs are "all".

        NaN with exactly `active` latents and unequal weights, which have no closed form.
        """
        if self.rates is None:
            equal = not self.zipf and self.roots is None
            return np.full(self.latents, self.active / self.latents if equal else np.nan)
        return self._own_rates() if self.roots is None else supports.marginal(self._own_rates(), self._forest())

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        stream = as_stream(rng).child("sparse world")
        draw = stream.child("codes").numpy()
        z = np.zeros((n, self.latents), dtype=np.float32)
        if self.pairs == "all":
            for start in range(0, n, BLOCK):
                self._fill(z[start : start + BLOCK], draw)
        else:
            self._fill_apart(z, draw)
        codes = torch.from_numpy(z)
        x = codes @ self.atoms
        if self.noise:
            x += self.noise * torch.randn(x.shape, generator=stream.child("noise").torch())
        return Sample(x=x, z=codes)

    def _fill(self, z: np.ndarray, draw: np.random.Generator) -> None:
        """Latents of some rows, in place."""
        if self.rates is None:
            chosen = self._choose(draw, len(z))
            np.put_along_axis(z, chosen, self._amplitudes(draw, chosen.shape), axis=1)
        else:
            fires = self._fire(draw, len(z))
            z[fires] = self._amplitudes(draw, (int(fires.sum()),))

    def _fill_apart(self, z: np.ndarray, draw: np.random.Generator) -> None:
        """Latents of rows with, or without, a banned pair, in place: rows are drawn until there are enough."""
        pairs, held_out = self.banned_pairs, self.pairs == "held-out"

        def some(count: int) -> np.ndarray:
            rows = np.zeros((count, self.latents), dtype=np.float32)
            self._fill(rows, draw)
            return rows

        what = f"{self.kind}.pairs={self.pairs!r}, banned={self.banned}"
        z[:] = supports.rejected(len(z), some, lambda rows: supports.meets(rows > 0, pairs) == held_out, what)

    def _choose(self, draw: np.random.Generator, rows: int) -> np.ndarray:
        """Numbers of exactly `active` latents in each row: [rows, K]."""
        weights = np.arange(1, self.latents + 1, dtype=np.float64) ** -self.zipf
        # Largest keys of Gumbel noise plus log weights: draws without replacement (Efraimidis-Spirakis).
        if self.correlation:
            uniform = supports.scores(draw, rows, self._loadings(), self.latents)
            keys = -np.log(-np.log(uniform.clip(1e-300, 1 - 1e-16))) + np.log(weights)
        else:
            keys = draw.gumbel(size=(rows, self.latents)) + np.log(weights)
        if self.roots is not None:
            keys = supports.inherit(keys, self._forest(), self.exclusive)
        return np.argpartition(-keys, self.active - 1, axis=1)[:, : self.active]

    def _fire(self, draw: np.random.Generator, rows: int) -> np.ndarray:
        """Which latents fire, each with its own rate: [rows, N]."""
        uniform = supports.scores(draw, rows, self._loadings(), self.latents)
        parents = None if self.roots is None else self._forest()
        return supports.firing(uniform, self._own_rates(), parents, self.exclusive)

    def _amplitudes(self, draw: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        values = {
            "halfnormal": lambda: np.abs(draw.standard_normal(shape)),
            "uniform": lambda: draw.uniform(size=shape),
            "exponential": lambda: draw.exponential(size=shape),
            "one": lambda: np.ones(shape),
            "lognormal": lambda: draw.lognormal(0.0, 0.5, size=shape),
            "bounded": lambda: draw.uniform(0.5, 1.5, size=shape),
        }[self.amplitudes]()
        return values.astype(np.float32)

    def _own_rates(self) -> np.ndarray:
        """Rate of each latent [N], of a child given its parent."""
        if isinstance(self.rates, tuple):
            return np.asarray(self.rates, dtype=np.float64)
        weights = np.arange(1, self.latents + 1, dtype=np.float64) ** -self.zipf
        return weights / weights.mean() * float(self.rates or 0.0)

    def _check_rates(self) -> None:
        if isinstance(self.rates, tuple) and len(self.rates) != self.latents:
            raise ValueError(f"rates has {len(self.rates)} entries, latents={self.latents}")
        rates = self._own_rates()
        if rates.min() < 0 or rates.max() > 1:
            raise ValueError(
                f"rates={self.rates} with zipf={self.zipf}: rates must lie in [0, 1], got {rates.max():.3g}"
            )
        if self.exclusive:
            parents = self._forest()
            most = np.bincount(parents[parents >= 0], rates[parents >= 0], 1).max()
            if most > 1 + 1e-9:
                raise ValueError(
                    f"exclusive=True: rates of the children of one parent sum to {most:.3g}, more than 1"
                )

    def _most_active(self) -> int:
        """Latents that can fire together with exclusive children: the longest path down each tree."""
        parents = self._forest()
        height = np.ones(self.latents, dtype=int)
        for level in reversed(supports.levels(parents)):
            np.maximum.at(height, parents[level], height[level] + 1)
        return int(height[parents < 0].sum())

    def _forest(self) -> np.ndarray:
        return supports.forest(self.latents, self.roots or self.latents, self.branching, self.depth)

    def _loadings(self) -> np.ndarray | None:
        return supports.block_loadings(self.latents, self.block, self.correlation) if self.correlation else None

    def _stream(self, name: str) -> Stream:
        return Stream(self.seed, ("sparse world", name))
