"""Influence: whether a few rows decide a score that is made of squares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError, notice
from unmix.core.scale import together_near_one

FEW = 3  # rows that may hold a column together
ROWS = 20  # of fewer rows each one counts anyway
DECIDES = 0.1  # change of a score
_asking: ContextVar[bool] = ContextVar("asking", default=False)


def leading_rows(columns: Tensor) -> dict[int, int]:
    """Rows of which at most three hold over half of the variance of a column: row -> column.

    columns: [n, f]. Columns of which hardly a row differs from the usual value (a feature that fires once) do not
    count, nor do fewer than 20 rows.
    """
    found: dict[int, int] = {}
    if len(columns) < ROWS:
        return found
    (columns,) = together_near_one(columns)
    mean, (low, high) = columns.mean(0), torch.aminmax(columns, dim=0)
    total = (columns - mean).square().sum(0)
    # Few columns come near: three rows hold at most three times the share of the first one.
    most = torch.maximum(high - mean, mean - low).square()
    for column in ((FEW * most > total / 2) & (total > 0)).nonzero().squeeze(1).tolist():
        values = columns[:, column]
        if int((values != values.median()).sum()) <= 2 * FEW:
            continue
        top = (values - mean[column]).square().topk(FEW)
        share = top.values.cumsum(0) / total[column]
        if share[-1] > 0.5:
            for row in top.indices[: int((share <= 0.5).sum()) + 1].tolist():
                found.setdefault(row, column)
    return found


def tell_of_rows(
    name: str,
    value: float,
    arrays: Mapping[str, Tensor],
    again: Callable[[np.ndarray], float],
    numbers: np.ndarray | None = None,
) -> None:
    """Say where a score moves by more than .1 without the few rows that hold half of the variance of a column.

    Scores above 1 must move by more than a tenth of themselves.

    arrays: [n, .] by name. again: the score of the rows that are left [k]. numbers: [n] of the rows, where these are
    in another order.
    """
    if _asking.get():
        return
    leading = {key: leading_rows(columns.cpu()) for key, columns in arrays.items()}
    n = len(next(iter(arrays.values())))
    rows = np.unique([row for found in leading.values() for row in found]).astype(np.int64)
    if not 0 < len(rows) <= max(FEW, n // 50):
        return
    token = _asking.set(True)
    try:
        rest = again(np.setdiff1d(np.arange(n), rows))
    except UsageError:
        return  # without them there is nothing to score
    finally:
        _asking.reset(token)
    if abs(rest - value) > DECIDES * max(1.0, abs(value)):
        named = np.sort(rows if numbers is None else numbers[rows]).tolist()
        which = ("row " if len(named) == 1 else "rows ") + ", ".join(map(str, named[:FEW]))
        which += f" and {len(named) - FEW} more" if len(named) > FEW else ""
        key, column = next((key, min(found.values())) for key, found in leading.items() if found)
        hold = f"{'holds' if len(named) == 1 else 'hold'} most of the variance of column {column} of {key}"
        notice(f"{name}: {value:.3g}, and {rest:.3g} without {which}, which {hold}")
