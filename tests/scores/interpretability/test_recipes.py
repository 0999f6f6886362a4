"""The scores as recipes: codes on images, silence, what they need, and what is said of chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.items import ImageItems
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.worlds.superposition import SuperpositionWorld

OF_IMAGES = [
    "interpretability_index",
    "clarity",
    "monosemanticity",
    "machine_interpretability",
    "two_choices",
    "intruder",
]


@pytest.fixture(scope="module")
def sample():
    return SuperpositionWorld(latents=8, width=8, dictionary="identity", side=8, rate=0.15).sample(800, 0)


@pytest.mark.parametrize("name", [name for name in OF_IMAGES if name != "machine_interpretability"])
def test_true_features_are_above_chance_and_shuffled_ones_are_not(name, sample):
    score = SCORES[name](similarity="Pixels")
    order = torch.from_numpy(np.random.default_rng(0).permutation(800))
    true = score.measure(Inputs(codes=Codes(sample.z, None, 8), x=sample.x))
    moved = score.measure(Inputs(codes=Codes(sample.z[order], None, 8), x=sample.x))
    assert true.at_chance is False and moved.value < true.value
    assert abs(np.nanmean(moved.detail["z"])) < 1.0 < np.nanmean(true.detail["z"])
    assert true.interval[0] <= true.value <= true.interval[1] <= 1 and "chance" in str(true)
    again = score.measure(Inputs(codes=Codes(sample.z, None, 8).ragged(), x=sample.x))
    assert again.value == pytest.approx(true.value, abs=1e-9)


@pytest.mark.parametrize("name", [*OF_IMAGES, "label_purity"])
def test_silence_and_missing_inputs_are_defined(name, sample):
    items = ImageItems(np.zeros((800, 4, 4), np.uint8), tuple("ab" * 400))
    silent = SCORES[name]().measure(Inputs(codes=Codes(torch.zeros(800, 8), None, 8), x=sample.x, items=items))
    assert math.isnan(silent.value) and silent.detail["constant"] == 8
    with pytest.raises(UsageError, match=f"{name}: needs"):
        SCORES[name]().measure(Inputs(codes=Codes(sample.z, None, 8)))


def test_labels_of_items_are_used(sample):
    kind = (sample.z[:, 0] > 0).numpy()
    items = ImageItems(np.zeros((800, 4, 4), np.uint8), tuple("yes" if there else "no" for there in kind))
    found = SCORES["label_purity"]().measure(Inputs(codes=Codes(sample.z[:, :1], None, 1), items=items))
    assert found.value == 1.0 and found.chance < 0.95 and found.detail["mean_negative_entropy"] == 0
    with pytest.raises(UsageError, match="no labels"):
        SCORES["label_purity"]().measure(
            Inputs(codes=Codes(sample.z, None, 8), items=ImageItems(np.zeros((800, 4, 4), np.uint8)))
        )
