"""Sequences: worlds whose rows may come in short stretches of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from unmix.core.digest import digest
from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.seeds import Stream
from unmix.worlds import TRANSITIONS
from unmix.worlds.base import World


def _transition(value: Any) -> Any:
    return None if value is None else TRANSITIONS.make(value)


class SequenceWorld(World):
    """A world whose rows are independent, or sequences that follow a transition.

    transition: law of the next latents, one of `unmix list transitions`; None for independent rows.
    length: rows of a sequence. gap: neighbouring rows are 1 .. gap units of time apart, uniformly.
    Rows are ordered by group (the sequence), then by time (in units, from 0).
    """

    transition: Annotated[Any, BeforeValidator(_transition)] = None
    length: int = Field(default=2, ge=2)
    gap: int = Field(default=1, ge=1)

    @property
    def digest(self) -> str:
        """Digest of kind and fields; a transition counts by its own digest, which knows no path."""
        own = super().as_dict()
        return digest({**own, "transition": None if self.transition is None else self.transition.digest})

    @property
    def provides(self) -> frozenset[str]:  # type: ignore[override]
        """What a sample holds: also group and time where there is a transition."""
        return frozenset({"x", "z"} | (set() if self.transition is None else {"group", "time"}))

    def _sequences(
        self, n: int, start: Any, factors: Sequence[Factor], rng: Stream
    ) -> tuple[np.ndarray, dict[str, Tensor]]:
        """Latents [n, f] of n rows, and their group and time; start(count, draw) gives independent latents."""
        if n < 1:
            raise UsageError(f"n={n}: must be at least 1")
        draw = rng.child("start").numpy()
        if self.transition is None:
            return start(n, draw), {}
        if n % self.length:
            raise UsageError(f"n={n}: rows come in sequences of length={self.length}; give a multiple of it")
        walk, time = self.transition.walk(start(n // self.length, draw), factors, self.length, rng, self.gap)
        group = np.repeat(np.arange(n // self.length), self.length)
        return walk.reshape(n, -1), {"group": torch.from_numpy(group), "time": torch.from_numpy(time.reshape(n))}
