"""Factor grids: finite worlds with one observation for each combination of values of their factors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.worlds.sequences import SequenceWorld


def values_of(factor: Factor) -> np.ndarray:
    """The values of a factor with finitely many: numbers 0, 1, ... where it has no range, else evenly spaced.

    An ordinal factor reaches both low and high; a circular one stops a step before high, which is low again.
    """
    assert factor.size is not None
    numbers = np.arange(factor.size, dtype=np.float64)
    if factor.low is None or factor.high is None or factor.size == 1 or factor.kind == "categorical":
        return numbers if factor.low is None else numbers + factor.low
    steps = factor.size if factor.kind == "circular" else factor.size - 1
    return factor.low + numbers * (factor.high - factor.low) / steps


def index_of(codes: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Number of the observation with these value numbers, the last factor changing fastest: [n, f] to [n]."""
    return np.ravel_multi_index(tuple(np.asarray(codes, dtype=np.int64).T), tuple(sizes))


def codes_of(index: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Value numbers of the factors of an observation: [n] to [n, f]."""
    return np.stack(np.unravel_index(np.asarray(index), tuple(sizes)), 1)


class GridWorld(SequenceWorld):
    """A finite world: one observation for each combination of values, in the order of `index_of`.

    Subclasses give `factor_kinds` and `_observations`. With a transition, starts are uniform on the grid and later
    rows are looked up, so that any pair of observations may meet; without, rows are drawn without replacement.
    """

    @abstractmethod
    def _observations(self, index: np.ndarray) -> Tensor:
        """Observations of these numbers, float32 in [0, 1]: [n, channels, height, width]."""

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(factor.name for factor in self.factor_kinds)

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of values of each factor."""
        return tuple(factor.size or 1 for factor in self.factor_kinds)

    @property
    def grids(self) -> tuple[np.ndarray, ...]:
        """The values of each factor."""
        return tuple(values_of(factor) for factor in self.factor_kinds)

    @property
    def size(self) -> int:
        """Number of observations."""
        return int(np.prod(self.grid))

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        stream = as_stream(rng).child("factor grid")
        if self.transition is None and not 1 <= n <= self.size:
            raise UsageError(f"n={n}: {self.kind} has {self.size} observations; give 1 to {self.size}")

        def start(count: int, draw: np.random.Generator) -> np.ndarray:
            return codes_of(draw.choice(self.size, count, replace=self.transition is not None), self.grid)

        codes, order = self._sequences(n, start, self.factor_kinds, stream)
        return self._rows(codes, **order)

    def batches(self, batch: int, steps: int, rng: Stream, start: int = 0) -> Iterator[tuple[int, Sample]]:
        if self.transition is not None:
            yield from super().batches(batch, steps, rng, start)
            return
        whole = self.size // batch
        if batch < 1 or not whole:
            raise UsageError(f"batch={batch}: {self.kind} has {self.size} observations; give 1 to {self.size}")
        turn, order = -1, np.empty(0, np.int64)
        for step in range(start, steps):
            if step // whole != turn:
                turn = step // whole
                order = rng.child(f"pass {turn}").numpy().permutation(self.size)
            place = step % whole * batch
            yield step, self._rows(codes_of(order[place : place + batch], self.grid))

    def render(self, z: Any) -> Tensor:
        """Observations for chosen latents [n, f], each taken to the nearest value of its factor: [n, c, h, w]."""
        wanted = np.asarray(torch.as_tensor(z).cpu(), dtype=np.float64)
        if wanted.ndim != 2 or wanted.shape[1] != len(self.factors):
            raise UsageError(f"z: must be [n, {len(self.factors)}], got {list(wanted.shape)}")
        nearest = [np.abs(wanted[:, i, None] - grid).argmin(1) for i, grid in enumerate(self.grids)]
        return self._observations(index_of(np.stack(nearest, 1), self.grid))

    def _rows(self, codes: np.ndarray, **order: Tensor) -> Sample:
        index = index_of(codes, self.grid)
        z = np.stack([grid[codes[:, i].astype(int)] for i, grid in enumerate(self.grids)], 1)
        return Sample(
            x=self._observations(index),
            z=torch.from_numpy(z.astype(np.float32)),
            index=torch.from_numpy(index),
            **order,
        )

    @property
    def provides(self) -> frozenset[str]:  # type: ignore[override]
        """What a sample holds."""
        return super().provides | {"index"}
