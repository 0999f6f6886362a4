"""Reconstruction and sparsity: variance explained, active codes, Hoyer's measure, dead and dense features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.rows import as_tensor, require_finite
from unmix.core.scale import centred, flattened, resolution, together_near_one
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_mean, bootstrap_ratio
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.influence import tell_of_rows


def fvu(h: Any, reconstruction: Any, rng: int | Stream = 0) -> Outcome:
    """Fraction of variance unexplained: sum |h - h'|^2 / sum |h - mean(h)|^2; the mean as reconstruction gives 1.

    h, reconstruction: [n, d]. The same for any batching, scale and shift; summed in float64.
    Raises `UsageError` for unlike shapes and for rows that are all equal up to rounding.
    """
    a, b = as_tensor(h, "h").double(), as_tensor(reconstruction, "reconstruction").double()
    if a.shape != b.shape or a.ndim != 2 or not len(a):
        raise UsageError(f"fvu: h is {list(a.shape)}, reconstruction {list(b.shape)}; both must be [n, d], n >= 1")
    require_finite(a, "h")
    require_finite(b, "reconstruction")
    a, b = together_near_one(a, b)
    total = centred(flattened(a, resolution(h))).square().sum(1)
    error = (a - b).square().sum(1)
    if total.sum() == 0:
        raise UsageError("fvu: all rows are equal, there is no variance to explain")
    low, high = bootstrap_ratio(error.numpy(), total.numpy(), as_stream(rng))
    value = float(error.sum() / total.sum())

    def again(kept: np.ndarray) -> float:
        return float(error[kept].sum() / centred(a[kept]).square().sum())

    tell_of_rows("fvu", value, {"h": a}, again)
    return Outcome(value, 1.0, 0.0, (low, high))


def explained_variance(h: Any, reconstruction: Any, rng: int | Stream = 0) -> Outcome:
    """Share of the variance explained: 1 - sum |h - h'|^2 / sum |h - mean(h)|^2; the mean gives 0, the rows give 1.

    h, reconstruction: [n, d]. One ratio of two sums over all rows, so that batching, scale and shift do not matter;
    a reconstruction worse than the mean is negative. Raises `UsageError` as `fvu` does.
    """
    left = fvu(h, reconstruction, rng)
    return Outcome(1 - left.value, 0.0, 1.0, (1 - left.interval[1], 1 - left.interval[0]))


def l0(codes: Any, thresholds: Sequence[float] = (0.0,)) -> dict[float, np.ndarray]:
    """Active codes of every row at several thresholds: threshold -> counts [n] of |z| > threshold."""
    given = as_codes(codes)
    return {float(level): given.l0(level).double().numpy() for level in thresholds}


def hoyer(codes: Any) -> np.ndarray:
    """Hoyer's sparsity of every row: (sqrt(m) - |z|_1 / |z|_2) / (sqrt(m) - 1); one active code 1, equal ones 0.

    codes: `Codes` or [n, m]; result [n], NaN for rows without active codes and where m = 1.
    Source: Hoyer 2004, JMLR 5:1457.
    """
    given = as_codes(codes)
    rows, _, values = given.nonzero()
    values = together_near_one(values.double())[0]
    sums = torch.zeros(len(given), dtype=torch.float64)
    squares = sums.clone()
    sums.index_add_(0, rows.cpu(), values.abs().cpu())
    squares.index_add_(0, rows.cpu(), values.square().cpu())
    root = math.sqrt(given.width)
    ratio = sums / squares.sqrt()
    return ((root - ratio) / (root - 1) if given.width > 1 else ratio * math.nan).numpy()


class Fvu(Score):
    """Fraction of the rows' variance that the reconstruction does not explain."""

    name: ClassVar[str] = "fvu"
    better: ClassVar[str] = "lower"
    equation: ClassVar[str] = "sum |h - h'|^2 / sum |h - mean(h)|^2"
    reference: ClassVar[str] = "1 - explained variance; arXiv 2406.04093"
    needs: ClassVar[frozenset[str]] = frozenset({"h", "reconstruction"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return fvu(inputs.h, inputs.reconstruction, rng)


class ExplainedVariance(Score):
    """Share of the rows' variance that the reconstruction explains: 0 for the mean, 1 for the rows themselves."""

    name: ClassVar[str] = "explained_variance"
    equation: ClassVar[str] = "1 - sum |h - h'|^2 / sum |h - mean(h)|^2"
    reference: ClassVar[str] = "1 - fvu"
    needs: ClassVar[frozenset[str]] = frozenset({"h", "reconstruction"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return explained_variance(inputs.h, inputs.reconstruction, rng)


class L0(Score):
    """Mean number of active codes in a row.

    threshold: a code counts above it. at: further thresholds; the detail holds the mean at each, for codes that an
    optimiser leaves near zero but never at it.
    """

    name: ClassVar[str] = "l0"
    better: ClassVar[str] = ""
    equation: ClassVar[str] = "mean_n sum_j [|z_nj| > threshold]"
    reference: ClassVar[str] = "arXiv 2309.08600"
    needs: ClassVar[frozenset[str]] = frozenset({"codes"})

    threshold: float = Field(default=0.0, ge=0)
    at: tuple[float, ...] = (0.0, 1e-5, 1e-4, 1e-3)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        counts = l0(_some_rows(inputs.codes, self.name), (*self.at, self.threshold))
        means = {level: float(counts[level].mean()) for level in self.at}
        values = counts[self.threshold]
        return Outcome(float(values.mean()), interval=bootstrap_mean(values, rng), detail={"at": means})


class Hoyer(Score):
    """Mean of Hoyer's sparsity over the rows with active codes: how unequal the codes of a row are."""

    name: ClassVar[str] = "hoyer"
    better: ClassVar[str] = ""
    equation: ClassVar[str] = "mean_n (sqrt(m) - |z|_1 / |z|_2) / (sqrt(m) - 1)"
    reference: ClassVar[str] = "Hoyer 2004, JMLR 5:1457"
    needs: ClassVar[frozenset[str]] = frozenset({"codes"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        values = hoyer(_some_rows(inputs.codes, self.name))
        values = values[np.isfinite(values)]
        if not len(values):
            return Outcome(math.nan)
        return Outcome(float(values.mean()), interval=bootstrap_mean(values, rng))


class Dead(Score):
    """Share of the features that fire on none of the rows."""

    name: ClassVar[str] = "dead"
    better: ClassVar[str] = "lower"
    equation: ClassVar[str] = "(1/m) sum_j [z_nj = 0 for all n]"
    reference: ClassVar[str] = "arXiv 2406.04093"
    needs: ClassVar[frozenset[str]] = frozenset({"codes"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        fires = as_codes(inputs.codes).firing()
        return Outcome(float((fires == 0).double().mean()), ceiling=0.0, detail={"features": _numbers(fires == 0)})


class Dense(Score):
    """Share of the features that fire on more than a given share of the rows. above: that share."""

    name: ClassVar[str] = "dense"
    better: ClassVar[str] = "lower"
    equation: ClassVar[str] = "(1/m) sum_j [mean_n [z_nj != 0] > above]"
    reference: ClassVar[str] = "Bricken et al. 2023, Towards Monosemanticity"
    needs: ClassVar[frozenset[str]] = frozenset({"codes"})

    above: float = Field(default=0.1, ge=0, lt=1)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        codes = _some_rows(inputs.codes, self.name)
        often = codes.firing().double() / len(codes) > self.above
        return Outcome(float(often.double().mean()), ceiling=0.0, detail={"features": _numbers(often)})


def as_codes(codes: Any, name: str = "codes") -> Codes:
    """Codes as they are, or an array [n, m] as dense codes; raises `UsageError` for another shape or NaN."""
    if not isinstance(codes, Codes):
        dense = as_tensor(codes, "codes")
        if dense.ndim != 2:
            raise UsageError(f"{name}: expected [n, m], got {list(dense.shape)}")
        codes = Codes(dense, None, dense.shape[1])
    if codes.indices is None:
        require_finite(codes.values, name)
    elif not torch.isfinite(codes.values).all():
        raise UsageError(f"{name}: NaN or infinite among the active codes; drop or repair such rows first")
    return codes


def _some_rows(codes: Any, name: str) -> Codes:
    given = as_codes(codes)
    if not len(given):
        raise UsageError(f"{name}: no rows")
    return given


def _numbers(chosen: Tensor) -> np.ndarray:
    return chosen.nonzero().squeeze(1).numpy()
