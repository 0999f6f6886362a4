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
from unmix.core.scale import kept, power_of_two, size_of
from unmix.core.seeds import Stream, as_stream


@dataclass(frozen=True, eq=False)
class Affine:
    """x = scale (h - shift) W + offset, and back h = (x - offset) W' / scale + shift.

    shift: [d], in float64 where rows in float64 have an offset that is large beside their scale. matrix: W [d, d],
    None is the identity. back: W' [d, d], the (pseudo-)inverse of W. scale: not 0. offset: [d], None is 0. Where W
    has directions of no variance in the rows it was fitted on, the inverse gives them their mean: exact on such rows,
    a projection on others.
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
        for name in ("matrix", "back"):
            if (value := getattr(self, name)) is not None and not np.isfinite(size_of(value)):
                raise UsageError(f"affine: {name} is beyond float32; bring the rows to a scale near 1 before")

    def __call__(self, h: Tensor) -> Tensor:
        """x [n, d] from h [n, d], in the dtype of h."""
        x = (h - self._at(self.shift, h)).to(h.dtype)
        if self.matrix is not None:
            x = x @ self.matrix.to(h)
        x = x * self.scale
        return x if self.offset is None else x + self.offset.to(h)

    def inverse(self, x: Tensor) -> Tensor:
        """h [n, d] from x [n, d], in the dtype of x, or of the shift where that is wider."""
        h = x if self.offset is None else x - self.offset.to(x)
        h = h / self.scale
        if self.back is not None:
            h = h @ self.back.to(x)
        return h + self._at(self.shift, x)

    @staticmethod
    def _at(shift: Tensor, like: Tensor) -> Tensor:
        """The shift on the device of rows, and in their type unless its own is float64."""
        return shift.to(like.device) if shift.dtype == torch.float64 else shift.to(like)

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
        single = torch.promote_types(self.shift.dtype, other.shift.dtype)
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
        """The map fitted on rows [n, d], in float64, kept in float32.

        Raises `UsageError` for rows that are all 0, or whose scale float32 does not hold.
        """
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
        mean = _mean(rows)
        if rows.take(np.arange(1)).dtype != torch.float64:
            return Affine(mean.float())
        return Affine(kept(mean, float(_deviation(rows, mean).square().mean().sqrt()), torch.float64))


class Scale(Transform):
    """x = h / s with one scalar s, so that the mean squared norm of x is d. The origin stays."""

    equation: ClassVar[str] = "x = h sqrt(d / mean |h|^2)"

    def _fit(self, rows: Rows) -> Affine:
        n, d = rows.shape
        total, near = _squares(rows, torch.zeros(d, dtype=torch.float64))
        if not total.any():
            raise UsageError("rows: all are 0 and cannot be scaled; give rows that differ from 0")
        return Affine(torch.zeros(d), scale=float(np.sqrt(d * n / float(total.sum()))) / near)


class Standardise(Transform):
    """x = (h - mean) / deviation, column by column. Constant columns become 0 and come back as their constant."""

    equation: ClassVar[str] = "x_j = (h_j - mean(h_j)) / deviation(h_j)"

    def _fit(self, rows: Rows) -> Affine:
        mean = _mean(rows)
        deviation = _deviation(rows, mean)
        varies = deviation > _resolution(rows) * mean.abs()
        matrix = torch.where(varies, 1 / deviation, 0.0)
        scale = deviation[varies].min().item() if varies.any() else 1.0
        shift = kept(mean, scale, _type(rows))
        return Affine(shift, matrix.diag().float(), torch.where(varies, deviation, 0.0).diag().float())


class Whiten(Transform):
    """x = (h - mean) V (L + ridge mean(L))^-1/2 V', the symmetric (ZCA) whitening; V, L diagonalise the covariance.

    ridge: as a share of the mean variance. rank: keep the directions of largest variance only; the others become 0
    and the inverse gives them their mean. Constant columns become 0 and come back as their constant; so do all
    directions with less than 1e-9 of the largest variance, which float32 does not resolve.
    """

    equation: ClassVar[str] = "x = (h - mean) C^-1/2"

    ridge: float = Field(default=1e-6, ge=0)
    rank: int | None = Field(default=None, ge=1)

    def _fit(self, rows: Rows) -> Affine:
        n, d = rows.shape
        if self.rank is not None and self.rank > d:
            raise UsageError(f"rank={self.rank}: the rows have {d} columns; give at most {d}")
        mean = _mean(rows)
        covariance, near = _squares(rows, mean, cross=True)
        covariance /= n
        deviation = covariance.diagonal().sqrt() * near
        # A column that is constant up to rounding must not leak into others.
        varies = deviation > _resolution(rows) * mean.abs()
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
        matrix[grid] = (vectors[:, keep] / deviations) @ vectors[:, keep].T / near
        back[grid] = (vectors[:, keep] * deviations) @ vectors[:, keep].T * near
        return Affine(kept(mean, float(deviations.min()) * near, _type(rows)), matrix.float(), back.float())


def _mean(rows: Rows) -> Tensor:
    """Mean in float64, exact for constant columns: taken around the first row."""
    first = as_tensor(rows.take(np.arange(1)))[0].double()
    total = torch.zeros_like(first)
    for block in rows.blocks(16384):
        total += (block.double() - first).sum(0)
    return first + total / rows.shape[0]


def _deviation(rows: Rows, mean: Tensor) -> Tensor:
    """Standard deviation of every column in float64, at any scale: [d]."""
    total, near = _squares(rows, mean)
    return (total / rows.shape[0]).sqrt() * near


def _squares(rows: Rows, mean: Tensor, cross: bool = False) -> tuple[Tensor, float]:
    """Sums of squares about the mean in float64, [d] or with cross products [d, d], of rows over a power of two.

    The power is 1 unless the squares of the rows themselves vanish or overflow.
    """
    near = 1.0
    while True:
        total = torch.zeros(len(mean), len(mean) if cross else 1, dtype=torch.float64)
        for block in rows.blocks(16384):
            away = (block.double() - mean) / near
            total += away.T @ away if cross else away.square().sum(0)[:, None]
        if near != 1 or 1e-200 < size_of(total) < 1e200:
            break
        near = power_of_two(max(size_of(block.double() - mean) for block in rows.blocks(16384)))
        if near == 1:
            break
    return total if cross else total[:, 0], near


def _type(rows: Rows) -> torch.dtype:
    return rows.take(np.arange(1)).dtype


def _resolution(rows: Rows) -> float:
    """Share of its mean below which the deviation of a column is rounding of its numbers."""
    return 1e-13 if _type(rows) == torch.float64 else torch.finfo(torch.float32).eps


def _double(value: Tensor | None) -> Any:
    return None if value is None else value.double()


def _times(x: Tensor, matrix: Tensor | None) -> Tensor:
    return x if matrix is None else x @ matrix.to(x)


def _product(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return right if left is None else left
    return (left.double() @ right.double()).to(left.dtype)
