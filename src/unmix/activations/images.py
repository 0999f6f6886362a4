"""Images from a folder, a zip archive or an array, as items that can be shown and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unmix.core.array_files import read_npy
from unmix.core.errors import UsageError
from unmix.core.image_arrays import full_range, image_array
from unmix.core.items import ImageItems
from unmix.core.labels import numbered, plain
from unmix.core.pictures import SUFFIXES, divided, folder_labels, picture_names
from unmix.core.pixels import Ground, read_pictures
from unmix.scores.similarity.images import as_images

if TYPE_CHECKING:
    from PIL.Image import Image


def open_images(
    path: str | Path,
    side: int | None = None,
    inside: str = "",
    white: int | None = None,
    ground: Ground = "white",
    axes: str | None = None,
) -> ImageItems:
    """Images of a folder or .zip in natural order (9.png before 10.png), with their names, labelled by their folders.

    path: the folder (searched at every depth), .zip, one picture of many frames, or a .npy of images. side: every
    image becomes side x side (bicubic); None keeps the size, which must then be one. inside: only names that begin
    so, such as "cifar10/test/". white, ground: as `core.pixels.read_pictures` takes them. axes, white: of an array,
    as `core.image_arrays.image_array` takes them. All become colour unless all are grey.
    Raises `UsageError` where there are none or sizes differ, and `Failure` for a file that is no whole image.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        if side is not None or inside:
            raise UsageError(f"images={path}: side and inside are for files of pictures, not for an array")
        return ImageItems(_bytes(image_array(_array(path), str(path), axes, white), path))
    if axes is not None:
        raise UsageError(f"axes={axes}: is for an array of images; files of pictures have their own")
    names = [name for name in picture_names(path) if name.startswith(inside)]
    if not names:
        where = f"below {inside}" if inside else "in it"
        raise UsageError(f"images={path}: no picture ({', '.join(SUFFIXES)}) {where}")
    files, images = read_pictures(path, names, None if side is None else _scaled(side), white, ground)
    labels = tuple(folder_labels(divided(files)[1]))
    below = len(inside.rpartition("/")[0].rstrip("/")) + 1 if "/" in inside else 0
    return ImageItems(_bytes(images, path), labels if any(labels) else None, tuple(name[below:] for name in files))


def as_items(images: Any, labels: Any = None) -> ImageItems:
    """Items from an array of images: bytes as `full_range` gives them, what else `as_images` takes between its
    extremes.

    labels: [n] or None, as `core.labels.plain` takes them. Raises `UsageError` for another shape, or NaN.
    """
    if isinstance(images, np.ndarray) and images.dtype == np.uint8:
        images = full_range(images, "images") if images.size else images
    else:
        given = as_images(images)
        low, high = given.min(), given.max()
        shown = ((given - low) / (high - low).clamp_min(1e-12) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        images = shown[..., 0] if shown.shape[3] == 1 else np.ascontiguousarray(shown)
    as_images(images[:1])
    if labels is None:
        return ImageItems(images)
    numbers, names = numbered(plain(labels))
    return ImageItems(images, tuple("" if number < 0 else names[number] for number in numbers))


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


def _scaled(side: int) -> Callable[[Image], Image]:
    def scaled(picture: Image) -> Image:
        from PIL import Image

        return picture.resize((side, side), Image.Resampling.BICUBIC)

    return scaled


def _bytes(images: np.ndarray, path: Path) -> np.ndarray:
    """Bytes [n, h, w, c] of images, [n, h, w] where all are grey."""
    if images.shape[3] not in (1, 3):
        raise UsageError(f"images={path}: {images.shape[3]} channels; images have 1 or 3")
    images = images if images.dtype == np.uint8 else np.round(images * 255).astype(np.uint8)
    return images[..., 0] if (images == images[..., :1]).all() else images


def _array(path: Path) -> np.ndarray:
    return read_npy(path, "images", mapped=False)
