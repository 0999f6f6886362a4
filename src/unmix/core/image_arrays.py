"""Arrays of images as people have them: order of the axes, type and range; what is not clear is asked."""

from __future__ import annotations

from typing import Any

import numpy as np

from unmix.core.errors import UsageError, notice

ORDERS = {3: "nhw", 4: "nhwc"}
CHANNELS = (1, 3, 4)
DARK = 32  # a largest byte below this is no picture's


def image_array(images: Any, name: str, axes: str | None = None, white: float | None = None) -> np.ndarray:
    """Images [n, height, width, channels], bytes where they are 0 to 255 (masks too), else float32 from 0 to 1.

    images: an array of real numbers or bool. axes: what each axis is, by a letter of n, h, w and perhaps c, such as
    "nchw" or "hwcn"; None for what the shape leaves no doubt of, [n, h, w], [n, h, w, c] with 1 to 4 channels or
    [n, c, h, w] with 1 or 3. white: value that becomes 1, 0 being black; None takes bytes as 0 to 255, other numbers
    as 0 to 1, and numbers that are all 0 or one of 1, 255 as masks.
    name: of the file or argument, for messages. A `Notice` says where bytes are taken for masks, or are all dark.
    Raises `UsageError` for other shapes, axes that are not clear, NaN, and values whose white is not known.
    """
    array = in_order(np.asarray(images), name, axes)
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{name}: images must be numbers or bool, got {array.dtype}")
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if not array.size:
        raise UsageError(f"{name}: no images in {list(array.shape)}")
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        first = int(np.flatnonzero(~np.isfinite(array).all((1, 2, 3)))[0])
        raise UsageError(f"{name}: image {first} holds NaN or infinite values; drop or repair it first")
    if white is not None:
        if low < 0 or high > white:
            raise UsageError(f"{name}: values are {low} to {high}, white={white} needs 0 to {white}")
        return np.divide(array, white, dtype=np.float32, casting="unsafe")
    if array.dtype == np.uint8:
        return full_range(array, name)
    if low >= 0 and high <= 1:
        return array.astype(np.float32)
    if ((array == 0) | (array == 255)).all():
        return array.astype(np.uint8)
    advice = f"say what is white, such as white={_filled(high)}" if low >= 0 else "bring them to 0 .. 1 first"
    raise UsageError(f"{name}: images must be bytes, or numbers from 0 to 1; they are {low} to {high}; {advice}")


def full_range(images: np.ndarray, name: str) -> np.ndarray:
    """Bytes as they are; masks of 0 and 1 become 0 and 255. A `Notice` says so, and where all are dark."""
    high = int(images.max())
    if high == 1:
        notice(f"{name}: the largest value of the images is 1 of 255, so they are taken as masks of 0 and 1")
        return images * np.uint8(255)
    if 1 < high < DARK:
        notice(f"{name}: the largest value of the images is {high} of 255, so they are dark; white={high} makes it 1")
    return images


def in_order(array: np.ndarray, name: str, axes: str | None = None) -> np.ndarray:
    """A view [n, height, width, channels] of images, 1 channel where there is no such axis; see `image_array`."""
    if array.ndim not in ORDERS:
        raise UsageError(
            f"{name}: images must be [N, height, width] or [N, height, width, channels], got {list(array.shape)}"
        )
    letters = ORDERS[array.ndim]
    axes = _axes(array.shape, name) if axes is None else axes.lower()
    if sorted(axes) != sorted(letters):
        raise UsageError(f"{name}: axes={axes} must name the axes of {list(array.shape)}, such as {letters}")
    moved = array.transpose([axes.index(letter) for letter in letters])
    return moved if array.ndim == 4 else moved[..., None]


def _axes(shape: tuple[int, ...], name: str) -> str:
    """Which axis is which, where the shape leaves no doubt; raises `UsageError` where it does."""
    if len(shape) == 3:
        one = shape[2] in CHANNELS and min(shape[:2]) > 4
        last = shape[0] == shape[1] != shape[2]
        fits = ["nhw"] * (not one and not last)
        other = "hwn" if last else "nhw"
    else:
        fits = ["nhwc"] * (shape[3] in CHANNELS) + ["nchw"] * (shape[1] in (1, 3))
        fits = fits or ["nhwc"] * (shape[3] == 2)
        other = "hwcn" if not fits else "nchw"
    if len(fits) == 1:
        return fits[0]
    raise UsageError(
        f"{name}: which axis of {list(shape)} numbers the images is not clear; say it, such as axes={other}"
        if not fits
        else f"{name}: which axis of {list(shape)} holds the channels is not clear; give axes=nhwc or axes=nchw"
    )


def _filled(high: Any) -> int:
    """The least of 255, 1023, 4095, 65535 and the like, all bits set, that a value fits into."""
    return max(255, (1 << int(np.ceil(high)).bit_length()) - 1)
