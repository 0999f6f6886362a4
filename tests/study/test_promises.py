"""Matched worlds: when they are justified, by which signs they differ, and those of learned representations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.activations.data import Data
from unmix.core.errors import UsageError
from unmix.core.store import read_json
from unmix.finders.clusters import KMeans
from unmix.finders.controls import RandomAtoms
from unmix.finders.dictionary import SparseCoding
from unmix.finders.linear import PCA
from unmix.learners.diet import Diet
from unmix.learners.selfsup import SimCLR
from unmix.learners.slow import Slowness
from unmix.learners.supervised import Supervised
from unmix.learners.vae import BetaVAE
from unmix.networks.mlp import MLP
from unmix.report.run import match_figures
from unmix.study import verbs
from unmix.study.justified import signs, unjustified
from unmix.study.learning import Learned, learn
from unmix.study.promises import _directions, _noise, match
from unmix.study.study import Results
from unmix.study.trusting import Promise, trust_learned
from unmix.worlds.cluster import ClusterWorld
from unmix.worlds.images import Images
from unmix.worlds.motion import TransitionWorld
from unmix.worlds.sparse import SparseWorld

SMALL = MLP(hidden=(32,), normalise="none")


@pytest.fixture(scope="module")
def rows():
    return SparseWorld(latents=12, width=8, active=2, noise=0.02).sample(2000, 0).x


def test_only_sparse_sums_justify_a_matched_world(rows):
    assert unjustified(SparseCoding(width=12, active=2.0, passes=10).fit(rows), rows) is None
    assert "no sparse sum" in unjustified(PCA(width=8).fit(rows), rows)
    assert "clusters" in unjustified(KMeans(width=12, starts=1).fit(rows), rows)
    noise = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    assert "unexplained" in unjustified(RandomAtoms(width=8, k=2).fit(noise), noise)


def test_firing_together_and_likeness_are_seen():
    apart = SparseWorld(latents=24, width=24, active=2, dictionary="orthogonal")
    together = apart.but(correlation=0.95, block=4)
    found = {}
    for name, world in (("apart", apart), ("together", together)):
        features = SparseCoding(width=24, active=2.0, passes=10).fit(world.sample(2000, 0).x)
        found[name] = signs(features, world.sample(4000, 1).x)
    assert found["together"]["together"] > found["apart"]["together"] + 0.03
    # At most two of 24 fire, which by itself correlates them by -1 / 23.
    assert found["apart"]["together"] < 0.06
    assert found["apart"]["alike"] < 0.4, "orthogonal atoms are not alike"


def test_trust_goes_by_the_fit_that_is_a_sparse_sum(rows, tmp_path):
    np.save(tmp_path / "h.npy", rows.numpy())
    data = Data(path=str(tmp_path / "h.npy"))
    verbs.fit(data, [PCA(width=8), SparseCoding(width=12, active=2.0, passes=5)], tmp_path / "run")
    results = Results(tmp_path / "run")
    assert verbs.best_fit(results).finder.kind == "PCA", "all of the variance is explained by as many axes"
    world, count = verbs.matched_world(results)
    assert world.latents <= 12 and max(world.rates) < 0.9 and count == 1800
    with pytest.raises(UsageError, match="tried on a matched world"):
        verbs.departure(results)
    verbs.trust(tmp_path / "run", sizes=(0.5,))
    away = verbs.departure(Results(tmp_path / "run"))
    assert set(away) == {"together", "alike"} and all(abs(value) < 0.5 for value in away.values())
    # A better fit that comes later is not what was tried: the noted one stays, and is what is drawn.
    verbs.fit(data, [SparseCoding(width=12, active=2.0, passes=40)], tmp_path / "run")
    later = Results(tmp_path / "run")
    tried, cell = verbs.tried_world(later)
    assert tried == world and cell.finder.passes == 5 and verbs.matched_world(later)[0] != world
    assert verbs.departure(later) == away
    assert f"of {tried.latents} on the matched world" in match_figures(later).caption
    verbs.fit(data, [PCA(width=8)], tmp_path / "dense")
    with pytest.raises(UsageError, match=r"no matched world is justified.*no sparse sum.*fit TopKSAE"):
        verbs.trust(tmp_path / "dense")


def test_a_classifier_gets_its_classes_latents_and_predictability():
    world = ClusterWorld(latents=3, classes=20, width=6, concentration=8.0)
    learner = Supervised(width=3, network=SMALL, steps=400, batch=256)
    made = match(world, learner, learner.fit(world), 0)
    assert made.world.kind == "ClusterWorld" and made.world.classes == 20
    assert made.world.latents == 3 and made.world.width == 6
    assert 4 < made.world.concentration < 12, "a classifier that is nearly best has the concentration of the world"
    assert made.learner == learner and len(made.told) == 4


def test_learners_of_data_get_data_and_vectors():
    world = Images(path="digits")
    learner = Diet(width=8, network=SMALL, steps=30, batch=128)
    made = match(world, learner, learner.fit(world), 0)
    assert made.world.instances == world.size == made.world.classes
    assert made.world.width == 64 and made.learner.augment is None and made.learner.classes is None
    assert made.learner.refusal(made.world) is None
    # After 30 steps the head tells next to nothing: no concentration is low enough, and that is said.
    assert "concentration 0.3: the bound of its search, where the best possible classifier is already" in made.told[1]


def test_learners_of_motion_get_the_law_of_the_codes():
    world = TransitionWorld(latents=2, transition={"kind": "Laplace", "rate": 2.0}, mixing="linear", noise=0.1)
    learner = Slowness(width=2, network=MLP(hidden=(), normalise="none"), steps=300, batch=256)
    made = match(world, learner, learner.fit(world), 0)
    assert made.world.latents == 2 and made.world.transition.kind == "GeneralisedLaplace"
    # Slow features are rotations of the latents, whose steps look more Gaussian than Laplace's.
    assert 0.9 < made.world.transition.shape < 2.0
    assert made.learner.refusal(made.world) is None


@pytest.mark.parametrize(
    ("world", "learner", "reason"),
    [
        (Images(path="digits"), BetaVAE(network=SMALL, steps=2), "no theorem"),
        (Images(path="digits"), SimCLR(network=SMALL, width=4, steps=2, batch=32), "law of two views"),
        (ClusterWorld(latents=4, classes=3), Supervised(network=SMALL, width=4, steps=2), "cannot tell"),
        (ClusterWorld(latents=3, classes=5, concentration=900.0), Supervised(network=SMALL, width=3), "are told"),
    ],
)
def test_where_nothing_can_be_matched_the_reason_is_given(world, learner, reason):
    with pytest.raises(UsageError, match=reason):
        match(world, learner, learner.but(steps=min(learner.steps, 300)).fit(world), 0)


def test_noise_and_directions_are_measured():
    draw = np.random.default_rng(0)
    z = draw.standard_normal((4000, 2))
    x = np.stack([np.sin(z[:, 0]), z[:, 1], z.sum(1)], 1)
    assert _noise(z, x) < 0.01
    share = 0.2
    noisy = x + np.sqrt(share / (1 - share) * x.var(0).sum() / 3) * draw.standard_normal(x.shape)
    assert abs(_noise(z, noisy) - share) < 0.02
    assert _noise(draw.standard_normal((4000, 2)), x) > 0.9, "codes that have nothing to do with x"
    h = torch.tensor(z @ draw.standard_normal((2, 5))) + 1e-3 * torch.tensor(draw.standard_normal((4000, 5)))
    assert _directions(h) == 2


def test_trust_of_what_was_learned(tmp_path):
    data = Images(path="digits")
    learners = [
        Supervised(network=SMALL, width=4, steps=150, batch=128),
        BetaVAE(network=SMALL, width=4, steps=20, likelihood="bernoulli"),
    ]
    learn(data, learners, tmp_path / "run", seeds=(0, 1))
    learned, promises = trust_learned(tmp_path / "run", seeds=(0, 1))
    by = {promise.learner: promise for promise in promises}
    assert set(by) == {"Supervised", "BetaVAE"} and "no theorem" in by["BetaVAE"].sentence
    supervised = by["Supervised"]
    assert len(supervised.outcomes) == 2 and "10 classes" in " ".join(supervised.told)
    assert "On a matched world with known truth, Supervised reaches R2" in supervised.sentence
    assert len(learned.table()) == 4 + 2
    kept = [read_json(file) for file in (tmp_path / "run" / "promises").glob("*.json")]
    assert {"refused", "told"} <= {name for one in kept for name in one}
    before = sorted(file.stat().st_mtime_ns for file in (tmp_path / "run" / "learned").glob("*.json"))
    again = trust_learned(tmp_path / "run", seeds=(0, 1))[1]
    assert [one.sentence for one in again] == [one.sentence for one in promises]
    assert before == sorted(file.stat().st_mtime_ns for file in (tmp_path / "run" / "learned").glob("*.json"))
    assert len(Learned(tmp_path / "run").table()) == 6, "the matched fits are no new things to trust"


def test_a_world_whose_truth_is_known_needs_no_matched_one(tmp_path):
    world = ClusterWorld(latents=2, classes=5)
    learn(world, [Supervised(network=SMALL, width=2, steps=5)], tmp_path / "run")
    (promise,) = trust_learned(tmp_path / "run")[1]
    assert "truth of ClusterWorld is known" in promise.refused and not promise.outcomes


@pytest.mark.parametrize(
    ("r2", "start", "mcc", "words"),
    [
        (0.95, 0.5, 0.95, ("a linear map reads them", "single columns may stand")),
        (0.7, 0.5, 0.5, ("in part", "mean nothing alone")),
        (0.3, 0.1, 0.5, ("would be lost",)),
        (0.95, 0.94, 0.5, ("training adds nothing",)),
    ],
)
def test_the_sentence_follows_the_numbers(r2, start, mcc, words):
    baselines = {"x": {"value": 0.99}, "untrained": {"value": start}}
    scores = {"r2": {"value": r2, "minimum": r2, "baselines": baselines}, "mcc": {"value": mcc, "chance": 0.0}}
    told = Promise("Diet", "pictures", "", (), ({"scores": scores},)).sentence
    assert all(word in told for word in words), told
