"""Tables whose columns have types: Parquet files and structured arrays of numpy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from unmix.core.errors import Failure, UsageError
from unmix.core.numerals import LARGE
from unmix.core.tables import Table

_UNNAMED = "__index_level_"  # how pandas calls an index without a name


class RecordTable(Table):
    """A structured array [rows]: its fields are the columns; one of k numbers is k columns to `numbers`."""

    def __init__(self, array: np.ndarray, path: Path, option: str = "data") -> None:
        self.path, self.option, self.index = path, option, ()
        self.names = array.dtype.names or ()
        self._array = array

    def column(self, name: str) -> np.ndarray:
        found = self._array[self.names[self.place(name)]]
        return np.char.decode(found, "utf-8", "replace") if found.dtype.kind == "S" else found

    def _numbers(self, kept: list[int]) -> np.ndarray:
        return _side_by_side([self._number(place) for place in kept])

    def _number(self, place: int) -> np.ndarray:
        found = np.ma.getdata(self._array)[self.names[place]]
        if found.dtype.kind not in "biuf" or found.ndim > 2:
            raise self.refused([place], "row 0", [found[0] if len(found) else found.dtype])
        return _exactly(self, place, found)


class ParquetTable(Table):
    """A Parquet file. Columns that pandas saved as an index are one."""

    def __init__(self, path: Path, option: str = "data") -> None:
        self.path, self.option = path, option
        try:
            import pyarrow as arrow
            from pyarrow import parquet
        except ImportError:
            raise UsageError(f'{option}={path}: Parquet needs pyarrow; pip install "unmix[parquet]"') from None
        try:
            # Of the file alone: a folder named KEY=VALUE above it would add a column.
            with parquet.ParquetFile(str(path)) as opened:
                self._table = opened.read()
        except (arrow.ArrowException, ValueError, OSError) as error:
            raise Failure(f"{path}: not a whole table ({' '.join(str(error).split())[:120]})") from None
        saved = [name for name in _pandas(self._table.schema).get("index_columns", ()) if isinstance(name, str)]
        held = self._table.column_names
        self.index = tuple(place for place, name in enumerate(held) if name in saved)
        self.names = tuple("" if name in saved and name.startswith(_UNNAMED) else name for name in held)

    def column(self, name: str) -> np.ndarray:
        import pyarrow as arrow

        values = _decoded(self._table.column(self.place(name)))
        kind = values.type
        whole = arrow.types.is_boolean(kind) or arrow.types.is_integer(kind)
        if arrow.types.is_floating(kind) or (whole and not values.null_count):
            return values.to_numpy()
        return np.asarray(["" if value is None else str(value) for value in values.to_pylist()], dtype=np.str_)

    def _numbers(self, kept: list[int]) -> np.ndarray:
        return _side_by_side([self._number(place) for place in kept])

    def _number(self, place: int) -> np.ndarray:
        """A column as [rows], or [rows, k] where each value is a list of k numbers."""
        import pyarrow as arrow
        from pyarrow import compute

        values = _decoded(self._table.column(place))
        kind, is_a = values.type, arrow.types
        if is_a.is_list(kind) or is_a.is_large_list(kind) or is_a.is_fixed_size_list(kind):
            lengths = compute.list_value_length(values).to_numpy()
            if values.null_count or len(set(lengths.tolist())) > 1:
                odd = int(np.argmax(~(lengths == lengths[:1])))
                raise self.refused([place], f"row {odd}", [values[odd]], "of lists of unlike lengths")
            flat = self._flat(place, compute.list_flatten(values))
            return flat.reshape(len(values), -1) if len(values) else flat.reshape(0, 1)
        return self._flat(place, values)

    def _flat(self, place: int, values: Any) -> np.ndarray:
        import pyarrow as arrow

        kind, is_a = values.type, arrow.types
        if is_a.is_null(kind):
            return np.full(len(values), np.nan)
        if is_a.is_decimal(kind):
            return np.array([np.nan if value is None else float(value) for value in values.to_pylist()])
        if not (is_a.is_boolean(kind) or is_a.is_integer(kind) or is_a.is_floating(kind)):
            known = next((value for value in values if value.is_valid), kind)
            raise self.refused([place], f"of {kind}", [known])
        missing = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
        filled = values.fill_null(False if is_a.is_boolean(kind) else 0) if values.null_count else values
        found = _exactly(self, place, filled.to_numpy(zero_copy_only=False))
        return found if missing is None else np.where(missing, np.nan, found)


def _exactly(table: Table, place: int, values: np.ndarray) -> np.ndarray:
    """Numbers as float64; raises `UsageError` for whole ones whose digits it does not keep."""
    found = values.astype(np.float64)
    if values.dtype.kind in "iu" and values.size:
        # As Python's integers: unsigned ones of 64 bits have no common type with others.
        large = np.argwhere(np.abs(found) >= LARGE)
        for at in map(tuple, large):
            if int(values[at]) != int(found[at]):
                raise table.refused([place], f"row {at[0]}", [values[at]], "of more digits than float64 keeps")
    return found


def _side_by_side(columns: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([found[:, None] if found.ndim == 1 else found for found in columns], axis=1)


def _decoded(values: Any) -> Any:
    """A column without its dictionary: categories by what they stand for."""
    import pyarrow as arrow

    return values.cast(values.type.value_type) if arrow.types.is_dictionary(values.type) else values


def _pandas(schema: Any) -> dict[str, Any]:
    try:
        found = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
