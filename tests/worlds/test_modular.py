"""ModularArithmetic against its definition."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.worlds.modular import ModularArithmetic


@pytest.mark.parametrize(
    ("operation", "value"),
    [("a+b", 13), ("a-b", 5), ("a*b", 36), ("a^2+b^2", 97), ("a^2+ab+b^2", 133), ("a^3+ab", 765)],
)
def test_results_are_right(operation, value):
    world = ModularArithmetic(modulus=31, operation=operation, fraction=1.0)
    sample = world.sample(world.size)
    assert world.size == 31**2 and world.held_out is world
    row = torch.nonzero((sample.z == torch.tensor([9.0, 4.0])).all(1))[0, 0]
    assert int(sample.y[row]) == value % 31
    assert len({tuple(z) for z in sample.z.tolist()}) == 31**2


def test_division_inverts_multiplication_and_needs_a_prime():
    world = ModularArithmetic(modulus=13, operation="a/b", fraction=1.0)
    sample = world.sample(world.size)
    a, b = sample.z.long().T
    assert world.size == 13 * 12 and (b > 0).all()
    assert torch.equal(sample.y * b % 13, a)
    with pytest.raises(UsageError, match="prime"):
        ModularArithmetic(modulus=15, operation="a/b")


def test_split_is_shared_among_results_and_encodings_agree():
    world = ModularArithmetic(modulus=31, fraction=0.6, seed=4)
    train, test = world.sample(world.size), world.held_out.sample(world.held_out.size)
    assert world.size == round(0.6 * 961) and world.size + world.held_out.size == 961
    counts = torch.bincount(train.y, minlength=31)
    assert int(counts.max() - counts.min()) <= 1
    assert not set(train.index.tolist()) & set(test.index.tolist())
    assert torch.equal(train.x[:, :31].argmax(1), train.z[:, 0].long())
    tokens = world.but(encoding="tokens").sample(50, 1).x
    assert (tokens[:, 1] == 31).all() and (tokens[:, 3] == 32).all()
    with pytest.raises(UsageError, match="pairs in training"):
        ModularArithmetic(modulus=5, rows=26)
