"""Low-level baselines: a feature that is luminance, contrast or frequency is told from one that is an orientation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.seeds import Stream
from unmix.scores.interpretability.lowlevel import _alike_in, baselines, measures
from unmix.scores.interpretability.sets import interpretability_index
from unmix.scores.similarity import SIMILARITIES


def gratings(n=300, seed=0):
    """Gratings of eight orientations with luminance, contrast and noise of their own; kind [n], images."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :16]
    kind = draw.integers(0, 8, n)
    angle = (np.pi * kind / 8)[:, None, None]
    wave = np.cos(2 * np.pi * 0.2 * (np.cos(angle) * x + np.sin(angle) * y))
    light, contrast = draw.uniform(0.3, 0.7, (n, 1, 1)), draw.uniform(0.05, 0.3, (n, 1, 1))
    images = light + contrast * wave + 0.02 * draw.standard_normal((n, 16, 16))
    return kind, images.clip(0, 1).astype(np.float32), draw


@pytest.mark.parametrize(
    ("similarity", "measure"),
    [("Pixels", "luminance"), ("OrientedEnergy", "frequency"), ("Brightness", "luminance")],
)
def test_features_that_are_a_low_level_measure_are_explained_by_it_and_others_are_not(similarity, measure):
    kind, images, draw = gratings()
    concepts = (kind[:, None] == np.arange(8)) * (1 + 0.1 * draw.random((300, 8)))
    codes = np.c_[measures(images)[measure], concepts, draw.random((300, 10))]
    alike = SIMILARITIES.make(similarity).bind(images)
    judged = interpretability_index(codes, alike)
    found = baselines(codes, alike, images, judged, Stream(0))
    above, shown = judged.q < 0.05, np.arange(1, 9)
    assert found.name[0] == measure and found.explained[0] and above[0]
    if similarity != "Brightness":
        assert above[shown].sum() >= 4 and not found.explained[shown].any() and found.beyond[shown].mean() > 2
    assert not found.explained[~above].any() and np.isfinite(found.value).all()
    again = baselines(codes, alike, images, judged, Stream(0))
    assert np.array_equal(found.beyond, again.beyond)


def test_measures_by_hand_and_what_does_not_vary_is_left_out():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[1] = 255
    images[2, :, ::2] = [255, 0, 0]
    found = measures(images)
    assert found["luminance"] == pytest.approx([0, 1, 1 / 6])
    assert found["contrast"] == pytest.approx([0, 0, 1 / 6]) and found["edges"] == pytest.approx([0, 0, 7 / 24])
    assert found["frequency"] == pytest.approx([0, 0, 0.5]) and found["saturation"] == pytest.approx([0, 0, 0.5])
    assert found["red"] == pytest.approx([0, 0, 1 / 3]) and found["blue"] == pytest.approx([0, 0, -1 / 6])
    assert set(measures(images[:2])) == {"luminance"} and not measures(images[:1])
    assert set(measures(images[..., 0])) == {"luminance", "contrast", "edges", "frequency"}
    assert list(measures(np.arange(4, dtype=np.uint8).reshape(4, 1, 1))) == ["luminance"]


def test_sets_alike_in_a_measure_are_near_and_have_no_image_twice():
    values = np.random.default_rng(0).random(200)
    rank = values.argsort().argsort()
    rows = torch.from_numpy(values.argsort()[[[0, 1, 2, 3, 4], [199, 198, 100, 101, 60]]]).repeat(100, 1)
    found = _alike_in(values, rows, Stream(0))
    assert all(len(set(one)) == 5 for one in found.tolist())
    far = np.abs(np.sort(rank[found.numpy()], 1) - np.sort(rank[rows.numpy()], 1))
    assert far.max() <= 9 and far.mean() > 1.5
