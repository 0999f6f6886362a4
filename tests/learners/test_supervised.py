"""Cross-entropy inverts the mixing: the four cases on a world whose truth is known, at full size."""

from __future__ import annotations

import pytest
import torch

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
