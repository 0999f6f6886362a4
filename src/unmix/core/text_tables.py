"""Tables of text: read line by line, every cell as a number or as it stands."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unmix.core.dialect import Dialect, Record, dialect_of, fits, is_comment, records, shown
from unmix.core.errors import Failure, UsageError, notice
from unmix.core.numerals import LARGE, PLAIN, Style, exact, looks_like_number, may_be_grouped, number, style_of
from unmix.core.tables import Table, suffix_of

if TYPE_CHECKING:
    import pandas as pd

_OPENED: dict[str, Callable[..., Any]] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_FOREIGN = {
    b"PK\x03\x04": "is a spreadsheet or zip archive; save it as text",
    b"\xd0\xcf\x11\xe0": "is a spreadsheet; save it as text",
    b"PAR1": "is Parquet; name it so",
    b"\x1f\x8b": "is compressed; its name must end in .gz",
}
_HARMED = (UnicodeError, EOFError, OSError, zlib.error, lzma.LZMAError)
_SAMPLE = 100  # lines that say how the table is laid out
_CELLS = 1 << 18  # converted at a time


class TextTable(Table):
    """A table of text. Nothing of it is held: every question reads the file."""

    dialect: Dialect

    def __init__(self, path: Path, option: str) -> None:
        self.path, self.option = path, option
        lines = list(self._lines(_SAMPLE))
        try:
            self.dialect = dialect_of(path, lines, suffix_of(path).startswith(".tsv"), len(lines) < _SAMPLE)
        except csv.Error as error:
            raise self._harmed(error) from None
        self.names = self.dialect.names or ("",) * self.dialect.width
        self.index = tuple(range(self.dialect.index)) if self.dialect.index < self.dialect.width else ()

    def records(self) -> Iterator[Record]:
        """Line and cells [columns] of every row, as text without spaces around it. Raises as `open_table`."""
        dialect, empty = self.dialect, []
        for line, fields in self._records():
            if not fields:
                empty.append(line)
                continue
            if dialect.width == 1:  # an empty line is a missing value, but not at the end of the file
                yield from ((number, [""]) for number in empty)
            empty.clear()
            cells = [cell.strip() for cell in fields]
            if not fits(cells, dialect.width):
                raise Failure(
                    f"{self.path}: not a whole table (line {line} has {len(fields)} fields where others have "
                    f"{dialect.width}: {shown(fields, dialect.separator)})"
                )
            yield line, cells[: dialect.width]

    def column(self, name: str) -> np.ndarray:
        place = self.place(name)
        return np.asarray([fields[place] for _, fields in self.records()], dtype=np.str_)

    def frame(self) -> pd.DataFrame:
        import pandas as pd

        rows = [fields for _, fields in self.records()]
        places = {name: place for place, name in enumerate(self.names) if name}
        return pd.DataFrame({name: _typed([fields[place] for fields in rows]) for name, place in places.items()})

    def _numbers(self, kept: list[int]) -> np.ndarray:
        values = _Conversion(self, kept).values()
        for line, text in self.dialect.titles:
            notice(f"{self.path}, line {line}: {shown(text)} is taken for a title")
        return values

    def _records(self) -> Iterator[Record]:
        """Records from the first row on; comments are left out."""
        first, width, separator = self.dialect.first, self.dialect.width, self.dialect.separator
        left: list[int] = []

        def lines() -> Iterator[tuple[int, str]]:
            for line, text in enumerate(self._lines(), 1):
                if line < first:
                    continue
                if is_comment(text):
                    if any(len(fields) == width > 1 for _, fields in records([(line, text)], separator)):
                        raise Failure(
                            f"{self.path}: not a whole table (line {line} may be a row or a comment: {shown(text)})"
                        )
                    left.append(line)
                else:
                    yield line, text

        try:
            yield from records(lines(), separator)
        except csv.Error as error:
            raise self._harmed(error) from None
        if left:
            notice(f"{self.path}: {len(left)} comments between or after the rows are left out (line {left[0]})")

    def _lines(self, limit: int | None = None) -> Iterator[str]:
        packed = _OPENED.get(suffix_of(self.path).rpartition(".")[2], open)
        try:
            with packed(self.path, "rb") as opened:
                begin = opened.read(4)
            for mark, what in _FOREIGN.items():
                if begin.startswith(mark):
                    raise Failure(f"{self.path}: not a table of text: it {what}")
            encoding = next((name for mark, name in _MARKS.items() if begin.startswith(mark)), "utf-8")
            with packed(self.path, "rt", encoding=encoding, newline="") as text:
                for line in islice(text, limit):
                    if "\0" in line:
                        raise Failure(f"{self.path}: not a whole table (it holds bytes that are no text)")
                    yield line
        except _HARMED as error:
            raise self._harmed(error) from None

    def _harmed(self, error: Exception) -> Failure:
        what = "it is no text in UTF-8; save it so" if isinstance(error, UnicodeError) else str(error)
        return Failure(f"{self.path}: not a whole table ({' '.join(what.split())[:120]})")


def _typed(cells: list[str]) -> Any:
    """A column as truth, whole numbers or numbers, else as it stands."""
    try:
        read = [number(cell) for cell in cells]
    except OverflowError:
        return cells
    if None in read:
        return cells
    values = np.array([found[1] for found in read if found is not None])
    kinds = {found[0] for found in read if found is not None}
    if kinds == {"truth"}:
        return values.astype(bool)
    if kinds == {"number"} and all(cell.lstrip("+-").isdigit() for cell in cells):
        return values.astype(np.int64)
    return values if kinds <= {"number", "missing"} else cells


class _Conversion:
    """Cells of the kept columns of a table as numbers, by blocks of rows."""

    def __init__(self, table: TextTable, kept: list[int], style: Style = PLAIN, first: bool = True) -> None:
        self.table, self.kept, self.style = table, kept, style
        # Where semicolons separate, commas are often the decimal marks, and points are not.
        self.first = first
        self.doubtful = first and table.dialect.separator == ";"
        # Column by column: kinds of values with line and cell of the first of each.
        self.kinds: list[dict[str, tuple[int, str]]] = [{} for _ in kept]

    def values(self) -> np.ndarray:
        """[rows, kept columns]."""
        rows = ((line, [fields[place] for place in self.kept]) for line, fields in self.table.records())
        blocks: list[np.ndarray] = []
        while block := list(islice(rows, max(1, _CELLS // len(self.kept)))):
            if self.doubtful and not blocks and may_be_grouped(cell for _, row in block[:_SAMPLE] for cell in row):
                return _Conversion(self.table, self.kept, self._style(), first=False).values()
            found = self._quickly(block)
            found = self._slowly(block) if found is None else found
            if found is None:
                return _Conversion(self.table, self.kept, self._style(), first=False).values()
            blocks.append(found)
        for place, kinds in zip(self.kept, self.kinds, strict=True):
            if len(kinds) > 1:
                line, cell = kinds.get("truth") or kinds["percent"]
                raise self.table.refused([place], f"line {line}", [cell], "of more than one kind of values")
        return np.concatenate(blocks) if blocks else np.empty((0, len(self.kept)))

    def _quickly(self, block: list[Record]) -> np.ndarray | None:
        """A block of cells that Python reads as numbers; None where one is not, or not exactly."""
        cells = []
        for _, row in block:
            text = "\0".join(row)  # at once, which is faster
            if "_" in text:
                return None  # Python reads 1_2 as 12
            for mark in self.style.thousands:
                text = text.replace(mark, "")
            cells.append(text.replace(self.style.decimal, ".").split("\0"))
        try:
            found = np.array(cells, dtype=np.float64)
            for row, column in np.argwhere(np.abs(found) >= LARGE):
                exact(cells[row][column])
        except (ValueError, OverflowError):
            return None
        for column in np.flatnonzero(np.isfinite(found).any(0)):
            self.kinds[column].setdefault("number", (block[0][0], ""))
        return found

    def _slowly(self, block: list[Record]) -> np.ndarray | None:
        """A block cell by cell; None where another style may be meant. Raises `UsageError` for what is no number."""
        found = np.empty((len(block), len(self.kept)))
        for row, (line, cells) in enumerate(block):
            for column, cell in enumerate(cells):
                try:
                    read = number(cell, self.style)
                except OverflowError:
                    what = "of more digits than float64 keeps"
                    raise self.table.refused([self.kept[column]], f"line {line}", [cell], what) from None
                if read is None:
                    if self.first and looks_like_number(cell):
                        return None
                    bad = [place for place, other in enumerate(cells) if not looks_like_number(other, missing=True)]
                    places = [self.kept[place] for place in bad]
                    raise self.table.refused(places, f"line {line}", [cells[place] for place in bad])
                kind, found[row, column] = read
                if kind != "missing":
                    self.kinds[column].setdefault(kind, (line, cell))
        return found

    def _style(self) -> Style:
        """The one style that fits all cells; raises `UsageError` that names a cell where two do, or none."""
        rows = self.table.records()
        style, odd = style_of((line, fields[place]) for line, fields in rows for place in self.kept)
        if style is None:
            line, cell = odd or (0, "")
            raise UsageError(
                f"{self.table.option}={self.table.path}, line {line}: {shown(cell)} may be two numbers, by a decimal "
                "or a thousands separator; write plain numbers such as 1500 and 1.5"
            )
        return style
