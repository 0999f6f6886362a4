"""The bound on memory that the tangent kernel is given, against what torch's allocator handed out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from unmix.regimes.kernel import tangent_kernel


def peak(call):
    """The result of a call and the most bytes that tensors made within it held at one time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = call()
    events = seen.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), number, e.nbytes()) for number, e in enumerate(events) if e.name() == "[memory]")
    held = most = 0
    for _, _, change in changes:
        held += change
        most = max(most, held)
    return result, most


def dense():
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 3))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 4),
    )  # fmt: skip


NETWORKS = {"dense": (dense, (48, 64)), "convolutional": (convolutional, (24, 3, 12, 12))}


@pytest.mark.parametrize("memory", [2**22, 2**24])
@pytest.mark.parametrize("method", ["layers", "contract"])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_no_more_is_held_than_was_allowed(name, method, memory):
    make, shape = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(0)
        model, x = make(), torch.randn(*shape)
    own = 4 * sum(p.numel() for p in model.parameters())
    whole, free = peak(lambda: tangent_kernel(model, x, method=method, memory=2**40))
    found, held = peak(lambda: tangent_kernel(model, x, method=method, memory=memory))
    assert torch.allclose(found, whole, rtol=1e-3, atol=1e-3 * float(whole.abs().max()))
    result = 4 * whole.numel()
    assert held - own - result <= memory, "beside the model's copy and the result"
    assert free - own - result > 2**22, "without a bound it takes more, so that the bound is what held it"
