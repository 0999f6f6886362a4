"""The closed forms against their tables and against quadrature, and gradients where formulas break."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special

from unmix.learners import vae_losses as losses

TABLE = [(0, 1, 1, 0.0720932), (0.3, 0.7, 6, 1.4933693), (-2, 0.2, 6, 11.0918871), (0, 0.05, 6, 0.7175468)]
TABLE += [(5, 3, 0.5, 1.4282232)]


def one(value):
    return torch.tensor([[float(value)]], dtype=torch.float64)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("mean", "deviation", "rate", "expected"), TABLE)
def test_kl_of_a_normal_and_a_laplace_law(mean, deviation, rate, expected):
    found = losses.laplace_kl(one(mean), one(2 * math.log(deviation)), one(0), rate)
    assert found.item() == pytest.approx(expected, abs=1e-7)
    single = losses.laplace_kl(one(mean).float(), one(2 * math.log(deviation)).float(), one(0).float(), rate)
    assert single.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("rate", [0.3, 1, 6, 50])
def test_its_least_value_is_the_same_for_every_rate(rate):
    logvar = 2 * torch.log(torch.linspace(0.5, 2, 200_001, dtype=torch.float64) * math.sqrt(math.pi / 2) / rate)
    found = losses.laplace_kl(torch.zeros_like(logvar), logvar, torch.zeros_like(logvar), rate)
    assert found.min().item() == pytest.approx(0.0484173, abs=1e-7)
    assert found.min().item() == pytest.approx(0.5 + math.log(2 / math.pi), abs=1e-9)
    assert logvar[found.argmin()].mul(0.5).exp().item() == pytest.approx(math.sqrt(math.pi / 2) / rate, rel=1e-4)


def test_normal_kl_is_torchs():
    mean, logvar = drawn(20, 3), drawn(20, 3, seed=1)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (logvar / 2).exp()), normal(0.0, 1.0))
    assert torch.allclose(losses.normal_kl(mean, logvar), expected, atol=1e-12)


def test_the_two_sided_expectation_is_that_of_the_draws():
    mean, before = torch.tensor([[0.4]]), torch.tensor([[-0.2]])
    logvar, other = torch.tensor([[-1.0]]), torch.tensor([[0.3]])
    rate = 3.0
    z = before + (other / 2).exp() * drawn(400_000, 1).float()
    expected = losses.laplace_kl(mean.expand_as(z), logvar.expand_as(z), z, rate).mean()
    exact = losses.laplace_kl(mean, logvar, before, rate, other)
    assert exact.item() == pytest.approx(expected.item(), abs=0.01)
    assert losses.laplace_kl(mean, logvar, before, rate).item() < exact.item() - 0.2


@pytest.mark.parametrize("power", [0.3, 0.5, 1.0, 1.5, 2.0])
def test_moments_by_quadrature_are_kummers(power):
    r = np.array([0, 0.1, 0.7, 2, 5, 8.9, 9.1, 20, 29.9, 30.1, 100])
    s = np.array([0.02, 0.5, 1, 3, 1, 0.1, 1, 2, 1, 1, 0.3])
    half = special.hyp1f1(-power / 2, 0.5, -(np.minimum(r, 30) ** 2) / 2)
    expected = s**power * 2 ** (power / 2) * special.gamma((1 + power) / 2) / math.sqrt(math.pi) * half
    near = r <= 29.9
    found = losses.absolute_moment(torch.from_numpy(r * s), torch.from_numpy(s), power).numpy()
    assert np.allclose(found[near], expected[near], rtol=1e-6)
    far = [
        integrate.quad(lambda e, r=r: abs(r + e) ** power * math.exp(-e * e / 2) / math.sqrt(2 * math.pi), -9, 9)[0]
        for r in (30.1, 100)
    ]
    assert np.allclose(found[~near] / s[~near] ** power, far, rtol=1e-7)
    if power == 1:
        assert np.allclose(found, losses.folded_mean(torch.from_numpy(r * s), torch.from_numpy(s)), rtol=1e-6)


@pytest.mark.parametrize("power", [0.5, 1.3])
def test_gradients_written_out_are_those_of_the_functions(power):
    mean = (drawn(6, 2) * 3).requires_grad_()
    deviation = (drawn(6, 2, seed=1).abs() + 0.2).requires_grad_()
    assert torch.autograd.gradcheck(losses.folded_mean, (mean, deviation))
    assert torch.autograd.gradcheck(lambda m, s: losses.absolute_moment(m, s, power), (mean, deviation), rtol=1e-3)


@pytest.mark.parametrize("shape", [1.0, 0.5])
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_stay_finite_at_extreme_variances(dtype, two_sided, shape):
    grid = torch.tensor([-200.0, -100, -60, -20, 0, 20, 60, 90, 150, 300])
    logvar = grid.repeat(4)[:, None].to(dtype).requires_grad_()
    mean = torch.tensor([0.0, 1e-3, 1.0, 30.0]).repeat_interleave(len(grid))[:, None].to(dtype).requires_grad_()
    other, spread = torch.zeros_like(mean), logvar.detach().flip(0).clone().requires_grad_()
    cost = losses.transition_cost(mean, logvar, other, spread, 6.0, two_sided=two_sided, shape=shape)
    cost = cost + losses.normal_kl(mean, logvar).sum(1)
    assert cost.dtype == torch.float32 and bool(torch.isfinite(cost).all())
    for row in cost:
        for gradient in torch.autograd.grad(row, (mean, logvar, spread), retain_graph=True):
            assert bool(torch.isfinite(gradient).all())


def test_the_official_loss_is_the_papers_at_twice_the_rate():
    parts = [drawn(30, 10, seed=seed).requires_grad_() for seed in range(4)]
    official = 10 * losses.transition_cost(*parts, 6.0, "official").mean()
    paper = 10 * losses.transition_cost(*parts, 12.0, "paper").mean()
    assert (official - paper).item() == pytest.approx(100 * (math.log(6) - 2 * math.log(3)), abs=1e-9)
    assert (official - paper).item() == pytest.approx(-40.5465, abs=1e-4)
    for one_way, other in zip(torch.autograd.grad(official, parts), torch.autograd.grad(paper, parts), strict=True):
        assert torch.allclose(one_way, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("convention", ["paper", "official"])
@pytest.mark.parametrize("two_sided", [False, True])
def test_the_cost_does_not_see_order_of_frames_order_of_codes_or_signs(convention, two_sided):
    a, va, b, vb = (drawn(50, 4, seed=seed) for seed in range(4))
    cost = losses.transition_cost(a, va, b, vb, 3.0, convention, two_sided)
    assert torch.allclose(cost, losses.transition_cost(b, vb, a, va, 3.0, convention, two_sided))
    order, sign = torch.tensor([2, 0, 3, 1]), torch.tensor([1.0, -1, -1, 1])
    turned = [a * sign, va, b * sign, vb]
    assert torch.allclose(cost, losses.transition_cost(*(t[:, order] for t in turned), 3.0, convention, two_sided))


def test_a_rotation_raises_the_cost_for_laplace_changes_and_not_for_gaussian_ones():
    draw = np.random.default_rng(0)
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / 2**0.5
    still = torch.full((100_000, 2), -8.0, dtype=torch.float64)
    rises = {}
    for name, change in (("laplace", draw.laplace(size=(100_000, 2))), ("gaussian", draw.normal(size=(100_000, 2)))):
        d = torch.from_numpy(change)
        cost = [losses.transition_cost(0 * d, still, d @ m, still, 1.0).mean() for m in (torch.eye(2).double(), turn)]
        size = [(c + 2 * losses.entropy(still).mean() - 2 * math.log(2)).item() for c in cost]
        rises[name] = size[1] / size[0] - 1
    assert rises["laplace"] == pytest.approx(0.061, abs=0.01)
    assert rises["gaussian"] == pytest.approx(0, abs=0.01)


def test_total_correlation_is_zero_for_independent_codes_and_positive_for_copies():
    z = drawn(1500, 2)
    still = torch.full_like(z, -4.0)
    noise = still.div(2).exp()
    free = losses.total_correlation(z + noise * drawn(1500, 2, seed=1), z, still)
    copied = z[:, :1].expand(-1, 2)
    tied = losses.total_correlation(copied + noise * drawn(1500, 2, seed=1), copied, still)
    assert abs(free.item()) < 0.25 and tied.item() > 1


def test_ada_gvae_shares_what_hardly_differs():
    mean, other = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[0.1, 1.0, -2.0]])
    logvar = torch.zeros(1, 3)
    a, va, b, _, shared = losses.adaptive_average(mean, logvar, other, logvar + 0.2)
    assert shared.tolist() == [[True, True, False]]
    assert torch.allclose(a, torch.tensor([[0.05, 1.0, 2.0]])) and torch.allclose(
        b, torch.tensor([[0.05, 1.0, -2.0]])
    )
    assert torch.allclose(va[0, 0].exp(), torch.tensor((1 + math.exp(0.2)) / 2))
