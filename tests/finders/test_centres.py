"""The geometric median, and the frame that rows are trained in."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import minimize

from unmix.core.rows import as_rows
from unmix.core.seeds import Stream
from unmix.finders.centres import frame, geometric_median


def test_it_has_the_least_sum_of_distances():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double().exp()

    def distance(y):
        return (x - torch.as_tensor(y)).norm(dim=1).sum().item()

    best = minimize(distance, x.mean(0).numpy(), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9})
    found = geometric_median(x, tolerance=1e-10)
    assert distance(found) <= best.fun + 1e-6
    assert torch.allclose(found, torch.as_tensor(best.x), atol=1e-4)


def test_far_rows_do_not_pull_it_away():
    x = torch.randn(101, 4, generator=torch.Generator().manual_seed(1))
    far = torch.cat([x, torch.full((20, 4), 1e6)])
    assert geometric_median(far).norm() < 2
    assert far.mean(0).norm() > 1e5


def test_a_row_can_be_the_median():
    cross = torch.tensor([[0.0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    assert geometric_median(cross).norm() < 1e-9
    heavy = torch.cat(
        [torch.tensor([[3.0, 1.0]]).repeat(10, 1), torch.randn(9, 2, generator=torch.Generator().manual_seed(2))]
    )
    assert torch.allclose(geometric_median(heavy), torch.tensor([3.0, 1.0]).double(), atol=1e-3)
    assert torch.equal(geometric_median(torch.ones(4, 2)), torch.ones(2).double())


def test_frames(sample):
    rows = as_rows(sample.x * 3 + 5)
    mean, scale = frame(rows, Stream(0))
    assert torch.allclose(mean, rows.array.mean(0), atol=1e-4)
    assert scale == pytest.approx((rows.array - mean).square().mean().sqrt().item(), rel=1e-5)
    origin, size = frame(rows, Stream(0), "none")
    assert (origin == 0).all() and size == pytest.approx(rows.array.square().mean().sqrt().item(), rel=1e-5)
    assert frame(rows, Stream(0), "median", scaled=False)[1] == 1
    median = frame(rows, Stream(0), "median")[0]
    assert torch.allclose(median.double(), geometric_median(rows.array), atol=1e-4)
