"""Pixels of pictures in files, as viewers show them; what was chosen on the way is said."""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from unmix.core.errors import Failure, UsageError, notice
from unmix.core.image_arrays import full_range
from unmix.core.pictures import contents

if TYPE_CHECKING:
    from PIL.Image import Image

KIND_OF_PAGE, BITS, PHOTOMETRIC, DESCRIPTION = 254, 258, 262, 270  # tags of TIFF
SMALLER, WHITE_IS_ZERO = 1, 0
# What the suffixes that are read stand for; of others one (EPS) would be handed to another program.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
Ground = Literal["white", "black"]


def read_pictures(
    path: str | Path,
    names: Sequence[str],
    resize: Callable[[Image], Any] | None = None,
    white: int | None = None,
    ground: Ground = "white",
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names [n] and pixels, bytes [n, height, width, 3], of every frame of these files of a folder, .zip or picture.

    A file of several frames (a TIFF stack, an animation) gives one picture for each, named "stack.tif:0" and on.
    Orientation tags are followed. resize: gives what is kept of a picture; None leaves them, and all must be alike.
    white: value of the pixels that becomes white; None is the most that the file's bits hold, of 16 bits the upper 8
    are kept, and masks of 0 and 1 become 0 and 255. ground: what transparent pixels lie on.
    At the end a `Notice` says how many had frames, 16 bits, transparency or CMYK, or that all are masks or dark.
    Raises `UsageError` for unlike sizes or another ground, and `Failure` that names what is no whole picture, numbers
    of which nothing says what white is, or a value above white.
    """
    if ground not in get_args(Ground):
        raise UsageError(f"ground={ground}: should be white or black")
    seen: Counter[str] = Counter()
    files: list[str] = []
    found: list[np.ndarray] = []
    for name, content in zip(names, contents(path, names), strict=True):
        for frame, picture in frames(content, name, white, ground, seen):
            files.append(frame)
            found.append(np.asarray(picture if resize is None else resize(picture)))
            if found[-1].shape != found[0].shape:
                first, last = (list(one.shape[:2]) for one in (found[0], found[-1]))
                raise UsageError(f"{path}: {files[0]} is {first} and {frame} is {last}; give side=32 to scale them")
    told = {
        "several": f"hold several frames, {seen['frames']} in all; each frame is a picture",
        "views": "hold more than one view; the first is read",
        "deep": f"have 16 bits, of which the upper 8 are kept; the largest value is {seen['largest']} of 65535",
        "colours": "are in colour with 16 bits a channel, of which the upper 8 are kept",
        "clear": f"are partly transparent and were laid on {ground}; ground=white or black says on what",
        "inks": "are CMYK and became RGB by the plain formula, without their colour profile",
    }
    if seen["deep"] and seen["largest"] < 1 << 15:
        told["deep"] += f"; where fewer bits are in use, give white={(1 << seen['largest'].bit_length()) - 1}"
    for what, text in told.items():
        if seen[what]:
            notice(f"{path}: {seen[what]} of {len(names)} files {text}")
    pixels = np.stack(found)
    as_they_are = white is not None or seen["deep"] or pixels.dtype != np.uint8
    return tuple(files), pixels if as_they_are else full_range(pixels, str(path))


def frames(
    content: bytes, name: str, white: int | None = None, ground: Ground = "white", seen: Counter[str] | None = None
) -> list[tuple[str, Image]]:
    """Name and picture of every frame of one file, from its bytes, as `read_pictures` gives them.

    name: of the file, for messages. seen: counts what is to be said. Raises as `read_pictures` does.
    """
    from PIL import Image

    seen = Counter() if seen is None else seen
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pictures that are large, and of harmed tags
            Image.init()
            formats = [name for name in FORMATS if name in Image.OPEN]
            with Image.open(io.BytesIO(content), formats=formats) as image:
                found = []
                said: set[str] = set()
                for number in _numbers(image, name, said):
                    image.seek(number)
                    found.append(_shown(image, name, white, ground, seen, said))
    except Failure:
        raise
    except Exception as error:  # what a damaged file makes the reader stumble over may be anything
        why = " ".join(str(error).split())[:80]
        if isinstance(error, Image.UnidentifiedImageError):
            why = "in no format that is known" if content else "it is empty"
        raise Failure(f"{name}: no picture that can be read ({why}); remove it or copy it again") from None
    seen.update(said)
    if len(found) == 1:
        return [(name, found[0])]
    seen.update(several=1, frames=len(found))
    return [(f"{name}:{number}", picture) for number, picture in enumerate(found)]


def _numbers(image: Any, name: str, said: set[str]) -> Sequence[int]:
    """Which frames of a file are pictures of their own; smaller copies, previews and posters are not."""
    count = getattr(image, "n_frames", 1)
    if image.format == "MPO":  # a JPEG of a camera, with previews and maps behind it
        size = image.size
        image.seek(count - 1)
        said |= {"views"} if count > 1 and image.size == size else set()
        return [0]
    if image.format != "TIFF":
        return range(1 if image.info.get("default_image") and count > 1 else 0, count)
    stored = _described(str(image.tag_v2.get(DESCRIPTION, "")), image)
    if stored > count:
        raise Failure(
            f"{name}: says that it holds {stored} frames, but only {count} can be found; save one page for each"
        )
    pages = []
    for number in range(count):
        image.seek(number)
        if not int(image.tag_v2.get(KIND_OF_PAGE, 0)) & SMALLER:
            pages.append(number)
    return pages or [0]


def _described(text: str, image: Any) -> int:
    """How many frames ImageJ or tifffile say that a file holds, which may lie behind one page; 0 for others."""
    if text.startswith("ImageJ="):
        return int(found[1]) if (found := re.search(r"^images=([0-9]{1,9})\s*$", text, re.MULTILINE)) else 0
    if text.startswith('{"shape"'):
        shape = json.loads(text)["shape"]
        return math.prod(shape) // (image.width * image.height * len(image.getbands()))
    return 0


def _shown(image: Any, name: str, white: int | None, ground: Ground, seen: Counter[str], said: set[str]) -> Image:
    """A frame in colour, 8 bits a channel, turned as it is to be seen."""
    from PIL import Image, ImageOps

    tags: Mapping[int, Any] = image.tag_v2 if image.format == "TIFF" else {}
    wide = ";16" in str(image.tile)
    inverted = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    picture = ImageOps.exif_transpose(image)
    # A conversion from more than 8 bits would cut at 255 instead of scaling.
    if picture.mode.startswith("I;16") or (picture.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(picture).astype(np.int64)
        bits = max(tags.get(BITS, (16,)))
        values = (1 << bits) - 1 - values if inverted else values
        if white is None:
            said |= {"deep"} if bits == 16 else set()
            seen["largest"] = max(seen["largest"], int(values.max()))
            grey = values >> (bits - 8)
        else:
            grey = _scaled(values, white, name)
        picture, clear = Image.fromarray(grey.astype(np.uint8)), picture.info.get("transparency")
        if isinstance(clear, int):
            picture.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
        white = None
    elif picture.mode in ("I", "F"):
        raise Failure(
            f"{name}: its pixels are signed or have 32 bits, and nothing says what white is; save it with 8 or 16 "
            "bits, or give all pictures as one array"
        )
    elif wide:
        said.add("colours")
        if white is not None:
            raise Failure(f"{name}: white={white}: colours of 16 bits are read by their upper 8; scale them first")
    said |= {"inks"} if picture.mode == "CMYK" else set()
    if picture.has_transparency_data:
        picture = picture.convert("LA") if picture.mode == "La" else picture
        picture = picture.convert("RGBA")
        if np.asarray(picture)[..., 3].min() < 255:
            said.add("clear")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, ground), picture)
    picture = picture.convert("RGB")
    return picture if white is None else Image.fromarray(_scaled(np.asarray(picture), white, name).astype(np.uint8))


def _scaled(values: np.ndarray, white: int, name: str) -> np.ndarray:
    if (largest := int(values.max())) > white:
        raise Failure(f"{name}: has a value of {largest}, above white={white}")
    return np.round(values * (255 / white))
