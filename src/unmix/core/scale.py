"""Scale: what is constant, near one or of unit norm, whatever the units of the numbers."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError

HELD = 1e-35, 1e35  # sizes of rows whose codes and atoms float32 holds
SQUARED = 1e-15, 1e15  # sizes of rows whose sums of squares float32 holds
LARGEST = 1e100  # of what is squared and summed as it is, in float64
OFFSET = 1e-6  # a rounding of this share of the rows' scale does no harm


def size_of(values: Tensor) -> float:
    """The largest absolute value; NaN where there is one, 0 where there are no values."""
    if not values.numel():
        return 0.0
    values = values.detach()
    low, high = torch.aminmax(values if values.is_floating_point() else values.double())
    return float(torch.maximum(-low, high))


def power_of_two(size: float) -> float:
    """The power of two at or below a positive size: dividing by it rounds nothing. 1 for 0 and what is not finite."""
    return 2.0 ** (math.frexp(size)[1] - 1) if size > 0 and math.isfinite(size) else 1.0


def resolution(values: object) -> float:
    """Share of its size by which a constant column of such an array may vary by rounding.

    Four units in the last place, and at least 1e-13: in float64 a constant is often the result of a computation, such
    as a mean over a group. Whole numbers and lists count as float64.
    """
    dtype, eps = getattr(values, "dtype", None), 0.0
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        eps = torch.finfo(dtype).eps
    elif isinstance(dtype, np.dtype) and dtype.kind == "f":
        eps = float(np.finfo(dtype).eps)
    return max(1e-13, 4 * eps)


def varies(columns: Tensor, share: float = 1e-13) -> Tensor:
    """Which columns [f] of [n, f] vary by more than rounding, `share` of their largest absolute value."""
    if not len(columns):
        return torch.zeros(columns.shape[1], dtype=torch.bool, device=columns.device)
    low, high = torch.aminmax(columns, dim=0)
    return high - low > share * torch.maximum(-low, high)


def flattened(columns: Tensor, share: float) -> Tensor:
    """Columns [n, f] in which one that varies by rounding alone, `share` of its size, has its first value throughout.

    Whatever asks afterwards which columns are constant (ranks, bins, deviations) finds the same ones.
    """
    constant = ~varies(columns, share)
    return torch.where(constant, columns[:1], columns) if len(columns) and constant.any() else columns


def near_one(columns: Tensor, owners: np.ndarray | None = None) -> Tensor:
    """Columns [n, f]; where squares would overflow or vanish, each times a power of two, which rounds nothing.

    owners: [f] of which columns with one owner keep their common scale (an angle has two).
    """
    if not len(columns):
        return columns
    low, high = torch.aminmax(columns, dim=0)
    largest = torch.maximum(-low, high)
    if bool(((largest == 0) | ((largest > 1 / LARGEST) & (largest < LARGEST))).all()):
        return columns
    if owners is not None:
        owner = torch.from_numpy(owners).to(columns.device)
        largest = torch.zeros_like(largest).scatter_reduce(0, owner, largest, "amax")[owner]
    return _shifted(columns, -torch.frexp(largest).exponent.double())


def together_near_one(*arrays: Tensor) -> tuple[Tensor, ...]:
    """Arrays in float64; where squares would overflow or vanish, all times one power of two."""
    largest = max(size_of(array) for array in arrays)
    if largest == 0 or 1 / LARGEST < largest < LARGEST:
        return arrays
    exponent = torch.tensor(-float(math.frexp(largest)[1]), dtype=torch.float64)
    return tuple(_shifted(array, exponent) for array in arrays)


def centred(columns: Tensor) -> Tensor:
    """Columns [n, f] less their means; 0 to the last bit where a column is constant."""
    away, moves = columns - columns.mean(0), varies(columns, 0.0)
    return away if moves.all() else torch.where(moves, away, 0)


def unit(rows: Tensor) -> Tensor:
    """Rows [n, d] at norm 1 whatever their size; a row of zeros stays."""
    norms = rows.norm(dim=1, keepdim=True)
    usual = (norms > 1e-12) & torch.isfinite(norms)
    if bool(usual.all()):
        return torch.nn.functional.normalize(rows)
    largest = rows.abs().amax(1, keepdim=True)
    near = rows / torch.where(largest > 0, largest, 1)
    return torch.where(usual, torch.nn.functional.normalize(rows), torch.nn.functional.normalize(near))


def kept(mean: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """A mean [d] of rows of this dtype as it is taken off them: in float32, unless that rounds more than they do.

    Rows in float64 with an offset that is large beside their scale keep a mean in float64.
    """
    single = mean.float()
    if dtype != torch.float64 or size_of(mean.double() - single.double()) <= OFFSET * scale:
        return single
    return mean.double()


def mean_and_scale(sample: Tensor, name: str = "rows") -> tuple[Tensor, float]:
    """Mean [d] in float64 of rows [n, d], and the scalar s with mean |x - mean|^2 = s^2 d.

    Raises `UsageError` where all rows are equal up to rounding, or their numbers are too large or too small for
    float32.
    """
    share, sample = resolution(sample), sample.double()
    largest = size_of(sample)
    if largest > HELD[1]:
        raise UsageError(
            f"{name}: reach {largest:.3g}, where float32 ends; divide them by their scale, such as {_round(largest)}"
        )
    mean = sample.mean(0)
    spread = size_of(sample - mean)
    if spread <= share * largest:
        raise UsageError(f"{name}: all equal up to rounding, there is nothing to find")
    if spread < HELD[0]:
        raise UsageError(
            f"{name}: differ by at most {spread:.3g}, where float32 ends; divide them by their scale, such as "
            f"{_round(spread)}"
        )
    return mean, (sample - mean).square().mean().sqrt().item()


def _round(size: float) -> str:
    return f"1e{math.floor(math.log10(size))}"


def _shifted(columns: Tensor, exponent: Tensor) -> Tensor:
    """Columns times 2^exponent, in two steps, because the power itself may be more than a number holds."""
    half = (exponent / 2).round()
    return columns * torch.pow(2.0, half) * torch.pow(2.0, exponent - half)
