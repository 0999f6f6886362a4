"""Pictures in files: which files are pictures, and their pixels."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from unmix.core.errors import Failure, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def is_hidden(name: str) -> bool:
    """Whether a path with slashes is of what systems leave beside files: .DS_Store, ._a.png, __MACOSX/a.png."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def is_picture(name: str) -> bool:
    """Whether a path, relative to a folder or an archive and with slashes, names a picture that is not hidden."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not is_hidden(name)


def picture_names(path: str | Path) -> list[str]:
    """Names of the pictures of a folder, at every depth, or of a .zip, relative to it, sorted.

    Raises `UsageError` where there is neither, and `Failure` for a .zip that cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    elif path.suffix.lower() == ".zip" and path.is_file():
        with _archive(path) as archive:
            names = archive.namelist()
    else:
        raise UsageError(f"images={path}: no such folder or .zip")
    return sorted(name for name in names if is_picture(name))


def contents(path: str | Path, names: Sequence[str]) -> Iterator[bytes]:
    """The bytes of these files of a folder or .zip, one after the other. Raises `Failure` for what cannot be read."""
    path = Path(path)
    if path.is_dir():
        for name in names:
            yield (path / name).read_bytes()
        return
    with _archive(path) as archive:
        for name in names:
            try:
                content = archive.read(name)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: has a password
                raise Failure(f"{path}: {name} cannot be read ({error})") from None
            yield content


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise Failure(f"{path}: not a whole zip archive ({error}); copy it again") from None


def opened(content: bytes, name: str) -> Image:
    """A picture in colour, 8 bits a channel, from the bytes of its file; transparency is left out.

    Of 16 bits the upper 8 are kept. name: of the file, for messages. Raises `Failure` for what is no whole picture,
    and for numbers of which the file does not say what white is.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            # A conversion from more than 8 bits would cut at 255 instead of scaling.
            if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG"):
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            if image.mode in ("I", "F"):
                raise Failure(
                    f"{name}: its pixels have 32 bits, and nothing says what white is; save it with 8 or 16 bits, or "
                    "give all pictures as one array"
                )
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = " ".join(str(error).split())[:80]
        raise Failure(f"{name}: no picture that can be read ({why}); remove it or copy it again") from None
