"""Matched sparsity of composed encoders and of thresholds."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import Failure, UsageError
from unmix.encoders import ENCODERS
from unmix.encoders.matched import at_sparsity
from unmix.finders.features import assemble, replace
from unmix.worlds.sparse import SparseWorld

TIED = {"kind": "Linear", "init": "tied"}
RECIPES = [
    {"kind": "Lca"},
    {"kind": "CoordinateDescent", "positive": False},
    {"kind": "GradientPursuit"},
    {"kind": "Refine", "first": {"kind": "TopK", "k": 4, "init": "tied"}},
    {"kind": "Thresholded", "base": TIED},
    {"kind": "Thresholded", "base": {"kind": "Refine", "first": TIED, "then": {"kind": "Fista", "penalty": 0.001}}},
    {"kind": "Thresholded", "base": {"kind": "Exponentiated", "penalty": 0.01, "steps": 200, "lr": 0.1}},
    {"kind": "Largest", "base": TIED},
    {"kind": "Debiased", "base": {"kind": "Refine", "first": {"kind": "TopK", "k": 4, "init": "tied"}}},
    {"kind": "Debiased", "base": {"kind": "Omp"}},
]


@pytest.fixture(scope="module")
def world():
    return SparseWorld(latents=40, width=20, active=4, noise=0.05)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: str(ENCODERS.make(recipe))[:60])
def test_any_encoder_with_a_sparsity_reaches_it(recipe, world):
    x = world.sample(600, 0).x
    features = assemble(world.atoms, torch.zeros(20), ENCODERS.make("Nearest"))
    encoder = at_sparsity(ENCODERS.make(recipe), features, x, 5)
    assert type(encoder) is type(ENCODERS.make(recipe))
    found = replace(features, encoder=encoder).encode(x).l0().double().mean().item()
    assert found == pytest.approx(5, rel=0.1)


def test_what_cannot_be_reached_is_said(world):
    x = world.sample(200, 0).x
    features = assemble(world.atoms, torch.zeros(20), ENCODERS.make("Nearest"))
    with pytest.raises(Failure, match="its base has 3 active codes a row and no threshold"):
        at_sparsity(ENCODERS.make({"kind": "Thresholded", "base": {"kind": "Omp", "k": 3}}), features, x, 8)
    for kind in ("Nnls", "Nearest", {"kind": "Debiased", "base": "Nnls"}, {"kind": "Refine", "then": "Nnls"}):
        with pytest.raises(UsageError, match="no option that sets how many"):
            at_sparsity(ENCODERS.make(kind), features, x, 3)


def test_the_readout_that_will_be_used_is_the_one_that_is_measured(world):
    x = world.sample(400, 0).x
    features = assemble(world.atoms, torch.zeros(20), ENCODERS.make({"kind": "TopK", "k": 4}), {
        "weight": 2 * world.atoms, "shift": torch.zeros(40),
    })  # fmt: skip
    encoder = at_sparsity(ENCODERS.make({"kind": "Thresholded", "base": "Linear"}), features, x, 5)
    assert replace(features, encoder=encoder).encode(x).l0().double().mean().item() == pytest.approx(5, rel=0.02)
