"""Tables of numbers as arrays: .csv, .tsv and .parquet."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from unmix.core.errors import Failure, UsageError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".parquet")


def read_table(file: Path) -> np.ndarray:
    """A table of numbers as an array [rows, columns]; a missing value is NaN.

    Of .csv and .tsv, a first line with a word in it, or that counts 0, 1, 2 ..., names the columns; a first column
    without a name holds names of rows, as pandas and R write them, and is left out. Raises `UsageError` for a column
    that is not of numbers, and `Failure` for a file that cannot be read.
    """
    import pandas as pd

    try:
        if file.suffix.lower() == ".parquet":
            frame = pd.read_parquet(file)
        else:
            sep = SEPARATORS[file.suffix.lower()]
            head = _first(file, sep)
            named = _names_columns(head)
            index = 0 if named and len(head) > 1 and not head[0].strip() else None
            frame = pd.read_csv(file, sep=sep, header=0 if named else None, index_col=index, encoding="utf-8-sig")
    except ImportError:
        raise UsageError(f'data={file}: Parquet needs pyarrow; pip install "unmix[parquet]"') from None
    except (ValueError, OSError, csv.Error) as error:  # pandas' and pyarrow's own are ValueErrors
        raise Failure(f"{file}: not a whole table ({' '.join(str(error).split())[:120]})") from None
    for name, kind in frame.dtypes.items() if len(frame) else ():
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_complex_dtype(kind):
            raise UsageError(f"data={file}: column {name!r} is not of numbers; leave it out, or give it as labels")
    return frame.to_numpy(dtype=np.float64, na_value=np.nan)


def _first(file: Path, sep: str) -> list[str]:
    with open(file, newline="", encoding="utf-8-sig") as opened:
        return next(csv.reader(opened, delimiter=sep), [])


def _names_columns(head: list[str]) -> bool:
    counted = [word.strip() for word in head]
    counted = counted[1:] if counted and not counted[0] else counted
    if len(counted) > 1 and counted == [str(number) for number in range(len(counted))]:
        return True  # what pandas calls columns without names
    try:
        [float(word or "nan") for word in head]
    except ValueError:
        return True
    return not head
