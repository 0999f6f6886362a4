"""Transitions: samplers against their exact tables, laws against their distributions, walks in time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.seeds import Stream, untouched
from unmix.worlds import MIXINGS, TRANSITIONS, WORLDS
from unmix.worlds.increments import Gaussian, GeneralisedLaplace, Laplace, Uniform, ZeroInflated
from unmix.worlds.motion import TransitionWorld
from unmix.worlds.transitions import LaplaceGrid, LocatelloPairs, UniformChange

SIZES = {
    "DSprites": ([3], [6, 40, 32, 32]),
    "Cars3D": ([183], [4, 24]),
    "SmallNORB": ([5, 10], [9, 18, 6]),
    "Shapes3D": ([4], [10, 10, 10, 8, 15]),
    "MPI3D": ([6], [6, 2, 3, 3, 40, 40]),
}


def grid(held, moving):
    return [
        *(Factor(f"c{i}", "categorical", n) for i, n in enumerate(held)),
        *(Factor(f"o{i}", "ordinal", n) for i, n in enumerate(moving)),
    ]


def starts(factors, n, seed=0):
    draw = Stream(seed, ("starts",)).numpy()
    return np.stack([draw.integers(f.size, size=n) for f in factors], 1)


def chi_square(found, table):
    """p-value of counts [n, n] of (now, next) against P(next | now), cells with few expected counts left out."""
    expected = table * found.sum(1, keepdims=True)
    assert (found[expected == 0] == 0).all()
    used = expected > 5
    statistic = ((found - expected)[used] ** 2 / expected[used]).sum()
    return stats.chi2.sf(statistic, used.sum() - len(table))


@pytest.mark.parametrize(("size", "stay"), [(32, 0.1643), (40, 0.1516), (24, 0.1839), (6, 0.3798), (4, 0.4985)])
def test_lap_stays_as_often_as_it_should(size, stay):
    matrix = LaplaceGrid().matrix(size)
    assert np.allclose(matrix.sum(1), 1)
    assert np.diag(matrix).mean() == pytest.approx(stay, abs=5e-5)


@pytest.mark.parametrize(("size", "kurtosis"), [(32, 2.66), (6, 1.03)])
def test_lap_has_the_kurtosis_of_a_truncated_laplace(size, kurtosis):
    change = np.arange(size)[None] - np.arange(size)[:, None]
    weight = LaplaceGrid().matrix(size) / size
    mean = (weight * change).sum()
    moments = [(weight * (change - mean) ** k).sum() for k in (2, 4)]
    assert moments[1] / moments[0] ** 2 - 3 == pytest.approx(kurtosis, abs=0.005)


@pytest.mark.parametrize(
    ("name", "unchanged", "changed"),
    [
        ("DSprites", 0.00155, 3.14),
        ("Cars3D", 0.0917, 1.41),
        ("SmallNORB", 0.0235, 2.14),
        ("Shapes3D", 0.00158, 3.62),
        ("MPI3D", 0.00263, 3.29),
    ],
)
def test_lap_on_the_published_grids(name, unchanged, changed):
    factors = grid(*SIZES[name])
    assert LaplaceGrid().unchanged(factors) == pytest.approx(unchanged, rel=0.005)
    expected = sum(1 - np.diag(table).mean() for table in LaplaceGrid().tables(factors))
    assert expected == pytest.approx(changed, abs=0.0051)


def test_held_factors_of_the_published_classes_give_the_published_law():
    held = {
        "DSprites": None,
        "Cars3D": None,
        "SmallNORB": ("category", "instance"),
        "Shapes3D": None,
        "MPI3D": ("shape",),
    }
    for name, names in held.items():
        factors = WORLDS[name].published
        same = grid(*SIZES[name])
        assert LaplaceGrid(held=names).unchanged(factors) == pytest.approx(LaplaceGrid().unchanged(same))


@pytest.mark.parametrize("law", [LaplaceGrid(), LaplaceGrid(rate=5), LaplaceGrid(rate=-1), LaplaceGrid(held=("o0",))])
def test_lap_follows_its_exact_tables(law):
    factors = grid([3], [4, 6, 2])
    now = starts(factors, 60000)
    after = law.step(now, factors, Stream(3).numpy())
    assert (after != now).any(1).all()
    for i, (factor, table) in enumerate(zip(factors, law.tables(factors), strict=True)):
        assert np.allclose(table.sum(1), 1)
        found = np.zeros_like(table)
        np.add.at(found, (now[:, i], after[:, i]), 1)
        held = factor.name in (law.held or ()) if law.held is not None else factor.kind == "categorical"
        if held:
            assert (now[:, i] == after[:, i]).all() and np.array_equal(table, np.eye(len(table)))
        else:
            assert chi_square(found, table) > 1e-3


def test_the_forced_change_picks_one_factor_and_never_the_same_value():
    factors = grid([3], [4, 2])
    law = LaplaceGrid(rate=60)
    now = starts(factors, 4000)
    after = law.step(now, factors, Stream(0).numpy())
    assert ((after != now).sum(1) == 1).mean() > 0.95
    moved = np.abs(after - now)[:, 1:]
    assert moved.max() == 1 and abs((moved[:, 0] > 0).mean() - 0.5) < 0.03


@pytest.mark.parametrize(
    "law", [UniformChange(), UniformChange(changed=2), LocatelloPairs(), LocatelloPairs(changed=3)]
)
def test_uniform_changes_follow_their_exact_tables(law):
    factors = grid([3], [4, 6, 2])
    now = starts(factors, 60000)
    kept = now.copy()
    after = law.step(now, factors, Stream(1).numpy())
    assert np.array_equal(now, kept)
    for i, table in enumerate(law.tables(factors)):
        found = np.zeros_like(table)
        np.add.at(found, (now[:, i], after[:, i]), 1)
        assert chi_square(found, table) > 1e-3


def test_how_many_factors_change():
    factors = grid([3], [6, 40, 32, 32])
    now = starts(factors, 40000)
    uni = (UniformChange().step(now, factors, Stream(0).numpy()) != now).sum(1)
    assert np.abs(np.bincount(uni, minlength=6)[1:5] / len(now) - 0.25).max() < 0.01
    assert set(uni) == {1, 2, 3, 4} and uni.mean() == pytest.approx(2.5, abs=0.03)
    three = (UniformChange(changed=3).step(now, factors, Stream(0).numpy()) != now).sum(1)
    assert (three == 3).all()
    pairs = (LocatelloPairs().step(now, factors, Stream(0).numpy()) != now).sum(1)
    assert 0 < (pairs == 0).mean() < 0.2 and (pairs == 1).mean() > 0.5


@pytest.mark.parametrize(
    ("law", "distribution"),
    [
        (Laplace(rate=4), stats.laplace(scale=0.25)),
        (GeneralisedLaplace(shape=0.5, rate=3), stats.gennorm(0.5, scale=1 / 3)),
        (GeneralisedLaplace(shape=4, rate=1), stats.gennorm(4, scale=1)),
        (Gaussian(scale=0.3), stats.norm(scale=0.3)),
        (Uniform(width=1.5), stats.uniform(-0.75, 1.5)),
    ],
)
def test_increments_have_their_distribution(law, distribution):
    factors = (Factor("a"), Factor("b"))
    now = np.zeros((4000, 2)) + 5
    steps = law.step(now, factors, Stream(0).numpy()) - now
    for column in steps.T:
        assert stats.kstest(column, distribution.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(np.abs(steps).T)[0, 1]) < 0.06


def test_zero_inflated_steps_stay_as_often_as_they_say():
    steps = ZeroInflated(move=0.3, rate=2).step(np.zeros((20000, 2)), (Factor("a"), Factor("b")), Stream(0).numpy())
    assert (steps == 0).mean() == pytest.approx(0.7, abs=0.01)
    assert stats.kstest(steps[steps != 0], stats.laplace(scale=0.5).cdf).pvalue > 1e-3


def test_a_range_truncates_the_law_and_an_angle_wraps():
    factors = (
        Factor("x", low=2.0, high=4.0),
        Factor("angle", "circular", None, 0.0, 2.0),
        Factor("c", "categorical", 3),
    )
    now = np.tile([2.5, 1.9, 2.0], (20000, 1))
    after = Laplace(rate=2).step(now, factors, Stream(0).numpy())
    assert after[:, 0].min() >= 2 and after[:, 0].max() <= 4 and (after[:, 2] == 2).all()
    law = stats.laplace(2.5, 1.0)  # range 2 / rate 2
    inside = law.cdf(4) - law.cdf(2)
    assert stats.kstest(after[:, 0], lambda v: (law.cdf(v) - law.cdf(2)) / inside).pvalue > 1e-3
    assert after[:, 1].min() >= 0 and after[:, 1].max() < 2 and (after[:, 1] < 0.5).mean() > 0.2


def test_walks_are_chains_whose_gaps_are_counted_in_time():
    factors = (Factor("a"), Factor("b"))
    walk, time = Gaussian(scale=1).walk(np.zeros((6000, 2)), factors, 4, Stream(0), gap=3)
    assert walk.shape == (6000, 4, 2) and time.shape == (6000, 4)
    apart = np.diff(time, axis=1)
    assert set(apart.ravel()) == {1, 2, 3} and (time[:, 0] == 0).all()
    steps = np.diff(walk, axis=1)
    for gap in (1, 2, 3):
        assert steps[apart == gap].std() == pytest.approx(gap**0.5, rel=0.03)
    again, _ = Gaussian(scale=1).walk(np.zeros((6000, 2)), factors, 4, Stream(0), gap=3)
    assert np.array_equal(walk, again)


def test_two_steps_on_a_grid_are_the_square_of_the_table():
    factors = [Factor("a", "ordinal", 5), Factor("b", "ordinal", 3)]
    walk, _ = UniformChange(changed=1).walk(starts(factors, 60000), factors, 3, Stream(0))
    table = UniformChange(changed=1).tables(factors)[0]
    found = np.zeros((5, 5))
    np.add.at(found, (walk[:, 0, 0], walk[:, 2, 0]), 1)
    assert chi_square(found, table @ table) > 1e-3


def test_impossible_laws_are_refused():
    with pytest.raises(UsageError, match="rate"):
        LaplaceGrid(rate=0)
    with pytest.raises(UsageError, match="changed"):
        UniformChange(changed=0)
    with pytest.raises(UsageError, match="only 2 factors"):
        UniformChange(changed=3).check(grid([2], [4, 1]))
    with pytest.raises(UsageError, match="no factor nothing"):
        LaplaceGrid(held=("nothing",)).check(grid([2], [4]))
    with pytest.raises(UsageError, match="held or have one value"):
        LaplaceGrid().check(grid([2, 3], []))
    with pytest.raises(UsageError, match="continuum"):
        LaplaceGrid().check([Factor("x")])
    with pytest.raises(UsageError, match="LaplaceGrid"):
        Laplace().check([Factor("x", "ordinal", 4)])
    assert set(TRANSITIONS) >= {"LaplaceGrid", "UniformChange", "LocatelloPairs", "Natural", "Laplace"}


@pytest.mark.parametrize("mixing", ["linear", "mlp"])
def test_transition_world_gives_aligned_pairs(mixing):
    world = TransitionWorld(latents=3, mixing=mixing, transition=Laplace(rate=2), length=3, width=5)
    sample = world.sample(300, 0)
    assert sample.x.shape == (300, 5) and sample.z.shape == (300, 3) and sample.x.dtype == torch.float32
    assert torch.equal(sample.group, torch.arange(100).repeat_interleave(3))
    assert torch.equal(sample.time, torch.arange(3).repeat(100))
    assert torch.allclose(sample.x, world.render(sample.z), atol=1e-5)
    assert not torch.equal(sample.x, world.but(seed=1).sample(300, 0).x)
    assert world.provides == sample.provides
    with pytest.raises(UsageError, match="multiple"):
        world.sample(301, 0)


def test_transition_world_mixes_invertibly_and_starts_as_said():
    world = TransitionWorld(latents=4, start="uniform", transition=Laplace(rate=1))
    sample = world.sample(2000, 0)
    assert sample.z.abs().max() <= 1
    weight = torch.linalg.lstsq(sample.z, sample.x).solution
    assert torch.linalg.cond(weight) <= 10.01
    assert torch.allclose(sample.z @ weight, sample.x, atol=1e-5)
    free = TransitionWorld(latents=4)
    assert free.sample(50, 0).group is None and free.provides == {"x", "z"}
    assert stats.kstest(free.sample(3000, 0).z[:, 0].numpy(), "norm").pvalue > 1e-3
    noisy = free.but(noise=0.5).sample(3000, 0)
    assert (noisy.x - free.sample(3000, 0).x).std() == pytest.approx(0.5, rel=0.05)


def test_ica_on_differences_finds_linear_mixing():
    with untouched():
        from sklearn.decomposition import FastICA

    world = TransitionWorld(latents=5, transition=Laplace(rate=2))
    sample = world.sample(20000, 0)
    step = (sample.x[1::2] - sample.x[::2]).numpy()
    found = FastICA(random_state=0, whiten="unit-variance").fit(step).transform(sample.x.numpy())
    correlation = np.abs(np.corrcoef(found.T, sample.z.numpy().T)[:5, 5:])
    assert correlation.max(0).min() > 0.999


def test_transition_world_refuses_what_it_cannot_do():
    with pytest.raises(UsageError, match="width"):
        TransitionWorld(latents=4, width=3)
    with pytest.raises(UsageError, match="continuum"):
        TransitionWorld(transition=LaplaceGrid())
    with pytest.raises(UsageError, match=r"z: must be \[n, 4\]"):
        TransitionWorld().render(torch.zeros(2, 3))


def test_any_mixing_of_the_table_fits():
    for name in MIXINGS:
        world = TransitionWorld(latents=3, mixing=name, transition=Laplace())
        sample = world.sample(100, 0)
        assert sample.x.shape[0] == 100 and torch.isfinite(sample.x).all()
        assert world.mixing.kind == name
    with pytest.raises(UsageError, match="no such mixing"):
        TransitionWorld(mixing="nothing")
