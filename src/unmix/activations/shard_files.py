"""The files of a folder of shards: their names, what is in the way, and what cannot be read."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from unmix.core.errors import Failure, UsageError
from unmix.core.store import is_locked, read_json

SCHEMA = 1
WRITING = "writing"  # the lock of whoever writes in the folder
AGAIN = "make the activations again in another folder, or with --overwrite"


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"rows-{number:05d}.bin"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder; raises `UsageError` where it is missing or of another schema version."""
    if (folder / "progress.json").exists() and not (folder / "manifest.json").exists():
        raise UsageError(f"{folder}: unfinished activations; run the command that made them once more to finish them")
    if not (folder / "manifest.json").exists():
        raise UsageError(f"{folder}: holds no activations (no manifest.json); make them with `unmix activations`")
    manifest = read_json(folder / "manifest.json", AGAIN)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise UsageError(
            f"{folder / 'manifest.json'}: schema version {found}, this unmix reads {SCHEMA}; "
            "use the version of unmix that wrote it, or make the activations again"
        )
    return manifest


def check_folder(folder: Path, key: str) -> None:
    """Raise `UsageError` unless the folder is missing, empty, or holds work (finished or not) of this key."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; give a folder")
    for name in ("manifest.json", "progress.json"):
        if (folder / name).exists():
            record = read_json(folder / name, AGAIN)
            found = record.get("key", record.get("plan", {}).get("key")) if isinstance(record, dict) else None
            if found != key:
                raise UsageError(
                    f"{folder}: holds activations made from something else; use another folder or --overwrite"
                )
            return
    if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise UsageError(f"{folder}: is not empty and holds no activations; use another folder")


def clear_folder(folder: Path) -> None:
    """Remove the activations in a folder, finished or not, and nothing else."""
    known = ("manifest.json", "progress.json")
    if not any((folder / name).exists() for name in known):
        return
    if is_locked(folder, WRITING):
        raise UsageError(f"{folder}: another process is writing activations there; wait for it to end")
    with disk(folder):
        for path in [*(folder / name for name in known), *folder.glob("rows-*.bin"), *folder.glob(".*.part")]:
            path.unlink(missing_ok=True)
        if (folder / "items").is_dir():
            shutil.rmtree(folder / "items")


def check_size(path: Path, expected: int) -> None:
    """Raise `Failure` where a shard is missing or not of the expected size in bytes."""
    found = path.stat().st_size if path.is_file() else None
    if found != expected:
        what = "missing" if found is None else f"{found} bytes"
        raise Failure(f"{path}: {what}, expected {expected} bytes; {AGAIN}")


def library_version(name: str) -> str:
    """Version of an installed package, or "not installed"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[None]:
    """What the disk refuses in the block becomes `Failure`."""
    try:
        yield
    except OSError as error:
        raise Failure(
            f"cannot write in {folder}: {error.strerror or error}; whole shards stay as they are"
        ) from error
