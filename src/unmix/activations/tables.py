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

    Of .csv and .tsv, a first line with a word in it names the columns, and a first column without a name holds names
    of rows, as pandas and R write them, and is left out. Raises `UsageError` for a column that is not of numbers, and
    `Failure` for a file that cannot be read.
    """
    import pandas as pd

    try:
        if file.suffix.lower() == ".parquet":
            frame = pd.read_parquet(file)
        else:
            sep = SEPARATORS[file.suffix.lower()]
            head = _first(file, sep)
            unnamed = bool(head) and not head[0].strip() and len(head) > 1
            bare = bool(head) and all(_is_number(word) for word in head)
            frame = pd.read_csv(
                file, sep=sep, header=None if bare else 0, index_col=0 if unnamed else False, encoding="utf-8-sig"
            )
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


def _is_number(word: str) -> bool:
    try:
        float(word or "nan")
    except ValueError:
        return False
    return True
