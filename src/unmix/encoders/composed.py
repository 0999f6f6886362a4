"""Encoders made of encoders: warm starts, least squares on a support, thresholds and the largest codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.rows import Rows, as_tensor
from unmix.core.seeds import Stream
from unmix.encoders import ENCODERS
from unmix.encoders.base import SHARED, BoundEncoder, Dictionary, Encoder

Part = Annotated[Any, BeforeValidator(ENCODERS.make)]


class Composed(Encoder):
    """An encoder made of others, whose tensors it holds under the name of the part (`first.weight`).

    What is made from the atoms alone is shared by all parts and keeps its own name (`gram`).
    """

    parts: ClassVar[tuple[str, ...]] = ("base",)

    @model_validator(mode="after")
    def _not_inside_itself(self) -> Self:
        for name, part in self._each():
            if type(part) is type(self):
                raise ValueError(
                    f"{name}={part.kind} inside {self.kind} does its work twice; give it what {name} has"
                )
        return self

    def _each(self) -> Iterator[tuple[str, Encoder]]:
        return ((name, getattr(self, name)) for name in self.parts)

    @property
    def signed(self) -> bool:
        return getattr(self, self.parts[-1]).signed

    @property
    def weights(self) -> bool:  # type: ignore[override]
        return any(part.weights for _, part in self._each())

    @property
    def warm(self) -> bool:  # type: ignore[override]
        return getattr(self, self.parts[0]).warm

    @property
    def needs_rows(self) -> bool:
        return any(part.needs_rows for _, part in self._each())

    def learns_as(self, other: Encoder) -> bool:
        return all(part.learns_as(other) for _, part in self._each() if part.needs_rows)

    def _check(self, m: int, d: int) -> None:
        super()._check(m, d)
        for _, part in self._each():
            part._check(m, d)

    def _derived(self, atoms: Tensor) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        for _, part in self._each():
            made = made or part._derived(atoms)
        return made

    def _prepare(self, atoms: Tensor, bias: Tensor, rows: Rows | None, rng: Stream) -> dict[str, Tensor]:
        return self._held({n: part._prepare(atoms, bias, rows, rng.child(n)) for n, part in self._each()})

    def _adopt(self, readout: Mapping[str, Tensor], atoms: Tensor) -> dict[str, Tensor] | None:
        kept: dict[str, Mapping[str, Tensor]] = {}
        for name, part in self._each():
            if part.needs_rows:
                tensors = part._adopt(readout, atoms)
                if tensors is None:
                    return None
            else:
                tensors = part._prepare(atoms, atoms.new_zeros(atoms.shape[1]), None, Stream(0))
            kept[name] = tensors
        return self._held(kept)

    def _readout(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
        found = (part._readout(_under(tensors, name)) for name, part in self._each())
        return next((readout for readout in found if readout is not None), None)

    def _held(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {
            (name if name in SHARED else f"{part}.{name}"): tensor
            for part, held in tensors.items()
            for name, tensor in held.items()
        }

    def _run(self, name: str, bound: BoundEncoder, x: Tensor, start: Codes | None = None) -> Codes:
        """The codes of one part for x (bias taken off), with what they cost."""
        part: Encoder = getattr(self, name)
        inside = BoundEncoder(part, bound.atoms, bound.bias, _under(bound.tensors, name))
        codes = part._encode(inside, x) if start is None else part._encode(inside, x, start)  # type: ignore[call-arg]
        if codes.cost is None:
            fixed = torch.full((len(x),), inside.flops, dtype=torch.float64, device=x.device)
            codes = dataclasses.replace(codes, cost=fixed)
        return codes


class Refine(Composed):
    """One encoder's codes as the start of another: amortised inference, then optimisation ("SAE + ITO").

    first: gives the codes to begin from. then: an encoder that can begin from given codes, such as Fista; where it
    solves a convex problem the result is the same as without `first` and only the cost differs. Both signed or both
    non-negative.
    """

    equation: ClassVar[str] = "z = then(x, start = first(x))"
    reference: ClassVar[str] = "O'Neill, Gumran, Klindt 2024, arXiv 2411.13117"
    parts: ClassVar[tuple[str, ...]] = ("first", "then")

    first: Part = Field(default_factory=lambda: ENCODERS.make("TopK"))
    then: Part = Field(default_factory=lambda: ENCODERS.make("Fista"))

    @model_validator(mode="after")
    def _possible(self) -> Refine:
        if not self.then.warm or isinstance(self.then, Refine):
            able = [name for name in ENCODERS if ENCODERS[name].warm is True]
            raise ValueError(f"then={self.then.kind} cannot begin from given codes; use one of {', '.join(able)}")
        if self.first.signed != self.then.signed:
            kinds = ("non-negative", "signed")
            raise ValueError(
                f"first={self.first.kind} gives {kinds[self.first.signed]} codes and then={self.then.kind} "
                f"{kinds[self.then.signed]} ones; both must be the same"
            )
        return self

    @property
    def warm(self) -> bool:  # type: ignore[override]
        return False

    @property
    def sparsity(self) -> str | None:  # type: ignore[override]
        return None if self.then.sparsity is None else f"then.{self.then.sparsity}"

    @property
    def counted(self) -> bool:  # type: ignore[override]
        return self.then.counted

    def with_sparsity(self, value: float) -> Refine:
        return self.but(then=self.then.with_sparsity(value))

    def _reduced(self) -> Encoder:
        return self.then._reduced()

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        first = self._run("first", bound, x)
        codes = self._run("then", bound, x, first)
        return dataclasses.replace(codes, cost=first.cost + codes.cost)  # type: ignore[operator]

    def _flops(self, m: int, d: int) -> float:
        return self.first._flops(m, d) + self.then._flops(m, d)


class Debiased(Composed):
    """Least squares on the support of another encoder's codes: no shrinkage; non-negative where those are.

    base: the encoder that chooses the support.
    """

    equation: ClassVar[str] = "z_S = argmin |x - z_S D_S|^2,  S the support of base(x)"
    reference: ClassVar[str] = "Belloni, Chernozhukov 2013, arXiv 1001.0188"

    base: Part = Field(default_factory=lambda: ENCODERS.make("Fista"))

    @property
    def sparsity(self) -> str | None:  # type: ignore[override]
        return None if self.base.sparsity is None else f"base.{self.base.sparsity}"

    @property
    def counted(self) -> bool:  # type: ignore[override]
        return self.base.counted

    def with_sparsity(self, value: float) -> Debiased:
        return self.but(base=self.base.with_sparsity(value))

    def _reduced(self) -> Encoder:
        return self.but(base=self.base._reduced())

    def _encode(self, bound: BoundEncoder, x: Tensor, start: Codes | None = None) -> Codes:
        return _on_support(self._run("base", bound, x, start), x, bound.atoms, not self.signed)

    def _flops(self, m: int, d: int) -> float:
        size = float(min(getattr(self.base, "k", m), m, d))
        return self.base._flops(m, d) + size * (size + 3) * d + size**2 * (size / 3 + 4)


class Thresholded(Composed):
    """Another encoder's codes with those of at most `threshold` in absolute value set to zero.

    base: the encoder. threshold: in the units of the codes.
    """

    equation: ClassVar[str] = "z_j = base(x)_j [ |base(x)_j| > threshold ]"
    reference: ClassVar[str] = "Donoho, Johnstone 1994"
    sparsity: ClassVar[str | None] = "threshold"
    counted: ClassVar[bool] = False

    base: Part = Field(default_factory=lambda: ENCODERS.make("Fista"))
    threshold: float = Field(default=0.01, ge=0)

    @property
    def amortised(self) -> bool:  # type: ignore[override]
        return self.base.amortised

    def _reduced(self) -> Encoder:
        return self.but(base=self.base._reduced())

    def _encode(self, bound: BoundEncoder, x: Tensor, start: Codes | None = None) -> Codes:
        codes = self._run("base", bound, x, start)
        values = codes.values * (codes.values.abs() > self.threshold)
        cost = codes.cost + codes.l0()  # type: ignore[operator]
        return Codes(values, codes.indices, codes.width, codes.pointers, cost=cost)

    def _flops(self, m: int, d: int) -> float:
        return self.base._flops(m, d) + m


class Largest(Composed):
    """The k largest of another encoder's codes in absolute value, the others set to 0; ties go to the lowest index.

    base: the encoder. k: most active codes in a row.
    """

    equation: ClassVar[str] = "z_j = base(x)_j [ |base(x)_j| among the k largest ]"
    reference: ClassVar[str] = "O'Neill, Gumran, Klindt 2024, arXiv 2411.13117"
    sparsity: ClassVar[str | None] = "k"

    base: Part = Field(default_factory=lambda: ENCODERS.make("Fista"))
    k: int = Field(default=32, ge=1)

    @property
    def amortised(self) -> bool:  # type: ignore[override]
        return self.base.amortised

    def _encode(self, bound: BoundEncoder, x: Tensor, start: Codes | None = None) -> Codes:
        codes = self._run("base", bound, x, start)
        values, indices = codes.rectangular()
        cost = codes.cost + codes.l0()  # type: ignore[operator]
        if values.shape[1] > self.k:
            # A stable sort, because top-k leaves open which of equal codes it takes.
            best = values.abs().argsort(dim=1, descending=True, stable=True)[:, : self.k].sort(1).values
            values, indices = values.gather(1, best), indices.gather(1, best)
        return Codes(values, indices, codes.width, cost=cost)

    def _flops(self, m: int, d: int) -> float:
        return self.base._flops(m, d) + m


def refine(amortised: Encoder | str, iterative: Encoder | str) -> Refine:
    """The iterative encoder begun from the codes of the amortised one: `Refine(first=amortised, then=iterative)`."""
    return Refine(first=amortised, then=iterative)


def debias(codes: Codes, h: Any, dictionary: Dictionary, positive: bool | None = None) -> Codes:
    """Codes [n, m] with the same support that fit rows h [n, d] best: z_S = argmin |h - bias - z_S D_S|^2.

    positive: non-negative least squares; None where no given code is negative. A code may become 0.
    Raises `UsageError` for shapes that do not fit.
    """
    x = (as_tensor(h, "h").to(dictionary.bias.device) - dictionary.bias).to(dictionary.atoms)
    if codes.shape != (len(x), len(dictionary.atoms)):
        raise UsageError(f"codes: expected [{len(x)}, {len(dictionary.atoms)}], got {list(codes.shape)}")
    if positive is None:
        positive = not bool((codes.values < 0).any())
    return _on_support(codes, x, dictionary.atoms, positive)


def _on_support(codes: Codes, x: Tensor, atoms: Tensor, positive: bool) -> Codes:
    from unmix.kernels.nnls import on_support

    ragged = codes.ragged()
    support = (ragged.values, ragged.indices, ragged.pointers)
    values, spent = on_support(x, atoms, support, positive=positive)  # type: ignore[arg-type]
    cost = spent if codes.cost is None else codes.cost + spent
    return Codes(values, ragged.indices, codes.width, ragged.pointers, cost=cost)


def _under(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of one part by their own names, and those that all parts share."""
    own = {n.removeprefix(f"{part}."): tensor for n, tensor in tensors.items() if n.startswith(f"{part}.")}
    return {**{name: tensors[name] for name in SHARED if name in tensors}, **own}
