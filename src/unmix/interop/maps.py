"""Maps between conventions: where the bias enters, what the atoms' norms are, which rows the features are of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unmix.activations.transforms import Affine, TransformedRows
from unmix.core.errors import UsageError
from unmix.encoders import ENCODERS
from unmix.encoders.base import Encoder
from unmix.finders.features import Features, bound

READ_OUTS = ("Linear", "TopK", "AbsTopK", "BatchTopK", "JumpReLU", "Gated", "Matryoshka")


def kind_of(recipe: Encoder, names: tuple[str, ...]) -> str | None:
    """The name among `names` whose class the recipe is of, or None; a class of the same name elsewhere is not."""
    return next((name for name in names if name in ENCODERS and type(recipe) is ENCODERS[name]), None)


def with_offset(tensors: Mapping[str, Tensor], offset: Tensor) -> dict[str, Tensor]:
    """Tensors of a read-out W x + c that read W x + offset where they read W x; offset [m], float64.

    A gate reads g + offset, its magnitude exp(r) (W x + offset) + c.
    """
    changed = dict(tensors)
    if "gate_shift" in changed:
        changed["gate_shift"] = _like(changed["gate_shift"].double() + offset, changed["gate_shift"])
        offset = changed["log_scale"].double().exp() * offset
    changed["shift"] = _like(changed["shift"].double() + offset, changed["shift"])
    return changed


def unit_atoms(atoms: Tensor, tensors: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Atoms of unit norm, and tensors of a read-out W x + c whose codes are the norm times as large.

    The reconstruction stays: z_j |d_j| (d_j / |d_j|). A zero atom stays zero, and its code becomes 0.
    """
    norms = atoms.double().norm(dim=1)
    scaled = dict(tensors)
    scaled["weight"] = _like(tensors["weight"].double() * norms[:, None], atoms)
    scaled["shift"] = _like(tensors["shift"].double() * norms, atoms)
    unit = atoms.double() / torch.where(norms > 0, norms, 1.0)[:, None]
    return _like(unit, atoms), scaled


def folded(features: Features, affine: Affine) -> Features:
    """Features of h from features of x = scale (h - shift) W + offset, with the same codes.

    affine: an `Affine` map fitted with the features' rows. Atoms and bias are carried back by its inverse, which is
    what a reconstruction of h means; weights and shifts take in the map. Exact up to rounding in float64.
    Raises `UsageError` for an encoder that is no read-out: an l1 problem in x is another problem in h.
    """
    recipe = features.encoder.recipe
    if kind_of(recipe, (*READ_OUTS, "MLP")) is None:
        raise UsageError(
            f"{recipe.kind}: only a read-out can take in a transform of its rows; "
            "fit on rows without transforms, or give the features a read-out fitted on rows: encoder=TopK"
        )
    matrix, back = (
        torch.eye(len(affine.shift), dtype=torch.float64) if part is None else part.double()
        for part in (affine.matrix, affine.back)
    )
    shift, scale = affine.shift.double(), affine.scale
    offset = torch.zeros_like(shift) if affine.offset is None else affine.offset.double()
    atoms, bias = features.atoms, features.bias
    moved = (bias.double() - offset) @ back / scale + shift
    tensors = dict(features.encoder.tensors)
    weight = tensors["weight"].double()
    tensors["weight"] = _like(scale * weight @ matrix.T, atoms)
    # W (x - b) = (s W M') (h - b') + W (s (b' - shift) M + offset - b); the rest is 0 where `back` inverts M.
    rest = weight @ (scale * (moved - shift) @ matrix + offset - bias.double())
    tensors = with_offset(tensors, rest)
    atoms, bias = _like(atoms.double() @ back / scale, atoms), _like(moved, bias)
    return dataclasses.replace(features, atoms=atoms, bias=bias, encoder=bound(recipe, atoms, bias, tensors))


def of_given_rows(features: Features, rows: Any) -> Features:
    """Features of the rows as they were before the transforms that they were fitted through; see `folded`."""
    while isinstance(rows, TransformedRows):
        features, rows = folded(features, rows.affine), rows.rows
    return features


def _like(double: Tensor, like: Tensor) -> Tensor:
    return double.to(like.dtype).contiguous()
