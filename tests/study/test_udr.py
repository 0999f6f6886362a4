"""Agreement of models without the truth."""

from __future__ import annotations

import numpy as np
import pytest

from unmix.core.errors import UsageError
from unmix.learners.slow import Slowness
from unmix.learners.vae import BetaVAE
from unmix.networks.mlp import MLP
from unmix.study.udr import informative_codes, udr
from unmix.worlds.motion import TransitionWorld

Z = np.random.default_rng(0).standard_normal((2000, 4))


def rotated(seed):
    return Z @ np.linalg.qr(np.random.default_rng(seed).standard_normal((4, 4)))[0]


def test_models_that_agree_up_to_order_sign_and_warp_score_near_one():
    ranking = udr([Z, -Z[:, [2, 0, 3, 1]], np.exp(Z), Z**3])
    assert (ranking.scores > 0.9).all() and np.allclose(ranking.pairwise[0, 1], ranking.pairwise[1, 0])
    assert udr([Z, Z**3], correlation="pearson").scores[0] < ranking.scores[0]


def test_the_model_that_differs_ranks_last():
    ranking = udr([Z, -Z, rotated(1), Z[:, ::-1]])
    assert ranking.scores.argmin() == 2 and ranking.best in (0, 1, 3)
    assert udr([rotated(seed) for seed in range(1, 5)]).scores.max() < 0.7


def test_dead_codes_do_not_count():
    noise = np.random.default_rng(1).standard_normal((2000, 3))
    padded = np.concatenate([Z, noise], 1)
    flat = np.concatenate([Z, np.zeros((2000, 2))], 1)
    known = udr([padded, flat], [[True] * 4 + [False] * 3, [True] * 6])
    assert known.scores[0] > 0.9 > udr([padded, flat]).scores[0]


def test_bad_codes_are_refused_and_empty_ones_have_no_score():
    for codes, sentence in (
        ([Z], "at least 2"),
        ([Z, Z[:10]], "same n"),
        ([Z, np.full_like(Z, np.nan)], "not finite"),
    ):
        with pytest.raises(UsageError, match=sentence):
            udr(codes)
    ranking = udr([np.zeros_like(Z), Z])
    assert np.isnan(ranking.scores).all()
    with pytest.raises(UsageError, match="none can be ranked"):
        _ = ranking.best


def test_codes_that_carry_nothing_are_told_by_their_posterior():
    world = TransitionWorld(latents=2, transition="Laplace")
    network = MLP(hidden=(16,), normalise="none")
    learnt = BetaVAE(network=network, width=4, steps=300, lr=1e-2, batch=128).fit(world)
    found = informative_codes(learnt, world.sample(200).x)
    assert found.shape == (4,) and found.sum() >= 2
    crushed = BetaVAE(network=network, width=4, beta=500, steps=300, lr=1e-2, batch=128).fit(world)
    assert informative_codes(crushed, world.sample(200).x).sum() == 0
    with pytest.raises(UsageError, match="no posteriors"):
        informative_codes(Slowness(network=network, width=2, steps=1, batch=8).fit(world), world.sample(8).x)
