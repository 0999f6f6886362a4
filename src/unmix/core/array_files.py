"""Arrays from files: .npy, and by name .npz, .safetensors, HDF5 and MATLAB's. Pickles are never loaded."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unmix.core.errors import Failure, UnmixError, UsageError
from unmix.core.store import HARMED

HDF5 = (".h5", ".hdf5", ".he5")
ARCHIVES = (".npz", ".safetensors", *HDF5)
_MATLAB_7_3 = b"\x89HDF\r\n\x1a\n"  # begins the HDF5 file behind MATLAB's own head
_ARCHIVE_HARMED = (zipfile.BadZipFile, zlib.error, MemoryError, RuntimeError, KeyError)
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
    """Names of the arrays of a file of named arrays; none for any other path. Raises as `read_npy`."""
    if Path(path).suffix.lower() not in ARCHIVES or not Path(path).is_file():
        return []
    with _archive(path, option) as found:
        return list(found)


def read_named(path: str | Path, name: str | None = None, option: str = "data") -> np.ndarray:
    """One array of a file of named arrays; name may be None where the file has only one.

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
    """Named arrays of an .npz, .safetensors or HDF5 file; wanted: name -> whether it must be there.

    Others are not looked at, so that a file may hold pickled ones, which are never opened. Raises as `read_named`.
    """
    if Path(path).suffix.lower() not in ARCHIVES:
        raise UsageError(f"{path}: arrays are read from {', '.join(ARCHIVES)}")
    with _archive(path, "path") as found:
        names = list(found)
        for name, needed in wanted.items():
            if needed and name not in names:
                raise UsageError(f"{path}: has no array {name}; it has {', '.join(names) or 'nothing'}")
        return {name: found[name] for name in wanted if name in names}


def read_mat(path: Path, name: str) -> np.ndarray | None:
    """One variable of a MATLAB file of any version, its axes in MATLAB's order; None where it is not there.

    Raises `Failure` that names a file which is none, or not whole.
    """
    from scipy import io

    try:
        with path.open("rb") as raw:
            raw.seek(512)
            newer = raw.read(len(_MATLAB_7_3)) == _MATLAB_7_3
        if newer:
            with _hdf5(path) as opened:  # HDF5 has the axes the other way round
                return opened[name].transpose() if name in opened else None
        return io.loadmat(path, variable_names=[name]).get(name)
    except UnmixError:
        raise
    except Exception as error:  # what a damaged file makes the reader stumble over may be anything
        raise Failure(f"{path}: no MATLAB file that can be read ({why(error)}); copy it again") from None


def why(error: BaseException) -> str:
    """The first line of an error, or its kind where it has no words."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


@contextlib.contextmanager
def _archive(path: str | Path, option: str) -> Iterator[Mapping[str, np.ndarray]]:
    suffix = Path(path).suffix.lower()
    kind = {".npz": "array", ".safetensors": "safetensors file"}.get(suffix, "HDF5 file")
    with _told(path, option, kind):
        if suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as tensors:
                yield _Named(tensors.keys(), lambda name: _numbers(tensors.get_tensor(name)))
        elif suffix in HDF5:
            with _hdf5(path) as opened:
                yield opened
        else:
            with open(path, "rb") as raw:  # numpy leaves a file open where it fails
                found = np.load(raw, allow_pickle=False)
                if not isinstance(found, np.lib.npyio.NpzFile):
                    raise UsageError(f"{option}={path}: is not a .npz archive; save it with numpy.savez")
                with found:
                    yield _Named(found.files, found.__getitem__)


@contextlib.contextmanager
def _hdf5(path: str | Path) -> Iterator[Mapping[str, np.ndarray]]:
    try:
        import h5py
    except ModuleNotFoundError:
        raise UsageError(f"{path}: an HDF5 file needs h5py: pip install h5py; or convert it to .npz") from None
    with h5py.File(path, "r") as opened:
        names: list[str] = []
        opened.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)

        def read(name: str) -> np.ndarray:
            found = opened[name]
            return np.asarray((found.asstr() if h5py.check_string_dtype(found.dtype) else found)[()])

        yield _Named(names, read)


class _Named(Mapping[str, np.ndarray]):
    """Arrays that are read when they are asked for."""

    def __init__(self, names: Iterable[str], read: Callable[[str], np.ndarray]) -> None:
        self.names, self.read = list(names), read

    def __getitem__(self, name: str) -> np.ndarray:
        return self.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _numbers(tensor: Any) -> np.ndarray:
    try:
        return tensor.numpy()
    except TypeError:  # numpy has none of the kind
        return tensor.float().numpy()


@contextlib.contextmanager
def _told(path: str | Path, option: str, kind: str = "array") -> Iterator[None]:
    """What a harmed file raises, in words."""
    from safetensors import SafetensorError

    try:
        yield
    except UnmixError:
        raise
    except FileNotFoundError:
        raise UsageError(f"{option}={path}: no such file") from None
    except (*HARMED, *_ARCHIVE_HARMED, SafetensorError) as error:
        if any(word in str(error) for word in ("pickle", "Object arrays", "Python objects")):
            told = "holds pickled objects, which are never loaded; save plain numbers"
            raise UsageError(f"{option}={path}: {told}") from None
        raise Failure(f"{path}: not a whole {kind} ({why(error)}); copy or make it again") from None
