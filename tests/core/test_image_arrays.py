"""Arrays of images: any order, type and range comes out the same or is refused with what would be right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.errors import Notice, UsageError
from unmix.core.image_arrays import image_array

DRAW = np.random.default_rng(0)
BYTES = DRAW.integers(0, 256, (20, 9, 8, 3), np.uint8)


def values(found: np.ndarray) -> np.ndarray:
    return found / 255 if found.dtype == np.uint8 else found


@settings(max_examples=60, deadline=None)
@given(st.permutations("nhwc"), st.sampled_from(["uint8", "float32", "float64", ">f4", "float16"]), st.booleans())
def test_any_order_type_and_memory_comes_back(letters, kind, fortran):
    images = BYTES if kind == "uint8" else (BYTES / 255).astype(kind)
    turned = images.transpose(["nhwc".index(letter) for letter in letters])
    turned = np.asfortranarray(turned) if fortran else np.ascontiguousarray(turned)
    axes = "".join(letters)
    found = image_array(turned, "x", axes)
    assert found.shape == BYTES.shape and np.allclose(values(found), BYTES / 255, atol=1e-3 * (kind == "float16"))
    if axes in ("nhwc", "nchw"):
        assert np.array_equal(image_array(turned, "x"), found)
    elif "c" in (letters[0], letters[2]):
        with pytest.raises(UsageError, match="which axis of"):
            image_array(turned, "x")


@pytest.mark.parametrize(
    "shape", [(3, 3, 3, 3), (50, 3, 8, 3), (50, 1, 8, 1), (32, 32, 3, 100), (64, 64, 90), (64, 48, 3)]
)
def test_axes_that_are_not_clear_are_asked(shape):
    with pytest.raises(UsageError, match=r"x: which axis of .* is not clear; .*axes="):
        image_array(np.zeros(shape, np.uint8), "x")


def test_grey_images_and_sets_as_large_as_a_side_are_clear():
    assert image_array(np.zeros((28, 28, 28), bool), "x").shape == (28, 28, 28, 1)
    assert image_array(np.zeros((9, 8, 8), bool), "x").shape == (9, 8, 8, 1)
    assert image_array(np.zeros((8, 8, 9), bool), "x", "hwn").shape == (9, 8, 8, 1)
    for axes in ("nhwc", "nhh", "xyz", ""):
        with pytest.raises(UsageError, match="must name the axes"):
            image_array(np.zeros((8, 8, 9), bool), "x", axes)


@pytest.mark.parametrize("kind", ["bool", "uint8", "int8", "uint16", "int64", "float32"])
@pytest.mark.parametrize("white", [1, 255])
def test_masks_are_0_and_1_whatever_their_type(kind, white):
    masks = DRAW.random((20, 9, 8)) > 0.5
    if kind == "int8" and white == 255:
        return
    given_ = masks.astype(kind) * np.asarray(white).astype(kind)
    if (kind, white) == ("uint8", 1):
        with pytest.warns(Notice, match="x: the largest value of the images is 1 of 255, so they are taken as masks"):
            found = image_array(given_, "x")
    else:
        found = image_array(given_, "x")
    assert np.array_equal(values(found)[..., 0], masks)


@pytest.mark.parametrize("images, told", [
    (BYTES.astype(np.int64), "they are 0 to 255; say what is white, such as white=255"),
    (BYTES.astype(np.uint16) * 16, "they are 0 to 4080; say what is white, such as white=4095"),
    (BYTES / 1.0, r"they are 0\.0 to 255\.0; say what is white, such as white=255"),
    (BYTES / 127.5 - 1, r"they are -1\.0 to 1\.0; bring them to 0 \.\. 1 first"),
    (np.where(BYTES == 7, np.nan, BYTES / 255), "image 0 holds NaN or infinite values"),
    (BYTES.astype(complex), "images must be numbers or bool, got complex128"),
    (BYTES.astype(str), "images must be numbers or bool, got <U"),
    (BYTES[:0], "x: no images in"),
    (BYTES[0, 0], r"images must be \[N, height, width\]"),
])  # fmt: skip
def test_a_range_whose_white_is_not_known_is_refused(images, told):
    with pytest.raises(UsageError, match=told):
        image_array(images, "x")


def test_white_scales_whole_numbers_exactly_and_dark_bytes_are_said():
    wide = DRAW.integers(0, 4096, (20, 9, 8)).astype(np.uint16)
    assert np.allclose(image_array(wide, "x", white=4095)[..., 0], wide / 4095, atol=1e-7)
    with pytest.raises(UsageError, match=r"values are \d+ to \d+, white=100 needs 0 to 100"):
        image_array(wide, "x", white=100)
    with pytest.warns(Notice, match="the largest value of the images is 16 of 255, so they are dark; white=16"):
        assert image_array(BYTES // 15 % 17, "x").max() == 16
    assert image_array(BYTES // 15 % 17, "x", white=16).max() == 1
