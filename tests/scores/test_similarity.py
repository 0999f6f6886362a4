"""Similarities of images: what each sees and what it must not see, sizes, and stimuli of real units."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unmix.activations.images import open_images
from unmix.core.errors import UsageError
from unmix.core.items import ImageItems
from unmix.scores.similarity import SIMILARITIES
from unmix.scores.similarity.base import embedded
from unmix.scores.similarity.colour import Brightness, ColourHistogram, MeanColour
from unmix.scores.similarity.energy import OrientedEnergy
from unmix.scores.similarity.images import as_images
from unmix.scores.similarity.learnt import Embedding, Network, by_network
from unmix.scores.similarity.pixels import Pixels, Structural

FOLDER = os.environ.get("UNMIX_DATA")
OFFLINE = ["OrientedEnergy", "ColourHistogram", "MeanColour", "Brightness", "Pixels", "Structural"]


def gratings(n=24, side=32, seed=0):
    """Gratings of two orientations, with random phase and brightness: the kind [n] is what energy should see."""
    draw = np.random.default_rng(seed)
    kind = np.arange(n) % 2
    y, x = np.mgrid[:side, :side]
    along = np.where(kind[:, None, None], x, y)
    waves = 0.2 * np.cos(2 * np.pi * (0.2 * along + draw.random((n, 1, 1)))) + draw.random((n, 1, 1))
    return waves.astype(np.float32), kind


def table(alike):
    return alike.within(torch.arange(len(alike))[None])[0].numpy()


@pytest.mark.parametrize("name", OFFLINE)
@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3), (40, 20, 3), (20, 40)])
def test_any_size_grey_or_colour_and_the_same_as_bytes_or_floats(name, shape):
    draw = np.random.default_rng(0)
    given = draw.integers(0, 256, (9, *shape)).astype(np.uint8)
    alike = SIMILARITIES.make(name).bind(given)
    floats = torch.from_numpy(given).float() / 255
    again = SIMILARITIES.make(name).bind(floats if len(shape) == 2 else floats.permute(0, 3, 1, 2))
    found = table(alike)
    assert found.shape == (9, 9) and np.isfinite(found).all() and np.allclose(found, found.T, atol=1e-5)
    assert np.allclose(found, table(again), atol=1e-4)
    assert (np.diagonal(found) >= found.max(1) - 1e-4).all()
    assert np.allclose(table(SIMILARITIES.make(name).bind(ImageItems(given))), found)
    assert not SIMILARITIES.make(name).needs_weights
    assert np.allclose(table(alike.take([3, 1])), found[np.ix_([3, 1], [3, 1])], atol=1e-5)


def test_energy_sees_orientation_whatever_the_phase_and_brightness_does_not():
    images, kind = gratings()
    same = kind[:, None] == kind[None]
    off = ~np.eye(len(kind), dtype=bool)
    energy = table(OrientedEnergy().bind(images))
    assert energy[same & off].mean() - energy[~same].mean() > 0.5
    bright = table(Brightness().bind(images))
    assert abs(bright[same & off].mean() - bright[~same].mean()) < 0.1


def test_histogram_sees_colours_wherever_they_are():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (4, 12, 12, 3)).astype(np.uint8)
    images[1] = images[0].reshape(-1, 3)[draw.permutation(144)].reshape(12, 12, 3)
    found = table(ColourHistogram().bind(images))
    assert found[0, 1] == pytest.approx(1) and found[0, 2] < 0.8
    assert table(MeanColour().bind(images))[0, 1] == pytest.approx(0, abs=1e-5)


def test_pixels_and_structure_by_hand():
    draw = np.random.default_rng(0)
    images = draw.random((6, 16, 16)).astype(np.float32)
    centred = (images - images.mean(0)).reshape(6, -1)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    assert np.allclose(table(Pixels().bind(images)), centred @ centred.T, atol=1e-5)
    far = -np.sqrt(((images[0] - images[1]) ** 2).mean())
    assert table(Pixels(rule="distance").bind(images))[0, 1] == pytest.approx(far, rel=1e-4)
    found = table(Structural(window=7).bind(images))
    assert found[0, 1] == pytest.approx(structural(*images[:2], images.max() - images.min()), abs=1e-4)
    assert np.allclose(np.diagonal(found), 1, atol=1e-4)


def structural(one, two, span):
    """Structural similarity with a uniform window of 7, window by window."""
    a, b = (0.01 * span) ** 2, (0.03 * span) ** 2
    left, right = (np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (7, 7)) for x in (one, two))
    m, k = left.mean((2, 3)), right.mean((2, 3))
    v, u = left.var((2, 3)), right.var((2, 3))
    c = (left * right).mean((2, 3)) - m * k
    return ((2 * m * k + a) * (2 * c + b) / ((m**2 + k**2 + a) * (v + u + b))).mean()


def test_constant_images_are_like_nothing():
    images = np.full((5, 8, 8), 7, np.uint8)
    assert not table(OrientedEnergy().bind(images)).any() and not table(Pixels().bind(images)).any()


def test_a_network_and_an_embedding_by_path(tmp_path):
    images = np.random.default_rng(0).random((7, 3, 8, 8)).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5))
    alike = by_network(module, images, batch=3)
    assert module.training and alike.vectors.shape == (7, 4)
    wanted = module[0](torch.from_numpy(images)).mean((2, 3)).detach()
    assert np.allclose(table(alike), table(embedded(wanted)), atol=1e-5)
    np.save(tmp_path / "e.npy", wanted.numpy())
    recipe = Embedding(path=str(tmp_path / "e.npy"))
    assert recipe.needs_weights and Network(make="my.module:make").needs_weights
    assert np.allclose(table(recipe.bind(images)), table(alike), atol=1e-5)
    with pytest.raises(UsageError, match="7 rows for 6 images"):
        recipe.bind(images[:6])
    with pytest.raises(UsageError, match="no such file"):
        Embedding(path=str(tmp_path / "none.npy")).bind(images)


def test_images_that_are_no_images_are_refused():
    for wrong in (np.zeros((3, 4)), np.zeros((3, 5, 4, 4), np.float32), np.zeros((2, 4, 4), int), "x"):
        with pytest.raises(UsageError, match="images: expected"):
            as_images(wrong)
    bad = np.zeros((3, 4, 4), np.float32)
    bad[1, 0, 0] = np.nan
    with pytest.raises(UsageError, match="image 1 holds NaN"):
        as_images(bad)


def choices(alike, most, least, draw=None):
    """Leave-one-out choices of two over all pairs of queries; `draw` shuffles which images are the exciting ones."""
    rows = np.concatenate([most, least])
    if draw is not None:
        rows = draw.permutation(rows)
    s, n = table(alike.take(rows)), len(most)
    total = {side: s[:, part].sum(1) for side, part in (("+", slice(n)), ("-", slice(n, None)))}
    right = []
    for i in range(n):
        for j in range(n, len(rows)):
            plus = (total["+"][i] - s[i, i]) / (n - 1) - (total["-"][i] - s[i, j]) / (len(rows) - n - 1)
            minus = (total["+"][j] - s[j, i]) / (n - 1) - (total["-"][j] - s[j, j]) / (len(rows) - n - 1)
            right.append(plus > minus)
    return np.mean(right)


@pytest.mark.skipif(FOLDER is None, reason="UNMIX_DATA, the folder of the stimuli, is not set")
def test_choices_between_the_stimuli_of_real_units():
    items = open_images(Path(FOLDER or "") / "unit-stimuli.zip")
    # Labels are the folders; the units lie one above: seven units of ten most and ten least exciting images.
    natural = np.array([label == "natural_images" for label in items.labels])
    kept = items.take(np.flatnonzero(natural))
    units = np.arange(len(kept)).reshape(7, 2, -1)
    energy, colours = OrientedEnergy().bind(kept), ColourHistogram().bind(kept)
    assert np.mean([choices(energy, *unit) for unit in units]) >= 0.88
    assert np.mean([choices(colours, *unit) for unit in units]) >= 0.85
    draw = np.random.default_rng(0)
    shuffled = [choices(energy, *unit, draw) for unit in units for _ in range(20)]
    assert np.mean(shuffled) == pytest.approx(0.5, abs=0.07)
