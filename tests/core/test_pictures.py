"""Files of pictures: what counts as one, their order, folders and archives as people have them."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from unmix.core.errors import Failure, Notice, UsageError
from unmix.core.pictures import contents, divided, folder_labels, is_picture, natural, picture_names
from unmix.worlds.files import digest_of


def saved(pixels: np.ndarray, kind: str, **more) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **more)
    return file.getvalue()


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
    with pytest.raises(UsageError, match="no such folder"):
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


def test_names_are_in_natural_order_whatever_digits_they_have():
    names = ["10.png", "9.png", "a/2.png", "a/10.png", "a-1/1.png", "3\u00b25.png", "\u0663.png", "9" * 5000 + ".png"]
    assert sorted(names, key=natural) == [
        *("3\u00b25.png", "9.png", "10.png", "9" * 5000 + ".png", "a/2.png", "a/10.png", "a-1/1.png", "\u0663.png"),
    ]
    assert natural("01.png") != natural("1.png")


def test_links_are_followed_and_those_that_lead_nowhere_said(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "1.png").write_bytes(saved(np.zeros((4, 4), np.uint8), "PNG"))
    (tmp_path / "set" / "cat").mkdir(parents=True)
    os.symlink(tmp_path / "store", tmp_path / "set" / "dog")
    os.symlink(tmp_path / "store" / "1.png", tmp_path / "set" / "cat" / "2.png")
    os.symlink(tmp_path / "set", tmp_path / "set" / "cat" / "round")
    assert picture_names(tmp_path / "set") == ["cat/2.png", "dog/1.png"]
    before = digest_of(tmp_path / "set")
    (tmp_path / "store" / "3.png").write_bytes(b"more")
    assert digest_of(tmp_path / "set") != before
    os.symlink(tmp_path / "gone.png", tmp_path / "set" / "cat" / "4.png")
    with pytest.raises(Failure, match=r"4\.png: cannot be read \(No such file"):
        list(contents(tmp_path / "set", picture_names(tmp_path / "set")))


def test_archives_with_backslashes_and_names_that_come_twice(tmp_path):
    file = tmp_path / "p.zip"
    with zipfile.ZipFile(file, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("cat\\1.png", b"one")
        archive.writestr("dog/2.png", b"old")
        archive.writestr("dog/2.png", b"new")
    assert picture_names(file) == ["cat/1.png", "dog/2.png"]
    assert list(contents(file, picture_names(file))) == [b"one", b"new"]


def test_pictures_of_kinds_that_are_not_read_are_said(tmp_path):
    for name in ("1.png", "2.heic", "3.HEIC", "4.dng", "5.txt", ".6.heic"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(Notice, match=r"2 \.heic, 1 \.dng left out|1 \.dng, 2 \.heic left out"):
        assert picture_names(tmp_path) == ["1.png"]
    assert picture_names(tmp_path / "1.png") == ["1.png"]
    with pytest.raises(UsageError, match=r"5\.txt: is no folder, \.zip or picture"):
        picture_names(tmp_path / "5.txt")


def test_folders_name_classes_and_parts():
    assert folder_labels(["a.png", "b.png"]) == ["", ""] and folder_labels(["x/y/a.png", "x/y/b.png"]) == ["y", "y"]
    assert folder_labels(["p/cat/1.png", "p/dog/1.png", "2.png"]) == ["cat", "dog", ""]
    assert folder_labels(["x/left/a", "y/left/b", "y/right/c"]) == ["x/left", "y/left", "right"]
    alike = ["set/Greek/c1/1.png", "set/Latin/c1/1.png", "set/Latin/c2/1.png"]
    assert folder_labels(alike) == ["Greek/c1", "Latin/c1", "c2"], "c1 is another character in each alphabet"
    aside, below = divided(["p/Training/cat/1.png", "p/testing/cat/2.png"])
    assert aside.tolist() == [False, True] and below == ["cat/1.png", "cat/2.png"]
    assert divided(["p/cat/1.png", "p/train/2.png"])[0] is None
