"""Tables from files: .csv, .tsv, .txt (also .gz, .bz2, .xz) and .parquet; their columns as numbers or as they are."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unmix.core.dialect import shown
from unmix.core.errors import UsageError, notice

if TYPE_CHECKING:
    import pandas as pd

PACKED = (".gz", ".bz2", ".xz")
TEXT = (".csv", ".tsv", ".txt")
SUFFIXES = (*TEXT, *(f"{suffix}.gz" for suffix in TEXT), ".parquet")


def suffix_of(path: str | Path) -> str:
    """The suffix of a file in small letters, with that of its compression: ".csv", ".csv.gz", ".npy"."""
    last = [suffix.lower() for suffix in Path(path).suffixes[-2:]]
    return "".join(last) if last and last[-1] in PACKED else "".join(last[-1:])


def is_table(path: str | Path) -> bool:
    """Whether a path has the name of a table."""
    suffix = suffix_of(path)
    return suffix == ".parquet" or suffix in {text + packed for text in TEXT for packed in ("", *PACKED)}


def open_table(path: str | Path, option: str = "data") -> Table:
    """A table, its columns not yet read.

    Of text the separator, the decimal mark, comments (# or %), titles and the line of names are told from what the
    file holds: read where that can be done in one way only. option: what the file was given as, for messages.
    Raises `UsageError` for a missing file or kind, or that names the line that can be read in two ways, and `Failure`
    for a file that is cut off or no table.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{option}={path}: no such file")
    if suffix_of(path) == ".parquet":
        from unmix.core.columns import ParquetTable

        return ParquetTable(path, option)
    from unmix.core.text_tables import TextTable

    return TextTable(path, option)


class Table(ABC):
    """Columns of a file.

    names: [columns], "" where one has none. index: places of columns that only name the rows.
    """

    path: Path
    option: str
    names: tuple[str, ...]
    index: tuple[int, ...]

    def place(self, name: str) -> int:
        """Which column has a name; of those without, or with one that is there twice, 0, 1, 2 ... is the place.

        Raises `UsageError` for a name that no column or several have.
        """
        given = f"{self.option}={self.path}"
        found = [place for place, other in enumerate(self.names) if other == name]
        found = found or [place for place, other in enumerate(self.names) if _same_number(other, name)]
        if len(found) == 1:
            return found[0]
        if not found and name.isdigit() and int(name) < len(self.names):
            return int(name)
        if found:
            where = " and ".join(map(str, found))
            raise UsageError(f"{given}: {len(found)} columns are named {name!r}; give the place, {where}")
        from unmix.core.recipe import suggest

        raise UsageError(f"{given}: no column {name!r}; {suggest(name, [known for known in self.names if known])}")

    def called(self, place: int) -> str:
        """What `place` takes for a column."""
        return self.names[place] if self.names.count(self.names[place]) == 1 and self.names[place] else str(place)

    def numbers(self, drop: Sequence[str] = (), labels: str | None = None, complete: bool = False) -> np.ndarray:
        """All columns but an index, those of `drop` and `labels`, as [rows, columns] float64; a missing value is NaN.

        complete: a missing value is refused. true and false are 1 and 0, percentages shares. Says (`Notice`) what was
        left out, and names a column that may be no measurement since it counts the rows or is whole and different in
        every one. Raises `UsageError` for a column that is not of numbers or has more digits than float64 keeps, and
        `Failure` for a cut file.
        """
        aside = {self.place(name) for name in (*drop, *(() if labels is None else (labels,)))}
        kept = [place for place in range(len(self.names)) if place not in aside and place not in self.index]
        if not kept:
            raise UsageError(f"{self.option}={self.path}: no column is left; drop fewer of {', '.join(self.names)}")
        values = self._numbers(kept)
        if index := [place for place in self.index if place not in aside]:
            told = ", ".join(self.names[place] or "a column without a name" for place in index)
            notice(f"{self.path}: {told}: taken for an index and left out")
        if values.shape[1] == len(kept):  # no column of lists
            names = [self.called(place) for place in kept]
            if complete:
                self._complete(names, values)
            self._point_out(names, values)
        return values

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """The named columns as numbers [rows, columns] float64. Raises as `numbers`."""
        return self._numbers([self.place(name) for name in names])

    def frame(self) -> pd.DataFrame:
        """The columns that have a name, each as `column` gives it; numbers and truth of text as such."""
        import pandas as pd

        return pd.DataFrame({name: self.column(self.called(place)) for place, name in enumerate(self.names) if name})

    @abstractmethod
    def column(self, name: str) -> np.ndarray:
        """One column [rows] as it stands: text; of Parquet numbers as well. "" is missing."""

    @abstractmethod
    def _numbers(self, kept: list[int]) -> np.ndarray: ...

    def refused(self, place: int, where: str, cell: object, what: str = "is not of numbers") -> UsageError:
        """The error that says why a column is not taken, and how to leave it out."""
        name = shlex.quote(f"{self.option}.drop={self.called(place)}")
        labels = shlex.quote(f"{self.option}.labels={self.called(place)}")
        take = f", or take it as labels: {labels}" if self.option == "data" else ""
        return UsageError(
            f"{self.option}={self.path}: column {self.called(place)!r} {what} ({where}: {shown(str(cell))}); "
            f"leave it out: {name}{take}"
        )

    def _complete(self, names: list[str], values: np.ndarray) -> None:
        missing = np.isnan(values)
        if missing.any():
            place = int(missing.any(0).argmax())
            rows, called = missing[:, place], f"{self.option}={self.path}: column {names[place]!r}"
            drop = shlex.quote(f"{self.option}.drop={names[place]}")
            raise UsageError(
                f"{called} has no value in {rows.sum()} of {len(rows)} rows (the first is row {rows.argmax()}); "
                f"fill in what is missing, or leave the column out: {drop}"
            )

    def _point_out(self, names: list[str], values: np.ndarray) -> None:
        """Say which whole columns count the rows or differ in every row, where others do not."""
        if len(values) < 5:
            return
        whole = np.isfinite(values).all(0) & (values == np.round(values)).all(0)
        ordered = np.sort(values[:, whole], axis=0)
        differ = np.flatnonzero(whole)[(np.diff(ordered, axis=0) > 0).all(0)]
        if not len(differ) or len(differ) == len(names):
            return
        told = ", ".join(f"{names[place]!r}" for place in differ[:3]) + " ..." * (len(differ) > 3)
        drop = shlex.quote(f"{self.option}.drop={','.join(names[place] for place in differ[:3])}")
        one = len(differ) == 1
        what = "column {} holds a whole number that is" if one else "columns {} hold whole numbers that are"
        notice(
            f"{self.path}: {what.format(told)} different in every row, as {'a number' if one else 'numbers'} of the "
            f"row or a key {'is' if one else 'are'}; if so leave {'it' if one else 'them'} out: {drop}"
        )


def _same_number(one: str, other: str) -> bool:
    """Whether two names are one number, such as 01 and 1: the command line reads numbers before names."""
    try:
        return float(one) == float(other)
    except ValueError:
        return False
