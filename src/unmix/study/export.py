"""Codes and features as tables, written to CSV or Parquet."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.store import replacing
from unmix.finders.features import Features

# What begins a formula in a spreadsheet, behind apostrophes that were there before; a number is none.
FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
APOSTROPHE = re.compile(r"'" + FORMULA.pattern)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def codes_table(codes: Codes) -> pd.DataFrame:
    """One line for every active code: row, feature, value; sorted by row."""
    rows, columns, values = codes.nonzero()
    return pd.DataFrame({"row": rows.cpu(), "feature": columns.cpu(), "value": values.cpu()})


def feature_table(features: Features, codes: Codes) -> pd.DataFrame:
    """One line for every feature: feature, name, rate (share of rows), mean and maximum of its active codes, norm."""
    table = codes_table(codes)
    active = table.groupby("feature")["value"]
    frame = pd.DataFrame({"feature": range(codes.width)})
    frame["name"] = list(features.names) if features.names else [""] * codes.width
    frame["rate"] = frame["feature"].map(active.size()).fillna(0) / max(1, len(codes))
    frame["mean"] = frame["feature"].map(active.mean())
    frame["maximum"] = frame["feature"].map(active.max())
    frame["norm"] = features.atoms.norm(dim=1).cpu().numpy()
    return frame


def write_table(frame: pd.DataFrame, path: str | Path) -> Path:
    """Write a table as .csv or .parquet, whole or not at all; raises `UsageError` for another ending.

    In .csv a text that a spreadsheet would take for a formula, of a column's name too, has an apostrophe before it.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise UsageError(f"{path}: write tables as .csv or .parquet")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError:
            raise UsageError(f'{path}: Parquet needs pyarrow; pip install "unmix[parquet]"') from None
    with replacing(path) as part:
        frame.to_parquet(part, index=False) if path.suffix == ".parquet" else _write_csv(frame, part)
    return path


def read_table(path: str | Path) -> pd.DataFrame:
    """A table that `write_table` wrote as .csv, its texts as they were; an empty cell is missing."""
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
    return _texts(frame, lambda text: text[1:] if APOSTROPHE.match(text) else text)


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    returns = False

    def inert(text: str) -> str:
        nonlocal returns
        returns = returns or "\r" in text
        return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text

    # Python before 3.13 leaves a carriage return without quotes, and a reader begins a line behind it.
    made = _texts(frame, inert)
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    made.to_csv(path, index=False, errors="backslashreplace", quoting=quoting)


def _texts(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with every text changed, those of the heading too; other values as they are."""

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, str) else value

    made = {
        position: column
        if pd.api.types.is_numeric_dtype(column)
        else pd.Series([*map(changed, column)], column.index, object)
        for position, (_, column) in enumerate(frame.items())
    }
    return pd.DataFrame(made, index=frame.index).set_axis([changed(name) for name in frame.columns], axis=1)
