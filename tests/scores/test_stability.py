"""Stability over seeds, and recovery by firing rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.scores.matching import dictionary_mcc
from unmix.scores.recovery import by_rate
from unmix.scores.stability import stability
from unmix.worlds.sparse import SparseWorld


def random_atoms(seed, m=20, d=16):
    return torch.nn.functional.normalize(torch.randn(m, d, generator=torch.Generator().manual_seed(seed)))


def test_copies_are_stable_and_independent_dictionaries_are_at_chance():
    atoms = random_atoms(0)
    order = torch.from_numpy(np.random.default_rng(0).permutation(20))
    copies = stability([atoms, -atoms[order], 3 * atoms])
    assert copies.value == pytest.approx(1) and copies.detail["found"] == 1
    unrelated = stability([random_atoms(seed) for seed in range(4)])
    assert abs(unrelated.value - unrelated.chance) < 0.02 and unrelated.detail["found"] < 0.1


def test_two_seeds_are_their_agreement():
    one, two = random_atoms(1), random_atoms(2)
    assert stability([one, two]).value == pytest.approx(dictionary_mcc(two, one).value)


def test_atoms_found_by_at_least_a_share_of_the_seeds():
    shared = torch.eye(16)
    seeds = [torch.cat([shared[:6], random_atoms(s, 4)]) for s in range(3)]
    seeds[2] = torch.cat([shared[:3], random_atoms(9, 7)])
    outcome = stability(seeds, threshold=0.99)
    # six atoms of the first two are found by one other, three by both; three of the third by both
    assert outcome.detail["found"] == pytest.approx((6 + 6 + 3) / 30)
    assert stability(seeds, threshold=0.99, share=1.0).detail["found"] == pytest.approx(9 / 30)
    assert outcome.detail["shares"][0][:6] == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5])


def test_encoder_directions_count_where_given():
    atoms = random_atoms(0)
    turned = random_atoms(0)
    turned[:5] = random_atoms(7)[:5]
    assert stability([atoms, atoms], [atoms, atoms]).detail["found"] == 1
    assert stability([atoms, atoms], [atoms, turned]).detail["found"] == pytest.approx(15 / 20)
    inputs = Inputs(atoms=atoms, others=[atoms], readers=[atoms, turned])
    assert SCORES["stability"]().measure(inputs).detail["found"] == pytest.approx(15 / 20)


def test_unlike_sizes_leave_atoms_over_and_unlike_widths_are_refused():
    assert stability([torch.eye(8)[:4], torch.eye(8)]).value == pytest.approx(0.5)
    with pytest.raises(UsageError, match="at least 2"):
        stability([torch.eye(3)])
    with pytest.raises(UsageError, match="widths"):
        stability([torch.eye(3), torch.eye(4)])
    with pytest.raises(UsageError, match="readers"):
        stability([torch.eye(3), torch.eye(3)], [torch.eye(3)])


def test_bins_go_from_rare_to_frequent_and_leave_out_what_never_fires():
    rates = np.array([0.5, 0.01, 0.2, 0.02, 0.1, 0.0])
    strength = np.array([1.0, 0.1, 0.8, 0.3, 0.6, 0.0])
    bins = by_rate(strength, rates, bins=2)
    assert [b["latents"] for b in bins] == [3, 2]
    assert [b["recovery"] for b in bins] == pytest.approx([1 / 3, 0.9])
    assert (bins[0]["low"], bins[0]["high"]) == (0.01, 0.1)
    assert len(by_rate(strength, rates, bins=50)) == 5
    with pytest.raises(UsageError, match="no latent fires"):
        by_rate(strength, np.zeros(6))


def test_rare_latents_that_are_missed_show_in_their_bin_only():
    z = SparseWorld(latents=20, width=10, rates=0.15, zipf=1.0).sample(4000, 0).z
    codes = z.clone()
    codes[:, 15:] = codes[:, 15:][torch.from_numpy(np.random.default_rng(0).permutation(4000))]
    outcome = SCORES["rare_recovery"]().measure(Inputs(codes=codes, z=z))
    assert outcome.value < 0.3
    assert [b["recovery"] for b in outcome.detail["bins"][1:]] == pytest.approx([1, 1, 1], abs=1e-6)
