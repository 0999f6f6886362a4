"""Worlds that may end: a fixed set of training rows, what is kept back from it, and passes in a seeded order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, Self

import numpy as np
from pydantic import Field

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.worlds.base import World


class FiniteWorld(World):
    """A world of labelled rows, all of them or a fixed set of them; no row comes twice.

    rows: number of training rows, fixed by the seed and shared equally among the classes; None for all there is.
    part: "train" for these rows, "held-out" for the others; a study tests on "held-out" rows.
    seed: fixes the rule and the training rows.
    """

    rows: int | None = Field(default=None, ge=1)
    part: Literal["train", "held-out"] = "train"
    seed: int = 0

    @property
    def held_out(self) -> Self:
        return self if self.rows is None else self.but(part="held-out")

    @property
    def size(self) -> int | None:
        """Number of rows of this part; None where fresh ones never end."""
        total = self._total
        if self.rows is None:
            return total
        if self.part == "train":
            return self.rows
        return None if total is None else total - self.rows

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        """n rows without repeats, in random order, as many of each class as of the others, to within one.

        Raises `UsageError` for more rows than there are.
        """
        stream = as_stream(rng).child(self.kind)
        if self.size is None:
            return self._fresh(n, stream)
        if not 1 <= n <= self.size:
            raise UsageError(f"n={n}: this part of {self.kind} has {self.size} rows; give 1 to {self.size}")
        whole, draw = _whole(self), stream.numpy()
        return whole.take(draw.permutation(self._some(whole, n, draw)))

    def batches(self, batch: int, steps: int, rng: Stream, start: int = 0) -> Iterator[tuple[int, Sample]]:
        """Passes through the rows, each in a new order from rng; a batch as large as the world is all of it."""
        if self.size is None:
            yield from super().batches(batch, steps, rng, start)
            return
        whole = _whole(self)
        per_pass, order, number = max(1, len(whole) // batch), np.zeros(0, int), -1
        for step in range(start, steps):
            if step // per_pass != number:
                number = step // per_pass
                order = rng.child(f"pass {number}").numpy().permutation(len(whole))
            place = step % per_pass
            yield step, whole.take(order[place * batch : (place + 1) * batch])

    def _stream(self, name: str) -> Stream:
        return Stream(self.seed, (self.kind, name))

    def _some(self, whole: Sample, n: int, draw: np.random.Generator) -> np.ndarray:
        """Numbers [n] of rows of the whole, shared among the classes."""
        return shared(np.asarray(whole.y), n, draw)

    @property
    @abstractmethod
    def _total(self) -> int | None:
        """Number of all data; None where there is no end to them."""

    @abstractmethod
    def _part(self) -> Sample:
        """All rows of this part, where it has an end."""

    @abstractmethod
    def _fresh(self, n: int, rng: Stream) -> Sample:
        """n rows where there is no end, none of them a training row."""


def shared(labels: np.ndarray, n: int, draw: np.random.Generator) -> np.ndarray:
    """Numbers of n rows [n] drawn without repeats, as many of each label as of the others, to within one.

    labels: [N]. Labels that run out are made up for by the others.
    """
    order = draw.permutation(len(labels))
    places = np.empty(len(labels))
    given = labels[order]
    for label in np.unique(given):
        here = np.flatnonzero(given == label)
        # The k-th row of every label comes before the (k+1)-th of any; ties are broken at random.
        places[order[here]] = np.arange(len(here))
    return np.lexsort((draw.random(len(labels)), places))[:n]


@lru_cache(maxsize=8)
def _whole(world: FiniteWorld) -> Sample:
    return world._part()
