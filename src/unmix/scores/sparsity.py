"""Reconstruction and sparsity: unexplained variance, active codes, dead atoms."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.rows import as_tensor
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_mean
from unmix.scores.base import Inputs, Outcome, Score


def fvu(h: Any, reconstruction: Any, rng: int | Stream = 0) -> Outcome:
    """Fraction of variance unexplained: sum |h - h'|^2 / sum |h - mean(h)|^2; the mean as reconstruction gives 1.

    h, reconstruction: [n, d]. The same for any batching, scale and shift; summed in float64.
    Raises `UsageError` for unlike shapes and for rows that are all equal.
    """
    a, b = as_tensor(h).double(), as_tensor(reconstruction).double()
    if a.shape != b.shape or a.ndim != 2 or not len(a):
        raise UsageError(f"fvu: h is {list(a.shape)}, reconstruction {list(b.shape)}; both must be [n, d], n >= 1")
    total = (a - a.mean(0)).square().sum(1)
    error = (a - b).square().sum(1)
    if total.sum() <= 1e-24 * a.square().sum() or total.sum() == 0:
        raise UsageError("fvu: all rows are equal, there is no variance to explain")
    low, high = _ratio_interval(error.numpy(), total.numpy(), as_stream(rng))
    return Outcome(float(error.sum() / total.sum()), 1.0, 0.0, (low, high))


def _ratio_interval(top: np.ndarray, bottom: np.ndarray, rng: Stream, draws: int = 200) -> tuple[float, float]:
    generator = rng.child("bootstrap").numpy()
    ratios = []
    for _ in range(draws if len(top) > 1 else 1):
        rows = generator.integers(len(top), size=len(top))
        ratios.append(top[rows].sum() / max(bottom[rows].sum(), 1e-300))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


class Fvu(Score):
    """Fraction of the rows' variance that the reconstruction does not explain."""

    name: ClassVar[str] = "fvu"
    better: ClassVar[str] = "lower"
    equation: ClassVar[str] = "sum |h - h'|^2 / sum |h - mean(h)|^2"
    reference: ClassVar[str] = "1 - explained variance; arXiv 2406.04093"
    needs: ClassVar[frozenset[str]] = frozenset({"h", "reconstruction"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return fvu(inputs.h, inputs.reconstruction, rng)


class L0(Score):
    """Mean number of active codes in a row."""

    name: ClassVar[str] = "l0"
    better: ClassVar[str] = ""
    equation: ClassVar[str] = "mean_n sum_j [|z_nj| > threshold]"
    reference: ClassVar[str] = "arXiv 2309.08600"
    needs: ClassVar[frozenset[str]] = frozenset({"codes"})

    threshold: float = Field(0.0, ge=0)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        codes = _as_codes(inputs.codes)
        if not len(codes):
            raise UsageError("l0: no rows")
        counts = codes.l0(self.threshold).double().numpy()
        return Outcome(float(counts.mean()), interval=bootstrap_mean(counts, rng))


class Dead(Score):
    """Share of the features that fire on none of the rows."""

    name: ClassVar[str] = "dead"
    better: ClassVar[str] = "lower"
    equation: ClassVar[str] = "(1/m) sum_j [z_nj = 0 for all n]"
    reference: ClassVar[str] = "arXiv 2406.04093"
    needs: ClassVar[frozenset[str]] = frozenset({"codes"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        fires = _as_codes(inputs.codes).firing()
        return Outcome(float((fires == 0).double().mean()), ceiling=0.0)


def _as_codes(codes: Any) -> Codes:
    if isinstance(codes, Codes):
        return codes
    dense = as_tensor(codes)
    if dense.ndim != 2:
        raise UsageError(f"codes: expected [n, m], got {list(dense.shape)}")
    return Codes(torch.as_tensor(dense), None, dense.shape[1])
