"""What the learners of frames recover where the truth is known: a linear mixing of four latents."""

from __future__ import annotations

import numpy as np
import pytest

from unmix.core.seeds import Stream
from unmix.learners.slow import Slowness, SlowVAE
from unmix.networks.mlp import MLP
from unmix.scores.identifiability.warp import mcc_spearman
from unmix.worlds.motion import TransitionWorld


def recovered(learner, world, seed):
    sample = world.held_out.sample(4000, Stream(seed).child("test"))
    return mcc_spearman(learner.fit(world, seed)(sample.x), sample.z).value


def test_a_short_training_finds_the_axes_of_sparse_changes_in_two_dimensions():
    world = TransitionWorld(latents=2, transition={"kind": "ZeroInflated", "rate": 1.0}, seed=1)
    network = MLP(hidden=(32,), normalise="none")
    learner = SlowVAE(network=network, width=2, gamma=5, rate_prior=3, steps=600, lr=5e-3, batch=256)
    assert recovered(learner, world, 0) > 0.97


def test_slowness_of_absolute_changes_is_enough_where_the_mixing_is_linear():
    world = TransitionWorld(latents=3, transition={"kind": "ZeroInflated", "rate": 1.0}, seed=1)
    network = MLP(hidden=(), normalise="none")
    learner = Slowness(network=network, width=3, power=1, steps=1500, lr=1e-2, batch=256)
    assert recovered(learner, world, 0) > 0.99


@pytest.mark.slow
def test_four_latents_five_seeds():
    """SlowVAE at least .88 on average and .1 above gamma = 0; gamma = 0 within .1 of random rotations."""
    found, without = [], []
    for seed in range(5):
        world = TransitionWorld(latents=4, transition={"kind": "Laplace", "rate": 2.0}, seed=seed)
        learner = SlowVAE(width=4, gamma=5, rate_prior=2, steps=4000)
        found.append(recovered(learner, world, seed))
        without.append(recovered(learner.but(gamma=0.0), world, seed))
    assert np.mean(found) >= 0.88
    assert np.mean(found) >= np.mean(without) + 0.1
    assert abs(np.mean(without) - 0.77) <= 0.1
