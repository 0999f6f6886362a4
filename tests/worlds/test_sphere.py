"""Samplers on the sphere against exact moments, exact distribution functions and each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special, stats

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.worlds import sphere
from unmix.worlds.anisotropic import anisotropic, log_normaliser
from unmix.worlds.conditionals import Conditional


def draws(name="", seed=0):
    return Stream(seed, ("test sphere", name)).numpy()


def cosines(z, v):
    return np.einsum("ij,ij->i", z, v)


@pytest.mark.parametrize("d", [2, 3, 5, 50, 1000])
@pytest.mark.parametrize("k", [1e-3, 1.0, 10.0, 300.0, 1e4])
def test_vmf_has_unit_norm_and_the_exact_mean_cosine(d, k):
    n = 20_000 if d < 100 else 2000
    v = sphere.uniform(n, d, draws("means"))
    z = sphere.vmf(v, k, draws(f"{d} {k}"))
    assert np.abs((z * z).sum(1) - 1).max() < 1e-9
    t = cosines(z, v)
    assert abs(t.mean() - sphere.mean_cosine(d, k)) < 4.5 * t.std() / np.sqrt(n)


@pytest.mark.parametrize(("d", "k"), [(2, 0.5), (3, 10.0), (5, 50.0), (20, 3.0), (5, 1e4)])
def test_mean_cosine_is_the_ratio_of_bessel_functions(d, k):
    expected = special.ive(d / 2, k) / special.ive(d / 2 - 1, k)
    assert sphere.mean_cosine(d, k) == pytest.approx(expected, rel=1e-12)


def distribution(d, log):
    """Distribution function of the angle with density sin^{d-2} exp(log(angle)), by quadrature."""
    grid = np.linspace(0, np.pi, 200_001)
    with np.errstate(divide="ignore"):
        values = (d - 2) * np.log(np.sin(grid)) + log(grid) if d > 2 else log(grid)
    total = integrate.cumulative_trapezoid(np.exp(values - values[np.isfinite(values)].max()), grid, initial=0)
    return lambda angle: np.interp(angle, grid, total / total[-1])


@pytest.mark.parametrize(("d", "k"), [(2, 2.0), (3, 1e-3), (5, 10.0), (5, 1e3), (100, 40.0)])
def test_cosines_of_vmf_follow_their_exact_distribution(d, k):
    v = sphere.uniform(20_000, d, draws("means"))
    angles = np.arccos(np.clip(cosines(sphere.vmf(v, k, draws("ks")), v), -1, 1))
    assert stats.kstest(angles, distribution(d, lambda a: k * (np.cos(a) - 1))).pvalue > 1e-3


@pytest.mark.parametrize(("d", "rate", "power"), [(2, 3.0, 1.0), (5, 10.0, 1.0), (5, 2.0, 1.5), (20, 200.0, 2.0)])
@pytest.mark.parametrize("cap", [None, 0.4])
def test_angles_by_distance_follow_their_exact_distribution(d, rate, power, cap):
    v = sphere.uniform(20_000, d, draws("means"))
    z = sphere.by_distance(v, rate, power, draws("by distance"), cap)
    angles = np.arccos(np.clip(cosines(z, v), -1, 1))
    assert cap is None or angles.max() <= cap + 1e-7
    exact = distribution(d, lambda a: -rate * (2 * np.sin(a / 2)) ** power)
    whole = exact(cap) if cap else 1.0
    assert stats.kstest(angles, lambda a: np.minimum(exact(a) / whole, 1)).pvalue > 1e-3


def test_directions_around_the_mean_are_uniform():
    v = np.tile(np.eye(4)[0], (20_000, 1))
    rest = sphere.vmf(v, 5.0, draws("tangent"))[:, 1:]
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    assert np.abs(rest.mean(0)).max() < 5 / np.sqrt(3 * len(rest))
    assert np.abs(rest.T @ rest / len(rest) - np.eye(3) / 3).max() < 0.02


@pytest.mark.parametrize(
    ("d", "k", "ratio"), [(2, 1.0, 3.0), (3, 10.0, 4.0), (5, 0.1, 4.0), (5, 100.0, 9.0), (20, 10.0, 4.0)]
)
def test_the_anisotropic_normaliser_is_the_integral_over_the_sphere(d, k, ratio):
    rates = Conditional("anisotropic", concentration=k, anisotropy=ratio).rates(d)
    v = sphere.uniform(1, d, draws("one"))
    n, low = 100_000, 2 * rates.min()
    z = sphere.vmf(np.repeat(v, n, 0), low, draws("importance"))
    weight = np.exp(-((rates - rates.min()) * (z - v) ** 2).sum(1))
    base = d / 2 * np.log(2 * np.pi) + np.log(special.ive(d / 2 - 1, low)) - (d / 2 - 1) * np.log(low)
    estimate, error = base + np.log(weight.mean()), weight.std() / weight.mean() / np.sqrt(n)
    assert abs(log_normaliser(v, rates)[0] - estimate) < 5 * error


def test_anisotropic_draws_have_the_moments_of_weighted_vmf_draws_and_reduce_to_vmf():
    d, n = 4, 60_000
    rates = Conditional("anisotropic", concentration=12.0, anisotropy=6.0).rates(d)
    v = sphere.uniform(1, d, draws("one"))
    z = anisotropic(np.repeat(v, n, 0), rates, draws("anisotropic"))
    other = sphere.vmf(np.repeat(v, n, 0), 2 * rates.min(), draws("importance"))
    weight = np.exp(-((rates - rates.min()) * (other - v) ** 2).sum(1))
    weight /= weight.sum()
    assert np.abs((z * z).sum(1) - 1).max() < 1e-12
    assert np.abs(z.mean(0) - weight @ other).max() < 0.01
    assert np.abs(np.cov(z.T) - np.cov(other.T, aweights=weight)).max() < 0.006
    same = anisotropic(np.repeat(v, n, 0), np.full(d, 3.0), draws("isotropic"))
    t = same @ v[0]
    assert abs(t.mean() - sphere.mean_cosine(d, 6.0)) < 4.5 * t.std() / np.sqrt(n)


@pytest.mark.parametrize("name", ["normal", "laplace", "generalised-normal"])
def test_noise_in_flat_space_has_its_variance_and_its_tails(name):
    scatter = Conditional(name, "euclidean", 3.0, shape=1.4)
    e = scatter.sample(np.zeros((50_000, 2)), draws("flat"))
    assert e.var() == pytest.approx(scatter.variance, rel=0.03)
    law = stats.gennorm(scatter.power, scale=scatter.rate ** (-1 / scatter.power))
    assert stats.kstest(e.ravel()[:20_000], law.cdf).pvalue > 1e-3
    boxed = Conditional(name, "box", 3.0, shape=1.4).sample(np.full((20_000, 1), 0.7), draws("box"))[:, 0]
    inside = law.cdf(0.3) - law.cdf(-1.7)
    assert np.abs(boxed).max() <= 1
    assert stats.kstest(boxed, lambda z: (law.cdf(z - 0.7) - law.cdf(-1.7)) / inside).pvalue > 1e-3


def test_wrong_arguments_are_named():
    with pytest.raises(UsageError, match="d at least 2"):
        sphere.vmf(np.ones((3, 1)), 1.0, draws())
    with pytest.raises(UsageError, match="concentration=0"):
        sphere.vmf(np.ones((3, 2)), 0.0, draws())
    with pytest.raises(UsageError, match="conditional=normal with space=sphere"):
        Conditional("normal")
    with pytest.raises(UsageError, match=r"cap=1\.0: only for"):
        Conditional("anisotropic", cap=1.0)
