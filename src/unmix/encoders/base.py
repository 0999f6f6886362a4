"""Encoder: the recipe of an inference; bound to a dictionary it turns rows into codes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe
from unmix.core.rows import Rows, as_rows, as_tensor, require_finite
from unmix.core.seeds import Stream, as_stream


class Dictionary(Protocol):
    """What an encoder is bound to: atoms [m, d] and bias [d]."""

    @property
    def atoms(self) -> Tensor: ...

    @property
    def bias(self) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class BoundEncoder:
    """An encoder with its dictionary and what it holds for it (weights, thresholds, a Gram matrix).

    Calling it with h [n, d] gives `Codes` [n, m]; the dictionary's bias is taken off first.
    """

    recipe: Encoder
    atoms: Tensor
    bias: Tensor
    tensors: Mapping[str, Tensor]

    @property
    def flops(self) -> float:
        """Upper bound of floating-point operations for one sample."""
        return self.recipe._flops(*self.atoms.shape)

    def __call__(self, h: Any, block: int = 4096) -> Codes:
        h = as_tensor(h)
        if h.ndim != 2 or h.shape[1] != self.atoms.shape[1]:
            raise UsageError(f"h: expected [n, {self.atoms.shape[1]}], got {list(h.shape)}")
        h = h.to(self.atoms.device, self.atoms.dtype)
        require_finite(h, "h")
        starts = range(0, max(1, len(h)), block)
        with torch.no_grad():
            return Codes.concatenate([self.recipe._encode(self, h[s : s + block] - self.bias) for s in starts])

    def to(self, target: str | torch.device | torch.dtype) -> BoundEncoder:
        """The same on another device or in another precision."""
        tensors = {name: tensor.to(target) for name, tensor in self.tensors.items()}
        return BoundEncoder(self.recipe, self.atoms.to(target), self.bias.to(target), tensors)


class Encoder(Recipe):
    """The recipe of an inference: codes z >= 0 (or signed) with h ~ z D + bias.

    signed: codes may be negative. sparsity: the field that sets how many codes are active, or None.
    counted: that field is the number of active codes itself (k), not a penalty.
    weights: it has weights of its own, which must be fitted or given an explicit start.
    """

    signed: ClassVar[bool] = False
    sparsity: ClassVar[str | None] = None
    counted: ClassVar[bool] = True
    weights: ClassVar[bool] = False

    def bind(self, features: Dictionary, rows: Any = None, rng: int | Stream = 0) -> BoundEncoder:
        """This encoder on a dictionary; `rows` [n, d] are what weights of its own are fitted on.

        Raises `UsageError` where an option does not fit the dictionary (k over m), or weights have no start.
        """
        atoms, bias = features.atoms.detach(), features.bias.detach()
        if atoms.ndim != 2 or not len(atoms):
            raise UsageError(f"atoms: expected [m, d] with m >= 1, got {list(atoms.shape)}")
        self._check(*atoms.shape)
        tensors = self._prepare(atoms, bias, None if rows is None else as_rows(rows), as_stream(rng))
        return BoundEncoder(self, atoms, bias, tensors)

    def restore(self, features: Dictionary, tensors: Mapping[str, Tensor]) -> BoundEncoder:
        """This encoder with tensors that an earlier binding held."""
        return BoundEncoder(self, features.atoms, features.bias, dict(tensors))

    def _check(self, m: int, d: int) -> None:
        if self.sparsity == "k" and self.k > m:  # type: ignore[attr-defined]
            raise UsageError(f"{self.kind}.k={self.k}: must be at most the number of atoms, {m}")  # type: ignore[attr-defined]

    def _prepare(self, atoms: Tensor, bias: Tensor, rows: Rows | None, rng: Stream) -> dict[str, Tensor]:
        return {}

    @abstractmethod
    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes: ...

    @abstractmethod
    def _flops(self, m: int, d: int) -> float: ...
