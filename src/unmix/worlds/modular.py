"""ModularArithmetic: all pairs of remainders and the result of an operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from unmix.core.factors import Factor
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.worlds.finite import FiniteWorld, shared

OPERATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "a+b": lambda a, b: a + b,
    "a-b": lambda a, b: a - b,
    "a*b": lambda a, b: a * b,
    "a^2+b^2": lambda a, b: a**2 + b**2,
    "a^2+ab+b^2": lambda a, b: a**2 + a * b + b**2,
    "a^3+ab": lambda a, b: a**3 + a * b,
}


class ModularArithmetic(FiniteWorld):
    """y = a operation b modulo p, for all pairs (a, b); a share of the pairs is learnt from, the others are held out.

    modulus: p. operation: of a and b; a/b leaves b = 0 out and needs a prime p. fraction: share of the pairs in
    training, equally many of each result to within one; it sets `rows` where that is not given. encoding: x is
    "onehot" [2p] (a, then b) or "tokens" [4] (a, p for the operation, b, p + 1 for the equals sign, as numbers).
    z are a and b.
    """

    equation: ClassVar[str] = "y = (a op b) mod p"
    reference: ClassVar[str] = "Power, Burda, Edwards, Babuschkin, Misra 2022, arXiv 2201.02177"
    provides: ClassVar[frozenset[str]] = frozenset({"x", "y", "z", "index"})

    modulus: int = Field(default=97, ge=2)
    operation: Literal["a+b", "a-b", "a*b", "a/b", "a^2+b^2", "a^2+ab+b^2", "a^3+ab"] = "a+b"
    fraction: float = Field(default=0.5, gt=0, le=1)
    encoding: Literal["onehot", "tokens"] = "onehot"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        p = self.modulus
        if self.operation == "a/b" and any(p % k == 0 for k in range(2, int(p**0.5) + 1)):
            raise ValueError(f"operation='a/b' needs a prime modulus, got {p}")
        if self._count < 1 or self._count > self._total:
            raise ValueError(f"{self._count} of {self._total} pairs in training: change rows or fraction")
        return self

    @property
    def classes(self) -> int:
        """Number of possible results."""
        return self.modulus

    @property
    def factors(self) -> tuple[str, ...]:
        return ("a", "b")

    @property
    def factor_kinds(self) -> tuple[Factor, ...]:
        return tuple(Factor(name, "categorical", self.modulus, 0.0, self.modulus - 1.0) for name in self.factors)

    @property
    def held_out(self) -> Self:
        return self if self._count == self._total else self.but(part="held-out")

    @property
    def size(self) -> int:
        return self._count if self.part == "train" else self._total - self._count

    @property
    def _total(self) -> int:
        return self.modulus * (self.modulus - (self.operation == "a/b"))

    @property
    def _count(self) -> int:
        return self.rows if self.rows is not None else round(self.fraction * self._total)

    def _part(self) -> Sample:
        p = self.modulus
        a, b = (v.ravel() for v in np.meshgrid(np.arange(p), np.arange(p), indexing="ij"))
        if self.operation == "a/b":
            a, b = a[b > 0], b[b > 0]
            inverse = np.array([0, *(pow(k, -1, p) for k in range(1, p))])
            y = a * inverse[b] % p
        else:
            y = OPERATIONS[self.operation](a, b) % p
        train = np.sort(shared(y, self._count, self._stream("rows").numpy()))
        kept = train if self.part == "train" else np.setdiff1d(np.arange(len(y)), train)
        a, b, y = a[kept], b[kept], y[kept]
        if self.encoding == "tokens":
            x = np.stack([a, np.full_like(a, p), b, np.full_like(a, p + 1)], axis=1).astype(np.float32)
        else:
            x = np.concatenate([np.eye(p, dtype=np.float32)[a], np.eye(p, dtype=np.float32)[b]], axis=1)
        z = np.stack([a, b], axis=1).astype(np.float32)
        return Sample(
            x=torch.from_numpy(x), y=torch.from_numpy(y), z=torch.from_numpy(z), index=torch.from_numpy(kept)
        )

    def _fresh(self, n: int, rng: Stream) -> Sample:
        raise AssertionError("there is always an end")
