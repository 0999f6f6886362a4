"""The step to the minimum on a support: exact where it can be, never worse, safe where atoms depend on each other."""

from __future__ import annotations

import pytest
import torch

from unmix.kernels.lasso import certificate, lasso
from unmix.kernels.polish import polish

from .test_lasso import dense, problem


@pytest.mark.parametrize("positive", [True, False])
def test_codes_on_the_right_support_become_the_solution(positive):
    x, atoms = problem(20, 12, 30)
    best = dense(lasso(x, atoms, 0.1, positive=positive, tolerance=1e-13, max_iterations=20_000), 30)
    shares = 0.5 + torch.rand(best.shape, generator=torch.Generator().manual_seed(1), dtype=best.dtype)
    begun = best * shares
    given = begun.clone()
    found, cost = polish(x, begun, atoms, torch.full((20,), 0.1).double(), positive)
    torch.testing.assert_close(found, best, rtol=1e-6, atol=1e-6)
    assert torch.equal(begun, given) and (cost > 0).all()


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_objective_never_rises_and_no_code_changes_its_sign(positive, dtype):
    x, atoms = problem(40, 6, 25, 3, dtype)
    atoms[4], atoms[9], x[5] = atoms[3], 0, 0
    draw = torch.randn(40, 25, generator=torch.Generator().manual_seed(2), dtype=dtype)
    begun = (draw.clamp_min(0) if positive else draw) * (atoms.norm(dim=1) > 0)
    begun[7] = 0
    penalty = torch.full((40,), 0.1, dtype=torch.float64)
    found, cost = polish(x, begun, atoms, penalty, positive)
    before, after = (certificate(x, codes, atoms, penalty, positive)[0] for codes in (begun, found))
    slack = 1e-10 if dtype == torch.float64 else 1e-5
    assert (after <= before * (1 + slack)).all() and (after < 0.9 * before).double().mean() > 0.9
    assert found.isfinite().all() and (found * begun >= 0).all() and found[7].count_nonzero() == 0 == cost[7]


def test_rows_with_too_many_codes_stay_as_they_are():
    x, atoms = problem(3, 4, 80, 5)
    begun = torch.rand(3, 80, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    begun[1, 20:] = 0
    found, cost = polish(x, begun, atoms, torch.full((3,), 0.2).double(), True)
    assert torch.equal(found[[0, 2]], begun[[0, 2]]) and cost.tolist()[::2] == [0, 0]
    assert cost[1] > 0 and not torch.equal(found[1], begun[1])
