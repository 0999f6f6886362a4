"""Variational autoencoders: networks, likelihoods, and what the learners of frames make of a batch."""

from __future__ import annotations

import math

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners.loop import moved
from unmix.learners.representation import Representation
from unmix.learners.slow import AdaGVAE, Slowness, SlowVAE
from unmix.learners.vae import BetaTCVAE, BetaVAE
from unmix.networks.conv import Conv
from unmix.networks.mlp import MLP
from unmix.worlds.motion import TransitionWorld
from unmix.worlds.sprites import SpritesWorld
from unmix.worlds.transitions import LaplaceGrid

PAIRS = TransitionWorld(latents=3, transition="Laplace")
SPRITES = SpritesWorld(
    shapes=("heart",), free=("scale", "x", "y"), pixels=16, transition=LaplaceGrid(rate=2), length=2
)
TINY = {"network": MLP(hidden=(16,), normalise="none"), "width": 3, "batch": 64}


def loss_of(learner, sample, world=PAIRS):
    _, modules = learner._prepared(world, Stream(0), "cpu", None)
    return learner._loss(modules, moved(sample, "cpu"), Stream(1))[0].item()


def reverse(sample: Sample, length: int) -> Sample:
    """Every sequence backwards."""
    order = torch.arange(len(sample)).reshape(-1, length).flip(1).flatten().numpy()
    turned = sample.take(order)
    return Sample(x=turned.x, group=turned.group, time=sample.time)


@pytest.fixture
def quiet(monkeypatch):
    """No noise in the posterior samples, so that rows may be compared in any order."""
    monkeypatch.setattr("unmix.learners.vae.normal", lambda rows, width, *_: torch.zeros(rows, width))


def test_without_its_temporal_term_slowvae_is_a_beta_vae(quiet):
    sample = PAIRS.sample(64, 3)
    slow = loss_of(SlowVAE(gamma=0, beta=3, **TINY), sample)
    assert slow == pytest.approx(2 * loss_of(BetaVAE(beta=1.5, **TINY), sample), rel=1e-5)
    assert loss_of(SlowVAE(gamma=2, beta=3, **TINY), sample) > slow


def test_a_beta_of_one_is_the_vae_in_beta_tc_vae_too():
    sample = PAIRS.sample(64, 3)
    assert loss_of(BetaTCVAE(beta=1, **TINY), sample) == pytest.approx(loss_of(BetaVAE(**TINY), sample), rel=1e-6)


@pytest.mark.parametrize("length", [2, 5])
@pytest.mark.parametrize("fields", [{}, {"convention": "official", "two_sided": True}, {"shape": 0.5}])
def test_a_sequence_and_its_reverse_have_the_same_loss(quiet, length, fields):
    world = PAIRS.but(length=length)
    sample = world.sample(20 * length, 1)
    learner = SlowVAE(**TINY, **fields).but(batch=20 * length)
    forwards, backwards = (loss_of(learner, s, world) for s in (sample, reverse(sample, length)))
    assert forwards == pytest.approx(backwards, rel=1e-5)


def test_conventions_of_the_learner_differ_by_a_constant(quiet):
    sample = PAIRS.sample(64, 3)
    official = loss_of(SlowVAE(convention="official", gamma=10, rate_prior=6, **TINY), sample)
    paper = loss_of(SlowVAE(gamma=10, rate_prior=12, **TINY), sample)
    assert official - paper == pytest.approx(30 * (math.log(6) - 2 * math.log(3)), rel=1e-4)


@pytest.mark.parametrize("kind", [SlowVAE, BetaVAE, AdaGVAE, BetaTCVAE])
def test_images_with_convolutions(kind, tmp_path):
    learner = kind(network=Conv(channels=(4, 8), hidden=16), width=3, batch=16, steps=3, likelihood="bernoulli")
    learnt = learner.but(kaiming=True).fit(SPRITES, 1)
    x = SPRITES.sample(8, 2).x
    assert learnt(x).shape == (8, 3)
    assert torch.equal(Representation.load(learnt.save(tmp_path / "r"))(x), learnt(x))
    assert any(name.startswith("decoder.") for name in learnt.parts)


def test_the_representation_is_the_posterior_mean():
    learnt = BetaVAE(steps=2, **TINY).fit(PAIRS, 0)
    x = PAIRS.sample(10, 5).x
    with torch.no_grad():
        both = learnt.module.inside(x)
    assert both.shape == (10, 6) and torch.equal(learnt(x), both[:, :3])


def test_learnt_rates_are_a_part_and_move():
    learnt = SlowVAE(learn_prior=True, rate_prior=2, steps=30, lr=1e-2, **TINY).fit(PAIRS, 0)
    assert learnt.parts["rate"].shape == (3,) and (learnt.parts["rate"] - 2).abs().min() > 1e-3


def test_bfloat16_trains():
    learnt = SlowVAE(precision="bfloat16", steps=5, **TINY).fit(PAIRS, 0)
    assert all(math.isfinite(line["loss"]) for line in learnt.trace)


def test_bad_worlds_and_options_are_refused_with_a_sentence():
    assert "group, time, x; TransitionWorld gives x, z" in SlowVAE(**TINY).refusal(TransitionWorld())
    assert "it must be in [0, 1]" in BetaVAE(likelihood="bernoulli", **TINY).refusal(PAIRS)
    with pytest.raises(UsageError, match="rate_prior"):
        SlowVAE(rate_prior=0)
    with pytest.raises(UsageError, match="shape"):
        SlowVAE(shape=3)
    with pytest.raises(UsageError, match="give decoder="):
        BetaVAE(network="ResNet", width=3).fit(SPRITES)


@pytest.mark.parametrize("kind", [SlowVAE, AdaGVAE, Slowness])
def test_frames_in_a_wrong_order_are_refused(kind):
    learner, sample = kind(**TINY), PAIRS.sample(64, 0)
    for wrong, sentence in (
        ({"group": torch.arange(64) % 32}, "must stand together"),
        ({"time": 1 - sample.time}, "time must rise"),
    ):
        given = {"x": sample.x, "group": sample.group, "time": sample.time, **wrong}
        with pytest.raises(UsageError, match=sentence):
            learner._check(PAIRS, Sample(**given))
