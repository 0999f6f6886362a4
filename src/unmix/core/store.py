"""Safe writes: everything goes to a temporary name first and is renamed when it is whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tokenize
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmix.core.errors import Failure, UsageError

if TYPE_CHECKING:
    from torch import Tensor

# What numpy raises for an array file whose header or body was harmed: it reads headers as Python literals.
HARMED = (ValueError, EOFError, OSError, OverflowError, SyntaxError, tokenize.TokenError)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it when the block ends well and removed when it does not.

    Works for a file and for a folder (the block makes it). Raises `Failure` where the disk refuses.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and path.is_dir():
            _exchange(temporary, path)
        else:
            os.replace(temporary, path)
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror or error}; nothing stored before was changed") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()


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
    """Write text (UTF-8) whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write plain values as JSON, whole or not at all; NaN is refused, for JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; raises `UsageError` where the file is missing and `Failure` where it is cut off."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Failure(f"{path}: not whole or not JSON ({error}); remove it to have it made again") from None


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as part:
        try:
            save_file(whole, part, metadata)
        except OSError:
            raise
        except Exception as error:  # safetensors raises its own type for a full disk
            raise Failure(f"cannot write {path}: {error}") from error


def read_tensors(path: str | Path, device: str = "cpu") -> dict[str, Tensor]:
    """Read a safetensors file; raises `UsageError` where it is missing and `Failure` where it is cut off."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise UsageError(f"{path}: no such file")
    try:
        return load_file(path, device=device)
    except SafetensorError as error:
        raise Failure(f"{path}: not a whole safetensors file ({error})") from None
