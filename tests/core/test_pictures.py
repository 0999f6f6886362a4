"""Files of pictures: what counts as one, wide pixels, damage; nothing hidden is read, nothing is silently cut."""

from __future__ import annotations

import io
import random
import zipfile

import numpy as np
import pytest
from PIL import Image

from unmix.core.errors import Failure, UsageError
from unmix.core.pictures import contents, is_picture, opened, picture_names
from unmix.worlds.files import digest_of

DRAW = np.random.default_rng(0)


def saved(pixels: np.ndarray, kind: str, **more) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **more)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut(kind):
    wide = DRAW.integers(0, 1 << 16, (9, 7)).astype(np.uint16)
    pixels = np.asarray(opened(saved(wide, kind), "wide"))
    assert pixels.shape == (9, 7, 3) and (pixels == (wide >> 8)[:, :, None]).all()


@pytest.mark.parametrize("made", [np.ones((4, 4), np.float32), np.full((4, 4), 70000, np.int32)])
def test_pixels_without_a_white_are_refused(made):
    with pytest.raises(Failure, match=r"deep\.tif: its pixels have 32 bits"):
        opened(saved(made, "TIFF"), "deep.tif")


def test_grey_transparent_and_palette_pictures_become_colour():
    grey = DRAW.integers(0, 256, (5, 6), np.uint8)
    assert (np.asarray(opened(saved(grey, "PNG"), "grey")) == grey[:, :, None]).all()
    seen = DRAW.integers(0, 256, (5, 6, 4), np.uint8)
    assert (np.asarray(opened(saved(seen, "PNG"), "seen")) == seen[:, :, :3]).all()
    few = Image.fromarray(seen[:, :, :3]).quantize(8)
    file = io.BytesIO()
    few.save(file, "PNG")
    assert (np.asarray(opened(file.getvalue(), "few")) == np.asarray(few.convert("RGB"))).all()


@pytest.mark.filterwarnings("ignore::UserWarning")  # pillow's own, of harmed TIFF tags
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_damaged_files_give_pixels_or_a_failure_that_names_them(kind):
    whole = saved(DRAW.integers(0, 256, (16, 16, 3), np.uint8), kind)
    with pytest.raises(Failure, match=r"cut: no picture that can be read \(.+\)"):
        opened(whole[: len(whole) // 3], "cut")
    dice, refused = random.Random(0), 0
    for _ in range(60):
        harmed = bytearray(whole)
        for place in dice.sample(range(min(len(harmed), 200)), 4):
            harmed[place] = dice.randrange(256)
        try:
            assert np.asarray(opened(bytes(harmed), "harmed")).shape[2] == 3
        except Failure as error:
            assert str(error).startswith("harmed: ")
            refused += 1
    assert kind == "BMP" or refused


def test_what_systems_leave_beside_pictures_is_no_picture(tmp_path):
    assert is_picture("cat/1.PNG") and not is_picture("cat/1.txt")
    for name in ("._1.png", ".ipynb_checkpoints/1.png", "__MACOSX/cat/1.png"):
        assert not is_picture(name)
    picture = saved(np.zeros((4, 4), np.uint8), "PNG")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(picture)
    before = digest_of(tmp_path)
    (tmp_path / "cat" / "._1.png").write_bytes(b"left by a file system")
    assert picture_names(tmp_path) == ["cat/1.png"] and digest_of(tmp_path) == before
    with pytest.raises(UsageError, match=r"no such folder or \.zip"):
        picture_names(tmp_path / "none")


def test_a_harmed_archive_is_a_failure(tmp_path):
    file, picture = tmp_path / "p.zip", saved(np.zeros((4, 4), np.uint8), "BMP")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cat/1.bmp", picture)
    assert list(contents(file, picture_names(file))) == [picture]
    whole = file.read_bytes()
    place = whole.index(picture) + len(picture) - 1
    file.write_bytes(whole[:place] + b"\x07" + whole[place + 1 :])
    with pytest.raises(Failure, match=r"cat/1\.bmp cannot be read"):
        list(contents(file, picture_names(file)))
    file.write_bytes(whole[:40])
    with pytest.raises(Failure, match="not a whole zip archive"):
        picture_names(file)
