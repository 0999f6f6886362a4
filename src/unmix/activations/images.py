"""Images from a folder, a zip archive or an array, as items that can be shown and compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from unmix.core.errors import Failure, UsageError
from unmix.core.items import ImageItems
from unmix.core.pictures import SUFFIXES, contents, opened, picture_names
from unmix.core.store import HARMED
from unmix.scores.similarity.images import as_images


def open_images(path: str | Path, side: int | None = None, inside: str = "") -> ImageItems:
    """Images of a folder or a .zip, ordered by name with numbers as numbers, labelled by the folder of each.

    path: the folder (searched at every depth), .zip, or a .npy of uint8 [n, h, w] or [n, h, w, 3]. side: every image
    becomes side x side (bicubic); None keeps the size, which must then be one. inside: only names that begin so, such
    as "cifar10/test/". All become colour unless all are grey.
    Raises `UsageError` where there are none or sizes differ, and `Failure` for a file that is no whole image.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return as_items(_array(path))
    names = image_names(path, inside)
    if not names:
        where = f"below {inside}" if inside else "in it"
        raise UsageError(f"images={path}: no picture ({', '.join(SUFFIXES)}) {where}")
    images = [_pixels(content, name, side) for name, content in zip(names, contents(path, names), strict=True)]
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) > 1:
        raise UsageError(f"images={path}: {len(sizes)} sizes, such as {sizes[0]} and {sizes[-1]}; give side")
    if all((image == image[..., :1]).all() for image in images):
        images = [image[..., 0] for image in images]
    labels = tuple(PurePosixPath(name).parent.name for name in names)
    return ImageItems(np.stack(images), labels if any(labels) else None)


def image_names(path: str | Path, inside: str = "") -> list[str]:
    """Names of the images that `open_images` reads from a folder or .zip, in its order. Raises as it does."""
    return sorted((name for name in picture_names(path) if name.startswith(inside)), key=_natural)


def as_items(images: Any, labels: Any = None) -> ImageItems:
    """Items from an array of images: bytes as they are, floats [n, h, w] or [n, 1 or 3, h, w] between their extremes.

    labels: [n] or None. Raises `UsageError` for another shape, or NaN.
    """
    if not (isinstance(images, np.ndarray) and images.dtype == np.uint8):
        given = as_images(images)
        low, high = given.min(), given.max()
        shown = ((given - low) / (high - low).clamp_min(1e-12) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        images = shown[..., 0] if shown.shape[3] == 1 else np.ascontiguousarray(shown)
    as_images(images[:1])
    return ImageItems(images, None if labels is None else tuple(str(label) for label in labels))


def crops(images: Any, numbers: Any, places: Any, grid: Sequence[int], share: float = 0.4) -> np.ndarray:
    """Windows of images around cells of a map over them: what a feature saw where it was active.

    images: `ImageItems` or bytes [n, h, w] or [n, h, w, 3]. numbers: [q] which image. places: [q] which cell, row by
    row. grid: rows and columns of the map. share: of the image's sides; a window that would stick out is moved in.
    Gives bytes [q, h', w'] or [q, h', w', 3]. Raises `UsageError` for a cell or an image that is not there.
    """
    array = np.asarray(images.images if isinstance(images, ImageItems) else images)
    which, cell = np.asarray(numbers), np.asarray(places)
    rows, columns = grid
    if which.shape != cell.shape or which.ndim != 1 or not 0 < share <= 1:
        raise UsageError(f"crops: numbers {list(which.shape)}, places {list(cell.shape)}, share={share}; [q], 0 to 1")
    if len(cell) and not (cell.min() >= 0 and cell.max() < rows * columns and which.max() < len(array)):
        raise UsageError(f"crops: places must be below {rows} x {columns}, numbers below {len(array)} images")
    h, w = array.shape[1:3]
    height, width = max(1, round(share * h)), max(1, round(share * w))
    top = ((cell // columns + 0.5) * h / rows - height / 2).round().clip(0, h - height).astype(int)
    left = ((cell % columns + 0.5) * w / columns - width / 2).round().clip(0, w - width).astype(int)
    found = np.empty((len(which), height, width, *array.shape[3:]), array.dtype)
    for place, (number, y, x) in enumerate(zip(which, top, left, strict=True)):
        found[place] = array[number, y : y + height, x : x + width]
    return found


def _pixels(content: bytes, name: str, side: int | None) -> np.ndarray:
    from PIL import Image

    picture = opened(content, name)
    return np.asarray(picture if side is None else picture.resize((side, side), Image.Resampling.BICUBIC))


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"images={path}: no such file") from None
    except HARMED as error:
        raise Failure(f"{path}: not a whole array ({error})") from None


def _natural(name: str) -> list[Any]:
    """Parts of a name, numbers as numbers: image10 comes after image9."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
