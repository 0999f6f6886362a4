"""The l1 problem against scikit-learn, its optimality conditions and its own certificate."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.kernels.lasso import certificate, lasso

BACKENDS = ["torch", "numba"]


def problem(n, d, m, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(m, d, generator=draw, dtype=torch.float64))
    return torch.randn(n, d, generator=draw, dtype=torch.float64).to(dtype), atoms.to(dtype)


def dense(result, m):
    return Codes(result.values, result.indices, m, result.pointers).dense()


def guess(result):
    return result.values, result.indices, result.pointers


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_objective_is_that_of_scikit_learn(backend, positive):
    h, atoms = problem(12, 16, 40)
    result = lasso(h, atoms, 0.3, positive=positive, tolerance=1e-10, max_iterations=20000, backend=backend)
    codes = dense(result, 40)
    assert result.gap.max() < 1e-9
    model = Lasso(0.3 / 16, positive=positive, fit_intercept=False, tol=1e-12, max_iter=100_000, random_state=0)
    for x, code, value in zip(h, codes, result.objective, strict=True):
        wanted = torch.from_numpy(model.fit(atoms.numpy().T, x.numpy()).coef_)
        best = (x - wanted @ atoms).square().sum() / 2 + 0.3 * wanted.abs().sum()
        torch.testing.assert_close(value, best, rtol=1e-9, atol=0)
        torch.testing.assert_close(code, wanted, rtol=0, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(0, 8),
    d=st.integers(1, 15),
    m=st.integers(1, 45),
    penalty=st.floats(0.05, 2.0),
    positive=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_problem_is_solved_to_its_certificate(n, d, m, penalty, positive, seed):
    h, atoms = problem(n, d, m, seed)
    found = []
    for backend in BACKENDS:
        result = lasso(h, atoms, penalty, positive=positive, tolerance=1e-7, max_iterations=50_000, backend=backend)
        codes = dense(result, m)
        assert (result.gap <= 1e-7).all()
        objective, gap = certificate(h, codes, atoms, torch.full((n,), penalty, dtype=h.dtype), positive)
        torch.testing.assert_close(objective, result.objective, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gap, result.gap, rtol=1e-3, atol=1e-10)
        assert not positive or (codes >= 0).all()
        for row in range(n):
            own = result.indices[result.pointers[row] : result.pointers[row + 1]]
            assert (own.diff() > 0).all()
        found.append(result.objective)
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_optimality_conditions_hold_row_by_row(backend):
    h, atoms = problem(15, 20, 40, 1)
    atoms = atoms * torch.linspace(0.3, 3, 40, dtype=h.dtype)[:, None]
    penalty = torch.linspace(0.05, 1.5, 15, dtype=h.dtype)
    result = lasso(h, atoms, penalty, tolerance=1e-12, max_iterations=100_000, backend=backend)
    codes = dense(result, 40)
    slope = (h - codes @ atoms) @ atoms.T - penalty[:, None]
    assert slope.max() < 1e-4
    assert slope[codes > 1e-3].abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_rows_zero_atoms_copies_and_large_penalties(backend, dtype):
    h, atoms = problem(6, 8, 20, 2, dtype)
    atoms[3], atoms[5], h[1] = 0, atoms[6], 0
    for positive in (True, False):
        result = lasso(h, atoms, 0.2, positive=positive, tolerance=1e-5, backend=backend)
        codes = dense(result, 20)
        assert result.gap.max() <= 1e-5
        assert (codes[:, 3] == 0).all()
        assert (codes[1] == 0).all()
        assert (codes[0] != 0).any()
    largest = (h @ atoms.T).abs().amax(1).double()
    empty = lasso(h, atoms, largest + 1e-3, positive=False, backend=backend)
    assert len(empty.values) == 0
    assert empty.pointers.tolist() == [0] * 7
    assert empty.gap.max() < 1e-5
    none = lasso(h[:0], atoms, 0.2, backend=backend)
    assert none.pointers.tolist() == [0]
    assert none.gap.shape == (0,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_warm_start_is_used_and_does_not_move_the_result(backend):
    h, atoms = problem(10, 16, 40, 3)
    cold = lasso(h, atoms, 0.3, tolerance=1e-7, max_iterations=20_000, backend=backend)
    again = lasso(h, atoms, 0.3, tolerance=1e-7, start=guess(cold), backend=backend)
    assert again.iterations.double().mean() <= 1 < cold.iterations.double().mean()
    nearby = lasso(h, atoms, 0.32, tolerance=1e-7, max_iterations=20_000, backend=backend)
    warm = lasso(h, atoms, 0.3, tolerance=1e-7, max_iterations=20_000, start=guess(nearby), backend=backend)
    assert warm.flops.sum() < cold.flops.sum()
    torch.testing.assert_close(warm.objective, cold.objective, rtol=1e-6, atol=0)
    wrong = lasso(-h, atoms, 0.3, tolerance=1e-7, max_iterations=20_000, backend=backend)
    torch.testing.assert_close(
        lasso(h, atoms, 0.3, tolerance=1e-7, max_iterations=20_000, start=guess(wrong), backend=backend).objective,
        cold.objective,
        rtol=1e-6,
        atol=0,
    )


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize(("d", "m"), [(12, 7), (10, 30), (3, 70)])
def test_every_method_solves_the_same_problem(d, m, positive):
    h, atoms = problem(4, d, m, d)
    penalty = 0.4 * (h @ atoms.T).abs().amax(1)
    options = {"positive": positive, "tolerance": 1e-5, "max_iterations": 20_000}
    wanted = lasso(h, atoms, penalty, **options).objective
    for method, backend in (("coordinate", "torch"), ("fista", "auto"), ("ista", "auto"), ("lca", "auto")):
        result = lasso(h, atoms, penalty, method=method, backend=backend, **options)
        assert (result.gap <= 1e-5).all(), method
        torch.testing.assert_close(result.objective, wanted, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("method", ["coordinate", "fista", "ista", "lca"])
def test_more_atoms_than_a_gram_is_used_for_and_rows_that_finish_at_different_times(method):
    h, atoms = problem(30, 6, 40, 7)
    h = h * torch.linspace(0.1, 1.5, 30, dtype=h.dtype)[:, None]
    result = lasso(h, atoms, 0.6, method=method, tolerance=1e-4, max_iterations=20_000, backend="auto")
    assert (result.gap <= 1e-4).all()
    assert result.iterations.min() < result.iterations.max()
    objective, gap = certificate(h, dense(result, 40), atoms, torch.full((30,), 0.6, dtype=h.dtype), True)
    torch.testing.assert_close(objective, result.objective, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gap, result.gap, rtol=1e-3, atol=1e-10)
    # Rows that are done stop costing.
    assert result.flops[result.iterations.argmin()] < result.flops[result.iterations.argmax()]


def test_ties_and_many_violations_take_the_largest_first():
    atoms = torch.eye(200, dtype=torch.float64)
    h = torch.cat([torch.full((1, 200), 2.0), torch.arange(200.0)[None] / 100]).double()
    result = lasso(h, atoms, 1.0, tolerance=1e-12, backend="numba")
    torch.testing.assert_close(dense(result, 200), (h - 1).clamp_min(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_violation_within_rounding_of_the_penalty_ends(backend):
    h, atoms = problem(8, 6, 30, 11)
    penalty = (h @ atoms.T).amax(1)
    below = torch.nextafter(penalty, torch.zeros_like(penalty))
    result = lasso(h, atoms, below, tolerance=0.0, max_iterations=200, backend=backend)
    assert result.values.abs().sum() < 1e-12
    assert result.gap.max() < 1e-12


def test_a_budget_that_is_too_small_is_reported_by_the_gap():
    h, atoms = problem(10, 16, 50, 4)
    result = lasso(h, atoms, 0.01, tolerance=1e-9, max_iterations=3, backend="torch")
    assert (result.gap > 1e-9).all()
    assert (result.iterations == 3).all()


def test_a_given_gram_changes_nothing():
    h, atoms = problem(10, 16, 24, 5)
    for backend in BACKENDS:
        one, two = (lasso(h, atoms, 0.3, gram=g, tolerance=1e-6, backend=backend) for g in (None, atoms @ atoms.T))
        torch.testing.assert_close(one.objective, two.objective, rtol=1e-5, atol=0)


def test_wrong_options_are_refused_by_name():
    h, atoms = problem(3, 4, 6)
    with pytest.raises(UsageError, match="penalty"):
        lasso(h, atoms, -1.0)
    with pytest.raises(UsageError, match="penalty"):
        lasso(h, atoms, torch.ones(2))
    with pytest.raises(UsageError, match="gram"):
        lasso(h, atoms, 0.1, gram=atoms)
    with pytest.raises(UsageError, match="fista has no numba version"):
        lasso(h, atoms, 0.1, method="fista", backend="numba")
    with pytest.raises(UsageError, match="rate"):
        lasso(h, atoms, 0.1, method="lca", rate=1.5)
    with pytest.raises(UsageError, match="method"):
        lasso(h, atoms, 0.1, method="lars")
    with pytest.raises(UsageError, match="start"):
        lasso(h, atoms, 0.1, start=(torch.ones(1), torch.zeros(1, dtype=torch.int64), torch.zeros(2)))
