"""Tables: numbers as a reader wants them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from unmix.core.errors import UsageError

Form = str | Callable[[Any], str]
DASH = "–"  # noqa: RUF001


@dataclass(frozen=True)
class Column:
    """One column as it is shown: heading, unit, whether it holds numbers, and the text of every cell."""

    label: str
    unit: str
    number: bool
    cells: list[str]


def columns(table: Any) -> list[Column]:
    """The columns of a `DataTable`; raises `UsageError` for a format that does not fit its column."""
    frame = table.frame
    names = [str(name) for name in frame.columns]
    halves = {f"{name}_half" for name in names} & set(names)
    result = []
    for position, name in enumerate(names):
        if name in halves:
            continue
        values = frame.iloc[:, position].tolist()
        number = any(_is_number(value) for value in values) and all(_is_number(v) or _absent(v) for v in values)
        form = table.formats.get(name) or (_form(values) if number else None)
        cells = [_text(name, value, form) for value in values]
        if f"{name}_half" in halves:
            half = frame[f"{name}_half"].tolist()
            cells = [
                cell if _absent(value) or _absent(spread) else f"{cell} ± {_text(name, spread, form)}"
                for cell, value, spread in zip(cells, values, half, strict=True)
            ]
        result.append(Column(table.labels.get(name, name), table.units.get(name, ""), number, cells))
    return result


def shown(value: Any) -> str:
    """One value as text: yes or no, thousands apart, four figures, lists with commas, pairs of floats as a range."""
    if isinstance(value, (list, tuple)):
        if len(value) == 2 and all(isinstance(v, float) for v in value):
            return f"{shown(value[0])} to {shown(value[1])}"
        return ", ".join(shown(part) for part in value)
    if _absent(value):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    return f"{float(value):.4g}" if _is_number(value) else str(value)


def si(value: float) -> str:
    """An amount with three figures and a letter: 950, 1.2k, 34M, 5G, 1.6T; very large ones as 3e+17."""
    if not math.isfinite(value):
        return DASH
    for letter, size in (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12), ("P", 1e15)):
        if abs(value) < 999.5 * size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.1e}"


def _text(name: str, value: Any, form: Form | None) -> str:
    if _absent(value):
        return DASH
    if form is None or isinstance(value, bool):
        return shown(value)
    if callable(form):
        return form(value)
    if form == "si":
        return si(float(value))
    try:
        return format(int(value) if form.endswith("d") else value, form)
    except (TypeError, ValueError):
        raise UsageError(f"table: format {form!r} does not fit column {name}, which holds {value!r}") from None


def _form(values: Iterable[Any]) -> str:
    """Whole numbers with thousands apart, others with three decimals, amounts of many sizes with a letter."""
    sizes = [abs(float(value)) for value in values if not _absent(value)]
    if all(size == int(size) for size in sizes):
        return ",d"
    return ".3f" if max(sizes) < 1e4 and min((s for s in sizes if s), default=1) >= 1e-3 else "si"


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(float(value))


def _absent(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, numbers.Real) and not math.isfinite(float(value)))
