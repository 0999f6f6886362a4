"""Going on from given weights, and networks from outside unmix in a run folder."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.store import write_tensors
from unmix.learners.diet import Diet
from unmix.learners.representation import Representation
from unmix.networks.built import Built
from unmix.networks.mlp import MLP
from unmix.networks.resnet import ResNet
from unmix.study.learning import Learned, learn
from unmix.study.probing import probe_learned
from unmix.worlds.images import Images

NETWORK = ResNet(channels=4, blocks=(1,))
FIELDS = {"network": NETWORK, "width": 4, "steps": 3, "batch": 32, "augment": None}
OUTSIDE = Built(path="tests.networks.test_networks:gray", arguments={"channels": 5})


def first(learnt):
    return next(learnt.module.parameters()).detach()


def test_a_run_goes_on_from_a_representation_and_keeps_its_digest(tmp_path):
    world = Images(path="digits")
    start = Diet(**FIELDS).fit(world, 3)
    folder = start.save(tmp_path / "start")
    slow = Diet(**FIELDS, lr=1e-9)
    learned = learn(world, [slow, slow.but(mixup=0.5)], tmp_path / "run", start=folder)
    learn(world, [slow], tmp_path / "run")
    found = [Representation.load(path) for path in sorted((tmp_path / "run/learned").iterdir()) if path.is_dir()]
    begun = [learnt for learnt in found if learnt.about.get("start") == start.digest]
    assert len(found) == 3 and len(begun) == 2 and not learned.failures
    assert all(torch.allclose(first(learnt), first(start), atol=1e-6) for learnt in begun)
    for other, match in ((Diet(**{**FIELDS, "width": 5}), "start has width 4"), (slow.but(network=MLP()), "network")):
        with pytest.raises(UsageError, match=match):
            learn(world, [slow, other], tmp_path / "none", start=folder)
    assert not (tmp_path / "none/learned").exists()


def test_weights_from_elsewhere_are_a_start(tmp_path):
    state = NETWORK.build((1, 8, 8), 4, 7).state_dict()
    write_tensors(tmp_path / "weights.safetensors", state)
    for given in (state, tmp_path / "weights.safetensors"):
        start = Representation.of(NETWORK, (1, 8, 8), 4, given)
        assert torch.equal(first(start), state["0.weight"])
        assert Diet(**FIELDS, lr=1e-9).fit(Images(path="digits"), 0, start=start).about["start"] == start.digest
    backbone = torch.nn.Sequential(*OUTSIDE.build((1, 8, 8), 4, 3)[0])
    start = Representation.of(OUTSIDE, (1, 8, 8), 4, backbone.state_dict())
    assert torch.equal(first(start), backbone[0].weight) and start(torch.zeros(2, 1, 8, 8)).shape == (2, 4)
    with pytest.raises(UsageError, match=r"not the tensors of ResNet.*on one side alone: 0\.0\.weight"):
        Representation.of(NETWORK, (1, 8, 8), 4, {f"0.{name}": tensor for name, tensor in state.items()})
    with pytest.raises(UsageError, match=r"0\.weight is \[4, 2\]"):
        Representation.of(NETWORK, (1, 8, 8), 4, {**state, "0.weight": torch.zeros(4, 2)})


def test_a_network_of_ones_own_is_probed_where_it_is_trusted(tmp_path):
    learn(Images(path="digits"), [Diet(**{**FIELDS, "network": OUTSIDE})], tmp_path)
    with pytest.raises(UsageError, match=r"set UNMIX_TRUST=tests$"):
        probe_learned(tmp_path)
    assert Learned(tmp_path).outcomes()
    found = probe_learned(tmp_path, trust=frozenset({"tests.networks"}))
    assert found["accuracy"].between(0, 1).all()
