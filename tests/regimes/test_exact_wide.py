"""Wide and deep linear networks: exact solutions, endpoints and conservation against integrated flow."""

from __future__ import annotations

import numpy as np
import pytest

from unmix.core.errors import Failure, UsageError
from unmix.regimes.exact import bias, neuron, piecewise, simulate, wide


@pytest.mark.parametrize(
    ("h", "d", "c", "balance"), [(2, 5, 3, 1.5), (4, 4, 6, -2.0), (1, 4, 1, -1.0), (3, 5, 2, 0.0), (2, 2, 4, 0.0)]
)
def test_balanced_networks_follow_the_exact_solution(h, d, c, balance):
    first, second = wide.balanced_start(h, d, c, balance, scale=0.7, rng=3)
    assert np.allclose(second.T @ second - first @ first.T, balance * np.eye(h), atol=1e-12)
    target = np.random.default_rng(0).standard_normal((c, d))
    times = np.linspace(0, 4, 6)
    exact = wide.wide_flow(times, first, second, target)
    w1, w2 = simulate.simulate_layers(times, [first, second], np.eye(d), target.T, tolerance=1e-13)
    q = np.concatenate([np.swapaxes(w1, 1, 2), w2], axis=1)
    assert np.abs(exact - q @ np.swapaxes(q, 1, 2)).max() < 1e-9
    assert np.abs(wide.wide_function(times, first, second, target) - w2 @ w1).max() < 1e-9


def test_one_neuron_is_a_wide_network_of_one_unit_and_slow_modes_keep_their_digits():
    a, w, target = 0.3, np.array([0.5, -0.2]), np.array([0.4, 0.9])
    times = np.array([0.5, 3.0, 30.0])
    narrow = wide.wide_function(times, w[None], np.array([[a]]), target[None])[:, 0]
    assert np.allclose(narrow, neuron.flow(times, a, w, target).beta, atol=1e-12)
    start = 1e-3 * np.eye(2)
    found = wide.wide_function(np.array([20.0]), start, start, np.diag([6.0, 0.3]))[0]
    alone = wide.mirror_flow(20.0, np.array([1e-6, 1e-6]), np.array([6.0, 0.3]), 0.0)
    assert np.allclose(found, np.diag(alone), rtol=1e-9)


def test_infeasible_isotropy_and_unbalanced_starts_are_refused():
    with pytest.raises(UsageError, match="positive needs hidden <= outputs, got 4 > 3"):
        wide.balanced_start(4, 5, 3, 1.0)
    with pytest.raises(UsageError, match="negative needs hidden <= inputs"):
        wide.balanced_start(4, 3, 5, -1.0)
    with pytest.raises(UsageError, match="not balanced"):
        wide.wide_flow(1.0, np.ones((2, 3)), np.eye(2), np.ones((2, 3)))
    first, second = wide.balanced_start(2, 3, 2, 1.0)
    with pytest.raises(UsageError, match="times"):
        wide.wide_flow(1e6, first, second, np.ones((2, 3)))


@pytest.mark.parametrize(("h", "d", "c", "balance"), [(3, 5, 3, 1.5), (4, 4, 6, -2.0), (5, 4, 3, 0.0)])
def test_layers_are_functions_of_the_network_under_isotropy(h, d, c, balance):
    first, second = wide.balanced_start(h, d, c, balance, rng=1)
    below, above = wide.layer_grams(second @ first, balance)
    assert np.allclose(below, first.T @ first, atol=1e-8)
    assert np.allclose(above, second @ second.T, atol=1e-8)


@pytest.mark.parametrize("delta", [-1.5, 0.0, 0.8])
def test_singular_values_follow_a_mirror_flow(delta):
    h = d = c = 3
    first, second = wide.balanced_start(h, d, c, delta, rng=2)
    target = np.random.default_rng(5).standard_normal((c, d))
    step = 1e-5
    moved = wide.wide_function(np.array([1 - step, 1.0, 1 + step]), first, second, target)
    values = np.linalg.svd(moved, compute_uv=False)
    rates = wide.singular_rates(moved[1], moved[1] - target, delta)
    assert np.allclose((values[2] - values[0]) / (2 * step), rates, atol=1e-7)
    if delta:
        curvature = np.diff(wide.mirror_potential(0.7 + np.array([-1e-3, 0, 1e-3]), delta), 2) / 1e-6
        assert curvature == pytest.approx(1 / np.sqrt(4 * 0.49 + delta**2), rel=1e-5)
    start, end = np.array([0.0, 0.2, -0.4]), np.array([1.0, 2.0, 0.5])
    at = wide.mirror_flow(0.4 + np.array([[-step], [0], [step]]), start, end, delta)
    assert np.allclose((at[2] - at[0]) / (2 * step), np.sqrt(delta**2 + 4 * at[1] ** 2) * (end - at[1]), atol=1e-7)
    assert np.allclose(wide.mirror_flow(0.0, start, end, delta), start)


@pytest.mark.parametrize("rates", [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("delta", [-2.0, 0.0, 1.5])
def test_endpoint_on_data_of_low_rank(delta, rates):
    draw = np.random.default_rng(4)
    x, y = draw.standard_normal((3, 6)), draw.standard_normal(3)
    a, w = neuron.initial(draw.standard_normal(6), delta, rates)
    _, w_t = path = simulate.simulate_neuron([0, 400.0], a, w, x.T @ y, rates, x.T @ x)
    end = path[0][-1] * w_t[-1]
    found = bias.endpoint(float(a), w, x, y, rates)
    assert np.abs(found - end).max() < 1e-8
    assert np.allclose(x @ found, y, atol=1e-10)


def test_endpoint_when_the_read_out_changes_its_sign():
    draw = np.random.default_rng(7)
    q = np.linalg.qr(draw.standard_normal((6, 3)))[0].T  # whitened rows: the basin is known in closed form
    for x in (q, np.diag([0.5, 1.0, 2.0]) @ q):
        flipped = 0
        for _ in range(12):
            y, w = draw.standard_normal(3), draw.standard_normal(6)
            a = 0.4 * np.sign(draw.standard_normal())
            w *= np.sqrt(2 + a * a) / np.linalg.norm(w)
            a_t, w_t = simulate.simulate_neuron([0, 1000.0], a, w, x.T @ y, gram=x.T @ x)
            flipped += int(a_t[-1] * a < 0)
            assert np.abs(bias.endpoint(a, w, x, y) - a_t[-1] * w_t[-1]).max() < 1e-8
        assert flipped >= 1
    with pytest.raises(Failure, match="separatrix"):
        bias.endpoint(0.0, np.array([0.0, 1.0, 0.0]), np.array([[1.0, 0, 0], [0, 1.0, 0]]), np.array([1.0, 0.0]))


def test_endpoint_minimises_the_potential():
    draw = np.random.default_rng(0)
    x, y, beta0 = draw.standard_normal((3, 4)), draw.standard_normal(3), draw.standard_normal(4)
    null = np.linalg.svd(x)[2][-1]
    for delta in (0.0, 0.7, 3.0):
        a, w = neuron.initial(beta0, delta)
        end = bias.endpoint(float(a), w, x, y)
        assert abs(null @ bias.potential_gradient(end, beta0, delta)) < 1e-10
        around = bias.potential(end + np.array([[-1e-3], [0], [1e-3]]) * null, beta0, delta)
        assert around[1] < min(around[0], around[2])


@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_deep_balanced_networks_end_at_the_minimum_of_their_potential(hidden):
    draw = np.random.default_rng(hidden)
    x, y, beta0 = draw.standard_normal((3, 5)), draw.standard_normal(3), draw.standard_normal(5)
    layers = simulate.rank_one_layers(beta0, [4] * hidden)
    path = simulate.simulate_layers([0, 250.0], layers, x, y[:, None], tolerance=1e-13)
    end = np.eye(5)
    for layer in path:
        end = layer[-1] @ end
    end = end[0]
    null = np.linalg.svd(x)[2][3:]
    assert np.abs(null @ bias.deep_gradient(end, beta0, hidden)).max() < 1e-8
    assert np.abs(bias.deep_endpoint(beta0, x, y, hidden) - end).max() < 1e-8


def test_layer_rates_are_conserved_in_deep_networks():
    draw = np.random.default_rng(3)
    layers = [0.5 * draw.standard_normal(s) for s in ((4, 5), (3, 4), (2, 3))]
    x, y, rates = draw.standard_normal((7, 5)), draw.standard_normal((7, 2)), [0.5, 1.0, 2.0]
    path = simulate.simulate_layers(np.linspace(0, 3, 5), layers, x, y, rates, tolerance=1e-13)
    for kept in simulate.layer_balances(path, rates):
        assert np.abs(kept - kept[0]).max() < 1e-10


def test_linear_flow_conserves_the_balance_of_one_neuron():
    a, w = simulate.simulate_neuron(np.linspace(0, 10, 11), 0.4, [1.0, -0.7], [0.5, 1.5], tolerance=1e-12)
    assert np.abs(np.diff(neuron.balance(a, w))).max() < 1e-10


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_piecewise_linear_units_conserve_their_balance_and_turn_as_said(slope):
    draw = np.random.default_rng(2)
    a, w = draw.standard_normal(6), draw.standard_normal((6, 4))
    x, y, rates = draw.standard_normal((20, 4)), draw.standard_normal(20), (0.7, 1.9)
    a_dot, w_dot = piecewise.flow_rates(a, w, x, y, rates, slope)
    change = 2 * rates[1] * a * a_dot - 2 * rates[0] * (w * w_dot).sum(1)
    assert np.abs(change).max() < 1e-13 * np.abs(a * a_dot).max() * 10
    mu_dot, b_dot = piecewise.spherical_rates(a, w, x, y, rates, slope)
    size = np.linalg.norm(w, axis=1)
    bhat = w / size[:, None]
    grown = (w_dot * bhat).sum(1)
    assert np.allclose(mu_dot, a_dot * size + a * grown)
    assert np.allclose(b_dot, (w_dot - grown[:, None] * bhat) / size[:, None])
    h, left = 0.01, (piecewise_output(a, w, x, slope) - y)
    g_a, g_w = -a_dot / rates[0], -w_dot / rates[1]
    after = neuron.balance(a - h * rates[0] * g_a, w - h * rates[1] * g_w, rates)
    law = h**2 * rates[0] * rates[1] * (rates[0] * g_a**2 - rates[1] * (g_w**2).sum(1))
    assert np.abs(after - neuron.balance(a, w, rates) - law).max() < 1e-12
    K = piecewise.two_layer_kernel(a, w, x, rates, slope)
    moved = piecewise_output(a + 1e-6 * a_dot, w + 1e-6 * w_dot, x, slope) - piecewise_output(a, w, x, slope)
    assert np.allclose(moved / 1e-6, -K @ left, rtol=1e-3, atol=1e-3)


def piecewise_output(a, w, x, slope):
    z = w @ x.T
    return a @ np.maximum(z, slope * z)
