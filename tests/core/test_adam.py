"""Adam beside torch's own."""

from __future__ import annotations

import pytest
import torch

from unmix.core.adam import Adam
from unmix.core.errors import UsageError


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_adam_is_torchs():
    start = {"a": draw(4, 3), "b": draw(5)}
    ours = Adam(start)
    theirs = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    optimiser = torch.optim.Adam(theirs.values(), lr=0.01)
    for step in range(30):
        for tensors, backward in ((ours.learnt, ours.backward), (theirs, torch.Tensor.backward)):
            optimiser.zero_grad()
            backward((tensors["a"] * (step - 9)).square().sum() + (tensors["b"] ** 3).sum() * 1e-4)
        ours.step(0.01)
        optimiser.step()
    for name, tensor in theirs.items():
        assert torch.allclose(ours.learnt[name], tensor, atol=1e-6)
        assert not torch.equal(tensor, start[name])


def test_adam_goes_on_from_its_state_and_refuses_anothers():
    one, two = Adam({"a": draw(4)}), Adam({"a": draw(4, seed=1)})
    for _ in range(3):
        one.backward(one.learnt["a"].square().sum())
        one.step(0.1)
    two.load(one.state())
    for adam in (one, two):
        adam.backward(adam.learnt["a"].square().sum())
        adam.step(0.1)
    assert torch.equal(one.learnt["a"], two.learnt["a"])
    with pytest.raises(UsageError, match="another recipe"):
        Adam({"a": draw(5)}).load(one.state())
