"""Arrays: rows from a path; shards, arrays, tables, or a named data set. Pickles are never loaded."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from unmix.activations import tables
from unmix.activations.shards import ShardRows
from unmix.core.errors import Failure, UsageError
from unmix.core.items import ImageItems, Items, VectorItems
from unmix.core.rows import ArrayRows, Rows
from unmix.core.seeds import untouched
from unmix.core.store import HARMED

KINDS = f"a folder of activations, .npy, .npz, .safetensors, {', '.join(tables.SUFFIXES)}"


class ItemRows(ArrayRows):
    """Rows in one array [n, d] with items, and labels [n] or None. Raises as `ArrayRows`."""

    def __init__(self, array: Any, name: str = "h", items: Items | None = None, labels: np.ndarray | None = None):
        super().__init__(array, name)
        self.items: Items = VectorItems(np.arange(self.shape[0])) if items is None else items
        self.labels = labels
        if len(self.items) != self.shape[0] or (labels is not None and len(labels) != self.shape[0]):
            raise UsageError(f"{name}: items and labels must be as many as the {self.shape[0]} rows")


def open_rows(path: str | Path) -> Rows:
    """Rows [n, d] with `.items`, from a folder of shards, a file, or a name in the table `DATASETS`.

    .npy is memory-mapped. Of .npz and .safetensors with several arrays one is named after a colon, "acts.npz:h".
    Tables (.csv, .tsv, .parquet) are of numbers alone, see `unmix.activations.tables.read_table`.
    Raises `UsageError` for a missing path, an unknown kind, a missing key or pickled objects, and `Failure` for a
    file that is cut off.
    """
    found = open_array(path)
    return found if hasattr(found, "blocks") else ItemRows(found, str(path))


def open_array(path: str | Path) -> Any:
    """An array of any shape [n, ...] from a file, or the rows of a folder of shards or of a name in `DATASETS`.

    Raises as `open_rows`.
    """
    from unmix.activations import DATASETS

    text = str(path)
    if text in DATASETS.entries:
        return DATASETS[text]()
    file, key = _split(text)
    if file.is_dir():
        return ShardRows(file)
    if not file.is_file():
        raise UsageError(f"data={text}: no such file or folder; give {KINDS}, or a name: {', '.join(DATASETS)}")
    readers = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, **dict.fromkeys(tables.SUFFIXES, _table)}
    suffix = file.suffix.lower()
    if suffix not in readers:
        raise UsageError(
            f"data={text}: cannot read {suffix or 'a file without suffix'}; give {KINDS} (never a pickle)"
        )
    return readers[suffix](file, key)


def digits() -> ItemRows:
    """scikit-learn's handwritten digits: pixels / 16, rows [1797, 64] float32, with images and labels 0 to 9."""
    with untouched():
        from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    labels = data.target.astype(np.int64)
    items = ImageItems(images, tuple(str(label) for label in labels))
    return ItemRows((data.data / 16).astype(np.float32), "digits", items, labels)


def _split(text: str) -> tuple[Path, str | None]:
    file, colon, key = text.rpartition(":")
    if colon and Path(file).suffix.lower() in (".npz", ".safetensors"):
        return Path(file), key
    return Path(text), None


def _npy(file: Path, _key: str | None) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except HARMED as error:
        raise _unreadable(file, error) from None


def _npz(file: Path, key: str | None) -> np.ndarray:
    try:
        # Opened here: numpy leaves the file open where it fails.
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise UsageError(f"data={file}: is not a .npz archive; save it with numpy.savez")
            return arrays[_chosen(file, key, list(arrays.files))]
    except (*HARMED, zipfile.BadZipFile) as error:
        if isinstance(error, UsageError):
            raise
        raise _unreadable(file, error) from None


def _safetensors(file: Path, key: str | None) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            return tensors.get_tensor(_chosen(file, key, list(tensors.keys())))
    except SafetensorError as error:
        raise Failure(f"{file}: not a whole safetensors file ({error}); copy or make it again") from None


def _table(file: Path, _key: str | None) -> np.ndarray:
    return tables.read_table(file)


def _chosen(file: Path, key: str | None, keys: list[str]) -> str:
    if key in keys:
        return str(key)
    if key is None and len(keys) == 1:
        return keys[0]
    shown = ", ".join(keys[:24]) or "none"
    given = "holds several arrays; name one" if key is None else f"has no array {key!r}; name one it has"
    raise UsageError(f"data={file}: {given}, such as {file.name}:{keys[0] if keys else 'h'} (arrays: {shown})")


def _unreadable(file: Path, error: Exception) -> Exception:
    text = str(error)
    if any(word in text for word in ("pickle", "Object arrays", "Python objects")):
        return UsageError(f"data={file}: holds pickled objects, which are never loaded; save plain numbers [n, d]")
    return Failure(f"{file}: not a whole array ({' '.join(text.split())[:120]}); copy or make it again")
