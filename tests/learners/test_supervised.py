"""Cross-entropy inverts the mixing: the four cases on a world whose truth is known, at full size."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.learners.supervised import InstanceDiscrimination, Supervised
from unmix.study.learning import Learning, measure
from unmix.worlds.cluster import ClusterWorld

CASES = {"C1": (True, True), "C3": (False, True), "C4": (False, False)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", [Supervised, InstanceDiscrimination])
@pytest.mark.parametrize("case", list(CASES))
def test_the_latents_are_recovered_up_to_a_linear_map(case, kind, seed):
    features, weights = CASES[case]
    world = ClusterWorld(latents=5, classes=100, concentration=10, instances=1000, seed=seed)
    learner = kind(unit_features=features, unit_weights=weights, lr=1e-2)
    learnt = learner.fit(world, seed)
    scores = measure(Learning(world=world, learner=learner, seed=seed), learnt)["scores"]
    found = scores["r2" if case == "C4" else "r2_linear"]
    assert found["value"] >= 0.985 and found["minimum"] >= 0.98
    assert found["value"] > found["baselines"]["x"]["value"]
    assert -0.005 <= scores["excess_loss"]["value"] <= 0.03
    if case == "C1":
        assert abs(learnt.parts["beta"].item() / world.concentration - 1) <= 0.06
        assert torch.allclose(learnt.parts["weights"].norm(dim=1), torch.ones(len(learnt.parts["weights"])))
    if kind is InstanceDiscrimination:
        assert scores["within_class"]["value"] <= 0.005


def test_a_softmax_over_the_batch_has_each_datum_once_and_the_loss_of_all_data_where_all_are_there():
    world = ClusterWorld(latents=3, classes=4, instances=6)
    batch = world.sample(64, 0)
    for unit in (False, True):
        whole = InstanceDiscrimination(width=3, unit_weights=unit, bias=True)
        modules = whole._build(tuple(batch.x.shape[1:]), world, Stream(0))
        assert len(set(batch.index.tolist())) == 6
        full, _ = whole._loss(modules, batch, Stream(1))
        assert torch.allclose(whole.but(among="batch")._loss(modules, batch, Stream(1))[0], full)
        some = batch.take((batch.index < 2).nonzero()[:, 0].numpy())
        loss, _ = whole.but(among="batch")._loss(modules, some, Stream(1))
        h, head = modules["encoder"](some.x), modules["head"]
        logits = (head(h))[:, :2]
        assert torch.allclose(loss, torch.nn.functional.cross_entropy(logits, some.index), atol=1e-6)


def test_a_softmax_over_the_batch_keeps_the_digest_of_the_default_and_refuses_smoothing():
    assert "among" not in InstanceDiscrimination().as_dict()
    chosen = InstanceDiscrimination(among="batch")
    assert chosen.as_dict()["among"] == "batch" and chosen.digest != InstanceDiscrimination().digest
    with pytest.raises(UsageError, match="smoothing"):
        InstanceDiscrimination(among="batch", smoothing=0.1)
