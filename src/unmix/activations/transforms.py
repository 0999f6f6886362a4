"""Transforms: centre, scale, standardise and whiten rows; affine maps that know their inverse."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unmix.core.digest import array_digest, digest
from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe
from unmix.core.rows import Rows, as_rows, as_tensor, gather
from unmix.core.seeds import Stream, as_stream


@dataclass(frozen=True, eq=False)
class Affine:
    """x = scale (h - shift) W + offset, and back h = (x - offset) W' / scale + shift.

    shift: [d]. matrix: W [d, d], None is the identity. back: W' [d, d], the (pseudo-)inverse of W. scale: not 0.
    offset: [d], None is 0. Where W has directions of no variance in the rows it was fitted on, the inverse gives
    them their mean: exact on such rows, a projection on others.
    """

    shift: Tensor
    matrix: Tensor | None = None
    back: Tensor | None = None
    scale: float = 1.0
    offset: Tensor | None = None

    def __post_init__(self) -> None:
        d = len(self.shift)
        if (self.matrix is None) != (self.back is None):
            raise UsageError("affine: matrix and back must be given together")
        for name in ("matrix", "back"):
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != (d, d):
                raise UsageError(f"affine: {name} must be [{d}, {d}], got {list(value.shape)}")
        if not np.isfinite(self.scale) or self.scale == 0:
            raise UsageError(f"affine: scale={self.scale} must be a number other than 0")

    def __call__(self, h: Tensor) -> Tensor:
        """x [n, d] from h [n, d], in the dtype of h."""
        x = h - self.shift.to(h)
        if self.matrix is not None:
            x = x @ self.matrix.to(h)
        x = x * self.scale
        return x if self.offset is None else x + self.offset.to(h)

    def inverse(self, x: Tensor) -> Tensor:
        """h [n, d] from x [n, d], in the dtype of x."""
        h = x if self.offset is None else x - self.offset.to(x)
        h = h / self.scale
        if self.back is not None:
            h = h @ self.back.to(x)
        return h + self.shift.to(x)

    def then(self, other: Affine) -> Affine:
        """One map for this one and `other` after it: other(self(h))."""
        if len(other.shift) != len(self.shift):
            raise UsageError(f"affine: widths differ, {len(self.shift)} and {len(other.shift)}")
        # The shift is the point that goes to other's own, so that where `other` loses directions, they come back.
        shift, matrix, back, offset = (_double(v) for v in (self.shift, self.matrix, self.back, self.offset))
        double = Affine(shift, matrix, back, self.scale, offset)
        point = double.inverse(other.shift.double())
        rest = other.scale * _times(double(point) - other.shift.double(), other.matrix)
        offset = rest if other.offset is None else rest + other.offset.double()
        single = self.shift.dtype
        return Affine(
            point.to(single),
            _product(self.matrix, other.matrix),
            _product(other.back, self.back),
            self.scale * other.scale,
            offset.to(single) if bool(offset.any()) else None,
        )

    def state(self) -> dict[str, Tensor]:
        """Tensors from which `from_state` makes the same map."""
        named = {name: getattr(self, name) for name in ("shift", "matrix", "back", "offset")}
        scale = torch.tensor(self.scale, dtype=torch.float64)
        return {**{name: value for name, value in named.items() if value is not None}, "scale": scale}

    @staticmethod
    def from_state(state: dict[str, Tensor]) -> Affine:
        """The map of `state()`."""
        return Affine(
            state["shift"], state.get("matrix"), state.get("back"), float(state["scale"]), state.get("offset")
        )

    @property
    def digest(self) -> str:
        """Digest of the content."""
        return digest({name: array_digest(value) for name, value in sorted(self.state().items())})


class TransformedRows:
    """Rows seen through an affine map, applied block by block; what they are beside numbers is that of the rows."""

    rows: Rows
    affine: Affine

    def __init__(self, rows: Any, affine: Affine) -> None:
        self.rows, self.affine = as_rows(rows), affine
        if self.rows.shape[1] != len(affine.shift):
            raise UsageError(f"affine: is for width {len(affine.shift)}, the rows have {self.rows.shape[1]}")

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self.rows.shape

    def __len__(self) -> int:
        return self.rows.shape[0]

    def __getattr__(self, name: str) -> Any:
        if name in ("items", "labels", "about", "streams"):
            return getattr(self.rows, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    @property
    def digest(self) -> str:
        """Digest of the rows and the map."""
        return digest({"rows": self.rows.digest, "affine": self.affine.digest})

    def blocks(self, size: int, rng: Stream | None = None, device: str = "cpu") -> Iterator[Tensor]:
        """Blocks as the rows give them, transformed."""
        for block in self.rows.blocks(size, rng, device):
            yield self.affine(block)

    def numbered(self, size: int, rng: Stream) -> Iterator[tuple[np.ndarray, Tensor]]:
        """A shuffled pass with the number of each row, transformed."""
        for numbers, block in self.rows.numbered(size, rng):  # type: ignore[attr-defined]
            yield numbers, self.affine(block)

    def take(self, rows: np.ndarray) -> Tensor:
        """The named rows, transformed: [len(rows), d]."""
        return self.affine(self.rows.take(rows))


class Transform(Recipe):
    """A recipe whose verb `fit` gives an affine map. limit: fit on so many rows drawn by rng; None takes all."""

    limit: int | None = Field(default=None, ge=2)

    def fit(self, rows: Any, rng: int | Stream = 0) -> Affine:
        """The map fitted on rows [n, d], in float64, kept in float32. Raises `UsageError` for rows that are all 0."""
        rows = as_rows(rows)
        if self.limit is not None and self.limit < rows.shape[0]:
            rows = as_rows(gather(rows, self.limit, as_stream(rng).child(self.kind)))
        return self._fit(rows)

    @abstractmethod
    def _fit(self, rows: Rows) -> Affine: ...


class Center(Transform):
    """x = h - mean."""

    equation: ClassVar[str] = "x = h - mean(h)"

    def _fit(self, rows: Rows) -> Affine:
        return Affine(_mean(rows).float())


class Scale(Transform):
    """x = h / s with one scalar s, so that the mean squared norm of x is d. The origin stays."""

    equation: ClassVar[str] = "x = h sqrt(d / mean |h|^2)"

    def _fit(self, rows: Rows) -> Affine:
        n, d = rows.shape
        total = sum(float(block.double().square().sum()) for block in rows.blocks(16384))
        if total == 0:
            raise UsageError("rows: all are 0 and cannot be scaled; give rows that differ from 0")
        return Affine(torch.zeros(d), scale=float(np.sqrt(d * n / total)))


class Standardise(Transform):
    """x = (h - mean) / deviation, column by column. Constant columns become 0 and come back as their constant."""

    equation: ClassVar[str] = "x_j = (h_j - mean(h_j)) / deviation(h_j)"

    def _fit(self, rows: Rows) -> Affine:
        mean = _mean(rows)
        total = sum((block.double() - mean).square().sum(0) for block in rows.blocks(16384))
        deviation = (torch.as_tensor(total) / rows.shape[0]).sqrt()
        # Below the resolution of float32 a column is constant.
        varies = deviation > torch.finfo(torch.float32).eps * mean.abs()
        matrix = torch.where(varies, 1 / deviation.clamp_min(1e-300), 0.0)
        return Affine(mean.float(), matrix.diag().float(), torch.where(varies, deviation, 0.0).diag().float())


class Whiten(Transform):
    """x = (h - mean) V (L + ridge mean(L))^-1/2 V', the symmetric (ZCA) whitening; V, L diagonalise the covariance.

    ridge: as a share of the mean variance. rank: keep the directions of largest variance only; the others become 0
    and the inverse gives them their mean. Constant columns become 0 and come back as their constant; so do all
    directions with less than 1e-9 of the largest variance, which float32 rows do not resolve.
    """

    equation: ClassVar[str] = "x = (h - mean) C^-1/2"

    ridge: float = Field(default=1e-6, ge=0)
    rank: int | None = Field(default=None, ge=1)

    def _fit(self, rows: Rows) -> Affine:
        n, d = rows.shape
        if self.rank is not None and self.rank > d:
            raise UsageError(f"rank={self.rank}: the rows have {d} columns; give at most {d}")
        mean = _mean(rows)
        covariance = torch.zeros(d, d, dtype=torch.float64)
        for block in rows.blocks(16384):
            centred = block.double() - mean
            covariance += centred.T @ centred
        covariance /= n
        # Below the resolution of float32 a column is constant; it must not leak into others by rounding.
        varies = covariance.diagonal() > torch.finfo(torch.float32).eps ** 2 * mean.square()
        places = varies.nonzero()[:, 0]
        if not len(places):
            raise UsageError("rows: every column is constant; there is nothing to whiten")
        values, vectors = torch.linalg.eigh(covariance[places][:, places])
        keep = values > 1e-9 * values[-1]
        if self.rank is not None:
            keep[: max(0, len(values) - self.rank)] = False
        deviations = (values[keep] + self.ridge * values.mean()).sqrt()
        matrix, back = torch.zeros(d, d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
        grid = (places[:, None], places[None])
        matrix[grid] = (vectors[:, keep] / deviations) @ vectors[:, keep].T
        back[grid] = (vectors[:, keep] * deviations) @ vectors[:, keep].T
        return Affine(mean.float(), matrix.float(), back.float())


def _mean(rows: Rows) -> Tensor:
    """Mean in float64, exact for constant columns: taken around the first row."""
    first = as_tensor(rows.take(np.arange(1)))[0].double()
    total = torch.zeros_like(first)
    for block in rows.blocks(16384):
        total += (block.double() - first).sum(0)
    return first + total / rows.shape[0]


def _double(value: Tensor | None) -> Any:
    return None if value is None else value.double()


def _times(x: Tensor, matrix: Tensor | None) -> Tensor:
    return x if matrix is None else x @ matrix.to(x)


def _product(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return right if left is None else left
    return (left.double() @ right.double()).to(left.dtype)
