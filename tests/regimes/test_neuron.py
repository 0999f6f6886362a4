"""The one-neuron closed form against an integrator, its table of reference values, basins, saddles and limits."""

from __future__ import annotations

import numpy as np
import pytest

from unmix.core.errors import UsageError
from unmix.regimes.exact import neuron, simulate

TABLE = {  # delta: least mu, phi(1), phi(5), S(1), S(5), S(end); beta0 = (-1, 0), beta* = (0, 1), unit rates
    -4: (0.07122, 0.06593, 0.16936, 0.00548, 0.02840, 0.894721),
    -2: (0.23477, 0.20411, 0.75791, 0.04325, 0.44141, 0.713256),
    -1: (0.42658, 0.41639, 0.98672, 0.11700, 0.47773, 0.486446),
    0: (0.59393, 0.76159, 0.99991, 0.11601, 0.19996, 0.200000),
    1: (0.66465, 0.95601, 1.0000, 0.03860, 0.05014, 0.050140),
    2: (0.68828, 0.99386, 1.0000, 0.01092, 0.01241, 0.012407),
    4: (0.70112, 0.99988, 1.0000, 0.00143, 0.00147, 0.001469),
}


def cases(number: int):
    draw = np.random.default_rng(1)
    for case in range(number):
        d = int(draw.integers(1 if case % 5 else 2, 7))  # in one dimension zero balance is the separatrix
        w, target = draw.standard_normal(d), draw.standard_normal(d)
        rates = tuple(draw.uniform(0.2, 3, 2)) if case % 2 else (1.0, 1.0)
        a = draw.standard_normal() * (0 if case % 20 == 7 else 1)
        if case % 20 == 11:
            w = np.zeros(d)
        if case % 5 == 0:  # zero balance, exactly as far as floats go
            a = np.sign(a) * np.sqrt(rates[0] / rates[1]) * np.linalg.norm(w)
        yield a, w, target, rates


def test_closed_form_is_the_flow_for_every_balance_rate_and_sign():
    times = np.linspace(0, 10, 9)
    errors, drifts = [], []
    for a, w, target, rates in cases(200):
        exact = neuron.flow(times, a, w, target, rates)
        a_t, w_t = simulate.simulate_neuron(times, a, w, target, rates)
        errors.append(max(np.abs(exact.a - a_t).max(), np.abs(exact.w - w_t).max()))
        scale = 1 + np.abs(neuron.balance(a, w, rates))
        drifts.append(np.abs(exact.delta - neuron.balance(a, w, rates)).max() / scale)
    assert max(errors) < 1e-8
    assert np.median(errors) < 1e-10
    assert max(drifts) < 1e-11


def test_reference_table_to_five_decimals():
    deltas = np.array(list(TABLE), float)
    a0, w0 = neuron.initial(np.array([-1.0, 0.0]), deltas)
    target = np.array([0.0, 1.0])
    start = neuron.flow(0.0, a0, w0, target)
    at = neuron.flow(np.array([[1.0], [5.0]]), a0, w0, target)
    fine = neuron.flow(np.linspace(0, 10, 50001)[:, None], a0, w0, target)
    distance = neuron.kernel_distance(start, at)
    end = neuron.kernel_distance(start, neuron.limit(a0, w0, target))
    found, table = np.stack([*at.phi, *distance, end], axis=1), np.array(list(TABLE.values()))
    assert np.abs(found - table[:, 1:]).max() < 6e-6
    # The published least mu was read off a coarser grid of times, hence from above; at the least, mu = s phi.
    least = fine.mu.min(0)
    assert (least < table[:, 0] + 6e-6).all() and (least > table[:, 0] - 1e-4).all()
    assert np.allclose(np.take_along_axis(fine.phi, fine.mu.argmin(0)[None], 0)[0], least, atol=1e-3)


def test_delayed_rich_times_grow_with_the_balance():
    phi0 = 0.141
    start = np.array([np.sqrt(1 - phi0**2), phi0])
    deltas = np.array([-10.0, -20, -40, -80])
    a0, w0 = neuron.initial(start, deltas)
    found = neuron.alignment_time(0.9, a0, w0, np.array([0.0, 1.0])) / -deltas
    assert np.allclose(found, [2.642, 2.666, 2.672, 2.674], atol=6e-4)
    assert neuron.delayed_time(0.9, phi0, 1.0, 1.0) == pytest.approx(2.674, abs=5e-4)
    assert abs(found[2] / 2.674 - 1) < 0.01
    at = neuron.flow(found * -deltas, a0, w0, np.array([0.0, 1.0]))
    assert np.allclose(at.phi, 0.9, atol=1e-9)


def test_separatrix_parts_the_basins():
    target, a0, delta = np.array([1.0, 0.25]), 0.5, -2.0
    s = np.linalg.norm(target)
    b, across = target / s, np.array([-0.25, 1.0]) / s
    along = neuron.separatrix(a0, delta, target) + np.array([1e-6, -1e-6])
    w0 = along[:, None] * b + np.sqrt(a0**2 - delta - along**2)[:, None] * across
    assert np.allclose(neuron.balance(a0, w0), delta)
    at = neuron.flow(np.array([[20.0], [40.0]]), a0, w0, target)
    assert np.allclose(at.a, [[0.0021, -0.0021], [0.6595, -0.6595]], atol=6e-5)
    assert neuron.basin(a0, w0, target).tolist() == [1, -1]


def test_saddles_stay_and_the_separatrix_ends_in_one():
    target = np.array([2.0, 0.0])
    times = np.array([0.0, 1.0, 1e3, 1e6])
    for a, w in ((0.0, [0.0, 1.3]), (0.0, [0.0, 0.0])):
        moved = neuron.flow(times, a, np.array(w), target)
        assert np.array_equal(moved.a, np.zeros(4))
        assert np.allclose(moved.w, w, atol=1e-14)
        assert neuron.basin(a, np.array(w), target) == 0
    balanced = neuron.flow(times, 1.0, np.array([-1.0, 0.0]), target)
    assert np.allclose(balanced.a[2:], 0) and np.isfinite(balanced.w).all()


def test_extreme_balances_and_times_stay_finite_and_reach_the_limit():
    target = np.array([0.3, -0.8])
    deltas = np.array([-1e3, -1.0, 0.0, 1.0, 1e3])
    a0, w0 = neuron.initial(np.array([-0.5, 0.2]), deltas, sign=-1)
    moved = neuron.flow(1e5, a0, w0, target)
    end = neuron.limit(a0, w0, target)
    assert np.allclose(moved.a, end.a, rtol=1e-9) and np.allclose(moved.w, end.w, atol=1e-9)
    assert np.allclose(end.beta, target)
    assert np.allclose(moved.delta, deltas, rtol=1e-12, atol=1e-12)
    assert np.allclose(moved.kappa, np.sqrt(deltas**2 + 4 * target @ target))


def test_a_target_of_zero_forgets_the_function():
    for a, w in ((1.0, 0.5), (0.5, 1.0), (-1.0, 1.0)):
        times = np.linspace(0, 3, 5)
        exact = neuron.flow(times, a, np.array([w, 0.0]), np.zeros(2))
        a_t, w_t = simulate.simulate_neuron(times, a, np.array([w, 0.0]), np.zeros(2))
        assert np.allclose(exact.a, a_t, atol=1e-10) and np.allclose(exact.w, w_t, atol=1e-10)
        end = neuron.limit(a, np.array([w, 0.0]), np.zeros(2))
        assert np.allclose(end.beta, 0)
        assert end.delta == pytest.approx(a * a - w * w)


def test_function_moves_by_the_metric_and_size_and_angle_by_their_equations():
    a, w, target, rates = 0.7, np.array([0.4, -0.9, 0.2]), np.array([1.0, 0.5, -0.3]), (0.6, 1.7)
    times, h = np.array([0.5, 1.5]), 1e-5
    before, at, after = (neuron.flow(times + shift, a, w, target, rates) for shift in (-h, 0, h))
    s = np.linalg.norm(target)
    moved = (after.beta - before.beta) / (2 * h)
    left = target - at.beta
    assert np.allclose(moved, np.einsum("tij,tj->ti", neuron.metric(at), left), atol=1e-8)
    assert np.allclose((after.mu - before.mu) / (2 * h), at.kappa * (s * at.phi - at.mu), atol=1e-8)
    turn = 2 * rates[0] * rates[1] * at.mu * s / (at.kappa - at.delta) * (1 - at.phi**2)
    assert np.allclose((after.phi - before.phi) / (2 * h), turn, atol=1e-8)
    x = np.random.default_rng(0).standard_normal((5, 3))
    K = neuron.tangent_kernel(at, x)
    S = 1 - (K[0] * K[1]).sum() / np.linalg.norm(K[0]) / np.linalg.norm(K[1])
    first, second = (neuron.Trajectory(at.a[i], at.w[i], at.phi[i], rates) for i in (0, 1))
    assert neuron.kernel_distance(first, second, x.T @ x) == pytest.approx(S, abs=1e-12)


def test_rates_are_a_change_of_units():
    a, w, target, rates = -0.4, np.array([0.3, 0.8]), np.array([0.5, -1.0]), (0.3, 2.5)
    times = np.linspace(0, 4, 7)
    given = neuron.flow(times, a, w, target, rates)
    product = rates[0] * rates[1]
    unit = neuron.flow(product * times, a / np.sqrt(rates[0]), w / np.sqrt(rates[1]), target / np.sqrt(product))
    assert np.allclose(given.a, unit.a * np.sqrt(rates[0]), atol=1e-13)
    assert np.allclose(given.w, unit.w * np.sqrt(rates[1]), atol=1e-13)


def test_rescaling_reaches_the_balance_and_keeps_the_function():
    a, w = np.array([0.2, -3.0, 1.0]), np.array([[1.0, 2.0], [0.1, 0.0], [5.0, -4.0]])
    for delta in (-1e6, -2.0, 0.0, 0.5, 1e6):
        r = neuron.rescale(a, w, delta, (0.5, 2.0))
        moved = neuron.balance(a * r, w / r[:, None], (0.5, 2.0))
        assert np.allclose(moved, delta, rtol=1e-9, atol=1e-9)
    with pytest.raises(UsageError, match="zero cannot reach"):
        neuron.rescale(0.0, np.ones(2), 1.0)


def test_bad_input_gets_a_sentence():
    target = np.array([1.0, 0.0])
    with pytest.raises(UsageError, match="must be finite and at least 0"):
        neuron.flow(-1.0, 1.0, target, target)
    with pytest.raises(UsageError, match="same number of dimensions"):
        neuron.flow(1.0, 1.0, np.ones(3), target)
    with pytest.raises(UsageError, match="finite numbers"):
        neuron.flow(1.0, np.nan, target, target)
    with pytest.raises(UsageError, match="both must be positive"):
        neuron.flow(1.0, 1.0, target, target, (0.0, 1.0))
    with pytest.raises(UsageError, match="direction of w open"):
        neuron.initial(np.zeros(2), -1.0)
    with pytest.raises(UsageError, match="between 0 and 1"):
        neuron.alignment_time(1.0, 1.0, target, target)
