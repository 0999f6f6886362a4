"""SparseWorld against its definition: rates, correlations, trees, banned pairs, atoms, and samples of old options."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.digest import array_digest
from unmix.core.errors import Failure, UsageError
from unmix.worlds import supports
from unmix.worlds.sparse import SparseWorld

OLD = [  # options, then digests of the recipe, z, x (200 rows, rng 5) and atoms as run folders have them
    ({}, "d12682d62a03800f", "98467ae23fb1b904", "0f8e6669e4b0dcc5"),
    ({"latents": 64, "width": 32, "active": 3}, "345515e2857d91c7", "4145a131a11d1bad", "ab92f0076e61fc7d"),
    (
        {"latents": 50, "width": 10, "active": 3, "zipf": 1.0, "noise": 0.5},
        "baef665a07df5967",
        "f5f3367af4076935",
        "c2401444be646784",
    ),
    (
        {"latents": 8, "width": 8, "active": 2, "dictionary": "orthogonal", "amplitudes": "uniform", "seed": 3},
        "96756709411ace11",
        "16cd3c5e3c571a91",
        "72f4eda196b3f3c9",
    ),
    ({"amplitudes": "exponential"}, "7b63d3b31013a7d3", "8e9711b37eca6f1f", "0f8e6669e4b0dcc5"),
    ({"amplitudes": "one"}, "115a14decbf542b0", "c25b9deab7a0fa53", "0f8e6669e4b0dcc5"),
]


@pytest.mark.parametrize(("options", "recipe", "z", "atoms"), OLD)
def test_worlds_of_old_options_keep_their_digest_and_their_samples(options, recipe, z, atoms):
    world = SparseWorld(**options)
    assert world.digest == recipe
    assert array_digest(world.sample(200, 5).z) == z
    assert world.atoms.dtype == torch.float32
    if options.get("dictionary") != "orthogonal":  # a factorisation may differ in its last bit between machines
        assert array_digest(world.atoms) == atoms


def test_new_options_change_the_digest():
    digests = [SparseWorld(**o).digest for o in ({}, {"rates": 0.1}, {"roots": 4}, {"pairs": "train"})]
    assert len(set(digests)) == 4
    assert SparseWorld(banned=0.1).digest == SparseWorld().digest


def rates_of(sample):
    return (sample.z > 0).double().mean(0).numpy()


def close(measured, expected, n, sigmas=5):
    """Within sampling error of n independent rows."""
    error = np.sqrt(np.maximum(expected * (1 - expected), 1e-9) / n)
    return np.abs(measured - expected) <= sigmas * error


def test_bernoulli_rates_are_those_asked_for():
    n = 40_000
    single = SparseWorld(latents=20, width=8, rates=0.2).sample(n, 0)
    assert close(rates_of(single), 0.2, n).all()
    fires = (single.z > 0).double()
    independent = torch.corrcoef(fires.T).fill_diagonal_(0).abs().max()
    assert independent < 5 / np.sqrt(n)
    given = tuple(np.linspace(0.01, 0.6, 20))
    assert close(rates_of(SparseWorld(latents=20, width=8, rates=given).sample(n, 0)), np.array(given), n).all()
    falling = SparseWorld(latents=20, width=8, rates=0.1, zipf=0.5)
    expected = falling.firing_rates()
    assert expected.mean() == pytest.approx(0.1) and expected[0] / expected[3] == pytest.approx(2)
    assert close(rates_of(falling.sample(n, 0)), expected, n).all()


@pytest.mark.parametrize("options", [{"rates": 0.2}, {"active": 4}])
def test_latents_of_one_block_fire_together(options):
    n = 40_000
    world = SparseWorld(latents=20, width=8, correlation=0.8, block=4, **options)
    sample = world.sample(n, 0)
    assert close(rates_of(sample), 0.2, n).all()
    together = torch.corrcoef((sample.z > 0).double().T).numpy()
    same = np.kron(np.eye(5), np.ones((4, 4))).astype(bool)
    inside, outside = together[same & ~np.eye(20, dtype=bool)], together[~same]
    if "rates" in options:
        from scipy.stats import multivariate_normal, norm

        bar = norm.ppf(0.8)
        both = multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]]).cdf([-bar, -bar])
        expected = (both - 0.04) / (0.2 * 0.8)
        assert np.abs(inside - expected).max() < 0.03 and np.abs(outside).max() < 5 / np.sqrt(n)
    else:
        assert (sample.z > 0).sum(1).eq(4).all()
        assert inside.min() > 0.3 and outside.max() < 0


def test_forest_is_numbered_breadth_first():
    parents = supports.forest(15, roots=2, branching=2, depth=2)
    assert parents.tolist() == [-1, -1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, -1]
    assert [level.tolist() for level in supports.levels(parents)] == [[2, 3, 4, 5], [6, 7, 8, 9, 10, 11, 12, 13]]
    assert supports.forest(5, roots=5, branching=2).tolist() == [-1] * 5


@pytest.mark.parametrize("options", [{"rates": 0.4}, {"active": 5}, {"rates": 0.3, "correlation": 0.5}])
@pytest.mark.parametrize("exclusive", [False, True])
def test_a_child_fires_only_if_its_parent_fires(options, exclusive):
    world = SparseWorld(latents=30, width=8, roots=4, branching=2, exclusive=exclusive, **options)
    fires = (world.sample(5000, 0).z > 0).numpy()
    parents = world.parents.numpy()
    children = np.flatnonzero(parents >= 0)
    assert len(children) == 26 and fires[:, children].any(0).all()
    assert not (fires[:, children] & ~fires[:, parents[children]]).any()
    if "active" in options:
        assert (fires.sum(1) == 5).all()
    siblings = np.stack([fires[:, children[parents[children] == p]].sum(1) for p in range(4)])
    assert (siblings.max() == 1) == exclusive


@pytest.mark.parametrize("exclusive", [False, True])
def test_rates_of_a_tree_are_products_of_rates_given_the_parent(exclusive):
    n = 60_000
    world = SparseWorld(latents=14, width=8, roots=2, branching=2, rates=0.45, exclusive=exclusive)
    expected = world.firing_rates()
    assert expected[[0, 2, 6]] == pytest.approx([0.45, 0.45**2, 0.45**3])
    assert close(rates_of(world.sample(n, 0)), expected, n).all()


def test_banned_pairs_never_meet_in_training_and_always_do_when_held_out():
    world = SparseWorld(latents=16, width=8, active=3, banned=0.15, pairs="train")
    pairs = world.banned_pairs
    assert len(pairs) == round(0.15 * 120)

    def meetings(sample):
        fires = sample.z > 0
        return sum((fires[:, a] & fires[:, b]).int() for a, b in pairs)

    train, test = world.sample(5000, 0), world.but(pairs="held-out").sample(5000, 0)
    assert len(train) == len(test) == 5000
    assert meetings(train).sum() == 0 and (meetings(test) >= 1).all()
    assert (train.z > 0).sum(1).eq(3).all() and (test.z > 0).sum(1).eq(3).all()
    assert torch.equal(world.atoms, world.but(pairs="held-out").atoms)
    free = [p for p in map(tuple, np.stack(np.triu_indices(16, 1), 1)) if p not in set(map(tuple, pairs))]
    assert all(((train.z[:, a] > 0) & (train.z[:, b] > 0)).any() for a, b in free)
    both = meetings(world.but(pairs="all").sample(5000, 0))
    assert 0 < (both > 0).double().mean() < 1


def test_a_split_world_fits_without_the_banned_pairs_and_tests_on_them():
    world = SparseWorld(pairs="split")
    assert torch.equal(world.sample(100, 0).z, world.but(pairs="train").sample(100, 0).z)
    assert world.held_out == world.but(pairs="held-out")
    assert SparseWorld().held_out == SparseWorld() and world.held_out.held_out == world.held_out


def test_a_study_tests_a_split_world_on_the_banned_pairs():
    from unmix.study.cells import Cell, split

    world = SparseWorld(pairs="split", latents=16, width=8, active=3)
    part = split(Cell(world=world, finder="PCA", samples=200, test=100))
    assert supports.meets(part.z.numpy() > 0, world.banned_pairs).all()


def test_pairs_of_a_latent_and_its_ancestor_are_never_banned():
    world = SparseWorld(latents=14, width=8, roots=2, branching=2, rates=0.45, banned=1.0, pairs="train")
    parents = world.parents.numpy()
    pairs = set(map(tuple, world.banned_pairs))
    assert not any((min(c, p), max(c, p)) in pairs for c, p in enumerate(parents) if p >= 0)
    assert (0, 6) not in pairs and (0, 1) in pairs
    fires = world.sample(500, 0).z > 0
    assert (fires & (fires.sum(1, keepdim=True) > 1)).any()  # only chains from a root down are left


def test_rows_that_hardly_ever_come_are_a_failure():
    world = SparseWorld(latents=64, width=8, active=40, banned=1.0, pairs="train")
    with pytest.raises(Failure, match="fewer than 1 row in 10,000"):
        world.sample(10, 0)


@pytest.mark.parametrize("target", [0.85, 0.95])
def test_coherence_is_reached(target):
    atoms = SparseWorld(latents=12, width=8, dictionary="coherent", coherence=target).atoms.double()
    cosines = (atoms @ atoms.T).abs().fill_diagonal_(0)
    assert cosines.max().item() == pytest.approx(target, abs=1e-5)


def test_atoms_of_a_hierarchy_lean_on_their_parents():
    world = SparseWorld(latents=20, width=40, roots=4, branching=2, dictionary="hierarchical", similarity=0.6)
    atoms, parents = world.atoms, world.parents
    children = (parents >= 0).nonzero().squeeze(1)
    cosines = (atoms[children] * atoms[parents[children]]).sum(1)
    assert torch.allclose(cosines, torch.full_like(cosines, 0.6), atol=1e-5)


@pytest.mark.parametrize(("amplitudes", "mean"), [("lognormal", np.exp(0.125)), ("bounded", 1.0)])
def test_further_amplitudes_have_their_mean(amplitudes, mean):
    z = SparseWorld(amplitudes=amplitudes).sample(8000, 0).z
    values = z[z > 0]
    assert values.mean().item() == pytest.approx(mean, abs=5 * values.std().item() / len(values) ** 0.5)
    if amplitudes == "bounded":
        assert values.min() >= 0.5 and values.max() <= 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": 1.2}, "rates must lie in"),
        ({"rates": 0.5, "zipf": 2.0}, "rates must lie in"),
        ({"rates": (0.1, 0.2)}, "rates has 2 entries, latents=16"),
        ({"dictionary": "coherent", "coherence": 0.3}, "coherence=0.3: 16 Gaussian atoms of width 8"),
        ({"dictionary": "hierarchical"}, "needs roots"),
        ({"exclusive": True}, "needs roots"),
        ({"roots": 17}, "roots=17 must be at most latents=16"),
        ({"roots": 2, "branching": 4, "exclusive": True, "active": 7}, "at most 5 latents fire together"),
        ({"roots": 2, "branching": 4, "exclusive": True, "rates": 0.3}, "sum to 1.2, more than 1"),
        ({"pairs": "train", "banned": 0.0}, "banned=0.0 of them is none"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        SparseWorld(**options)


def test_sampling_does_not_depend_on_how_many_rows_are_asked_for_at_once_in_its_law():
    world = SparseWorld(latents=12, width=6, rates=0.3)
    assert len(world.sample(0, 0)) == 0
    assert world.sample(1, 0).z.shape == (1, 12)
