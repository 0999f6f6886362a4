"""What training a learner costs on this machine, and a smaller network where there are few images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.networks.resnet import ResNet

TIMED = 8  # rows of the first batch that is timed
LONG = 0.1  # seconds of a step that is timed well enough


def estimate(world: Any, learners: Sequence[Any], seeds: int) -> dict[str, float]:
    """What training would cost: work, seconds on this machine now, memory and disk.

    Measured on up to three steps of a small batch, which grows while steps are too short to be timed; work, time and
    what the gradient keeps of a step grow with the batch.
    """
    total = {"flops": 0.0, "seconds": 0.0, "memory_bytes": 0.0, "disk_bytes": 0.0}
    for learner in learners:
        whole, batch = learner.batch, min(learner.batch, TIMED)
        while True:
            few = learner.but(steps=min(3, learner.steps), batch=batch, accumulate=1)
            clock = _Clock()
            begun = time.perf_counter()
            with torch.autograd.graph.saved_tensors_hooks(clock.keep, lambda kept: kept):
                learnt = few.fit(world, watch=clock)
            around = time.perf_counter() - begun - sum(clock.steps)
            if batch == whole or min(clock.steps) > LONG:
                break
            batch = min(whole, 4 * batch)
        grown = whole / batch
        own = [*learnt.module.state_dict().values(), *learnt.parts.values()]
        weights = float(sum(tensor.numel() * tensor.element_size() for tensor in own))
        total["flops"] += seeds * learner.steps * few.flops(world) * grown
        total["seconds"] += seeds * (around + learner.steps * min(clock.steps) * grown)
        total["memory_bytes"] = max(total["memory_bytes"], 4 * weights + clock.most * grown / learner.accumulate)
        total["disk_bytes"] += seeds * weights
    return total


class _Clock(Watch):
    """Seconds of every step, and the bytes that a step's gradient keeps, each storage once."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.last, self.most = time.perf_counter(), 0.0
        self.kept: dict[int, int] = {}

    def restore(self) -> None:
        self.last = time.perf_counter()

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """What autograd saves passes here on its way."""
        storage = tensor.untyped_storage()
        self.kept[storage.data_ptr()] = storage.nbytes()
        self.most = max(self.most, float(sum(self.kept.values())))
        return tensor

    def on_step(self, step: int, total: int, facts: Mapping[str, Any]) -> None:
        now = time.perf_counter()
        self.steps.append(now - self.last)
        self.last, self.kept = now, {}


def smaller_network(world: Any, learner: Any) -> Any | None:
    """A network that suits a few hundred images better than a learner's own, or None where that is small enough.

    Proposed where there are fewer images than a hundredth of the weights: half the channels, and for images of 96
    pixels or more the stem that works on a sixteenth of the places.
    """
    if not isinstance(learner.network, ResNet) or not world.size or not hasattr(world, "pictures"):
        return None
    shape = tuple(world.sample(1, Stream(0).child("shape")).x.shape[1:])
    built = learner.network.build(shape, learner.width)
    if world.size >= sum(weight.numel() for weight in built.parameters()) / 100:
        return None
    stem = "standard" if min(shape[1:]) >= 96 else learner.network.stem
    small = learner.network.but(channels=max(4, learner.network.channels // 2), stem=stem)
    return None if small == learner.network else small
