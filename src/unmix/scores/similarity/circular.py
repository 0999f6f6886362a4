"""Circular comparisons: whether images are compared by what is scored, or by an affine function of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unmix.core.copies import first_copies
from unmix.core.scale import resolution, varies

EXPLAINED = 0.999  # R2 above which one is an affine function of the other, up to rounding
SPARE = 8  # rows that must be left beside the columns that explain
FEWEST = 12  # rows from which single columns, and distances, are compared
WIDEST = 1024  # activations that are fitted to the embedding; with more its distances alone are compared
ROWS = 2048  # rows that are looked at, evenly spaced


@dataclass(frozen=True, eq=False)
class Span:
    """The space of standardised columns over some rows: rows, their numbers; basis [rows, rank], orthonormal and
    orthogonal to the constant; spare: different rows beyond the rank and the constant, which a fit may not use up.
    """

    rows: Tensor
    basis: Tensor
    spare: int

    @staticmethod
    def of(columns: Tensor) -> Span:
        """Of columns [n, p]."""
        rows = _spaced(len(columns))
        held = standard(columns[rows])
        wide = held.shape[1] > len(held)
        values, vectors = torch.linalg.eigh(held @ held.T if wide else held.T @ held)
        keep = values > 1e-11 * values.amax().clamp_min(1e-300) if len(values) else values > 0
        basis = vectors[:, keep] if wide else held @ vectors[:, keep] / values[keep].sqrt()
        different = len(np.unique(first_copies(columns[rows])))
        return Span(rows, basis, different - basis.shape[1] - 1)

    def explains(self, held: Tensor) -> Tensor:
        """Share of the variance of standardised columns [rows, q] that an affine fit explains, corrected for the
        columns it has: [q]."""
        left = (held - self.basis @ (self.basis.T @ held)).square().sum(0)
        total = held.square().sum(0)
        return 1 - left / total.clamp_min(1e-300) * (self.spare + self.basis.shape[1]) / max(1, self.spare)


def told(activations: Tensor, embedding: Tensor, span: Span) -> str:
    """How activations [n, m] and an embedding [n, p] of the same different images hang together, "" where not.

    A feature is circular where the embedding explains it, and all are where they explain the embedding. Both are
    tested by R2, corrected for the number of columns, where at least 8 rows are left beside these; where there are
    more columns, anything is an affine function of them: then each feature is compared with each column alone, and
    the distances of images by one with those by the other (which a rotation leaves as they are). Features that few
    images decide are left out. span: that of the embedding.
    """
    same = "the embedding is the activations that are scored"
    if activations.shape == embedding.shape and torch.equal(activations.double(), embedding.double()):
        return same
    held, compared = standard(activations[span.rows]), standard(embedding[span.rows])
    rows, m = held.shape
    if not m or not compared.shape[1] or rows < FEWEST:
        return ""
    held = held[:, _decided_by(held) >= SPARE]
    if held.shape[1] and span.spare >= SPARE:
        close = span.explains(held) > EXPLAINED
    else:
        close = (
            (held.T @ compared).abs().amax(1) > EXPLAINED**0.5 if held.shape[1] else torch.zeros(0, dtype=torch.bool)
        )
    if bool(close.any()):
        some = "" if bool(close.all()) else f"{int(close.sum())} of {m} of "
        return f"{some}the activations that are scored are an affine function of the embedding"
    if m < min(WIDEST, rows - SPARE):
        other = Span.of(activations[span.rows])
        if other.spare >= SPARE:
            raw = embedding[span.rows].double()
            raw = raw - raw.mean(0)
            left = raw - other.basis @ (other.basis.T @ raw)
            scale = (other.spare + other.basis.shape[1]) / other.spare
            if float(left.square().sum() * scale) < (1 - EXPLAINED) * float(raw.square().sum()):
                return "the embedding is an affine function of the activations that are scored"
            return ""
    if _same_distances(activations[span.rows], embedding[span.rows]):
        return "the embedding has the distances of the activations that are scored"
    return ""


def standard(columns: Tensor) -> Tensor:
    """Columns [n, p] with mean 0 and norm 1, float64; those that are constant up to rounding are left out."""
    held = columns[:, varies(columns, resolution(columns))].double()
    held = held / held.abs().amax(0)
    held = held - held.mean(0)
    return held / held.norm(dim=0)


def _decided_by(held: Tensor) -> Tensor:
    """How many rows decide on columns of norm 1 [n, p]: (sum x^2)^2 / sum x^4, [p]."""
    return 1 / held.pow(4).sum(0).clamp_min(1e-300)


def _same_distances(one: Tensor, two: Tensor) -> bool:
    """Whether products of different centred rows of one are those of the other up to scale and offset."""
    rows = _spaced(len(one), 512)
    grams = []
    for part in (one, two):
        held = part[rows].double()
        held = held - held.mean(0)
        held = held / held.abs().amax().clamp_min(1e-300)
        gram = held @ held.T
        off = gram[~torch.eye(len(rows), dtype=torch.bool)]
        off = off - off.mean()
        grams.append(off / off.norm().clamp_min(1e-300))
    return float((grams[0] * grams[1]).sum()) > EXPLAINED


def _spaced(n: int, most: int = ROWS) -> Tensor:
    return torch.arange(n) if n <= most else torch.linspace(0, n - 1, most).round().long()
