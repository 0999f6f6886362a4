"""Ceilings of linear-nonlinear encoders: the rank of their map and the best linear read-out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.scores.ceiling import linear_ceiling, linear_map
from unmix.worlds.sparse import SparseWorld


@pytest.mark.parametrize(("latents", "width"), [(16, 8), (32, 16)])
def test_the_map_of_any_encoder_has_the_rank_of_the_width(latents, width):
    world = SparseWorld(latents=latents, width=width)
    weight = torch.randn(latents, width, generator=torch.Generator().manual_seed(0))
    found = linear_map(weight, world.atoms)
    assert found.rank == width and len(found.singular) == latents
    assert found.singular[width] < 1e-6 * found.singular[0]
    best = linear_map(torch.linalg.pinv(world.atoms).T, world.atoms)
    assert (
        best.residual == pytest.approx(best.bound, abs=1e-5) == pytest.approx((latents - width) / latents, abs=1e-5)
    )
    assert found.residual > best.residual
    assert np.isnan(linear_map(weight[:5], world.atoms).residual)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("latents", "width", "active"), [(16, 8, 3), (64, 32, 3)])
def test_the_best_linear_read_out_explains_about_width_over_latents(latents, width, active, seed):
    world = SparseWorld(latents=latents, width=width, active=active, seed=seed)
    sample = world.sample(6000, 0)
    outcome = linear_ceiling(sample.x, sample.z)
    assert outcome.detail["ratio"] == width / latents == 0.5
    assert outcome.value == pytest.approx(0.5, abs=0.05)
    assert outcome.interval[0] < outcome.value < outcome.interval[1]


def test_with_as_many_dimensions_as_latents_nothing_is_lost():
    sample = SparseWorld(latents=12, width=12, active=3, dictionary="orthogonal").sample(2000, 0)
    assert linear_ceiling(sample.x, sample.z).value == pytest.approx(1, abs=1e-6)
    noise = torch.randn(2000, 12, generator=torch.Generator().manual_seed(0))
    assert abs(linear_ceiling(noise, sample.z).value) < 0.03


def test_too_few_rows_and_constant_latents_are_refused():
    with pytest.raises(UsageError, match="at least 20 rows for width 8"):
        linear_ceiling(torch.randn(10, 8, generator=torch.Generator().manual_seed(0)), torch.ones(10, 2))
    with pytest.raises(UsageError, match="do not vary"):
        linear_ceiling(torch.eye(30, 4), torch.ones(30, 2))
    with pytest.raises(UsageError, match="width 3, atoms 4"):
        linear_map(torch.eye(3), torch.eye(4))
