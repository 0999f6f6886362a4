"""Layers side by side: rows of the layers that were asked for, kept and found again."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from unmix.activations.modules import ModuleActivations
from unmix.core.errors import UsageError
from unmix.core.watch import Progress
from unmix.study.interpretable import compare_bases
from unmix.study.layers import compare_layers


def build(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 7, 3), nn.ReLU())


def test_every_layer_has_the_table_of_its_own_activations(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "layers_under_test", sys.modules[__name__])
    images = np.random.default_rng(0).integers(0, 255, (60, 10, 10, 3)).astype(np.uint8)
    trained = ModuleActivations(model="layers_under_test:build", mean=0.5)
    start = trained.but(arguments={"seed": 1})
    table = compare_layers(
        trained, start, images, ["1", "3"], tmp_path, ["SphericalKMeans"], "Pixels", Progress("layers"), draws=20
    )
    assert table["layer"].unique().tolist() == ["1", "3"]
    neurons = table[table["basis"] == "neurons"].set_index("layer")
    assert neurons["features"].to_dict() == {"1": 5, "3": 7}
    assert (table["basis"] == "untrained neurons").sum() == 4  # by columns and by angle
    with torch.no_grad():
        x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255) - 0.5
        rows, other = (build(seed)(x).mean((2, 3)) for seed in (0, 1))
    own = compare_bases(rows, images, ["SphericalKMeans"], "Pixels", untrained=other, draws=20)
    assert np.allclose(own["value"], table[table["layer"] == "3"]["value"], atol=1e-5)
    alone = compare_layers(trained, None, images, ["3"], tmp_path, similarity="Pixels", draws=20)
    assert np.allclose(alone["value"][0], own["value"][0], atol=1e-5) and "untrained neurons" not in set(
        alone["basis"]
    )
    with pytest.raises(UsageError, match="name at least one"):
        compare_layers(trained, None, images, [], tmp_path)
    with pytest.raises(UsageError, match="several rows"):
        compare_layers(trained.but(pooling="all"), None, images, ["3"], tmp_path)
    with pytest.raises(UsageError, match="--overwrite"):
        compare_layers(trained.but(mean=0.4), None, images, ["3"], tmp_path)
