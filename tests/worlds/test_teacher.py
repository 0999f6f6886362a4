"""TeacherStudent against its definition, and what finite worlds share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.worlds.finite import shared
from unmix.worlds.teacher import TeacherStudent


def test_targets_are_the_teachers_and_inputs_lie_on_the_sphere():
    world = TeacherStudent(dimensions=7, teachers=4, seed=3)
    sample = world.sample(200, 1)
    v, a = world.teacher
    assert torch.allclose(v.norm(dim=1), torch.ones(4)) and set(a.tolist()) <= {-1.0, 1.0}
    assert torch.allclose(sample.x.norm(dim=1), torch.ones(200), atol=1e-5)
    assert torch.allclose(sample.y, torch.relu(sample.x @ v.T) @ a, atol=1e-6)
    noisy = world.but(noise=0.5, inputs="gaussian").sample(2000, 1)
    assert (noisy.y - noisy.z @ a).std() == pytest.approx(0.5, abs=0.03)
    assert world.size is None and world.held_out is world


def test_a_fixed_set_of_rows_is_passed_through_in_a_seeded_order_from_any_start():
    world = TeacherStudent(dimensions=5, rows=10)
    assert world.size == 10 and world.held_out.size is None
    steps = list(world.batches(4, 6, Stream(1)))
    assert [s for s, _ in steps] == list(range(6))
    for first in (0, 2, 4):  # two steps are a pass without repeats
        both = torch.cat([steps[first][1].index, steps[first + 1][1].index])
        assert len(both) == 8 == len(set(both.tolist()))
    late = list(world.batches(4, 6, Stream(1), start=3))
    assert all(torch.equal(a[1].x, b[1].x) for a, b in zip(steps[3:], late, strict=True))
    assert len(next(iter(world.batches(64, 1, Stream(0))))[1]) == 10
    rows = {tuple(r) for r in world.sample(10, 5).x.tolist()}
    assert rows == {tuple(r) for r in world.sample(10, 6).x.tolist()}
    assert not rows & {tuple(r) for r in world.held_out.sample(50, 5).x.tolist()}
    with pytest.raises(UsageError, match="has 10 rows"):
        world.sample(11)


def test_rows_are_shared_among_classes_until_one_runs_out():
    labels = np.array([0] * 10 + [1] * 3 + [2] * 10)
    chosen = shared(labels, 15, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 15
    assert np.bincount(labels[chosen]).tolist() == [6, 3, 6]
