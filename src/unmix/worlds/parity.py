"""Parity: the class is the product of a few signs among many."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.worlds.finite import FiniteWorld


class Parity(FiniteWorld):
    """x are `bits` signs +-1/sqrt(bits), y is 1 where the product of the `order` relevant ones is positive, else 0.

    bits: d. order: k relevant bits, chosen by the seed (2 is XOR). z are the relevant bits as 0 and 1.
    """

    equation: ClassVar[str] = "y = 1[prod_{j in J} x_j > 0], x in {+-1/sqrt(d)}^d, |J| = k"
    reference: ClassVar[str] = "Kearns 1998 (parities); Barak et al. 2022, arXiv 2207.08799"
    provides: ClassVar[frozenset[str]] = frozenset({"x", "y", "z", "index"})
    classes: ClassVar[int] = 2

    bits: int = Field(default=40, ge=2)
    order: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.order > self.bits:
            raise ValueError(f"order={self.order} must be at most bits={self.bits}")
        if self.rows is not None and math.log2(self.rows) > self.bits - 2:
            raise ValueError(f"rows={self.rows} must be at most a quarter of the 2^{self.bits} there are")
        return self

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(f"bit {j}" for j in self.relevant)

    @property
    def factor_kinds(self) -> tuple[Factor, ...]:
        return tuple(Factor(name, "categorical", 2, 0.0, 1.0) for name in self.factors)

    @property
    def relevant(self) -> np.ndarray:
        """Numbers of the relevant bits [k], rising."""
        return np.sort(self._stream("bits").numpy().choice(self.bits, self.order, replace=False))

    @property
    def _total(self) -> None:
        return None

    def _part(self) -> Sample:
        return self._made(self.rows or 0, self._stream("rows"), set())

    def _fresh(self, n: int, rng: Stream) -> Sample:
        if math.log2(n) > self.bits - 1:
            raise UsageError(f"n={n}: at most half of the 2^{self.bits} rows at a time")
        taken: set[bytes] = set()
        if self.rows is not None:
            known = self.but(part="train")._part().x
            taken = {row.tobytes() for row in np.packbits(known.numpy() > 0, axis=1)}
        return self._made(n, rng, taken)

    def _made(self, n: int, rng: Stream, taken: set[bytes]) -> Sample:
        """n distinct rows outside `taken`, half of each class."""
        draw, relevant = rng.numpy(), self.relevant
        wanted = draw.permutation(np.arange(n) % 2)
        bits = np.zeros((n, self.bits), dtype=bool)
        left, seen = np.arange(n), set(taken)
        while len(left):
            made = draw.random((len(left), self.bits)) < 0.5
            positive = (~made[:, relevant]).sum(1) % 2 == 0
            made[positive != (wanted[left] == 1), relevant[0]] ^= True
            again = []
            for place, row, packed in zip(left, made, np.packbits(made, axis=1), strict=True):
                if (key := packed.tobytes()) in seen:
                    again.append(place)
                else:
                    seen.add(key)
                    bits[place] = row
            left = np.asarray(again, dtype=int)
        signs = torch.from_numpy(bits).float()
        return Sample(
            x=(2 * signs - 1) / math.sqrt(self.bits),
            y=torch.from_numpy(wanted),
            z=signs[:, torch.from_numpy(relevant)],
            index=torch.arange(n),
        )
