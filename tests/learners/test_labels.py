"""Labels in training: rows without one teach no class, and what cannot be learnt from is refused before it begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.errors import Notice, UsageError
from unmix.learners.contrastive import InfoNCE
from unmix.learners.diet import Diet
from unmix.learners.labels import labelled_cross_entropy
from unmix.learners.selfsup import SimCLR
from unmix.learners.supervised import InstanceDiscrimination, Supervised
from unmix.learners.supervised_views import SupervisedViews
from unmix.learners.temporal import GeneralisedContrastive
from unmix.networks.mlp import MLP
from unmix.networks.resnet import ResNet
from unmix.study.learning import learn
from unmix.worlds.cluster import ClusterWorld
from unmix.worlds.images import Images
from unmix.worlds.pairs import PairWorld

SMALL = {"network": ResNet(channels=2, blocks=(1,)), "width": 4, "steps": 2, "batch": 8}


def world(tmp_path, labels, **more):
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 6, 6, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.asarray(labels))
    return Images(path=str(tmp_path / "x.npz"), held=0.0, **more)


def test_a_mean_over_labelled_rows_is_that_of_the_rows_alone():
    draw = torch.Generator().manual_seed(0)
    logits, y = torch.randn(9, 3, generator=draw, requires_grad=True), torch.tensor([0, 1, 2] * 3)
    mixed = torch.where(torch.arange(9) % 4 == 0, -1, y)
    loss, right = labelled_cross_entropy(logits, mixed, 0.1)
    kept = mixed >= 0
    alone = torch.nn.functional.cross_entropy(logits[kept], y[kept], label_smoothing=0.1)
    assert loss.item() == pytest.approx(alone.item(), rel=1e-6)
    assert right.item() == pytest.approx((logits.argmax(1) == y)[kept].float().mean().item())
    none, _ = labelled_cross_entropy(logits, torch.full((9,), -1))
    none.backward()
    assert none.item() == 0 and not logits.grad.any()


@pytest.mark.parametrize("learner", [Supervised, SupervisedViews, Diet])
def test_rows_without_a_label_teach_no_class(tmp_path, learner):
    labels = np.where(np.arange(24) % 3 == 2, -1, np.arange(24) % 3)
    made = learner(**SMALL, **({"online": True} if learner is Diet else {}))
    with pytest.warns(Notice, match="8 of 24 training rows have no label and teach no class"):
        learnt = made.fit(world(tmp_path, labels))
    part = "probe.weight" if learner is Diet else "weights"
    assert learnt.parts[part].shape == (2, 4)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in learnt.parts.values())


def test_a_classifier_sees_only_labelled_rows_in_its_loss(tmp_path):
    network = MLP(hidden=(8,), normalise="none")
    shared = {"network": network, "width": 3, "steps": 3, "batch": 24, "schedule": "constant"}
    labels = np.arange(24) % 3
    images = np.random.default_rng(0).random((24, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "some.npz", images=images, labels=np.where(np.arange(24) < 12, labels, -1))
    np.savez(tmp_path / "few.npz", images=images[:12], labels=labels[:12])
    some, few = (Images(path=str(tmp_path / f"{name}.npz"), held=0.0) for name in ("some", "few"))
    with pytest.warns(Notice, match="12 of 24 training rows"):
        one = Supervised(**shared).fit(some)
    two = Supervised(**{**shared, "batch": 12}).fit(few)
    for name, tensor in one.parts.items():
        assert torch.allclose(tensor, two.parts[name], atol=1e-5), name


@pytest.mark.parametrize("labels, told", [
    (np.zeros(24), "Supervised: all 24 labelled training rows are 0; give two classes"),
    (np.where(np.arange(24) < 9, np.nan, 5), "Supervised: all 15 labelled training rows are 5"),
])  # fmt: skip
def test_one_class_is_no_classification(tmp_path, labels, told):
    with pytest.raises(UsageError, match=told):
        Supervised(**SMALL).fit(world(tmp_path, labels))
    assert told in Supervised(**SMALL).refusal(world(tmp_path, labels))
    with pytest.raises(UsageError, match="SupervisedViews: all"):
        SupervisedViews(**SMALL).fit(world(tmp_path, labels))


def test_labels_that_are_too_few_are_said_before_training(tmp_path):
    with pytest.warns(Notice, match="every class has one training row"):
        assert Supervised(**SMALL).refusal(world(tmp_path, np.arange(24))) is None
    some = world(tmp_path, np.repeat(np.arange(8), [8, 8, 2, 2, 1, 1, 1, 1]), most=6)
    empty = 8 - len(np.unique(some.row_labels))
    with pytest.warns(Notice, match=f"Supervised: {empty} of 8 classes have no training row: [0-7]"):
        Supervised(**{**SMALL, "batch": 6}).refusal(some)
    with pytest.raises(UsageError, match="8 rows have no label; it needs one for each"), pytest.warns(Notice):
        GeneralisedContrastive(**SMALL).fit(world(tmp_path, np.where(np.arange(24) % 3 == 2, -1, np.arange(24) % 3)))


def test_a_batch_of_one_is_refused_where_it_says_nothing(tmp_path):
    with pytest.raises(UsageError, match="slices of one row, of which batch norm has no variance"):
        Supervised(steps=2, batch=1).fit(ClusterWorld())
    assert "batch norm" in Supervised(steps=2, batch=2, accumulate=2).refusal(ClusterWorld())
    plain = Supervised(network=MLP(hidden=(8,), normalise="none"), steps=2, batch=1).fit(ClusterWorld())
    assert len(plain.trace) == 2
    images = world(tmp_path, np.arange(24) % 3)
    for learner, told in (
        (SimCLR(**{**SMALL, "batch": 1}), "SimCLR.batch=1: compares rows of a batch; give 2 or more"),
        (Diet(**{**SMALL, "batch": 1, "head": "batch"}), "Diet.batch=1: head=batch tells rows of a batch apart"),
        (InstanceDiscrimination(**{**SMALL, "batch": 1}, among="batch"), "among=batch tells rows of a batch apart"),
    ):
        assert told in str(learner.refusal(images))
    assert "InfoNCE.batch=2: holds 1 pair" in str(InfoNCE(steps=1, batch=2).refusal(PairWorld()))


def test_a_batch_larger_than_the_rows_is_said_and_nothing_held_out_refused(tmp_path):
    with pytest.warns(Notice, match="batch=100: Images has 24 rows, which every step takes all of"):
        Supervised(**{**SMALL, "batch": 100}).fit(world(tmp_path, np.arange(24) % 3))
    few = world(tmp_path, np.arange(4) % 2).but(held=0.2)
    with pytest.raises(UsageError, match="too few rows of a class to hold any out"):
        learn(few, [Supervised(**{**SMALL, "batch": 4})], tmp_path / "run")


def test_a_run_with_unlabelled_held_out_rows_is_scored_and_watched(tmp_path):
    some = world(tmp_path, np.where(np.arange(40) % 3 == 2, -1, np.arange(40) % 3)).but(held=0.2)
    learner = Supervised(network=MLP(hidden=(8,)), width=2, steps=4, batch=16)
    with pytest.warns(Notice, match="training rows have no label and teach no class"):
        assert not learn(some, [learner], tmp_path / "run", watch="regime").failures
