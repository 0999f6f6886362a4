"""Arrays from files: .npy, and by name from .npz and .safetensors. Pickles are never loaded."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unmix.core.errors import Failure, UnmixError, UsageError
from unmix.core.store import HARMED

ARCHIVES = (".npz", ".safetensors")
_SPARSE = {"format", "shape", "data"}  # what scipy.sparse.save_npz writes, among others


def read_npy(path: str | Path, option: str = "data", mapped: bool = True) -> np.ndarray:
    """The array of a .npy file, of any shape and dtype that is not of objects; mapped: not read before it is used.

    option: what the file was given as, for messages. Raises `UsageError` for a missing file, pickled objects or
    another kind of file, and `Failure` for one that is cut off.
    """
    with _told(path, option):
        found = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        found.close()
    raise UsageError(f"{option}={path}: holds named arrays; its name must end in .npz")


def array_names(path: str | Path, option: str = "data") -> list[str]:
    """Names of the arrays of an .npz or .safetensors file. Raises as `read_npy`."""
    with _archive(path, option) as found:
        return list(found)


def read_named(path: str | Path, name: str | None = None, option: str = "data") -> np.ndarray:
    """One array of an .npz or .safetensors file; name may be None where the file has only one.

    Numbers that numpy lacks (bfloat16, 8 bits) become float32. Raises as `read_npy`, and `UsageError` that lists the
    names where there is none such, or several and none was given.
    """
    with _archive(path, option) as found:
        names = list(found)
        if name is None and set(names) > _SPARSE:
            raise UsageError(f"{option}={path}: is a sparse matrix of scipy; save its .toarray()")
        if name not in names and (name is not None or len(names) != 1):
            given = "holds several arrays; name one" if name is None else f"has no array {name!r}; name one it has"
            first = f"{Path(path).name}:{names[0] if names else 'h'}"
            raise UsageError(f"{option}={path}: {given}, such as {first} (arrays: {', '.join(names[:24]) or 'none'})")
        return found[name or names[0]]


def read_arrays(path: str | Path, wanted: Mapping[str, bool]) -> dict[str, np.ndarray]:
    """Named arrays of an .npz or .safetensors file; wanted: name -> whether it must be there.

    Others are not looked at, so that a file may hold pickled ones, which are never opened. Raises as `read_named`.
    """
    with _archive(path, "path") as found:
        names = list(found)
        for name, needed in wanted.items():
            if needed and name not in names:
                raise UsageError(f"{path}: has no array {name}; it has {', '.join(names) or 'nothing'}")
        return {name: found[name] for name in wanted if name in names}


@contextlib.contextmanager
def _archive(path: str | Path, option: str) -> Iterator[Mapping[str, np.ndarray]]:
    if Path(path).suffix.lower() != ".safetensors":
        with _told(path, option), open(path, "rb") as opened:  # numpy leaves a file open where it fails
            found = np.load(opened, allow_pickle=False)
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise UsageError(f"{option}={path}: is not a .npz archive; save it with numpy.savez")
            with found:
                yield found
        return
    from safetensors import SafetensorError, safe_open

    with _told(path, option):
        try:
            with safe_open(path, framework="pt") as tensors:
                yield _Tensors(tensors)
        except SafetensorError as error:
            raise Failure(f"{path}: not a whole safetensors file ({error}); copy or make it again") from None


class _Tensors(Mapping[str, np.ndarray]):
    def __init__(self, tensors: Any) -> None:
        self.tensors = tensors

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self.tensors.get_tensor(name)
        try:
            return tensor.numpy()
        except TypeError:  # numpy has none of the kind
            return tensor.float().numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors.keys())

    def __len__(self) -> int:
        return len(list(self.tensors.keys()))


@contextlib.contextmanager
def _told(path: str | Path, option: str) -> Iterator[None]:
    """What a harmed file raises, in words."""
    try:
        yield
    except UnmixError:
        raise
    except FileNotFoundError:
        raise UsageError(f"{option}={path}: no such file") from None
    except (*HARMED, zipfile.BadZipFile, zlib.error, MemoryError, NotImplementedError, RuntimeError) as error:
        text = " ".join(str(error).split())
        if any(word in text for word in ("pickle", "Object arrays", "Python objects")):
            raise UsageError(
                f"{option}={path}: holds pickled objects, which are never loaded; save plain numbers"
            ) from None
        raise Failure(f"{path}: not a whole array ({text[:120]}); copy or make it again") from None
