"""Pixels of pictures as viewers show them: turned, frame by frame, wide, transparent, damaged; nothing is silent."""

from __future__ import annotations

import io
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from unmix.core.errors import Failure, Notice, UsageError
from unmix.core.pixels import frames, read_pictures

DRAW = np.random.default_rng(0)
BYTES = DRAW.integers(0, 256, (6, 8), np.uint8)
WIDE = DRAW.integers(0, 1 << 16, (9, 7)).astype(np.uint16)


def saved(pixels: np.ndarray | Image.Image, kind: str, **more) -> bytes:
    file = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(file, kind, **more)
    return file.getvalue()


def read(content: bytes, **options) -> np.ndarray:
    """Pixels of a file of one picture."""
    [(name, picture)] = frames(content, "a", **options)
    assert name == "a" and picture.mode == "RGB"
    return np.asarray(picture)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_tag_says(kind, orientation):
    pixels = np.zeros((24, 16, 3), np.uint8)
    pixels[:8, :, 0], pixels[:, :8, 1] = 255, 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(pixels)
    picture.getexif()[0x0112] = orientation
    right = np.asarray(ImageOps.exif_transpose(picture), int)
    found = read(saved(pixels, kind, exif=exif)).astype(int)
    assert found.shape == right.shape and (abs(found - right) < 60).mean() > 0.9
    assert kind in ("JPEG", "WEBP", "AVIF") or (found == right).all()


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_every_frame_of_a_stack_or_an_animation_is_a_picture(kind, tmp_path):
    pages = [Image.fromarray(DRAW.integers(0, 256, (8, 8), np.uint8)) for _ in range(3)]
    more = {"lossless": True} if kind == "WEBP" else {}
    content = saved(pages[0], kind, save_all=True, append_images=pages[1:], **more)
    found = frames(content, "s")
    assert [name for name, _ in found] == ["s:0", "s:1", "s:2"]
    for (_, picture), page in zip(found, pages, strict=True):
        assert (np.asarray(picture) == np.asarray(page)[..., None]).all()
    (tmp_path / "s.tif").write_bytes(content)
    (tmp_path / "t.png").write_bytes(saved(BYTES, "PNG"))
    with pytest.warns(Notice, match="1 of 2 files hold several frames, 3 in all"):
        names, pixels = read_pictures(tmp_path, ["s.tif", "t.png"], lambda picture: picture.resize((8, 8)))
    assert names == ("s.tif:0", "s.tif:1", "s.tif:2", "t.png") and pixels.shape == (4, 8, 8, 3)


def test_smaller_copies_previews_and_posters_are_no_frames():
    pages = [Image.fromarray(DRAW.integers(0, 256, (16, 16), np.uint8)) for _ in range(3)]
    poster = saved(pages[0], "PNG", save_all=True, append_images=pages[1:], default_image=True)
    assert len(frames(poster, "p")) == 2
    seen: Counter[str] = Counter()
    views = saved(pages[0], "MPO", save_all=True, append_images=pages[1:])
    assert len(frames(views, "v", seen=seen)) == 1 and seen["views"] == 1
    preview = saved(pages[0], "MPO", save_all=True, append_images=[pages[1].resize((4, 4))])
    assert len(frames(preview, "v", seen=(seen := Counter()))) == 1 and not seen
    small = pages[1].resize((8, 8))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    assert len(frames(saved(pages[0], "TIFF", save_all=True, append_images=[small]), "p")) == 1


@pytest.mark.parametrize("said", ["ImageJ=1.53t\nimages=10\nslices=10\n", '{"shape": [10, 6, 8]}'])
def test_frames_that_lie_behind_one_page_are_refused(said):
    with pytest.raises(Failure, match="says that it holds 10 frames, but only 1 can be found"):
        frames(saved(BYTES, "TIFF", description=said), "stack.tif")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_cut_and_said(kind, tmp_path):
    for wide in (WIDE, WIDE.astype(">u2")) if kind == "TIFF" else (WIDE,):
        assert (read(saved(wide, kind)) == (WIDE >> 8)[:, :, None]).all()
    (tmp_path / "a").write_bytes(saved(WIDE >> 4, kind))
    with pytest.warns(Notice, match=rf"1 of 1 files have 16 bits.* {WIDE.max() >> 4} of 65535; .* give white=4095"):
        read_pictures(tmp_path, ["a"])
    (tmp_path / "a").write_bytes(saved(WIDE >> 7, kind))
    with pytest.warns(Notice, match="give white=511"):
        assert read_pictures(tmp_path, ["a"])[1].max() == 1  # dark, and no mask
    assert read_pictures(tmp_path, ["a"], white=511)[1].max() == 255


def test_white_says_how_many_bits_are_in_use():
    twelve = WIDE >> 4
    scaled = np.round(twelve * (255 / 4095))
    assert (read(saved(twelve, "PNG"), white=4095) == scaled[:, :, None]).all()
    assert (read(saved(BYTES // 128, "PNG"), white=1) == (BYTES // 128 * 255)[:, :, None]).all()
    with pytest.raises(Failure, match=rf"a: has a value of {twelve.max()}, above white=1023"):
        read(saved(twelve, "PNG"), white=1023)


def test_white_that_is_zero_is_turned_round():
    assert (read(saved(BYTES, "TIFF", tiffinfo={262: 0})) == BYTES[:, :, None]).all()
    # Pillow writes and reads wide pixels as they are, whatever the tag says of them.
    assert (read(saved(WIDE, "TIFF", tiffinfo={262: 0})) == ((65535 - WIDE) >> 8)[:, :, None]).all()


@pytest.mark.parametrize("made", [np.ones((4, 4), np.float32), np.full((4, 4), 70000, np.int32)])
def test_pixels_without_a_white_are_refused(made):
    with pytest.raises(Failure, match=r"deep\.tif: its pixels are signed or have 32 bits"):
        frames(saved(made, "TIFF"), "deep.tif")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparency_is_laid_on_a_ground_and_said(kind, tmp_path):
    pixels = DRAW.integers(0, 256, (8, 8, 4), np.uint8)
    pixels[:4, :, 3], pixels[4:, :, 3] = 0, 255
    more = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    content = saved(pixels, kind, **more)
    for ground, value in (("white", 255), ("black", 0)):
        found = read(content, ground=ground)
        assert (found[:4] == value).all() and (found[4:] == pixels[4:, :, :3]).all()
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(saved(np.dstack([pixels[..., :3], np.full((8, 8), 255, np.uint8)]), kind, **more))
    with pytest.warns(Notice, match="1 of 2 files are partly transparent and were laid on white"):
        read_pictures(tmp_path, ["a", "b"])
    with pytest.raises(UsageError, match="ground=grey: should be white or black"):
        read_pictures(tmp_path, ["a"], ground="grey")


def test_transparent_palettes_and_keys():
    few = Image.fromarray(BYTES).quantize(8)
    shown = np.asarray(few.convert("RGB")).copy()
    clear = np.asarray(few) == 3
    shown[clear] = 255
    assert (read(saved(few, "PNG", transparency=3)) == shown).all()
    assert (read(saved(few, "GIF", transparency=3)) == shown).all()
    grey = np.where(WIDE[0, 0] == WIDE, 255, WIDE >> 8)
    assert (read(saved(WIDE, "PNG", transparency=int(WIDE[0, 0]))) == grey[:, :, None]).all()


def test_inks_are_said(tmp_path):
    inks = Image.fromarray(DRAW.integers(0, 256, (8, 8, 3), np.uint8)).convert("CMYK")
    (tmp_path / "a").write_bytes(saved(inks, "TIFF"))
    with pytest.warns(Notice, match="1 of 1 files are CMYK"):
        assert (read_pictures(tmp_path, ["a"])[1] == np.asarray(inks.convert("RGB"))).all()


# The kinds of file that keep every value of a mode.
KEPT = {
    "1": ("PNG", "TIFF", "BMP", "GIF", "PPM"),
    "L": ("PNG", "TIFF", "BMP", "GIF", "PPM", "WEBP", "JPEG2000"),
    "P": ("PNG", "TIFF", "BMP", "GIF"),
    "RGB": ("PNG", "TIFF", "BMP", "PPM", "WEBP", "JPEG2000"),
    "I;16": ("PNG", "TIFF", "PPM"),
    "CMYK": ("TIFF",),
}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_mode_in_any_kind_of_file_comes_back(data):
    mode = data.draw(st.sampled_from(sorted(KEPT)))
    kind = data.draw(st.sampled_from(KEPT[mode]))
    h, w, seed = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12)), data.draw(st.integers(0, 99))
    draw = np.random.default_rng(seed)
    if mode == "I;16":
        pixels = draw.integers(0, 1 << 16, (h, w)).astype(np.uint16)
        picture, right = Image.fromarray(pixels), np.repeat((pixels >> 8)[..., None], 3, 2)
    else:
        picture = Image.fromarray(draw.integers(0, 256, (h, w, 3), np.uint8)).convert(mode)
        right = np.asarray(picture.convert("RGB"))
    more = {"lossless": True} if kind == "WEBP" else {}
    assert (read(saved(picture, kind, **more)) == right).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_damaged_files_give_pixels_or_a_failure_that_names_them(kind):
    whole = saved(DRAW.integers(0, 256, (16, 16, 3), np.uint8), kind)
    with pytest.raises(Failure, match=r"cut: no picture that can be read \(.+\)"):
        frames(whole[: len(whole) // 3], "cut")
    dice, refused = random.Random(0), 0
    for _ in range(60):
        harmed = bytearray(whole)
        for place in dice.sample(range(min(len(harmed), 200)), 4):
            harmed[place] = dice.randrange(256)
        try:
            assert all(picture.mode == "RGB" for _, picture in frames(bytes(harmed), "harmed"))
        except Failure as error:
            assert str(error).startswith("harmed: ")
            refused += 1
    assert kind in ("BMP", "PPM") or refused


@pytest.mark.parametrize("content, why", [(b"", "it is empty"), (b"no picture", "in no format that is known")])
def test_what_is_no_picture_is_said_in_words(content, why):
    with pytest.raises(Failure, match=rf"a\.png: no picture that can be read \({why}\)"):
        frames(content, "a.png")
