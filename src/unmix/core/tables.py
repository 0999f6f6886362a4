"""Tables from files: .csv, .tsv, .txt (also .gz, .bz2, .xz) and .parquet; their columns as numbers or as they are."""

from __future__ import annotations

import json
import shlex
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unmix.core.dialect import shown
from unmix.core.errors import UsageError, notice
from unmix.core.options import values as values_of

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
        name = self.names[place]
        return name if name and self._named[name] == 1 else str(place)

    @cached_property
    def _named(self) -> Counter[str]:
        return Counter(self.names)

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

    def refused(
        self, places: Sequence[int], where: str, cells: Sequence[object], what: str = "not of numbers"
    ) -> UsageError:
        """The error that says why columns are not taken, by a cell of each, and how to leave them out."""
        names = [self.called(place) for place in places]
        told = ", ".join(shown(str(cell)) for cell in cells[:3]) + " ..." * (len(cells) > 3)
        labels = f", or take one as labels: {self._option('labels', names[:1])}" if self.option == "data" else ""
        verb = "is" if len(names) == 1 else "are"
        return UsageError(
            f"{self.option}={self.path}: {_listed(names)} {verb} {what} ({where}: {told}); "
            f"leave out by {self._option('drop', names)}{labels}"
        )

    def _option(self, key: str, names: Sequence[str]) -> str:
        """The option of the command line that names columns."""
        plain = all("," not in name and [str(value) for value in values_of(name)] == [name] for name in names)
        text = ",".join(names) if plain else json.dumps(list(names), ensure_ascii=False)
        return shlex.quote(f"{self.option}.{key}={text}")

    def _complete(self, names: list[str], values: np.ndarray) -> None:
        missing = np.isnan(values)
        if missing.any():
            places = np.flatnonzero(missing.any(0))
            rows, few = missing[:, places[0]], [names[place] for place in places]
            raise UsageError(
                f"{self.option}={self.path}: {_listed(few)} {'has' if len(few) == 1 else 'have'} no value in some "
                f"rows, {few[0]!r} in {rows.sum()} of {len(rows)}, the first of which is row {rows.argmax()}; "
                f"fill in what is missing, or leave out by {self._option('drop', few)}"
            )

    def _point_out(self, names: list[str], values: np.ndarray) -> None:
        """Say which columns count the rows, are whole and differ in every row, or rise by equal steps."""
        if len(values) < 5:
            return
        finite = np.isfinite(values).all(0)
        held = np.where(finite, values, 0.0)
        whole = (held == np.round(held)).all(0) & (np.diff(np.sort(held, axis=0), axis=0) > 0).all(0)
        with np.errstate(over="ignore", invalid="ignore"):  # steps beyond what float64 holds are not even
            steps = np.diff(held, axis=0)
            even = (np.abs(steps - steps[:1]) <= 1e-6 * np.abs(steps[:1])).all(0) & (steps[0] != 0)
        found = [names[place] for place in np.flatnonzero(finite & (whole | even))]
        if found and len(found) < len(names):
            one = len(found) == 1
            notice(
                f"{self.path}: {_listed(found)} {'counts' if one else 'count'} the rows, or {'is' if one else 'are'} "
                f"whole and different in every one, as a key or a time is; if so leave out by "
                f"{self._option('drop', found)}"
            )


def _listed(names: Sequence[str]) -> str:
    told = ", ".join(map(repr, names[:3])) + " ..." * (len(names) > 3)
    return f"column {told}" if len(names) == 1 else f"columns {told}"


def _same_number(one: str, other: str) -> bool:
    """Whether two names are one number, such as 01 and 1: the command line reads numbers before names."""
    try:
        return float(one) == float(other)
    except ValueError:
        return False
