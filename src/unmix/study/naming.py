"""Labels that come with names: matched to rows by the names of their files, never by place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from unmix.core.errors import UsageError, notice
from unmix.core.pictures import is_picture

FRAME = re.compile(r":[0-9]+$")  # of a stack, behind the name of its file


def in_rows(
    values: np.ndarray, columns: Mapping[str, np.ndarray], names: Sequence[str] | None, where: str
) -> np.ndarray | None:
    """Labels of n rows from a table's column, by another column that names the rows; None where none does.

    values: [k] labels as `core.labels.plain` gives them. columns: the other columns [k], as text. names: [n] of the
    rows' files, or None where they have none. where: the table, for messages. A name in the table may have more or
    fewer folders than the row's, and no suffix or another; that of a stack stands for all its frames. Rows that are
    not named have no label.
    A `Notice` says how many rows and names are left over, and where names cannot be used because the rows have none.
    Raises `UsageError` where a column of file names fits no row, a name stands for several rows, or is there twice
    with unlike labels.
    """
    whole, parts = _forms(names or ())
    best: tuple[int, str, list[list[int]]] | None = None
    for column, keys in columns.items():
        cleaned = [_clean(str(key)) for key in keys]
        found = [_rows(key, whole, parts) for key in cleaned]
        hits = sum(_one_file(rows, names or ()) for rows in found)
        files = 2 * sum(map(is_picture, cleaned)) > len(keys)
        if not files and not (2 * hits > len(keys) == len(set(cleaned))):
            continue
        if names is None:
            notice(
                f"{where}: rows have no names to compare column {column!r} with; they are taken in the table's order"
            )
            return None
        if best is None or hits > best[0]:
            best = (hits, column, found)
    if best is None or names is None:
        return None
    hits, column, found = best
    keys = columns[column]
    if not any(found):
        raise UsageError(
            f"{where}: the names in column {column!r}, such as {str(keys[0])!r}, are of no row; rows are named "
            f"{names[0]!r} and so on"
        )
    return _given(values, keys, found, names, f"{where}: column {column!r}")


def _given(
    values: np.ndarray, keys: np.ndarray, found: list[list[int]], names: Sequence[str], where: str
) -> np.ndarray:
    source = np.full(len(names), -1)
    for place, (key, rows) in enumerate(zip(keys, found, strict=True)):
        if rows and not _one_file(rows, names):
            told = " and ".join(repr(names[row]) for row in rows[:2])
            raise UsageError(f"{where}: {str(key)!r} stands for {told}; give names with their folders")
        for before in source[rows]:
            if before >= 0 and str(values[before]) != str(values[place]):
                told = f"{str(values[before])!r} and as {str(values[place])!r}"
                raise UsageError(f"{where}: {str(key)!r} is there twice, as {told}")
        source[rows] = place
    if missing := int((source < 0).sum()):
        notice(f"{where}: {missing} of {len(names)} rows are not named and have no label")
    if strange := sum(not rows for rows in found):
        notice(f"{where}: {strange} of {len(found)} names are of no row")
    labels = values[source]
    if not missing:
        return labels
    labels = labels.astype(float if values.dtype.kind in "iuf" else str)
    labels[source < 0] = np.nan if labels.dtype.kind == "f" else ""
    return labels


def _one_file(rows: list[int], names: Sequence[str]) -> bool:
    return len({FRAME.sub("", names[row]) for row in rows}) == 1


Forms = dict[str, list[int]]


def _forms(names: Sequence[str]) -> tuple[Forms, Forms]:
    """The rows that go by a whole name, and by one without its first folders; each also without its suffix.

    A frame goes by the name of its file as well.
    """
    whole: Forms = {}
    parts: Forms = {}
    for row, name in enumerate(map(_clean, names)):
        own = {name, FRAME.sub("", name)}
        own |= {form.rpartition(".")[0] for form in own if "." in form.rpartition("/")[2][1:]}
        for form in own:
            whole.setdefault(form, []).append(row)
        for form in {tail for one in own for tail in _tails(one)}:
            parts.setdefault(form, []).append(row)
    return whole, parts


def _rows(key: str, whole: Forms, parts: Forms) -> list[int]:
    """The rows that a name in a table means: theirs ends so, or it ends in the whole of theirs."""
    for one in (key, key.rpartition(".")[0]) if is_picture(key) else (key,):
        for tail in _tails(one):
            if found := (parts if tail == one else whole).get(tail):
                return found
    return []


def _tails(name: str) -> Iterator[str]:
    """a/b/c, b/c, c."""
    folders = name.split("/")
    return ("/".join(folders[place:]) for place in range(len(folders)))


def _clean(name: str) -> str:
    return name.strip().replace("\\", "/").removeprefix("./")
