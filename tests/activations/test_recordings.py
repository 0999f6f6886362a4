"""Recordings: orders of stimuli, trials with missing repeats, time windows, and reliabilities that are known."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmix.activations.command import collect_command
from unmix.activations.images import as_items, open_images
from unmix.activations.recordings import Recording, from_trials, open_recording
from unmix.activations.reliability import split_half
from unmix.activations.shards import ShardRows
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
    third = from_trials(time, stimulus, images, window=(0.3, 0.6), bin=0.1)  # 0.3 / 0.1 is below 3
    assert np.allclose(third.repeats[0, :, 0], time[stimulus == 0, :, 3:6].mean(2)[0])
    with pytest.raises(UsageError, match="is infinite"):
        from_trials(single + np.inf, stimulus, images)
    with pytest.raises(UsageError, match="is for responses over time"):
        from_trials(single, stimulus, images, window=(0, 1))


def test_trials_are_told_by_files_of_words_and_by_the_command_line(tmp_path):
    images = pictures(tmp_path / "pictures")
    names = [f"image{number + 1}" for number in range(12)]
    draw = np.random.default_rng(0)
    shown = draw.permutation(np.repeat(np.arange(12), 3))
    trials = draw.standard_normal((37, 4))
    np.save(tmp_path / "trials.npy", trials)
    words = [*(f"a/{names[i]}.png" if i < 6 else f"b/{names[i]}.png" for i in shown), "grey"]
    (tmp_path / "t.csv").write_text("trial,shown,kind\n" + "".join(f"{i},{w},{w[0]}\n" for i, w in enumerate(words)))
    (tmp_path / "names.csv").write_text("name\n" + "".join(f"{'ab'[n > 6]}/image{n}.png\n" for n in range(1, 13)))
    options = {"stimulus": [f"{tmp_path / 't.csv'}:shown"], "blank": ["grey"]}
    acts = str(tmp_path / "trials.npy"), "", str(tmp_path / "pictures")
    told = collect_command(*acts, tmp_path / "acts", options)
    assert told.startswith("responses  4 neurons to 12 images")
    rows = ShardRows(tmp_path / "acts")
    expected = np.stack([trials[:-1][shown == i].mean(0) for i in range(12)])
    assert np.allclose(rows.take(np.arange(12)), expected, atol=1e-6) and np.array_equal(rows.items.images, images)
    again = {**options, "names": [str(tmp_path / "names.csv")]}
    collect_command(*acts, tmp_path / "again", again)
    assert ShardRows(tmp_path / "again").digest == rows.digest
    with pytest.raises(UsageError, match="'a'"):
        collect_command(*acts, tmp_path / "none", {**options, "stimulus": [f"{tmp_path / 't.csv'}:kind"]})
    with pytest.raises(UsageError, match=r"table, units: are for \.nwb files"):
        collect_command(*acts, tmp_path / "none", {**options, "table": ["trials2"]})
    np.save(tmp_path / "trials.npy", trials * 1e-3 + 1e6)
    with pytest.raises(UsageError, match="4 neurons, such as 0, differ by less than float32 keeps"):
        collect_command(*acts, tmp_path / "none", options)


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


@pytest.mark.parametrize(("scale", "offset"), [(1e-8, 0), (1e-300, 0), (1e150, 0), (1, 1e6), (-3e-9, 5)])
def test_reliability_does_not_depend_on_units(scale, offset):
    _, repeats = noisy(n=40, noise=0.3)
    repeats[3, :, 5:] = np.nan
    plain, other = split_half(repeats, splits=10), split_half(repeats * scale + offset, splits=10)
    assert np.allclose(plain.full, other.full, atol=1e-6) and np.allclose(plain.interval, other.interval, atol=1e-6)
    flat = np.full((40, 2, 4), 0.1) * scale + offset
    flat[:, 1] *= 1 + 4e-16 * np.random.default_rng(0).integers(-1, 2, (40, 4))  # constant up to rounding
    assert np.isnan(split_half(flat).half).all()


def test_rows_do_not_depend_on_units(tmp_path):
    responses = np.random.default_rng(0).standard_normal((12, 3))
    items = as_items(pictures(tmp_path))
    for unit in (True, False):
        rows = Recording(responses, items).rows(unit=unit)
        assert np.allclose(Recording(1e-13 * responses + 1e-10, items).rows(unit=unit), rows, atol=1e-3)
    assert np.allclose(np.linalg.norm(Recording(1e-20 * responses, items).rows(standardise=False), axis=1), 1)
    constant = np.full((12, 1), 0.1) * (1 + 2e-16 * np.arange(12)[:, None] % 4e-16)
    assert not Recording(constant, items).rows(unit=False).any()


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
    assert np.isnan(split_half(repeats).half).tolist() == [True, False, True]
    with pytest.raises(UsageError, match="no neuron has 3 images with two repeats"):
        split_half(repeats[:, [0, 0]])
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
