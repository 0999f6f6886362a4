"""RandomHierarchy: a class expands into features, these into smaller ones, by random rules that are unambiguous."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from unmix.core.factors import Factor
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.worlds.finite import FiniteWorld, shared

MOST = 2**24


class RandomHierarchy(FiniteWorld):
    """The random hierarchy model: a class is written as one of m strings of s symbols, each symbol likewise, L times.

    Within a level no string stands for two symbols and no symbol has a string twice, so that the class can be read
    off x; there are classes m^((s^L - 1) / (s - 1)) data, all distinct. x are the last symbols, one-hot, [s^L v]; z
    are the class and all symbols between, as categories.
    classes: number of classes. synonyms: m strings of each symbol. branching: s symbols in a string. vocabulary: v
    symbols of each level. depth: L levels of rules.
    """

    equation: ClassVar[str] = "symbol -> one of m strings of s symbols, L times; P_max = n_c m^((s^L - 1)/(s - 1))"
    reference: ClassVar[str] = "Cagnetta, Petrini, Tomasini, Favero, Wyart 2023, arXiv 2307.02129"
    provides: ClassVar[frozenset[str]] = frozenset({"x", "y", "z", "index"})

    classes: int = Field(default=8, ge=2)
    synonyms: int = Field(default=4, ge=1)
    branching: int = Field(default=2, ge=2)
    vocabulary: int = Field(default=8, ge=2)
    depth: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        strings = self.vocabulary**self.branching
        most = max(self.classes, self.vocabulary if self.depth > 1 else 0)
        if most * self.synonyms > strings:
            raise ValueError(
                f"synonyms={self.synonyms} of {most} symbols need {most * self.synonyms} strings, "
                f"vocabulary^branching is {strings}"
            )
        if self._total > MOST:
            raise ValueError(f"{self._total:,} data; at most {MOST:,} can be shared out without repeats")
        if self.rows is not None and self.rows >= self._total:
            raise ValueError(f"rows={self.rows} must be below the {self._total:,} data there are; None takes all")
        return self

    @property
    def factors(self) -> tuple[str, ...]:
        below = [f"level {k} symbol {j}" for k in range(1, self.depth) for j in range(self.branching**k)]
        return ("class", *below)

    @property
    def factor_kinds(self) -> tuple[Factor, ...]:
        sizes = [self.classes] + [self.vocabulary] * (len(self.factors) - 1)
        return tuple(
            Factor(name, "categorical", size, 0.0, size - 1.0) for name, size in zip(self.factors, sizes, strict=True)
        )

    @property
    def rules(self) -> list[np.ndarray]:
        """The strings of every level [symbols, m, s]: first of the classes, then of each level's symbols."""
        made = []
        for level in range(self.depth):
            symbols = self.classes if level == 0 else self.vocabulary
            draw = self._stream(f"rules {level}").numpy()
            chosen = draw.choice(self.vocabulary**self.branching, symbols * self.synonyms, replace=False)
            digits = chosen[:, None] // self.vocabulary ** np.arange(self.branching)[::-1] % self.vocabulary
            made.append(digits.reshape(symbols, self.synonyms, self.branching))
        return made

    @property
    def _choices(self) -> int:
        """Number of choices among synonyms in one datum."""
        return (self.branching**self.depth - 1) // (self.branching - 1)

    @property
    def _total(self) -> int:
        return self.classes * self.synonyms**self._choices

    def read(self, numbers: np.ndarray) -> Sample:
        """The data with these numbers [n], from 0 to P_max - 1: a class, then its choices among synonyms in order."""
        per_class = self._total // self.classes
        numbers = np.asarray(numbers, dtype=np.int64)
        y, rest = np.divmod(numbers, per_class)
        choices = rest[:, None] // self.synonyms ** np.arange(self._choices)[::-1] % self.synonyms
        symbols, latents, used = y[:, None], [], 0
        for rule in self.rules:
            latents.append(symbols)
            picked = choices[:, used : used + symbols.shape[1]]
            used += symbols.shape[1]
            symbols = rule[symbols, picked].reshape(len(numbers), -1)
        x = np.zeros((*symbols.shape, self.vocabulary), dtype=np.float32)
        np.put_along_axis(x, symbols[:, :, None], 1.0, axis=2)
        return Sample(
            x=torch.from_numpy(x.reshape(len(numbers), -1)),
            y=torch.from_numpy(y),
            z=torch.from_numpy(np.concatenate(latents, axis=1)).float(),
            index=torch.from_numpy(numbers),
        )

    def _part(self) -> Sample:
        if self.rows is None:
            return self.read(np.arange(self._total))
        labels = np.arange(self._total) // (self._total // self.classes)
        train = np.sort(shared(labels, self.rows, self._stream("rows").numpy()))
        return self.read(train if self.part == "train" else np.setdiff1d(np.arange(self._total), train))

    def _fresh(self, n: int, rng: Stream) -> Sample:
        raise AssertionError("there is always an end")
