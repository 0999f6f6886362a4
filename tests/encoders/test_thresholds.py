"""BatchTopK and JumpReLU over a frozen dictionary: sparsity as asked for, straight-through gradients, taking over."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.encoders.amortised import Linear
from unmix.encoders.thresholds import BatchTopK, JumpReLU, jump
from unmix.finders.features import assemble, replace


@pytest.fixture(scope="module")
def known(world):
    return assemble(world.atoms, torch.zeros(12), Linear(), Linear(init="tied")._start(world.atoms, None))


@pytest.mark.parametrize("size", [1.0, 40.0])
@pytest.mark.parametrize("recipe", [BatchTopK(k=2, steps=150), JumpReLU(active=2.0, steps=150)])
def test_the_fit_on_rows_is_as_sparse_as_asked_for_at_any_scale(recipe, size, world, known):
    train, test = size * world.sample(2000, 0).x, size * world.sample(2000, 1).x
    features = replace(known, encoder=recipe, rows=train)
    l0 = features.encode(test).l0().double()
    assert abs(l0.mean().item() / 2 - 1) < 0.08
    assert l0.std() > 0
    left = (test - features.reconstruct(test)).square().sum() / test.square().sum()
    assert left < 0.25
    threshold = features.encoder.tensors["threshold"]
    assert threshold.shape == (() if recipe.kind == "BatchTopK" else (24,))
    assert (threshold > 0).all()
    if recipe.kind == "JumpReLU":
        assert threshold.std() > 0.01 * threshold.mean()


def test_straight_through_gradients_are_those_of_the_equations():
    draw = torch.Generator().manual_seed(0)
    before = torch.randn(50, 7, generator=draw, dtype=torch.float64).requires_grad_()
    threshold = torch.rand(7, generator=draw, dtype=torch.float64).requires_grad_()
    u, v = (torch.randn(50, 7, generator=draw, dtype=torch.float64) for _ in range(2))
    codes, gates = jump(before, threshold, 0.4)
    assert torch.equal(codes, before * gates)
    (codes * u + gates * v).sum().backward()
    near = ((before - threshold).abs() < 0.2).double()
    torch.testing.assert_close(before.grad, u * gates)
    torch.testing.assert_close(threshold.grad, -(near * (u * threshold + v)).sum(0) / 0.4)
    assert threshold.grad.abs().min() > 0


def test_a_row_has_the_same_codes_alone_and_in_any_batch(world, known):
    rows = world.sample(300, 3).x
    for recipe in (BatchTopK(k=2, steps=20), JumpReLU(active=2.0, steps=20)):
        encoder = recipe.bind(known, rows)
        alone = torch.cat([encoder(row[None]).dense() for row in rows])
        torch.testing.assert_close(alone, encoder(rows).dense(), rtol=0, atol=1e-6)


def test_a_threshold_is_learnt_or_taken_over(world, known):
    rows = world.sample(500, 3).x
    with pytest.raises(UsageError, match="give rows"):
        BatchTopK(k=2, init="tied").bind(known)
    with pytest.raises(UsageError, match="give rows"):
        replace(known, encoder=BatchTopK(k=2))  # a threshold of 0 is none
    batch = replace(known, encoder=BatchTopK(k=2, steps=20), rows=rows)
    each = replace(batch, encoder=JumpReLU())
    assert torch.equal(each.encode(rows).dense(), batch.encode(rows).dense())
    assert (JumpReLU(init="tied").bind(known).tensors["threshold"] == 0).all()
