"""Recordings: orders of stimuli, trials with missing repeats, time windows, and reliabilities that are known."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmix.activations.images import as_items, open_images
from unmix.activations.recordings import Recording, from_trials, open_recording, split_half
from unmix.core.errors import Failure, UsageError

FOLDER = os.environ.get("UNMIX_DATA")
NEED = pytest.mark.skipif(FOLDER is None, reason="UNMIX_DATA, the folder of the recordings, is not set")


def pictures(folder, count=12, side=6, seed=0):
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 255, (count, side, side, 3)).astype(np.uint8)
    for number, image in enumerate(images):
        place = folder / ("a" if number < 6 else "b")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"image{number + 1}.png")
    return images


def noisy(n=200, d=5, repeats=8, noise=1.0, seed=0):
    """Repeats [n, d, r] of signals of variance 1 with independent noise of variance noise^2."""
    draw = np.random.default_rng(seed)
    signal = draw.standard_normal((n, d, 1))
    return signal, signal + noise * draw.standard_normal((n, d, repeats))


def test_images_of_a_folder_and_of_a_zip_come_in_the_order_of_their_numbers(tmp_path):
    images = pictures(tmp_path / "pictures")
    items = open_images(tmp_path / "pictures")
    assert np.array_equal(items.images, images)  # image10 comes after image9
    assert items.labels == ("a",) * 6 + ("b",) * 6
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for file in sorted((tmp_path / "pictures").rglob("*.png")):
            archive.write(file, file.relative_to(tmp_path).as_posix())
        archive.writestr("pictures/readme.txt", "no image")
    again = open_images(tmp_path / "p.zip")
    assert np.array_equal(again.images, images) and again.labels == items.labels
    assert len(open_images(tmp_path / "p.zip", inside="pictures/b")) == 6
    assert open_images(tmp_path / "p.zip", side=4).images.shape == (12, 4, 4, 3)
    Image.fromarray(images[0, :, :, 0]).save(tmp_path / "pictures" / "b" / "image13.png")
    Image.fromarray(images[0][:3]).save(tmp_path / "pictures" / "b" / "image14.png")
    with pytest.raises(UsageError, match="give side=32 to scale them"):
        open_images(tmp_path / "pictures")
    (tmp_path / "pictures" / "a" / "image0.jpg").write_bytes(b"no image")
    with pytest.raises(Failure, match=r"image0\.jpg: no picture that can be read"):
        open_images(tmp_path / "pictures")
    with pytest.raises(UsageError, match="no such folder"):
        open_images(tmp_path / "none")
    with pytest.raises(UsageError, match="below pictures/c"):
        open_images(tmp_path / "p.zip", inside="pictures/c")


def test_grey_images_and_floats_become_items():
    floats = np.random.default_rng(0).standard_normal((5, 3, 4, 4)).astype(np.float32)
    items = as_items(floats)
    assert items.images.shape == (5, 4, 4, 3) and items.images.min() == 0 and items.images.max() == 255
    assert as_items(floats[:, :1]).images.shape == (5, 4, 4)


def test_a_recording_is_turned_so_that_images_are_rows(tmp_path):
    pictures(tmp_path / "pictures")
    responses = np.random.default_rng(0).standard_normal((4, 12))
    repeats = np.random.default_rng(1).standard_normal((4, 12, 3))
    np.save(tmp_path / "r.npy", responses)
    np.save(tmp_path / "raw.npy", repeats)
    found = open_recording(tmp_path / "r.npy", tmp_path / "pictures", tmp_path / "raw.npy")
    assert np.array_equal(found.responses, responses.T) and found.repeats.shape == (12, 4, 3)
    assert np.array_equal(found.repeats[2, 3], repeats[3, 2])
    rows = found.rows()
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5) and rows.dtype == np.float32
    assert np.allclose(found.rows(unit=False).mean(0), 0, atol=1e-6)
    assert found.sample().items is found.items
    np.save(tmp_path / "wrong.npy", responses[:, :7])
    with pytest.raises(UsageError, match="must be the 12 images"):
        open_recording(tmp_path / "wrong.npy", tmp_path / "pictures")
    np.save(tmp_path / "square.npy", np.eye(12))
    with pytest.raises(UsageError, match="as many neurons as images, 12"):
        open_recording(tmp_path / "square.npy", tmp_path / "pictures")
    responses[1, 3] = np.nan
    with pytest.raises(UsageError, match="neuron 1 has no response to image 3"):
        Recording(responses.T, found.items)


def test_trials_in_any_order_with_windows_and_missing_repeats():
    draw = np.random.default_rng(0)
    stimulus = draw.permutation(np.repeat(np.arange(6), [1, 2, 3, 2, 2, 4]))
    time = draw.standard_normal((len(stimulus), 3, 10))
    images = np.zeros((6, 4, 4), np.uint8)
    found = from_trials(time, stimulus, images, window=(20, 50), bin=10)
    single = time[:, :, 2:5].mean(2)
    assert found.repeats.shape == (6, 3, 4)
    assert np.isfinite(found.repeats).sum(2)[:, 0].tolist() == [1, 2, 3, 2, 2, 4]
    for image in range(6):
        assert np.allclose(found.responses[image], single[stimulus == image].mean(0))
    with pytest.raises(UsageError, match="window"):
        from_trials(time, stimulus, images, window=(50, 20), bin=10)
    with pytest.raises(UsageError, match="image 6 was never shown"):
        from_trials(single, stimulus, np.zeros((7, 4, 4), np.uint8))
    with pytest.raises(UsageError, match=r"0 \.\. 4"):
        from_trials(single, stimulus, images[:5])


@pytest.mark.parametrize("missing", [False, True])
def test_reliability_is_what_signal_and_noise_make_it(missing):
    _, repeats = noisy(n=3000)
    if missing:
        repeats[np.random.default_rng(1).random(repeats.shape[:1]) < 0.5, :, 4:] = np.nan
    found = split_half(repeats, splits=20)
    if missing:
        # The variance of a half's noise is a mixture over images with 4 and 8 repeats.
        noise = 0.5 / 2 + 0.5 / 4
        assert np.allclose(found.half, 1 / (1 + noise), atol=0.03)
    else:
        assert np.allclose(found.half, 1 / (1 + 1 / 4), atol=0.02)
        assert np.allclose(found.full, 1 / (1 + 1 / 8), atol=0.02)
        assert np.allclose(found.ceiling, found.full**0.5) and not found.unreliable().any()
    assert found.images == 3000


def test_a_ceiling_is_what_the_signal_itself_reaches():
    signal, repeats = noisy(n=4000, noise=2.0)
    found = split_half(repeats, splits=20)
    reached = [np.corrcoef(signal[:, j, 0], repeats[:, j].mean(1))[0, 1] for j in range(5)]
    assert np.allclose(found.ceiling, reached, atol=0.03)


def test_noise_is_unreliable_and_a_constant_neuron_cannot_be_judged():
    repeats = np.random.default_rng(0).standard_normal((300, 3, 6))
    repeats[:, 2] = 4.0
    found = split_half(repeats)
    assert np.abs(found.half[:2]).max() < 0.15 and np.isnan(found.half[2]) and found.unreliable().all()
    repeats[:, 0, 1:] = np.nan
    with pytest.raises(UsageError, match="neuron 0 has fewer than 3 images"):
        split_half(repeats)
    with pytest.raises(UsageError, match="at least 2"):
        split_half(repeats[:, :, :1])


@NEED
def test_the_recorded_session_with_repeats_has_reliabilities():
    folder = Path(FOLDER or "") / "v4-recordings"
    found = open_recording(
        folder / "responses_210325.npy", folder / "images_210325.zip", folder / "responses_raw_210325.npy"
    )
    assert found.responses.shape == (640, 50)
    reliable = split_half(found.repeats)
    assert reliable.half.min() > 0.3 and 0.7 < reliable.full.mean() < 0.8
