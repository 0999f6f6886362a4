"""Columns of tables in NWB files as their values: words of categories, rows of other tables, indexed columns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from unmix.core.errors import Failure, UsageError

# Types of series that hold recordings, none of which is a table of spikes.
_ELECTRIC = ("ElectricalSeries", "LFP", "FilteredEphys", "SpikeEventSeries", "FeatureExtraction")
_OPTIC = ("RoiResponseSeries", "Fluorescence", "DfOverF", "TwoPhotonSeries", "OnePhotonSeries", "ImageSeries")
SERIES = (*_ELECTRIC, *_OPTIC, "IndexSeries")


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """The file, open to read. Raises `UsageError` without h5py or file, and `Failure` for one that is not whole."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise UsageError('nwb: reading NWB files needs h5py; pip install "unmix[nwb]"') from None
    if Path(path).is_dir():
        raise UsageError(f"recording={path}: is a folder (Zarr?); NWB files are read as HDF5")
    if not Path(path).is_file():
        raise UsageError(f"recording={path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (UsageError, Failure):
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise Failure(f"{path}: not a whole HDF5 file ({' '.join(str(error).split())[:100]})") from None


def group(file: Any, name: str) -> Any:
    """A group of the file. Raises `UsageError` that says what is there instead, series that are not read included."""
    import h5py

    found = file.get(name)
    if isinstance(found, h5py.Group):
        return found
    above = file.get(name.rpartition("/")[0] or "/")
    there = ", ".join(above) if above is not None else ""
    told = f"{file.filename}: has no /{name} (beside it: {there or 'nothing'})"
    if name == "units":
        told += "; only spikes of units are read"
        if series := _series(file):
            told += f", not {', '.join(series[:4])}{' ...' * (len(series) > 4)}: save the trials of those as a .npy"
    raise UsageError(told)


def column(table: Any, name: str) -> np.ndarray:
    """A column [rows] of a table: numbers or truth, or text for words, categories and references.

    name: of a column whose values are rows of another table, also "column.name", a column of that table. Of an
    indexed column every row must have one value. Raises `UsageError` for another column, one of several values a row,
    or one that is not there, and `Failure` where an index does not fit.
    """
    name, _, inner = name.partition(".") if name not in table else (name, "", "")
    data = dataset(table, name)
    values = _values(data, name, inner)
    if f"{name}_index" in table:
        ends = ends_of(table, name, len(values))
        if (np.diff(ends, prepend=0) != 1).any():
            raise UsageError(f"{_called(table, name)} has several values in a row, or none; give one with one value")
    return values


def dataset(table: Any, name: str) -> Any:
    """The data of a column. Raises `UsageError` with the names of the columns where there is none such."""
    import h5py

    found = table.get(name)
    if not isinstance(found, h5py.Dataset):
        hidden = {f"{known}{ending}" for known in table for ending in ("_index", "_elements")}
        there = ", ".join(known for known in table if known not in hidden)
        raise UsageError(f"{table.file.filename}: {_short(table)} has no column {name!r}; it has {there or 'none'}")
    if found.shape is None:
        raise UsageError(f"{_called(table, name)} is empty")
    return found


def ends_of(table: Any, name: str, count: int) -> np.ndarray:
    """Where the values of every row end in an indexed column: [rows]. count: values in all."""
    ends = np.asarray(dataset(table, f"{name}_index")[:]).astype(np.int64)
    begins = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    if ends.ndim != 1 or (ends < begins).any() or (len(ends) and ends[-1] > count):
        raise Failure(f"{table.file.filename}: {name}_index does not fit the {count} values of {name}")
    return ends


def _values(data: Any, name: str, inner: str) -> np.ndarray:
    import h5py

    called = _called(data.parent, name)
    if data.ndim != 1:
        raise UsageError(f"{called} is {list(data.shape)}, not one value a row")
    if h5py.check_string_dtype(data.dtype) is not None:
        return np.asarray(data.asstr(errors="replace")[:], dtype=np.str_)
    if h5py.check_ref_dtype(data.dtype) is h5py.Reference:
        return _names_of([data.file[reference].name if reference else "" for reference in data[:]])
    elements = data.attrs.get("elements")
    words = data.file[elements] if elements else data.parent.get(f"{name}_elements")
    if words is not None:
        return _rows_of(_values(words, name, ""), data[:], called)
    if "table" in data.attrs:
        return _of_table(data, called, inner)
    if data.dtype.kind not in "biuf":
        raise UsageError(f"{called} holds {data.dtype}, neither numbers nor text; give another")
    return np.asarray(data[:])


def _of_table(data: Any, called: str, inner: str) -> np.ndarray:
    """Values of another table at the rows that a column names."""
    table = data.file[data.attrs["table"]]
    columns = [name for name in table if not name.endswith(("_index", "_elements")) and name != "id"]
    words = [name for name in columns if table[name].dtype.kind in "OS" and table[name].ndim == 1]
    if not inner and len(words) != 1:
        name = data.name.rpartition("/")[2]
        raise UsageError(
            f"{called} names rows of {table.name}; give one of its columns, such as {name}.{(columns or ['id'])[0]} "
            f"(it has {', '.join(columns) or 'none'})"
        )
    return _rows_of(column(table, inner or words[0]), data[:], called)


def _rows_of(values: np.ndarray, rows: np.ndarray, called: str) -> np.ndarray:
    if rows.dtype.kind not in "iu" or (len(rows) and not (rows.min() >= 0 and rows.max() < len(values))):
        raise Failure(f"{called} goes beyond the {len(values)} values that it refers to")
    return values[rows]


def _names_of(paths: list[str]) -> np.ndarray:
    """The last parts of the paths of what is referred to; whole paths where two have the same."""
    names = {path: PurePosixPath(path).name for path in paths}
    return np.asarray([names[path] if len(set(names.values())) == len(names) else path for path in paths], np.str_)


def _series(file: Any) -> list[str]:
    found: list[str] = []

    def look(name: str, node: Any) -> None:
        kind = node.attrs.get("neurodata_type", "")
        kind = kind.decode() if isinstance(kind, bytes) else kind
        if kind in SERIES:
            found.append(f"{kind} /{name}")

    file.visititems(look)
    return found


def _short(table: Any) -> str:
    return str(table.name).rpartition("/")[2]


def _called(table: Any, name: str) -> str:
    return f"{table.file.filename}: column {name!r} of {_short(table)}"
