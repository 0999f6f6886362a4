"""Features: atoms, a bias and a bound encoder; what every finder returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.digest import SCHEMA, array_digest, digest, file_digest
from unmix.core.errors import Failure, UsageError
from unmix.core.rows import as_tensor
from unmix.core.seeds import Stream
from unmix.core.store import lacking, read_json, read_tensors, replacing, write_json, write_tensors
from unmix.encoders import ENCODERS
from unmix.encoders.base import SHARED, BoundEncoder, Encoder


@dataclass(frozen=True, eq=False)
class Features:
    """Directions found in a representation and how to read them: h ~ codes @ atoms + bias.

    atoms: [m, d]. bias: [d]. encoder: bound to them. names: [m] or None.
    about: plain facts of the fit (finder, seed, steps, seconds, FLOPs, final loss).
    """

    atoms: Tensor
    bias: Tensor
    encoder: BoundEncoder
    names: tuple[str, ...] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, d)."""
        return self.atoms.shape[0], self.atoms.shape[1]

    def encode(self, h: Any, block: int = 4096, cost: bool = False) -> Codes:
        """Codes [n, m] of rows h [n, d] (an array or Rows); `cost` fills in FLOPs for every row.

        Where the encoder stops by a rule, the cost is what was spent; elsewhere it is the fixed cost.
        """
        if hasattr(h, "blocks"):
            codes = Codes.concatenate([self.encoder(part, block) for part in h.blocks(block)])
        else:
            codes = self.encoder(h, block)
        if cost and codes.cost is None:
            spent = torch.full((len(codes),), self.encoder.flops, dtype=torch.float64)
            codes = dataclasses.replace(codes, cost=spent)
        return codes

    def decode(self, codes: Codes) -> Tensor:
        """Reconstruction [n, d]."""
        return codes.decode(self.atoms, self.bias)

    def reconstruct(self, h: Any) -> Tensor:
        """decode(encode(h)): [n, d]."""
        return self.decode(self.encode(h))

    def to(self, target: str | torch.device | torch.dtype) -> Features:
        """The same on another device or in another precision."""
        moved = self.encoder.to(target)
        return dataclasses.replace(self, atoms=moved.atoms, bias=moved.bias, encoder=moved)

    @property
    def digest(self) -> str:
        """Digest of atoms, bias, encoder and its tensors."""
        parts = {"atoms": array_digest(self.atoms), "bias": array_digest(self.bias)}
        tensors = {name: array_digest(tensor) for name, tensor in sorted(_own(self.encoder).items())}
        return digest({**parts, "encoder": self.encoder.recipe.as_dict(), "tensors": tensors})

    def save(self, folder: str | Path) -> Path:
        """Write a folder of features.json and tensors.safetensors, whole or not at all."""
        folder = Path(folder)
        with replacing(folder) as part:
            part.mkdir(parents=True)
            tensors = {f"encoder.{name}": tensor for name, tensor in _own(self.encoder).items()}
            write_tensors(part / "tensors.safetensors", {"atoms": self.atoms, "bias": self.bias, **tensors})
            facts = {
                "schema": SCHEMA,
                "tensors": file_digest(part / "tensors.safetensors"),
                "encoder": self.encoder.recipe.as_dict(),
                "names": self.names,
                "about": dict(self.about),
            }
            write_json(part / "features.json", facts)
        return folder

    @staticmethod
    def lacks(folder: Path) -> str | None:
        """Which file of a stored folder is missing or cut off, as far as sizes tell; None where it is whole."""
        return lacking(folder, "features.json", "tensors.safetensors")

    @staticmethod
    def load(folder: str | Path, device: str = "cpu") -> Features:
        """Features from a folder; raises `UsageError` for another version, `Failure` for a file that is not whole."""
        folder = Path(folder)
        again = f"remove {folder} and make it again"
        if folder.is_dir() and (name := Features.lacks(folder)) and not (folder / name).exists():
            raise Failure(f"{folder / name}: is missing; {again}")
        facts = read_json(folder / "features.json", again)
        schema = facts.get("schema") if isinstance(facts, dict) else None
        if schema != SCHEMA:
            raise UsageError(
                f"{folder}: written by another version (schema {schema}, this one reads {SCHEMA}); "
                "fit again, or use the version that wrote it"
            )
        file = folder / "tensors.safetensors"
        tensors = read_tensors(file, device, again)
        if facts.get("tensors") not in (None, found := file_digest(file)):
            raise Failure(f"{file}: its digest is {found}, expected {facts['tensors']}; {again}")
        try:
            atoms, bias = tensors.pop("atoms"), tensors.pop("bias")
        except KeyError as error:
            raise Failure(f"{file}: has no {error}; {again}") from None
        if atoms.ndim != 2 or bias.shape != atoms.shape[1:]:
            raise Failure(f"{file}: atoms {list(atoms.shape)} and bias {list(bias.shape)} do not fit; {again}")
        try:
            recipe: Encoder = ENCODERS.make(facts["encoder"])
            recipe._check(*atoms.shape)
            names, about = None if facts["names"] is None else tuple(facts["names"]), dict(facts["about"])
        except UsageError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise Failure(f"{folder / 'features.json'}: not whole ({error}); {again}") from None
        own = {name.removeprefix("encoder."): tensor for name, tensor in tensors.items()}
        return Features(atoms, bias, bound(recipe, atoms, bias, own), names, about)

    def __repr__(self) -> str:
        return f"Features({self.shape[0]} atoms of width {self.shape[1]}, encoder {self.encoder.recipe})"


def _own(encoder: BoundEncoder) -> dict[str, Tensor]:
    """What an encoder learnt; a Gram matrix is made again from the atoms."""
    return {name: tensor for name, tensor in encoder.tensors.items() if name not in SHARED}


@dataclass(frozen=True)
class _Dictionary:
    atoms: Tensor
    bias: Tensor


def bound(encoder: Encoder, atoms: Tensor, bias: Tensor, tensors: Mapping[str, Tensor]) -> BoundEncoder:
    """An encoder with tensors it held before; one that holds only a Gram is bound anew."""
    dictionary = _Dictionary(atoms, bias)
    return encoder.restore(dictionary, tensors) if encoder.weights else encoder.bind(dictionary)


def assemble(
    atoms: Tensor, bias: Tensor, encoder: Encoder, tensors: Mapping[str, Tensor] | None = None, **about: Any
) -> Features:
    """Features from fitted tensors; `tensors` are the encoder's own weights where it has any."""
    atoms, bias = as_tensor(atoms, "atoms").contiguous(), as_tensor(bias, "bias")
    tensors = {name: tensor.contiguous() for name, tensor in (tensors or {}).items()}
    return Features(atoms, bias, bound(encoder, atoms, bias, tensors), None, about)


def replace(features: Features, *, encoder: Encoder | str, rows: Any = None, rng: int | Stream = 0) -> Features:
    """The same atoms with another inference: the amortisation gap is the difference of two scores.

    encoder: a recipe or its name. rows: what weights of its own are fitted on; where it has weights that are a linear
    read-out, no rows are given and the present encoder has a linear read-out too, that read-out is kept (and a
    threshold where both have one of the same kind; else it starts at 0). The present encoder's own recipe changes
    nothing.
    Raises `UsageError` where weights have no start.
    """
    recipe: Encoder = ENCODERS.make(encoder)
    if recipe.needs_rows and rows is None and (kept := recipe.keep(features.encoder)) is not None:
        return dataclasses.replace(features, encoder=kept)
    return dataclasses.replace(features, encoder=recipe.bind(features, rows, rng))
