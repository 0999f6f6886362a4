"""Files that worlds are read from: what they hold, by content and never by place."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unmix.core.digest import digest
from unmix.core.errors import Failure, UnmixError, UsageError
from unmix.core.pictures import files_below, is_hidden
from unmix.core.store import HARMED
from unmix.worlds.base import World

PICKLES = (".pickle", ".pkl")
HDF5 = (".h5", ".hdf5", ".he5")
MATLAB_7_3 = b"\x89HDF\r\n\x1a\n"  # begins the HDF5 file behind MATLAB's own head


class FileWorld(World):
    """A world that is read from a file or a folder, never from a pickle.

    path: the file. content: digest that it must have; None takes what is there. The recipe's own digest covers the
    content and never the path.
    """

    path: str
    content: str | None = None

    @cached_property
    def _found(self) -> str | None:
        return self.content or digest_of(self.path)

    @property
    def digest(self) -> str:
        """Digest of the fields and the content."""
        transition = getattr(self, "transition", None)
        own = {**self.as_dict(), "path": ""}
        return digest(own if transition is None else {**own, "transition": transition.digest})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the content's digest filled in where the file is there."""
        return {**super().as_dict(), "content": self._found}

    def _opened(self) -> Path:
        """The path, which is there and holds what was asked for."""
        path = Path(self.path)
        if not path.exists():
            raise UsageError(f"{self.kind}.path={self.path}: no such file")
        if path.suffix in PICKLES:
            raise UsageError(
                f"{self.kind}.path={self.path}: a pickle can run any code and is never opened; {CONVERT}"
            )
        if self.content is not None and digest_of(path) != self.content:
            raise UsageError(f"{self.kind}.content={self.content}: {self.path} has other content")
        return path


CONVERT = (
    "convert it where you trust it: numpy.savez(path, masks=..., sequence=..., frame=...), one row for each frame"
)


def array_names(path: str | Path) -> set[str]:
    """Names of the arrays in an .npz file, without reading them; none for any other path."""
    path = Path(path)
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return set()
    with zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def digest_of(path: str | Path) -> str | None:
    """16 hexadecimal digits for the bytes of a file, or of all files below a folder that are not hidden.

    None where there is none.
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        below = (path / name for name in files_below(path) if not is_hidden(name))
        files = sorted(file for file in below if file.is_file())
    if not path.exists() or not files:
        return None
    whole = hashlib.sha256()
    for file in files:
        if path.is_dir():
            whole.update(str(file.relative_to(path)).encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 22):
                whole.update(block)
    return whole.hexdigest()[:16]


def read_arrays(path: Path, wanted: Mapping[str, bool]) -> dict[str, np.ndarray]:
    """Named arrays of an .npz, .safetensors or HDF5 file (.h5, .hdf5); wanted: name -> whether it must be there.

    Other arrays are not looked at, so that a file may hold pickled ones, which are never opened. Raises `UsageError`
    for a missing name or another kind of file, and `Failure` for a file that is not whole.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    found: dict[str, np.ndarray | None]
    try:
        if path.suffix == ".safetensors":
            found = {**load_file(path)}
        elif path.suffix in HDF5:
            found = _hdf5(path, wanted)
        elif path.suffix != ".npz":
            raise UsageError(f"{path}: arrays are read from .npz, .safetensors and {', '.join(HDF5)}")
        else:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as opened:
                found = {name: opened[name] for name in wanted if name in opened.files}
                found = found or dict.fromkeys(opened.files)
    except UnmixError:
        raise
    except (*HARMED, zipfile.BadZipFile, zlib.error, SafetensorError, KeyError, RuntimeError, MemoryError) as error:
        raise Failure(f"{path}: cannot be read ({why(error)}); copy it again") from None
    for name, needed in wanted.items():
        if needed and found.get(name) is None:
            raise UsageError(f"{path}: has no array {name}; it has {', '.join(found) or 'nothing'}")
    return {name: array for name in wanted if (array := found.get(name)) is not None}


def read_mat(path: Path, name: str) -> np.ndarray | None:
    """One variable of a MATLAB file of any version, its axes in MATLAB's order; None where it is not there.

    Raises `Failure` that names a file which is none, or not whole.
    """
    from scipy import io

    try:
        with path.open("rb") as raw:
            raw.seek(512)
            newer = raw.read(len(MATLAB_7_3)) == MATLAB_7_3
        if newer:
            found = _hdf5(path, {name: False}).get(name)
            return None if found is None else found.transpose()  # HDF5 has the axes the other way round
        return io.loadmat(path, variable_names=[name]).get(name)
    except UnmixError:
        raise
    except Exception as error:  # what a damaged file makes the reader stumble over may be anything
        raise Failure(f"{path}: no MATLAB file that can be read ({why(error)}); copy it again") from None


def why(error: BaseException) -> str:
    """The first line of an error, or its kind where it has no words."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def _hdf5(path: Path, wanted: Mapping[str, bool]) -> dict[str, Any]:
    """The wanted arrays, or where there is none of them the names of what there is."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise UsageError(f"{path}: an HDF5 file needs h5py: pip install h5py; or convert it to .npz") from None
    with h5py.File(path, "r") as opened:
        found = {name: opened[name] for name in wanted if isinstance(opened.get(name), h5py.Dataset)}
        if not found:
            return dict.fromkeys(map(str, opened))
        text = {name for name, array in found.items() if h5py.check_string_dtype(array.dtype)}
        return {name: (array.asstr() if name in text else array)[()] for name, array in found.items()}
