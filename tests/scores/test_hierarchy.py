"""Absorption, splitting and hedging on dictionaries made to fail in one way and not in the others."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.scores.hierarchy import absorption, hedging, splitting
from unmix.worlds.sparse import SparseWorld

WORLD = SparseWorld(latents=6, width=6, roots=2, branching=2, rates=0.5, dictionary="orthogonal")
PARENT, CHILD, COUSIN = 0, 2, 3  # latents 2 and 3 are the children of 0


@pytest.fixture(scope="module")
def case():
    z = WORLD.sample(4000, 0).z.double()
    return z, WORLD.atoms.double(), WORLD.parents


def scores_of(codes, atoms, case):
    z, truth, parents = case
    inputs = Inputs(codes=codes, z=z, atoms=atoms, truth=truth, parents=parents)
    return {name: SCORES[name]().measure(inputs).value for name in ("absorption", "splitting", "hedging")}


def absorbed(z, truth):
    """The child's atom takes in its parent's, whose feature is silent where the child fires."""
    codes, atoms = z.clone(), truth.clone()
    codes[z[:, CHILD] > 0, PARENT] = 0
    atoms[CHILD] = torch.nn.functional.normalize(truth[CHILD] + truth[PARENT], dim=0)
    return codes, atoms


def split(z, truth):
    """Two features with the parent's atom share its rows: with the child, and without."""
    codes, atoms = torch.cat([z, z[:, [PARENT]]], 1), torch.cat([truth, truth[[PARENT]]])
    codes[z[:, CHILD] > 0, PARENT] = 0
    codes[z[:, CHILD] == 0, -1] = 0
    return codes, atoms


def hedged(z, truth):
    """No feature for the child; the parent's atom has a part of it."""
    keep = [j for j in range(6) if j != CHILD]
    atoms = truth.clone()
    atoms[PARENT] = torch.nn.functional.normalize(truth[PARENT] + 0.4 * truth[CHILD], dim=0)
    return z[:, keep], atoms[keep]


def test_the_true_dictionary_fails_in_no_way(case):
    z, truth, _ = case
    assert scores_of(z, truth, case) == pytest.approx({"absorption": 0, "splitting": 0, "hedging": 0}, abs=1e-6)
    order = torch.from_numpy(np.random.default_rng(0).permutation(6))
    assert scores_of(z[:, order] * 3, truth[order] * 2, case)["absorption"] == 0


def test_absorption_is_seen_and_nothing_else(case):
    z, truth, parents = case
    found = scores_of(*absorbed(z, truth), case)
    assert found["absorption"] == pytest.approx(1 / 4)  # one of the four pairs, in all of the child's firings
    assert found["splitting"] == 0 and found["hedging"] == pytest.approx(0, abs=1e-6)
    codes, atoms = absorbed(z, truth)
    detail = absorption(codes, z, parents, atoms, truth).detail
    rates = dict(zip(map(tuple, detail["pairs"]), detail["rates"], strict=True))
    assert rates[(PARENT, CHILD)] == 1 and rates[(PARENT, COUSIN)] == 0


def test_absorption_in_part_of_the_rows_is_that_part(case):
    z, truth, parents = case
    codes, atoms = absorbed(z, truth)
    rows = (z[:, CHILD] > 0).nonzero().squeeze(1)
    codes[rows[::4], PARENT] = z[rows[::4], PARENT]
    outcome = absorption(codes, z, parents, atoms, truth)
    assert max(outcome.detail["rates"]) == pytest.approx(0.75, abs=0.01)


def test_a_missing_parent_whose_children_carry_it_is_absorbed(case):
    z, truth, parents = case
    codes, atoms = z.clone(), truth.clone()
    for child in (CHILD, COUSIN):
        atoms[child] = torch.nn.functional.normalize(truth[child] + truth[PARENT], dim=0)
    keep = [1, 2, 3, 4, 5]
    rates = absorption(codes[:, keep], z, parents, atoms[keep], truth).detail["rates"]
    assert sorted(rates) == [0, 0, 1, 1]


def test_splitting_is_seen_and_nothing_else(case):
    z, truth, _ = case
    codes, atoms = split(z, truth)
    found = scores_of(codes, atoms, case)
    share = (z[z[:, PARENT] > 0, CHILD] > 0).double().mean().item()
    assert found["splitting"] == pytest.approx((1 - max(share, 1 - share)) / 6)
    assert found["absorption"] == 0 and found["hedging"] == pytest.approx(0, abs=1e-6)
    detail = splitting(codes, z, atoms, truth).detail
    assert detail["features"].tolist() == [2, 1, 1, 1, 1, 1]


def test_hedging_is_seen_and_nothing_else(case):
    z, truth, parents = case
    codes, atoms = hedged(z, truth)
    found = scores_of(codes, atoms, case)
    assert found["hedging"] == pytest.approx(0.4 / math.sqrt(1.16) / 4, abs=1e-6)
    assert found["absorption"] == 0 and found["splitting"] == 0
    mixed = hedging(codes, z, parents, atoms, truth).detail["mixed"]
    assert sorted(mixed)[-1] == pytest.approx(0.4 / math.sqrt(1.16), abs=1e-6)


def test_true_atoms_that_lean_on_their_parents_are_no_fault():
    world = SparseWorld(
        latents=14, width=20, roots=2, branching=2, rates=0.6, dictionary="hierarchical", similarity=0.5
    )
    z = world.sample(3000, 0).z
    inputs = Inputs(codes=z, z=z, atoms=world.atoms, truth=world.atoms, parents=world.parents)
    for name in ("absorption", "splitting", "hedging"):
        assert SCORES[name]().measure(inputs).value == pytest.approx(0, abs=1e-6), name


def test_sparse_codes_and_dense_ones_agree(case):
    z, truth, parents = case
    codes, atoms = absorbed(z, truth)
    ragged = Codes(codes, None, 6).ragged()
    assert absorption(ragged, Codes(z, None, 6).ragged(), parents, atoms, truth).value == pytest.approx(1 / 4)


def test_latents_without_parents_are_refused_and_what_cannot_be_measured_is_nan(case):
    z, truth, parents = case
    with pytest.raises(UsageError, match="no latent has a parent"):
        absorption(z, z, torch.full((6,), -1), truth, truth)
    with pytest.raises(UsageError, match="of other latents"):
        absorption(z, z, torch.arange(6), truth, truth)
    with pytest.raises(UsageError, match="atoms: 5 rows, but codes have 6 columns"):
        absorption(z, z, parents, truth[:5], truth)
    with pytest.raises(UsageError, match="width 5, truth 6"):
        hedging(z, z, parents, truth[:, :5], truth)
    assert math.isnan(hedging(z, z, parents, -truth, truth).value)
    assert math.isnan(splitting(torch.zeros_like(z), z, truth, truth).value)
