"""SynthSAEBench against its recipe, small; and the full size, slow."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.scores.matching import mcc
from unmix.worlds.dictionaries import gaussian, spread
from unmix.worlds.synth import SynthSAEBench

SMALL = SynthSAEBench(latents=256, width=32, roots=8, branching=3, depth=2)


def test_rows_are_sums_of_true_atoms_and_children_follow_parents():
    sample = SMALL.sample(3000, 0)
    assert isinstance(sample.z, Codes) and sample.z.shape == (3000, 256)
    dense = sample.z.dense()
    assert torch.allclose(sample.x, dense @ SMALL.atoms, atol=1e-4)
    assert (dense >= 0).all() and torch.equal(dense, SMALL.sample(3000, 0).z.dense())
    parents, fires = SMALL.parents.numpy(), (dense > 0).numpy()
    children = np.flatnonzero(parents >= 0)
    assert len(children) == 8 * 3 + 8 * 9
    assert not (fires[:, children] & ~fires[:, parents[children]]).any()
    for parent in np.unique(parents[children]):
        assert fires[:, children[parents[children] == parent]].sum(1).max() <= 1


def test_latents_without_a_parent_have_their_base_rate():
    n = 20_000
    world = SMALL.but(scale=0.0, deviation=0.0, spread=0.0)
    fires = (world.sample(n, 0).z.dense() > 0).double().mean(0).numpy()
    top = world.parents.numpy() < 0
    base = world.base_rates
    assert base[0] == pytest.approx(0.4) and base[-1] == pytest.approx(5e-4)
    error = np.sqrt(base * (1 - base) / n)
    assert (np.abs(fires - base) <= 5 * error)[top].all()


def test_compensation_makes_up_for_parents_without_siblings():
    n = 30_000
    plain = SMALL.but(scale=0.0, deviation=0.0, spread=0.0, exclusive=False)
    raised = (plain.sample(n, 0).z.dense() > 0).double().mean(0).numpy()
    base, below = plain.base_rates, plain.parents.numpy() >= 0
    assert plain.rates.max() < 1  # nothing is cut off, so that compensation is exact
    assert (np.abs(raised - base) <= 5 * np.sqrt(base / n)).all()
    bare = (plain.but(compensate=False).sample(n, 0).z.dense() > 0).double().mean(0).numpy()
    assert bare[below].mean() < 0.5 * raised[below].mean()


def test_amplitudes_fall_and_children_scale_with_their_parents():
    world = SMALL.but(deviation=0.5, spread=0.0)
    z = world.sample(20_000, 0).z.dense()
    parents = world.parents.numpy()
    root, child = z[:, 0], z[:, int(np.flatnonzero(parents == 0)[0])]
    assert root[root > 0].mean().item() == pytest.approx(5.0, abs=0.05)
    both = (root > 0) & (child > 0)
    scaled = np.corrcoef(root[both], child[both])[0, 1]
    free = world.but(scaled=False).sample(20_000, 0).z.dense()
    one, two = free[:, 0], free[:, int(np.flatnonzero(parents == 0)[0])]
    loose = np.corrcoef(one[(one > 0) & (two > 0)], two[(one > 0) & (two > 0)])[0, 1]
    assert scaled > 0.4 and abs(loose) < 0.15


def test_correlations_follow_the_loadings():
    world = SMALL.but(scale=0.5, rank=2, roots=256, most=0.4, least=0.3)
    from unmix.worlds.synth import _Rule

    fires = (world.sample(6000, 0).z.dense() > 0).double()
    measured = torch.corrcoef(fires.T).numpy()
    loadings = _Rule.of(world).loadings.astype(float)
    own = 1 / np.sqrt(1 + np.square(loadings).sum(1))
    copula = (loadings * own[:, None]) @ (loadings * own[:, None]).T
    upper = np.triu_indices(256, 1)
    assert np.corrcoef(measured[upper], copula[upper])[0, 1] > 0.9


def test_spreading_lowers_the_squared_cosines():
    from unmix.core.seeds import Stream

    def potential(atoms):
        return (atoms @ atoms.T).square().sum().item()

    before, after = gaussian(200, 20, Stream(0)), spread(200, 20, Stream(0))
    assert potential(after) < potential(before)
    assert potential(after) == pytest.approx(200**2 / 20, rel=1e-3)  # the least there is (Benedetto, Fickus 2003)
    assert torch.allclose(after.norm(dim=1), torch.ones(200), atol=1e-5)


def test_scores_take_sparse_latents():
    sample = SMALL.sample(400, 0)
    assert mcc(sample.z, sample.z).value == pytest.approx((sample.z.firing() > 0).double().mean().item(), abs=1e-6)


def test_impossible_options_are_refused():
    with pytest.raises(UsageError, match=r"least=0\.5 must be at most most=0\.4"):
        SynthSAEBench(least=0.5)
    with pytest.raises(UsageError, match="roots=128 must be at most latents=64"):
        SynthSAEBench(latents=64)


@pytest.mark.slow
def test_full_size_has_the_published_sparsity_and_samples_in_seconds():
    world = SynthSAEBench()
    world.atoms  # noqa: B018 - made once and kept
    begun = time.perf_counter()
    sample = world.sample(10_000, 0)
    assert time.perf_counter() - begun < 30
    assert sample.x.shape == (10_000, 768)
    assert sample.z.l0().double().mean().item() == pytest.approx(34, abs=1.5)
