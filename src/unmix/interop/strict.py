"""Strict reading of other libraries' files: everything in them is known, whole and of the right shape."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmix.core.errors import Failure, UsageError
from unmix.core.rows import as_tensor
from unmix.core.store import read_tensors

AGAIN = "copy it again"


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object; raises `UsageError` where the file is missing and `Failure` where it is cut off."""
    try:
        # NaN is no JSON, but some libraries write it among their facts: it becomes the word.
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=str)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Failure(f"{path}: not whole or not JSON ({error}); {AGAIN}") from None
    if not isinstance(found, dict):
        raise Failure(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def known_fields(given: Mapping[str, Any], known: Collection[str], place: str, ignore: Collection[str] = ()) -> None:
    """Raise `UsageError` that names the fields of `given` that are neither known nor to be ignored."""
    unknown = sorted(set(given) - set(known) - set(ignore))
    if unknown:
        raise UsageError(
            f"{place}: unknown {_plural('field', unknown)}; name in ignore those that do not change what is computed"
        )


def value(config: Mapping[str, Any], name: str, kind: type | tuple[type, ...], place: str, *default: Any) -> Any:
    """A field of a config; raises `UsageError` where it is missing without a default or of another type."""
    if name not in config and not default:
        raise UsageError(f"{place}: has no field {name}")
    found = config.get(name, *default)
    wanted = kind if isinstance(kind, tuple) else (kind,)
    # In JSON true is no number, although it is an int in Python.
    if not isinstance(found, wanted) or (isinstance(found, bool) and bool not in wanted):
        names = " or ".join("null" if part is type(None) else part.__name__ for part in wanted)
        raise UsageError(f"{place}: {name}={found!r} should be {names}")
    return found


class Held:
    """The tensors of a file, each taken once under its name and shape; `done` refuses what was not asked for."""

    def __init__(self, tensors: Mapping[str, Any], place: Path | str, dtype: torch.dtype | None = None) -> None:
        self.tensors, self.place, self.dtype = dict(tensors), place, dtype
        for name, tensor in self.tensors.items():
            if not isinstance(tensor, Tensor):
                raise UsageError(f"{place}: {name} is {type(tensor).__name__}, not a tensor")

    @staticmethod
    def open(path: Path, dtype: torch.dtype | None = None) -> Held:
        """The tensors of a safetensors file; raises as `read_tensors`. dtype: what they are rounded to first."""
        return Held(read_tensors(path), path, dtype)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor that stays where it is; raises `Failure` where it is missing."""
        return tuple(self._there(name).shape)

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of that shape in float32 (float64 stays), finite; raises `Failure` where it is not so."""
        tensor = self._there(name)
        del self.tensors[name]
        if tuple(tensor.shape) != shape:
            raise Failure(f"{self.place}: {name} is {list(tensor.shape)}, expected {list(shape)}")
        if not tensor.is_floating_point():
            raise Failure(f"{self.place}: {name} holds {tensor.dtype}, expected floating-point numbers")
        tensor = as_tensor((tensor if self.dtype is None else tensor.to(self.dtype)).detach()).contiguous()
        if not bool(torch.isfinite(tensor).all()):
            raise Failure(f"{self.place}: {name} has entries that are NaN or infinite")
        return tensor

    def count(self, name: str) -> int:
        """A whole number kept as a tensor without dimensions."""
        tensor = self._there(name)
        del self.tensors[name]
        if tensor.ndim or tensor.is_floating_point():
            raise Failure(f"{self.place}: {name} should be one whole number, got {list(tensor.shape)} {tensor.dtype}")
        return int(tensor)

    def done(self) -> None:
        """Raise `UsageError` that names the tensors nobody asked for."""
        if self.tensors:
            raise UsageError(f"{self.place}: unknown {_plural('tensor', sorted(self.tensors))}")

    def _there(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise Failure(f"{self.place}: has no tensor {name}; it holds {', '.join(sorted(self.tensors)) or 'none'}")
        return self.tensors[name]


def must_be_new(folder: Path, own: Collection[str]) -> None:
    """Raise `UsageError` where a folder to be written holds anything but the files `own`, which would be lost."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder")
    others = sorted(part.name for part in folder.iterdir() if part.name not in own) if folder.is_dir() else []
    if others:
        raise UsageError(f"{folder}: holds other files ({', '.join(others[:3])}); name a new folder")


def _plural(noun: str, names: Iterable[str]) -> str:
    listed = list(names)
    return f"{noun}{'s' if len(listed) > 1 else ''} {', '.join(listed)}"
