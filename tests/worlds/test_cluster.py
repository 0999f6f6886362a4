"""ClusterWorld and the Bayes cross-entropy against labels, a trained classifier and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, untouched
from unmix.worlds import sphere
from unmix.worlds.cluster import ClusterWorld, bayes_loss

SMALL = ClusterWorld(latents=3, classes=8, concentration=4.0)
CONDITIONALS = [
    {"conditional": "vmf"},
    {"conditional": "vmf", "cap": 0.8},
    {"conditional": "laplace"},
    {"conditional": "generalised-normal", "shape": 1.3},
    {"conditional": "anisotropic", "anisotropy": 6.0},
    {"conditional": "projected-normal"},
    {"conditional": "projected-laplace"},
    {"conditional": "projected-generalised-normal", "shape": 1.5},
    {"space": "euclidean", "conditional": "normal"},
    {"space": "euclidean", "conditional": "generalised-normal"},
    {"space": "box", "conditional": "normal"},
    {"space": "box", "conditional": "laplace"},
    {"space": "box", "conditional": "generalised-normal"},
    {"conditional": "vmf", "balance": "zipf"},
    {"conditional": "vmf", "label_noise": 0.3},
    {"conditional": "vmf", "label_noise": 0.3, "balance": "zipf", "instances": 30},
]


def test_latents_scatter_around_their_class_vector():
    world = ClusterWorld(latents=6, classes=20, width=9)
    sample = world.sample(20_000, 3)
    assert sample.x.shape == (20_000, 9) and sample.index is None and sample.y.dtype == torch.int64
    assert torch.allclose(sample.z.norm(dim=1), torch.ones(20_000), atol=1e-5)
    assert torch.equal(sample.x, world.render(sample.z))
    assert torch.allclose(world.map.inverse(sample.x.double()).float(), sample.z, atol=1e-3)
    t = (sample.z * world.class_vectors[sample.y]).sum(1)
    assert abs(t.mean() - sphere.mean_cosine(6, 10.0)) < 5 * t.std() / math.sqrt(len(t))
    shares = torch.bincount(sample.y, minlength=20) / 20_000
    assert (shares - 0.05).abs().max() < 5 * math.sqrt(0.05 / 20_000)


@pytest.mark.parametrize("vectors", ["uniform", "clustered", "laplace", "subspace"])
def test_class_vectors_have_unit_norm_and_the_rank_asked_for(vectors):
    v = ClusterWorld(vectors=vectors, latents=6).class_vectors
    assert v.shape == (100, 6) and torch.allclose(v.norm(dim=1), torch.ones(100), atol=1e-6)
    assert torch.linalg.matrix_rank(v, rtol=1e-5) == (5 if vectors == "subspace" else 6)
    assert torch.equal(v, ClusterWorld(vectors=vectors, latents=6, concentration=1.0).class_vectors)
    assert not torch.equal(v, ClusterWorld(vectors=vectors, latents=6, seed=1).class_vectors)
    if vectors in ("clustered", "laplace"):
        assert v[:, 0].mean() > 0.2


@pytest.mark.parametrize("balance", ["uniform", "zipf"])
def test_instances_have_a_fixed_class_and_fresh_latents(balance):
    world = SMALL.but(instances=50, balance=balance)
    classes = world.instance_classes
    counts = torch.bincount(classes, minlength=8)
    assert counts.sum() == 50 and counts.min() >= 1 and torch.allclose(world.prior, counts.double() / 50)
    assert counts.max() - counts.min() <= 1 if balance == "uniform" else counts[0] > 3 * counts[-1]
    sample = world.sample(20_000, 0)
    assert torch.equal(sample.y, classes[sample.index])
    seen = torch.bincount(sample.index, minlength=50)
    assert (seen - 400).abs().max() < 5 * 20
    one = sample.z[sample.index == 3]
    assert len(torch.unique(one, dim=0)) == len(one)


def test_label_noise_changes_labels_alone():
    clean, noisy = SMALL.sample(8000, 1), SMALL.but(label_noise=0.4).sample(8000, 1)
    assert torch.equal(clean.z, noisy.z) and torch.equal(clean.x, noisy.x)
    changed = (clean.y != noisy.y).double().mean()
    assert changed == pytest.approx(0.4 * 7 / 8, abs=0.03)


@pytest.mark.parametrize("options", CONDITIONALS, ids=lambda o: " ".join(map(str, o.values())))
def test_the_posterior_is_calibrated(options):
    """E[-log p(y | z)] is the mean entropy, and every class is as frequent as its mean posterior, if p is exact."""
    world, n = SMALL.but(**options), 3000
    sample = world.sample(n, 5)
    assert torch.isfinite(sample.z).all()
    log = world.log_posterior(sample.z)
    assert torch.allclose(log.exp().sum(1), torch.ones(n).double(), atol=1e-9)
    surprise = -log[torch.arange(n), sample.y]
    entropy = torch.special.entr(log.exp()).sum(1)
    difference = surprise - entropy
    assert difference.mean().abs() < 4.5 * difference.std() / math.sqrt(n)
    hits = torch.nn.functional.one_hot(sample.y, 8).double() - log.exp()
    assert (hits.mean(0).abs() < 4.5 * hits.std(0) / math.sqrt(n) + 1e-9).all()
    # Where the density falls fastest an error of the exponent shows in the class that is most probable.
    right = (log.argmax(1) == sample.y).double() - log.exp().amax(1)
    assert right.mean().abs() < 4.5 * right.std() / math.sqrt(n)


def test_no_classifier_beats_bayes_and_the_right_one_reaches_it():
    train, test = SMALL.sample(20_000, 1), SMALL.sample(20_000, 2)
    with untouched():
        model = LogisticRegression(C=1e4).fit(train.z.numpy(), train.y.numpy())
    reached = -model.predict_log_proba(test.z.numpy())[np.arange(20_000), test.y.numpy()]
    best = -SMALL.log_posterior(test.z)[torch.arange(20_000), test.y].numpy()
    gap = reached - best
    assert -4 * gap.std() / math.sqrt(20_000) < gap.mean() < 0.01
    bayes = bayes_loss(SMALL, 20_000, 3)
    assert abs(best.mean() - bayes.value) < 4 * (bayes.error + best.std() / math.sqrt(20_000))
    hits = (model.predict(test.z.numpy()) == test.y.numpy()).mean()
    assert hits == pytest.approx(bayes.accuracy, abs=0.015)


def test_bayes_loss_at_the_ends_and_with_instances():
    assert bayes_loss(SMALL.but(concentration=1e-6), 500).value == pytest.approx(math.log(8), abs=1e-6)
    assert bayes_loss(SMALL.but(concentration=1e5), 500).value < 0.01
    assert bayes_loss(SMALL.but(label_noise=1.0), 500).value == pytest.approx(math.log(8))
    one, many = bayes_loss(SMALL, 2000), bayes_loss(SMALL.but(instances=80), 2000)
    assert many.value == pytest.approx(one.value + math.log(10), abs=5 * (one.error + many.error))
    assert many.chance == pytest.approx(math.log(80)) and many.accuracy == pytest.approx(one.accuracy / 10, rel=0.05)
    assert bayes_loss(SMALL, 2000) == one and "chance" in str(one)


def test_batches_are_fast_enough_to_draw_in_every_step_and_resume():
    world = ClusterWorld()
    whole = [batch.x for _, batch in world.batches(64, 4, Stream(0))]
    late = [batch.x for _, batch in world.batches(64, 4, Stream(0), start=2)]
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], late, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instances": 5}, "instances=5 must be at least classes=100"),
        ({"rank": 3}, "rank=3: only for vectors='subspace'"),
        ({"latents": 1}, "a sphere needs at least 2"),
        ({"width": 2}, "width=2 must be at least latents=5"),
        ({"space": "box"}, "conditional=vmf with space=box"),
        ({"mixing": "Invertible"}, "did you mean InvertibleMLP"),
        ({"concentration": 0.0}, "concentration"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        ClusterWorld(**options)


def test_wrong_latents_and_worlds_are_refused():
    with pytest.raises(UsageError, match="expected"):
        SMALL.log_posterior(torch.zeros(3, 2))
    with pytest.raises(UsageError, match="finite"):
        SMALL.render([[float("nan"), 0.0, 1.0]])
    with pytest.raises(UsageError, match="has no classes"):
        bayes_loss(__import__("unmix").SparseWorld())
