"""Codes: the activations of m features on n rows, kept sparse; the dense matrix is a view."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unmix.core.errors import UsageError


@dataclass(frozen=True)
class Codes:
    """Codes of n rows over `width` features, in one of three layouts.

    values: [n, k] with indices [n, k] (rectangular, from top-k; unused slots hold value 0);
        [nnz] with indices [nnz] and pointers [n + 1] (ragged); or [n, width] with indices None (dense).
    cost: [n] floating-point operations really spent on each row, where the encoder measured them.
    certificate: [n] relative duality gap of each row, where the encoder solved a convex problem (or the measure of
        optimality that the encoder names).
    """

    values: Tensor
    indices: Tensor | None
    width: int
    pointers: Tensor | None = None
    cost: Tensor | None = None
    certificate: Tensor | None = None

    def __post_init__(self) -> None:
        if self.values.is_complex():
            raise UsageError(f"codes: must be real numbers, got {self.values.dtype}")
        if self.indices is None and (self.values.ndim != 2 or self.values.shape[1] != self.width):
            raise UsageError(f"codes: dense values must be [n, {self.width}], got {list(self.values.shape)}")
        if self.indices is not None and self.indices.shape != self.values.shape:
            raise UsageError(
                f"codes: indices {list(self.indices.shape)} and values {list(self.values.shape)} differ in shape"
            )

    def __len__(self) -> int:
        return len(self.values) if self.pointers is None else len(self.pointers) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return len(self), self.width

    def __repr__(self) -> str:
        layout = "dense" if self.indices is None else "rectangular" if self.pointers is None else "ragged"
        active = self.l0().double().mean().item() if len(self) else 0.0
        return f"Codes({len(self)} x {self.width}, {layout}, L0 {active:.4g})"

    def rows(self, rows: slice) -> Codes:
        """The codes of some rows, in the same layout; `rows` is a slice without a step."""
        begin, end, step = rows.indices(len(self))
        if step != 1:
            raise UsageError(f"codes: rows must be a slice without a step, got {rows}")
        end = max(begin, end)
        cost, gap = (None if part is None else part[begin:end] for part in (self.cost, self.certificate))
        if self.pointers is None:
            indices = None if self.indices is None else self.indices[begin:end]
            return Codes(self.values[begin:end], indices, self.width, None, cost, gap)
        pointers = self.pointers[begin : end + 1]
        low, high = int(pointers[0]), int(pointers[-1])
        indices = self.indices[low:high]  # type: ignore[index]
        return Codes(self.values[low:high], indices, self.width, pointers - low, cost, gap)

    def take(self, rows: Any) -> Codes:
        """The codes of rows by their number, in the order given; ragged codes become rectangular."""
        where = torch.as_tensor(rows, dtype=torch.long, device=self.values.device)
        cost, gap = (None if part is None else part[where] for part in (self.cost, self.certificate))
        if self.indices is None:
            return Codes(self.values[where], None, self.width, None, cost, gap)
        values, indices = self.rectangular()
        return Codes(values[where], indices[where], self.width, None, cost, gap)

    def nonzero(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row numbers, feature numbers and values of every code that is not zero, sorted by row: each [nnz]."""
        if self.indices is None:
            rows, columns = self.values.nonzero(as_tuple=True)
            return rows, columns, self.values[rows, columns]
        if self.pointers is None:
            rows, slots = self.values.nonzero(as_tuple=True)
            return rows, self.indices[rows, slots].long(), self.values[rows, slots]
        counts = self.pointers.diff()
        rows = torch.repeat_interleave(torch.arange(len(self), device=counts.device), counts)
        keep = self.values != 0
        return rows[keep], self.indices[keep].long(), self.values[keep]

    def dense(self) -> Tensor:
        """The codes as a matrix [n, m]."""
        if self.indices is None:
            return self.values
        rows, columns, values = self.nonzero()
        return values.new_zeros(len(self), self.width).index_put_((rows, columns), values, accumulate=True)

    def l0(self, threshold: float = 0.0) -> Tensor:
        """Number of codes with |value| > threshold in each row: [n]."""
        if self.pointers is None:
            return (self.values.abs() > threshold).sum(1)
        if threshold == 0 and bool((self.values != 0).all()):
            return self.pointers.diff()
        rows, _, values = self.nonzero()
        return torch.bincount(rows[values.abs() > threshold], minlength=len(self))

    def firing(self) -> Tensor:
        """Number of rows in which each feature is not zero: [m]."""
        return torch.bincount(self.nonzero()[1], minlength=self.width)

    def decode(self, atoms: Tensor, bias: Tensor | None = None) -> Tensor:
        """Reconstruction h = codes @ atoms + bias; atoms [m, d], bias [d] -> [n, d]."""
        if self.indices is None:
            out = self.values @ atoms
        elif not self.values.numel():
            out = atoms.new_zeros(len(self), atoms.shape[1])
        else:
            starts = None if self.pointers is None else self.pointers[:-1].long()
            weights = self.values.to(atoms.dtype)
            out = torch.nn.functional.embedding_bag(
                self.indices.long(), atoms, starts, mode="sum", per_sample_weights=weights
            )
        return out if bias is None else out + bias

    def ragged(self) -> Codes:
        """The same codes in the ragged layout; ragged codes are given back as they are, others lose their zeros."""
        if self.pointers is not None:
            return self
        rows, columns, values = self.nonzero()
        counts = torch.bincount(rows, minlength=len(self))
        pointers = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return Codes(values, columns, self.width, pointers, self.cost, self.certificate)

    def rectangular(self) -> tuple[Tensor, Tensor]:
        """Values and indices [n, s], s the most entries of a row; unused slots hold value and index 0."""
        if self.pointers is None:
            n = len(self)
            indices = torch.arange(self.width, device=self.values.device).expand(n, -1)
            return self.values, indices if self.indices is None else self.indices.long()
        counts = self.pointers.diff()
        most = int(counts.max()) if len(counts) else 0
        used = torch.arange(most, device=counts.device) < counts[:, None]
        values = self.values.new_zeros(used.shape).masked_scatter(used, self.values)
        indices = self.indices.new_zeros(used.shape).masked_scatter(used, self.indices)  # type: ignore[union-attr,arg-type]
        return values, indices.long()

    def to(self, device: str | torch.device) -> Codes:
        """The same codes on another device."""
        parts = ("values", "indices", "pointers", "cost", "certificate")
        moved: dict[str, Any] = {p: None if (t := getattr(self, p)) is None else t.to(device) for p in parts}
        return replace(self, **moved)

    @staticmethod
    def concatenate(parts: list[Codes]) -> Codes:
        """Codes of stacked rows; parts of unlike layouts become ragged. Raises `UsageError` for no parts."""
        if not parts:
            raise UsageError("codes: nothing to concatenate")
        if len(parts) == 1:
            return parts[0]

        def joined(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            return None if any(value is None for value in values) else torch.cat(values)

        layouts = {(p.indices is None, p.pointers is None, p.values.shape[1:]) for p in parts}
        if len(layouts) > 1 or parts[0].pointers is not None:
            parts = [part.ragged() for part in parts]
            pointers, offset = [parts[0].pointers[:1]], 0  # type: ignore[index]
            for part in parts:
                pointers.append(part.pointers[1:] + offset)  # type: ignore[index]
                offset += len(part.values)
            return Codes(
                torch.cat([p.values for p in parts]),
                torch.cat([p.indices for p in parts]),  # type: ignore[misc]
                parts[0].width,
                torch.cat(pointers),
                joined("cost"),
                joined("certificate"),
            )
        values = torch.cat([p.values for p in parts])
        return Codes(values, joined("indices"), parts[0].width, None, joined("cost"), joined("certificate"))
