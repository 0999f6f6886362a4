"""Safe writes and reads: files are renamed when they are whole, and a file that is not whole is told in words."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import tokenize
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmix.core.errors import Failure, UsageError, notice

if TYPE_CHECKING:
    from torch import Tensor

# What numpy raises for an array file whose header or body was harmed: it reads headers as Python literals.
HARMED = (ValueError, EOFError, OSError, OverflowError, SyntaxError, tokenize.TokenError)
LOCKS = ".locks"  # folder of lock files inside a folder that several processes write in


@contextlib.contextmanager
def writing(path: str | Path, kept: str = "nothing stored before was changed") -> Iterator[None]:
    """What the disk refuses in the block becomes `Failure`; kept: what became of what was there."""
    try:
        yield
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror or error}; {kept}") from error


def must_be_writable(path: Path) -> None:
    """Refuse, before any work, a file that cannot be written: a folder, a file in the way, a closed folder."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        raise UsageError(f"{path}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Failure(f"cannot write {path}: {there} may not be written in")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it when the block ends well and removed when it does not.

    Works for a file and for a folder (the block makes it). Raises `Failure` where the disk refuses.
    """
    path = Path(path)
    # Cut, so that a name as long as the system allows still has a temporary one.
    temporary = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:8]}.part")
    with writing(path):
        try:
            if path.parent.is_file():
                raise NotADirectoryError(errno.ENOTDIR, f"{path.parent} is a file")
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if temporary.is_dir() and path.is_dir():
                _exchange(temporary, path)
            elif path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "a folder is in its place; remove or rename that")
            else:
                os.replace(temporary, path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def _exchange(new: Path, path: Path) -> None:
    """Put the folder `new` in the place of the folder `path`, which takes its name; in one step where Linux can."""
    if sys.platform == "linux":
        import ctypes

        here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if rename is not None and not rename(here, os.fsencode(new), here, os.fsencode(path), both):
            return
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    path.rename(old)
    new.rename(path)
    old.rename(new)


def write_text(path: str | Path, text: str) -> None:
    """Write text (UTF-8) whole or not at all; half of a surrogate pair, which UTF-8 has not, is written \\udXXX."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: Any) -> None:
    """Write plain values as JSON, whole or not at all; NaN is refused, for JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path, remedy: str = "remove it to have it made again") -> Any:
    """Read JSON; raises `UsageError` where the file is missing and `Failure` where it is cut off or cannot be read.

    remedy: what to do about a file that is not whole.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_no_constant)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise Failure(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from None
    except RecursionError:
        raise Failure(f"{path}: nested too deeply; {remedy}") from None
    except ValueError as error:
        told = str(error) if Path(path).stat().st_size else "the file is empty"
        raise Failure(f"{path}: not whole or not JSON ({told[:120]}); {remedy}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def recall(path: Path, *fields: str, remedy: str = "it is made again") -> dict[str, Any] | None:
    """The JSON object that earlier work kept in a file, with these fields; None where it has to be made (again).

    A file that is there and is not whole is named in a notice, with what becomes of it.
    """
    if not path.exists():
        return None
    try:
        found = read_json(path, remedy)
    except Failure as error:
        notice(str(error))
        return None
    missing = [name for name in fields if name not in found] if isinstance(found, dict) else ["JSON object"]
    if missing:
        notice(f"{path}: has no {', '.join(missing)}; {remedy}")
        return None
    return found


def set_aside(path: Path, reason: str) -> None:
    """Rename a harmed file or folder to NAME.harmed, in the place of an earlier one, and say so in a notice."""
    aside = path.with_name(f"{path.name}.harmed")
    with writing(path, "it stays where it is"):
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        with contextlib.suppress(FileNotFoundError):  # another process of the same work was first
            os.replace(path, aside)
    notice(f"{reason}; it was set aside as {aside.name} and is made anew")


@contextlib.contextmanager
def locked(folder: Path, name: str, what: str, wait: bool = True) -> Iterator[None]:
    """Keep other processes from the work `name` in a folder while the block runs; one that is at it is waited for.

    what: the work, for the notice that says so. wait: without it such a process is told by `UsageError`. The lock
    ends with the process, however that ends. A folder that cannot be written has no lock, for nothing is done there.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCKS / f"{name}.lock")
    with contextlib.ExitStack() as held:
        try:
            (folder / LOCKS).mkdir(parents=True, exist_ok=True)
            held.enter_context(lock.acquire(timeout=0))
        except Timeout:
            if not wait:
                raise UsageError(f"{what}: another process is at it; wait for it to end") from None
            notice(f"{what}: another process is at it; this one waits for it to end")
            held.enter_context(lock.acquire(poll_interval=0.2))
        except (OSError, NotImplementedError) as error:
            if os.access(folder, os.W_OK):
                notice(f"{folder}: cannot be locked ({error}); run one command on it at a time")
        yield


def is_locked(folder: Path, name: str) -> bool:
    """Whether a process is at the work `name` in a folder; False where that cannot be told."""
    from filelock import FileLock, Timeout

    file = folder / LOCKS / f"{name}.lock"
    try:
        if file.is_file():
            with FileLock(file).acquire(timeout=0):
                pass
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        pass
    return False


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as part:
        part.touch()
        mode = part.stat().st_mode
        try:
            save_file(whole, part, metadata)
        except OSError:
            raise
        except Exception as error:  # safetensors raises its own type for a full disk
            raise Failure(f"cannot write {path}: {error}") from error
        part.chmod(mode)  # safetensors makes files that their owner alone may read


def lacking(folder: Path, facts: str, tensors: str) -> str | None:
    """Which of a folder's JSON and safetensors file is missing or cut off, or None; no tensor is read."""
    from safetensors import SafetensorError, safe_open

    try:
        read_json(folder / facts)
        with safe_open(folder / tensors, framework="numpy"):
            return None
    except (Failure, UsageError):
        return facts
    except (OSError, SafetensorError):
        return tensors


def read_tensors(path: str | Path, device: str = "cpu", remedy: str = "") -> dict[str, Tensor]:
    """Read a safetensors file; raises `UsageError` where it is missing and `Failure` where it is cut off.

    remedy: what to do about a file that is not whole.
    """
    remedy = remedy and f"; {remedy}"
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise UsageError(f"{path}: no such file")
    try:
        return load_file(path, device=device)
    except SafetensorError as error:
        raise Failure(f"{path}: not a whole safetensors file ({error}){remedy}") from None
    except OSError as error:
        raise Failure(f"{path}: cannot be read ({error.strerror or error})") from None
