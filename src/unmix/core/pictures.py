"""Files of pictures: which files are pictures, their order, their bytes, and what their folders say."""

from __future__ import annotations

import lzma
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from unmix.core.errors import Failure, UsageError, notice

SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
UNREAD = (  # pictures, but none that are read here
    *(".arw", ".cr2", ".cr3", ".dcm", ".dng", ".eps", ".exr", ".hdr", ".heic", ".heif", ".ico", ".jxl", ".nef"),
    *(".nii", ".orf", ".psd", ".raw", ".rw2", ".svg", ".tga", ".xcf"),
)
LEFT_BESIDE = ("__MACOSX", "@eaDir")  # folders of copies that systems make
TRAIN = ("train", "training")
HELD = ("test", "testing", "val", "valid", "validation")
LARGEST = 1 << 30  # bytes of one file of an archive


def is_hidden(name: str) -> bool:
    """Whether a path with slashes is of what systems leave beside files: .DS_Store, ._a.png, __MACOSX/a.png."""
    return any(part.startswith(".") or part in LEFT_BESIDE for part in PurePosixPath(name).parts)


def is_picture(name: str) -> bool:
    """Whether a path, relative to a folder or an archive and with slashes, names a picture that is not hidden."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not is_hidden(name)


def picture_names(path: str | Path) -> list[str]:
    """Names of the pictures of a folder, at every depth, or of a .zip, relative to it, in natural order.

    Links are followed. path: may be one picture, such as a TIFF stack, too. A `Notice` says which kinds of pictures
    are there and not read. Raises `UsageError` where there is none of these, `Failure` for a .zip that is not whole.
    """
    path = Path(path)
    if path.is_dir():
        names = files_below(path)
    elif path.suffix.lower() == ".zip" and path.is_file():
        with _archive(path) as archive:
            names = list(_members(archive))
    elif is_picture(path.name) and path.is_file():
        names = [path.name]
    else:
        there = "is no folder, .zip or picture" if path.exists() else "no such folder, .zip or picture"
        raise UsageError(f"images={path}: {there}")
    left = Counter(PurePosixPath(name).suffix.lower() for name in names if not is_hidden(name))
    if told := ", ".join(f"{left[suffix]} {suffix}" for suffix in UNREAD if left[suffix]):
        notice(f"{path}: {told} left out; pictures are read as {', '.join(SUFFIXES)}")
    return sorted(filter(is_picture, names), key=natural)


def files_below(folder: str | Path) -> list[str]:
    """Names of all files of a folder, at every depth and through links, relative to it and with slashes.

    A link that leads nowhere is listed too; pipes and the like are not.
    """
    found, seen = [], set()
    for here, below, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:  # a link to a folder around it
            below.clear()
            continue
        seen.add(real)
        for file in files:
            whole = Path(here, file)
            if whole.is_file() or not whole.exists():
                found.append(whole.relative_to(folder).as_posix())
    return found


def natural(name: str) -> tuple[Any, ...]:
    """A key that sorts names with slashes folder by folder, numbers as numbers: image9, image10."""
    parts = [re.split(r"([0-9]+)", part) for part in name.split("/")]
    # Numbers by length and digits: int() refuses very long ones.
    numbered = [
        [
            (0, len(digits := piece.lstrip("0")), digits) if place % 2 else (1, 0, piece)
            for place, piece in enumerate(part)
            if piece
        ]
        for part in parts
    ]
    return (numbered, name)


def contents(path: str | Path, names: Sequence[str]) -> Iterator[bytes]:
    """The bytes of these files of a folder, .zip or single picture, one after the other.

    Raises `Failure` for what cannot be read.
    """
    path = Path(path)
    if path.is_dir() or is_picture(path.name):
        folder = path if path.is_dir() else path.parent
        for name in names:
            try:
                content = (folder / name).read_bytes()
            except OSError as error:
                raise Failure(f"{folder / name}: cannot be read ({error.strerror})") from None
            yield content
        return
    with _archive(path) as archive:
        members = _members(archive)
        for name in names:
            if members[name].file_size > LARGEST:
                raise Failure(f"{path}: {name} unpacks to more than {LARGEST >> 30} GB; unpack it yourself")
            try:
                content = archive.read(members[name])
            # RuntimeError: has a password.
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
                raise Failure(f"{path}: {name} cannot be read ({error})") from None
            yield content


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """What an archive holds by name, of several with one name the last; Windows' backslashes are slashes.

    Raises `UsageError` for a name that leads out of the archive.
    """
    found = {info.filename.replace("\\", "/"): info for info in archive.infolist() if not info.is_dir()}
    for name in found:
        if name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:/", name):
            raise UsageError(
                f"{archive.filename}: holds {name!r}, a name that leads out of it; make the archive again"
            )
    return found


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise Failure(f"{path}: not a whole zip archive ({error}); copy it again") from None


def divided(names: Sequence[str]) -> tuple[np.ndarray | None, list[str]]:
    """Which pictures [n] are for tests, and their names below `train` and `test`; None where the files do not say."""
    parts = [name.split("/") for name in names]
    depth = 0
    while parts and all(len(part) > depth + 1 for part in parts):
        here = {part[depth].lower() for part in parts}
        if here & {*TRAIN} and len(here) > 1 and here <= {*TRAIN, *HELD}:
            aside = np.asarray([part[depth].lower() not in TRAIN for part in parts])
            return aside, ["/".join(part[depth + 1 :]) for part in parts]
        if len(here) > 1:
            break
        depth += 1
    return None, list(names)


def folder_labels(names: Sequence[str]) -> list[str]:
    """The class of each picture by the folder it is in, "" where it lies beside the folders.

    names: with slashes, below `train` and `test`. A class goes by the last part of its folder, and by all that the
    folders do not share where two end alike.
    """
    folders = [name.rpartition("/")[0] for name in names]
    kinds = set(folders)
    common = os.path.commonpath(kinds) if all(kinds) else ""
    shared = len(common) + 1 if common else 0
    last = Counter(kind.rpartition("/")[2] for kind in kinds)
    return [folder[shared:] if last[end := folder.rpartition("/")[2]] > 1 else end for folder in folders]
