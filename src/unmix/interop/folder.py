"""Folders of other libraries: which format one is in, and its features."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from unmix.core.errors import UsageError
from unmix.finders.features import Features
from unmix.interop import FORMATS, dictionary_learning, saelens, sparsify

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
    """Name of a folder's format, by the file that holds its weights; raises `UsageError` for none or for several."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    found = _formats(folder)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{folder}: holds weights of {' and '.join(found)}; say which with format")
    inner = sorted(part.name for part in folder.iterdir() if part.is_dir() and _formats(part))
    hint = f"; try its sub-folder {' or '.join(inner[:3])}" if inner else ""
    raise UsageError(f"{folder}: none of {', '.join(WEIGHTS.values())} is there{hint}")


def _formats(folder: Path) -> list[str]:
    return [name for name, file in WEIGHTS.items() if (folder / file).is_file()]
