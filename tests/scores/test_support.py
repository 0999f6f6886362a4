"""Support scores on codes written by hand and on permuted, scaled and thinned latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.scores.support import support
from unmix.worlds.sparse import SparseWorld

Z = SparseWorld(latents=12, width=6, active=3).sample(800, 0).z


def test_permuted_and_scaled_latents_have_perfect_support():
    order = torch.from_numpy(np.random.default_rng(0).permutation(12))
    outcome = support(-2 * Z[:, order], Z)
    assert outcome.value == 1 and outcome.detail["exact"] == 1 and outcome.detail["surplus"] == 0
    assert outcome.detail["precision"] == outcome.detail["recall"] == 1
    assert 0.15 < outcome.chance < 0.45  # about the rate 1/4


def test_by_hand():
    z = torch.tensor([[1.0, 0], [1, 1], [0, 1], [0, 0]])
    codes = torch.tensor([[0.5, 0, 0], [0.5, 0, 1], [0, 0.2, 1], [0, 0, 0]])
    outcome = support(codes, z, pairs=np.array([0, 1]))
    # active latents 4; active codes 5, of which rows 0, 1 and 2 hit once each
    assert outcome.detail["precision"] == pytest.approx(3 / 5)
    assert outcome.detail["recall"] == pytest.approx(3 / 4)
    assert outcome.value == pytest.approx(6 / 9)
    assert outcome.detail["exact"] == pytest.approx(2 / 4)
    assert outcome.detail["surplus"] == pytest.approx(2 / 5)
    assert outcome.detail["per_latent"] == pytest.approx([1, 2 / 3])
    assert support(codes, z, threshold=0.3, pairs=np.array([0, 1])).detail["recall"] == pytest.approx(2 / 4)


def test_firing_too_often_costs_precision_and_too_rarely_recall():
    busy = Z.clone()
    busy[:, 0] += 0.01
    thin = Z * (torch.arange(12) != 0)
    much, little = support(busy, Z).detail, support(thin, Z).detail
    assert much["recall"] == 1 and much["precision"] < 1
    assert little["precision"] == 1 and little["recall"] < 1
    absent = (Z[:, 0] == 0).double().mean().item()
    assert little["exact"] == pytest.approx(absent)


def test_a_feature_without_a_latent_that_fires_is_wrong():
    extra = torch.cat([Z, torch.rand(800, 1, generator=torch.Generator().manual_seed(0))], 1)
    outcome = support(extra, Z)
    assert outcome.detail["recall"] == 1 and outcome.detail["precision"] == pytest.approx(3 / 4)
    assert outcome.detail["exact"] == 0 and outcome.detail["surplus"] == pytest.approx(1 / 4)


def test_layouts_agree_and_nothing_active_is_defined():
    ragged = Codes(Z, None, 12).ragged()
    assert support(ragged, Z).value == support(Z, ragged).value == 1
    silent = support(torch.zeros_like(Z), Z)
    assert silent.value == 0 and np.isnan(silent.detail["precision"])
    nothing = support(torch.zeros(5, 2), torch.zeros(5, 3))
    assert nothing.value == 1 and nothing.interval == (1, 1)
    with pytest.raises(UsageError, match="no rows"):
        support(torch.zeros(0, 2), torch.zeros(0, 2), pairs=np.arange(2))
    with pytest.raises(UsageError, match="codes have 5 rows, latents 800"):
        support(torch.zeros(5, 12), Z, pairs=np.arange(12))


def test_scores_of_the_table():
    inputs = Inputs(codes=Z + 0.01, z=Z)
    assert SCORES["support"]().measure(inputs).value == pytest.approx(2 * 3 / 15)
    assert SCORES["support"](threshold=0.01).measure(inputs).value > 0.95
    assert SCORES["exact_support"](threshold=0.0).measure(inputs).value == 0
