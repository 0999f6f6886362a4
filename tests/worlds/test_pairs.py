"""PairWorld: order of the rows, conditionals between times, stationarity."""

from __future__ import annotations

import math

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.worlds import sphere
from unmix.worlds.pairs import PairWorld


def test_rows_are_ordered_by_group_then_time():
    sample = PairWorld(length=3).sample(12, 0)
    assert sample.group.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert sample.time.tolist() == [0, 1, 2] * 4
    with pytest.raises(UsageError, match="n=10: must be a multiple of length=3"):
        PairWorld(length=3).sample(10)


def test_pairs_on_the_sphere_are_von_mises_fisher_around_each_other():
    z = PairWorld(latents=4, length=3, concentration=6.0).sample(30_000, 1).z.reshape(-1, 3, 4).double()
    for time in (0, 1):
        t = (z[:, time] * z[:, time + 1]).sum(1)
        assert abs(t.mean() - sphere.mean_cosine(4, 6.0)) < 4.5 * t.std() / math.sqrt(len(t))
        assert z[:, time + 1].mean(0).abs().max() < 5 / math.sqrt(4 * len(t))


def test_the_ornstein_uhlenbeck_process_is_stationary():
    world = PairWorld(space="euclidean", conditional="normal", concentration=4.0, memory=0.8, length=6, latents=2)
    z = world.sample(60_000, 0).z.reshape(-1, 6, 2).double()
    expected = 0.25 / (1 - 0.64)
    assert torch.allclose(z.var(0), torch.full((6, 2), expected).double(), rtol=0.06)
    lagged = (z[:, 1:] * z[:, :-1]).mean((0, 2)) / z.var()
    assert torch.allclose(lagged, torch.full((5,), 0.8).double(), atol=0.02)


def test_pairs_in_the_box_stay_inside():
    sample = PairWorld(space="box", conditional="laplace", concentration=2.0).sample(4000, 0)
    assert sample.z.abs().max() <= 1 and sample.x.dtype == torch.float32
    with pytest.raises(UsageError, match=r"memory=0\.5: only with space='euclidean'"):
        PairWorld(memory=0.5)
