"""Every synthetic world: the same rng gives the same sample, and the shapes agree."""

from __future__ import annotations

import pytest
import torch

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.worlds import WORLDS

from .test_recipes import make

SYNTHETIC = [name for name in WORLDS if "path" not in WORLDS[name].model_fields]


def matrix(values):
    return values.dense() if isinstance(values, Codes) else values


@pytest.mark.parametrize("name", SYNTHETIC)
def test_samples_are_deterministic_and_aligned(name):
    world = make("world", name)
    one, two, other = world.sample(50, 1), world.sample(50, 1), world.sample(50, 2)
    rows = one.h if one.h is not None else one.x
    assert len(one) == 50
    for field in one.provides:
        assert torch.equal(matrix(getattr(one, field)), matrix(getattr(two, field)))
    assert not torch.equal(matrix(one.z), matrix(other.z))
    assert one.z.shape == (50, len(world.factors))
    assert rows.dtype == torch.float32 and torch.isfinite(rows).all()
    assert world.provides >= one.provides
    assert "atoms" not in world.provides or (matrix(one.z) >= 0).all()


@pytest.mark.parametrize("name", SYNTHETIC)
def test_latents_stay_below_their_parents(name):
    world = make("world", name)
    assert world.held_out.factors == world.factors
    if world.parents is not None:
        assert world.parents.shape == (len(world.factors),) and world.parents.dtype == torch.int64
        assert (world.parents < torch.arange(len(world.factors))).all() and (world.parents >= -1).all()


@pytest.mark.parametrize("name", SYNTHETIC)
def test_true_atoms_have_unit_norm_and_belong_to_the_world(name):
    world = make("world", name)
    if "atoms" not in world.provides:
        pytest.skip("a world without a dictionary")
    assert torch.allclose(world.atoms.norm(dim=1), torch.ones(len(world.factors)), atol=1e-5)
    assert torch.equal(world.atoms, world.atoms)
    assert not torch.equal(world.atoms, world.but(seed=1).atoms)


def test_data_knows_no_latents():
    data = make("world", "Data")
    assert data.factors == ()
    assert "z" not in data.provides
    assert data.size == 1797
    with pytest.raises(UsageError):
        WORLDS["Data"](path="no/such/file.npy").open()
