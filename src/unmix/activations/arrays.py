"""Arrays: rows from a path; shards, arrays, tables, or a named data set. Pickles are never loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unmix.activations.shards import ShardRows
from unmix.core.array_files import ARCHIVES, read_named, read_npy
from unmix.core.columns import RecordTable
from unmix.core.errors import UsageError
from unmix.core.items import ImageItems, Items, VectorItems
from unmix.core.rows import ArrayRows, Rows, gather
from unmix.core.seeds import untouched
from unmix.core.tables import SUFFIXES, Table, is_table, open_table

KINDS = f"a folder of activations, .npy, .npz, .safetensors, {', '.join(SUFFIXES)}"


class ItemRows(ArrayRows):
    """Rows in one array [n, d] with items, and labels [n] or None. Raises as `ArrayRows`."""

    def __init__(self, array: Any, name: str = "h", items: Items | None = None, labels: np.ndarray | None = None):
        super().__init__(array, name)
        self.items: Items = VectorItems(np.arange(self.shape[0])) if items is None else items
        self.labels = labels
        if len(self.items) != self.shape[0] or (labels is not None and len(labels) != self.shape[0]):
            raise UsageError(f"{name}: items and labels must be as many as the {self.shape[0]} rows")


def open_rows(path: str | Path, drop: Sequence[str] = (), labels: str | None = None) -> Rows:
    """Rows [n, d] with `.items`, from a folder of shards, a file, or a name in the table `DATASETS`.

    .npy is memory-mapped. Of .npz and .safetensors with several arrays one is named after a colon, "acts.npz:h".
    Of a table (.csv, .tsv, .txt, .parquet, a structured array) all columns are taken but an index, those of `drop`,
    and the column `labels`, which becomes `.labels`; see `unmix.core.tables`.
    Raises `UsageError` for a missing path, an unknown kind, a missing key or column, pickled objects or a value that
    is missing, and `Failure` for a file that is cut off.
    """
    found = _found(path, "data")
    if not isinstance(found, Table):
        _without_columns(path, drop, labels, "data")
        return found if hasattr(found, "blocks") else ItemRows(found, str(path))
    values = found.numbers(drop, labels, complete=True)
    return ItemRows(values, str(path), labels=None if labels is None else found.column(labels))


def open_array(path: str | Path, drop: Sequence[str] = (), labels: str | None = None, option: str = "data") -> Any:
    """An array of any shape [n, ...] from a file, or the rows of a folder of shards or of a name in `DATASETS`.

    drop, labels: columns of a table to leave out. option: what the path was given as, for messages. Raises as
    `open_rows`, but a missing value of a table is NaN.
    """
    found = _found(path, option)
    if isinstance(found, Table):
        return found.numbers(drop, labels)
    _without_columns(path, drop, labels, option)
    return found


def open_column(path: str | Path, option: str = "labels") -> np.ndarray:
    """One value for each row, [n] or what shape an array has: from an array, or a column of a table as it stands.

    path: .npy, .npz:KEY, .safetensors:KEY, or a table, with a colon and the name of a column where it has several
    ("labels.csv:speaker"). option: what the path was given as, for messages. Raises as `open_array`, and `UsageError`
    where the column has to be named.
    """
    return open_columns(path, option)[0]


def open_columns(path: str | Path, option: str = "labels") -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What `open_column` gives, and the other columns of the table by name, an index among them; {} for an array."""
    text = str(path)
    file, colon, column = text.rpartition(":")
    named = bool(colon) and not Path(text).exists() and Path(file).suffix.lower() not in ARCHIVES
    if named and not Path(file).is_file():
        raise UsageError(f"{option}={text}: no such file; give .npy, .npz:KEY, .safetensors:KEY or .csv:COLUMN")
    found = _found(file if named else text, option)
    if not isinstance(found, Table):
        if named:
            raise UsageError(f"{option}={text}: {file} has no columns with names")
        return np.asarray(gather(found) if hasattr(found, "blocks") else found), {}
    columns = {found.called(place): place for place in range(len(found.names))}
    if not named:
        there = [name for name, place in columns.items() if place not in found.index]
        if len(there) != 1:
            raise UsageError(f"{option}={text}: has several columns; name one, such as {Path(text).name}:{there[0]}")
        column = there[0]
    wanted = found.place(column)
    others = {name: found.column(name) for name, place in columns.items() if place != wanted}
    return found.column(column), others


def digits() -> ItemRows:
    """scikit-learn's handwritten digits: pixels / 16, rows [1797, 64] float32, with images and labels 0 to 9."""
    with untouched():
        from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    labels = data.target.astype(np.int64)
    items = ImageItems(images, tuple(str(label) for label in labels))
    return ItemRows((data.data / 16).astype(np.float32), "digits", items, labels)


def _found(path: str | Path, option: str) -> Any:
    """A table, rows, or an array."""
    from unmix.activations import DATASETS

    text = str(path)
    if text in DATASETS.entries:
        return DATASETS[text]()
    file, key = _split(text)
    if file.is_dir():
        return ShardRows(file)
    if not file.is_file():
        raise UsageError(f"{option}={text}: no such file or folder; give {KINDS}, or a name: {', '.join(DATASETS)}")
    suffix = file.suffix.lower()
    if is_table(file):
        return open_table(file, option)
    if suffix != ".npy" and suffix not in ARCHIVES:
        raise UsageError(
            f"{option}={text}: cannot read {suffix or 'a file without suffix'}; give {KINDS} (never a pickle)"
        )
    found = read_npy(file, option) if suffix == ".npy" else read_named(file, key, option)
    return found if found.dtype.names is None else RecordTable(found.reshape(-1), file, option)


def _without_columns(path: str | Path, drop: Sequence[str], labels: str | None, option: str) -> None:
    if drop or labels is not None:
        given = f"drop={','.join(drop)}" if drop else f"labels={labels}"
        raise UsageError(f"{option}.{given}: {path} has no columns with names; it is for {', '.join(SUFFIXES)}")


def _split(text: str) -> tuple[Path, str | None]:
    file, colon, key = text.rpartition(":")
    if colon and Path(file).suffix.lower() in ARCHIVES:
        return Path(file), key
    return Path(text), None
