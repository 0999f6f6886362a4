"""Parity against its definition: distinct rows, equal classes, the relevant bits."""

from __future__ import annotations

import math

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.worlds.parity import Parity


@pytest.mark.parametrize("order", [1, 2, 3])
def test_class_is_the_product_of_the_relevant_signs(order):
    world = Parity(bits=9, order=order, rows=100, seed=2)
    train, test = world.sample(100, 0), world.held_out.sample(200, 1)
    for sample in (train, test):
        product = sample.x[:, world.relevant.copy()].prod(1)
        assert torch.equal(sample.y, (product > 0).long())
        assert torch.allclose(sample.x.abs(), torch.tensor(1 / math.sqrt(9)))
        assert torch.equal(sample.z, (sample.x[:, world.relevant.copy()] > 0).float())
        assert int(sample.y.sum()) == len(sample) // 2
    rows = [tuple(row) for row in torch.cat([train.x, test.x]).tolist()]
    assert len(set(rows)) == 300
    assert len(world.relevant) == order and world.factor_kinds[0].size == 2


def test_other_seeds_have_other_relevant_bits_and_impossible_sizes_are_refused():
    assert Parity(seed=0).relevant.tolist() != Parity(seed=1).relevant.tolist()
    assert Parity().sample(64, 3).x.shape == (64, 40)
    with pytest.raises(UsageError, match="at most bits=4"):
        Parity(bits=4, order=5)
    with pytest.raises(UsageError, match="a quarter"):
        Parity(bits=6, rows=20)
    with pytest.raises(UsageError, match="at most half"):
        Parity(bits=4).sample(9)
