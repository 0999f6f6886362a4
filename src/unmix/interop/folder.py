"""Folders of other libraries: which format one is in, and its features."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from unmix.core.array_files import array_names
from unmix.core.errors import UnmixError, UsageError
from unmix.finders.features import Features
from unmix.interop import FORMATS, dictionary_learning, saelens, sparsify

LISTED = 3  # files that a refusal names
WEIGHTS = {
    "saelens": saelens.WEIGHTS,
    "dictionary_learning": dictionary_learning.WEIGHTS,
    "sparsify": sparsify.WEIGHTS,
}


def read(folder: str | Path, format: str | None = None, ignore: Collection[str] = ()) -> Features:
    """Features from a folder that another library wrote; format: a name in FORMATS, None looks for it.

    ignore: fields of its configuration that are known not to change what is computed. Raises `UsageError` for an
    unknown format, and what the format's own reader raises.
    """
    folder = Path(folder)
    reader = FORMATS[format or format_of(folder)]
    return reader(folder, ignore)


def format_of(folder: str | Path) -> str:
    """Name of a folder's format, by the file that holds its weights.

    Raises `UsageError` for none or for several, with what is there instead.
    """
    folder = Path(folder)
    if folder.is_file():
        if folder.name in WEIGHTS.values():
            raise UsageError(f"{folder}: is a file; name the folder that it is in, {folder.parent}")
        raise UsageError(f"{folder}: is a file; name a folder that holds {_known()}; this is {_named(folder)}")
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    found = _formats(folder)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{folder}: holds weights of {' and '.join(found)}; say which with format")
    inner = sorted(part.name for part in folder.iterdir() if part.is_dir() and _formats(part))
    hint = f"; try its sub-folder {' or '.join(inner[:3])}" if inner else ""
    if not hint:
        there = sorted(part for part in folder.iterdir() if part.is_file() and not part.name.startswith("."))
        arrays_first = sorted(there, key=lambda part: not _arrays(part))
        hint = f"; it holds {'; '.join(map(_named, arrays_first[:LISTED]))}" if there else "; the folder is empty"
    raise UsageError(f"{folder}: none of {', '.join(WEIGHTS.values())} is there{hint}")


def _known() -> str:
    return " or ".join(f"{file} ({name})" for name, file in WEIGHTS.items())


def _named(path: Path) -> str:
    """A file by its name, with the names of the arrays in it where it tells them."""
    names = _arrays(path)
    more = ", ..." if len(names) > 4 * LISTED else ""
    return f"{path.name} ({', '.join(names[: 4 * LISTED])}{more})" if names else path.name


def _formats(folder: Path) -> list[str]:
    return [name for name, file in WEIGHTS.items() if (folder / file).is_file()]


def _arrays(path: Path) -> list[str]:
    """Names of the arrays in a file, sorted; none for one that cannot be read."""
    try:
        return sorted(array_names(path))
    except UnmixError:
        return []
