"""Transitions: the law of the next latents given the present ones, and the laws on grids of values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import model_validator

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.recipe import Recipe
from unmix.core.seeds import Stream

NODES = 40


class Transition(Recipe):
    """The law of one step in time; a recipe has no memory, so that walks are Markov chains."""

    on_grid: ClassVar[bool] = False

    @abstractmethod
    def step(self, z: np.ndarray, factors: Sequence[Factor], draw: np.random.Generator) -> np.ndarray:
        """The latents one unit of time later: [n, f] to [n, f]; numbers of values where `on_grid`."""

    @abstractmethod
    def check(self, factors: Sequence[Factor]) -> None:
        """Raise `UsageError` where factors of these kinds cannot move by this law."""

    def walk(
        self, start: np.ndarray, factors: Sequence[Factor], length: int, rng: Stream, gap: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sequences of `length` rows: latents [n, length, f] from start [n, f], and times [n, length] from 0.

        gap: neighbouring rows are 1 .. `gap` units of time apart, uniformly; that many steps lie between them.
        Raises as `check`.
        """
        self.check(factors)
        draw, gaps = rng.child("steps").numpy(), rng.child("time").numpy()
        apart = gaps.integers(1, gap + 1, (len(start), length - 1))
        time = np.concatenate([np.zeros((len(start), 1), np.int64), apart.cumsum(1)], 1)
        walk = np.empty((len(start), length, start.shape[1]), start.dtype)
        now = walk[:, 0] = start.copy()
        for place in range(1, length):
            now = now.copy()
            for unit in range(gap):
                going = apart[:, place - 1] > unit
                now[going] = self.step(now[going], factors, draw)
            walk[:, place] = now
        return walk, time


class GridTransition(Transition):
    """A law on factors with finitely many values, which are numbered 0, 1, ..."""

    on_grid: ClassVar[bool] = True

    @abstractmethod
    def tables(self, factors: Sequence[Factor]) -> list[np.ndarray]:
        """Exact P(next | now) of each factor [size, size], the other factors uniformly distributed now."""

    def check(self, factors: Sequence[Factor]) -> None:
        for factor in factors:
            if factor.size is None:
                raise UsageError(f"{self.kind}: {factor.name} is a continuum; use a grid, or a law such as Laplace")
        if not any(_size(factor) > 1 for factor in factors):
            raise UsageError(f"{self.kind}: no factor has two values, so none can change")


class LaplaceGrid(GridTransition):
    """LAP: every ordered factor moves by a truncated, discretised Laplace law; at least one changes.

    A factor with n values goes from s to k with probability p(k) ~ exp(-|k - s| rate / ln n), k = 0 .. n - 1, without
    wrapping, not even angles; held factors stay. Where nothing changed, one factor at random that is not held takes
    another value, with the same weights. The uniform law is not kept by this chain: values drift to the middle.
    rate: larger is slower; -1 draws it from U(1, 10) for each step of each sequence.
    held: names of factors that stay; None holds the categorical ones.
    """

    equation: ClassVar[str] = "p(k | s) ~ exp(-|k - s| rate / ln n), k = 0 .. n - 1"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"

    rate: float = 1.0
    held: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.rate != -1 and not self.rate > 0:
            raise ValueError(f"rate={self.rate}: must be positive, or -1 to draw it from U(1, 10)")
        return self

    def check(self, factors: Sequence[Factor]) -> None:
        super().check(factors)
        names = [factor.name for factor in factors]
        if self.held is not None and (unknown := [name for name in self.held if name not in names]):
            raise UsageError(f"LaplaceGrid.held: no factor {unknown[0]}; known: {', '.join(names)}")
        if not len(self._moving(factors)):
            raise UsageError("LaplaceGrid: all factors are held or have one value, so none can change")

    def matrix(self, size: int, rate: float | None = None) -> np.ndarray:
        """P(next | now) of one factor before the forced change: [size, size]; rate -1 is integrated over U(1, 10)."""
        rates, weights = self._rates(rate)
        now = np.arange(size)
        return sum(w * _normalised(_laplace(now, size, r)) for r, w in zip(rates, weights, strict=True))

    def tables(self, factors: Sequence[Factor]) -> list[np.ndarray]:
        self.check(factors)
        moving = self._moving(factors)
        tables = [np.zeros((_size(factor), _size(factor))) for factor in factors]
        for rate, weight in zip(*self._rates(None), strict=True):
            own = {i: _normalised(_laplace(np.arange(_size(factors[i])), _size(factors[i]), rate)) for i in moving}
            stay = {i: float(np.diag(own[i]).mean()) for i in moving}
            for i, table in enumerate(tables):
                if i not in own:
                    table += weight * np.eye(len(table))
                    continue
                others = np.prod([stay[j] for j in moving if j != i])
                forced = np.diag(own[i]) * others / len(moving)
                away = own[i] * (1 - np.eye(len(table)))
                table += weight * (own[i] + forced[:, None] * _normalised(away) - np.diag(forced))
        return tables

    def unchanged(self, factors: Sequence[Factor]) -> float:
        """P(nothing has changed) before the forced change, from a uniform start."""
        self.check(factors)
        return float(
            sum(
                w * np.prod([np.diag(self.matrix(factors[i].size, r)).mean() for i in self._moving(factors)])
                for r, w in zip(*self._rates(None), strict=True)
            )
        )

    def step(self, z: np.ndarray, factors: Sequence[Factor], draw: np.random.Generator) -> np.ndarray:
        rate = draw.uniform(1, 10, len(z)) if self.rate == -1 else np.full(len(z), self.rate)
        moving, after = self._moving(factors), z.copy()
        for i in moving:
            after[:, i] = _drawn(_laplace(z[:, i], factors[i].size, rate), draw)
        same = np.flatnonzero((after == z).all(1))
        chosen = moving[draw.integers(len(moving), size=len(same))]
        for i in moving:
            rows = same[chosen == i]
            weights = _laplace(z[rows, i], factors[i].size, rate[rows])
            weights[np.arange(len(rows)), z[rows, i].astype(int)] = 0
            after[rows, i] = _drawn(weights, draw)
        return after

    def _moving(self, factors: Sequence[Factor]) -> np.ndarray:
        held = {f.name for f in factors if f.kind == "categorical"} if self.held is None else set(self.held)
        return np.array([i for i, f in enumerate(factors) if f.name not in held and _size(f) > 1], dtype=int)

    def _rates(self, rate: float | None) -> tuple[np.ndarray, np.ndarray]:
        rate = self.rate if rate is None else rate
        if rate != -1:
            return np.array([rate]), np.array([1.0])
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        return 1 + 4.5 * (nodes + 1), weights / 2


class Changes(GridTransition):
    """A law that draws the values of k factors anew. changed: k; -1 draws it from 1 .. f - 1 for each step."""

    changed: int = -1

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.changed != -1 and self.changed < 1:
            raise ValueError(f"changed={self.changed}: must be at least 1, or -1 to draw it")
        return self

    def _number(self, n: int, count: int, draw: np.random.Generator) -> np.ndarray:
        """k of each row [n], from `count` factors; one factor alone is always drawn."""
        return draw.integers(1, max(2, count), n) if self.changed == -1 else np.full(n, self.changed)

    def _mean(self, count: int) -> float:
        return float(self.changed) if self.changed != -1 else max(1.0, count / 2)


class UniformChange(Changes):
    """UNI: exactly k factors, categorical ones included, take another value, uniformly.

    changed: k; -1 draws it from 1 .. f - 1 for each step. Factors with one value do not count.
    """

    equation: ClassVar[str] = "k ~ U{1 .. f - 1} factors get a value that differs, uniformly"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"

    def check(self, factors: Sequence[Factor]) -> None:
        super().check(factors)
        if self.changed > len(_several(factors)):
            raise UsageError(
                f"UniformChange.changed={self.changed}: only {len(_several(factors))} factors have two values or more"
            )

    def tables(self, factors: Sequence[Factor]) -> list[np.ndarray]:
        self.check(factors)
        count = len(_several(factors))
        return [_mixed(_size(factor), self._mean(count) / count, again=False) for factor in factors]

    def step(self, z: np.ndarray, factors: Sequence[Factor], draw: np.random.Generator) -> np.ndarray:
        several, after = _several(factors), z.copy()
        number = self._number(len(z), len(several), draw)
        for i, picked in zip(several, _picked(draw, number, len(several)), strict=True):
            # A shift by 1 .. n - 1 reaches every other value equally often.
            shift = draw.integers(1, _size(factors[i]), len(z))
            after[:, i] = np.where(picked, (z[:, i] + shift) % _size(factors[i]), z[:, i])
        return after


class LocatelloPairs(Changes):
    """The pairs of disentanglement_lib (`simple_dynamics`): one factor, or k, drawn anew, perhaps to the same value.

    changed: k; -1 draws it from 1 .. f - 1. With probability 1/2 one factor is drawn anew in place of k.
    """

    equation: ClassVar[str] = "one factor (probability 1/2), else k ~ U{1 .. f - 1}, drawn anew from all values"
    reference: ClassVar[str] = "Locatello et al. 2020, arXiv 2002.02886"

    def check(self, factors: Sequence[Factor]) -> None:
        super().check(factors)
        if self.changed > len(factors):
            raise UsageError(f"LocatelloPairs.changed={self.changed}: there are {len(factors)} factors")

    def tables(self, factors: Sequence[Factor]) -> list[np.ndarray]:
        self.check(factors)
        count = len(factors)
        share = (1 + self._mean(count)) / 2 / count
        return [_mixed(_size(factor), share, again=True) for factor in factors]

    def step(self, z: np.ndarray, factors: Sequence[Factor], draw: np.random.Generator) -> np.ndarray:
        after, count = z.copy(), len(factors)
        number = np.where(draw.random(len(z)) < 0.5, 1, self._number(len(z), count, draw))
        for i, picked in enumerate(_picked(draw, number, count)):
            after[:, i] = np.where(picked, draw.integers(_size(factors[i]), size=len(z)), z[:, i])
        return after


def _laplace(now: np.ndarray, size: int, rate: np.ndarray | float) -> np.ndarray:
    """Weights exp(-|k - now| rate / ln size) of all values k: [n, size]."""
    if size == 1:
        return np.ones((len(now), 1))
    scale = (np.asarray(rate, dtype=float) / np.log(size)).reshape(-1, 1)
    return np.exp(-np.abs(np.arange(size) - np.asarray(now)[:, None]) * scale)


def _normalised(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(1, keepdims=True)


def _drawn(weights: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """One value for each row of weights [n, size]."""
    upto = weights.cumsum(1)
    # The largest uniform number times the sum may round up to the sum itself.
    return np.minimum((upto <= draw.random((len(weights), 1)) * upto[:, -1:]).sum(1), weights.shape[1] - 1)


def _picked(draw: np.random.Generator, number: np.ndarray, count: int) -> np.ndarray:
    """Which `number[i]` of `count` factors are picked in row i: [count, n] bool."""
    places = draw.random((len(number), count)).argsort(1).argsort(1)
    return (places < number[:, None]).T


def _size(factor: Factor) -> int:
    """Number of values of a factor that is no continuum, as `check` has made sure."""
    assert factor.size is not None
    return factor.size


def _several(factors: Sequence[Factor]) -> list[int]:
    return [i for i, factor in enumerate(factors) if _size(factor) > 1]


def _mixed(size: int, share: float, again: bool) -> np.ndarray:
    """Stay, or with probability `share` go to a uniform value: to all of them (`again`), or to another one."""
    if size == 1:
        return np.ones((1, 1))
    fresh = np.full((size, size), 1 / size) if again else (1 - np.eye(size)) / (size - 1)
    return (1 - share) * np.eye(size) + share * fresh
