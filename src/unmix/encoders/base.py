"""Encoder: the recipe of an inference; bound to a dictionary it turns rows into codes."""

from __future__ import annotations

import dataclasses
import functools
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe
from unmix.core.rows import Rows, as_rows, as_tensor, require_finite
from unmix.core.scale import SQUARED, size_of
from unmix.core.seeds import Stream, as_stream

GRAM_ATOMS = 16384  # most atoms for which a Gram matrix is held (1 GiB in float32)
SHARED = ("gram",)  # tensors made from the atoms alone: not saved, made again when they are needed


class Dictionary(Protocol):
    """What an encoder is bound to: atoms [m, d] and bias [d]."""

    @property
    def atoms(self) -> Tensor: ...

    @property
    def bias(self) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class BoundEncoder:
    """An encoder with its dictionary and what it holds for it (weights, thresholds, a Gram matrix).

    Calling it with h [n, d] gives `Codes` [n, m]; the dictionary's bias is taken off first, in the precision of h.
    Rows and atoms of which float32 does not hold the squares (beyond 1e-15 .. 1e15) are worked on in float64.
    """

    recipe: Encoder
    atoms: Tensor
    bias: Tensor
    tensors: Mapping[str, Tensor]

    @functools.cached_property
    def _reach(self) -> float:
        """The largest absolute value in the atoms."""
        return size_of(self.atoms)

    @property
    def flops(self) -> float:
        """Upper bound of floating-point operations for one sample."""
        return self.recipe._flops(*self.atoms.shape)

    @property
    def readout(self) -> Mapping[str, Tensor] | None:
        """The tensors of its linear read-out (weight [m, d], shift [m], perhaps threshold), or None."""
        return self.recipe._readout(self.tensors)

    def __call__(self, h: Any, block: int = 4096, start: Codes | None = None) -> Codes:
        """Codes [n, m] of h [n, d], `block` rows at a time.

        start: first codes [n, m] to begin from, for encoders that can (`warm`). Raises `UsageError` for a wrong
        shape, a NaN, rows or codes beyond the atoms' type, or a start that cannot be used.
        """
        h = as_tensor(h, "h")
        m, d = self.atoms.shape
        if h.ndim != 2 or h.shape[1] != d:
            raise UsageError(f"h: expected [n, {d}], got {list(h.shape)}")
        if start is not None:
            if not self.recipe.warm:
                raise UsageError(f"start: {self.recipe.kind} cannot begin from given codes; leave start out")
            if start.shape != (len(h), m):
                raise UsageError(f"start: expected codes [{len(h)}, {m}], got {list(start.shape)}")
            start = start.to(self.atoms.device)
        parts = []
        with torch.no_grad():
            for begin in range(0, max(1, len(h)), block):
                rows = slice(begin, begin + block)
                given = () if start is None else (start.rows(rows),)
                parts.append(self._codes(h[rows].to(self.atoms.device), begin, given))
        return Codes.concatenate(parts)

    def _codes(self, h: Tensor, begin: int, start: tuple[Codes, ...]) -> Codes:
        """Codes of a block of rows [n, d] from row `begin` on."""
        dtype = self.atoms.dtype
        x = (h - self.bias).to(dtype)
        size = size_of(x)
        if not math.isfinite(size):
            require_finite(h, "h", begin)
            raise UsageError(f"h: reaches {size_of(h):.3g}, which {_plain(dtype)} does not hold; divide by its scale")
        squared = all(SQUARED[0] < part < SQUARED[1] for part in (size, self._reach) if part)
        if dtype == torch.float32 and not squared:
            double = self.to(torch.float64)
            codes = self.recipe._encode(double, h.double() - double.bias, *start)
            codes = dataclasses.replace(codes, values=codes.values.to(dtype))
        else:
            codes = self.recipe._encode(self, x, *start)
        if not math.isfinite(size_of(codes.values)):
            raise UsageError(
                f"{self.recipe.kind}: codes beyond {_plain(dtype)} for rows that reach {size:.3g} and atoms that "
                f"reach {self._reach:.3g}; bring rows and atoms to a scale near 1"
            )
        return codes

    def to(self, target: str | torch.device | torch.dtype) -> BoundEncoder:
        """The same on another device or in another precision; what is made from the atoms alone is made again."""
        atoms = self.atoms.to(target)
        tensors = {name: tensor.to(target) for name, tensor in self.tensors.items()}
        if atoms.dtype != self.atoms.dtype:
            made = self.recipe._derived(atoms)
            tensors.update({name: tensor for name, tensor in made.items() if name in tensors})
        return BoundEncoder(self.recipe, atoms, self.bias.to(target), tensors)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class Encoder(Recipe):
    """The recipe of an inference: codes z >= 0 (or signed) with h ~ z D + bias.

    sparsity: the field that sets how many codes are active, or None.
    counted: that field is the number of active codes itself (k), not a penalty or a threshold.
    weights: it has weights of its own, which must be fitted or given an explicit start.
    warm: it can begin from given codes; `_encode` then takes a third argument, the codes or None.
    amortised: its codes are a learnt function of the row, in one pass; other encoders solve for every row.
    readout: tensors of a linear read-out W x + c and their shapes, where that is what its weights are, such as
    {"weight": "m d", "shift": "m", "threshold": ""}; another encoder of this kind can take them over.
    """

    sparsity: ClassVar[str | None] = None
    counted: ClassVar[bool] = True
    weights: ClassVar[bool] = False
    warm: ClassVar[bool] = False
    amortised: ClassVar[bool] = False
    readout: ClassVar[Mapping[str, str]] = {}

    @property
    def signed(self) -> bool:
        """Codes may be negative: what the recipe's field `positive` or `rectify` says."""
        return not getattr(self, "positive", getattr(self, "rectify", True))

    @property
    def needs_rows(self) -> bool:
        """Its weights have no start: they are fitted on rows, or taken over from a linear read-out."""
        return self.weights and getattr(self, "init", None) is None

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
        """This encoder with tensors that an earlier binding held; what is made from the atoms alone is made again."""
        atoms, bias = features.atoms.detach(), features.bias.detach()
        return BoundEncoder(self, atoms, bias, {**self._derived(atoms), **tensors})

    def with_sparsity(self, value: float) -> Self:
        """The recipe with the field that sets its sparsity changed. Raises `UsageError` where it has none."""
        if self.sparsity is None:
            raise UsageError(f"{self.kind} has no option that sets how many codes are active")
        return self.but(**{self.sparsity: value})

    def learns_as(self, other: Encoder) -> bool:
        """Whether the weights it would be fitted to are those that an encoder `other` already has."""
        return self == other or bool(self.readout and self.kind == other.kind)

    def _check(self, m: int, d: int) -> None:
        if self.sparsity == "k" and self.k > m:  # type: ignore[attr-defined]
            raise UsageError(f"{self.kind}.k={self.k}: must be at most the number of atoms, {m}")  # type: ignore[attr-defined]

    def keep(self, present: BoundEncoder) -> BoundEncoder | None:
        """This encoder with what `present` has learnt: all for the same recipe, its linear read-out for another.

        None where its weights are no linear read-out, or `present` has none.
        """
        if self == present.recipe:
            return present
        readout = present.readout
        tensors = None if readout is None else self._adopt(readout, present.atoms)
        if tensors is None:
            return None
        self._check(*present.atoms.shape)
        return self.restore(present, tensors)

    def _reduced(self) -> Encoder:
        """An encoder that is as sparse for the same value of `with_sparsity`, with as few weights as possible."""
        return self

    def _derived(self, atoms: Tensor) -> dict[str, Tensor]:
        """Those of the tensors named in SHARED that it uses."""
        return {}

    def _prepare(self, atoms: Tensor, bias: Tensor, rows: Rows | None, rng: Stream) -> dict[str, Tensor]:
        """The tensors that a binding holds."""
        return self._derived(atoms)

    def _readout(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
        return {name: tensors[name] for name in self.readout if name in tensors} or None

    def _adopt(self, readout: Mapping[str, Tensor], atoms: Tensor) -> dict[str, Tensor] | None:
        """The tensors of this encoder with the linear read-out of another; None where its weights are no read-out.

        Weight and shift are kept; a threshold is kept where its shape allows it and is 0 otherwise.
        """
        if not self.readout:
            return None
        sizes = {"m": len(atoms), "d": atoms.shape[1]}
        tensors = {}
        for name, names in self.readout.items():
            shape = tuple(sizes[letter] for letter in names.split())
            held = readout.get(name)
            if held is None or held.ndim > len(shape):
                held = atoms.new_zeros(())
            tensors[name] = held.expand(shape).contiguous()
        return tensors

    @abstractmethod
    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes: ...

    @abstractmethod
    def _flops(self, m: int, d: int) -> float: ...


class GramEncoder(Encoder):
    """An encoder that holds the Gram matrix of the dictionary, where it is small enough."""

    def _derived(self, atoms: Tensor) -> dict[str, Tensor]:
        return {"gram": atoms @ atoms.T} if len(atoms) <= GRAM_ATOMS else {}
