"""Named random streams: every draw has a name, so that adding one draw never changes another."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Stream:
    """A random stream, known by a seed and a path of names; asking it twice gives the same numbers twice.

    >>> int(Stream(0).child("batches").numpy().integers(100)) == int(Stream(0).child("batches").numpy().integers(100))
    True
    """

    seed: int
    path: tuple[str, ...] = ()

    def child(self, name: str | int) -> Stream:
        """The stream of that name below this one, independent of its siblings."""
        return Stream(self.seed, (*self.path, str(name)))

    @property
    def number(self) -> int:
        """63 bits that stand for this stream, the same on every machine."""
        text = "/".join((str(self.seed), *(part.replace("/", "//") for part in self.path)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1

    def numpy(self) -> np.random.Generator:
        """A fresh numpy generator at the start of this stream."""
        return np.random.default_rng(self.number)

    def torch(self, device: str = "cpu") -> torch.Generator:
        """A fresh torch generator at the start of this stream."""
        import torch

        return torch.Generator(device=device).manual_seed(self.number)


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Python's global random state as it was, whatever the block does: importing scikit-learn moves it."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def as_stream(rng: int | Stream | None) -> Stream:
    """A stream from a seed; None is seed 0."""
    return rng if isinstance(rng, Stream) else Stream(int(rng or 0))
