"""Shared fixtures: small worlds, and a guard that nothing touches global random state."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from unmix.worlds.sparse import SparseWorld

torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def global_random_state_is_left_alone():
    before = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state().clone())  # noqa: NPY002
    yield
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.fixture(scope="session")
def world() -> SparseWorld:
    return SparseWorld(latents=24, width=12, active=2, noise=0.01)


@pytest.fixture(scope="session")
def sample(world):
    return world.sample(600, 0)
