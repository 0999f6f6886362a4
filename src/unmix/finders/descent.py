"""Gradient descent of a reconstruction error over rows, with progress, checkpoints and resumption."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from unmix.core.loop import minibatches, warm_then_decay
from unmix.core.rows import Rows
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.finders.base import framed
from unmix.finders.training import Adam


@dataclass(frozen=True)
class Descent:
    """Adam on mean |x - x'|^2 over batches of rows x = (h - centre) / scale, warmed up and then decaying linearly."""

    rows: Rows
    centre: Tensor
    scale: float
    steps: int
    batch: int
    lr: float
    rng: Stream
    watch: Watch
    device: str

    def run(
        self,
        adam: Adam,
        reconstruct: Callable[[Mapping[str, Tensor], Tensor], Tensor],
        after: Callable[[Mapping[str, Tensor]], None] = lambda learnt: None,
    ) -> float:
        """All steps; the last batch's share of variance that is not explained.

        reconstruct: x' [n, d] from what is learnt and x [n, d]. after: what constrains the learnt, after every step.
        """
        done, fvu = 0, torch.zeros(())
        if (state := self.watch.restore()) is not None:
            adam.load(state)
            done, fvu = int(state["step"]), state["fvu"]
        for step, h in minibatches(self.rows, self.batch, self.steps, self.rng, done, self.device):
            x = framed(h, self.centre, self.scale)
            error = (x - reconstruct(adam.learnt, x)).square().sum()
            adam.backward(error / len(x))
            adam.step(self.lr * warm_then_decay(step, self.steps))
            with torch.no_grad():
                after(adam.learnt)
                fvu = error / (x - x.mean(0)).square().sum().clamp_min(1e-30)
            self.watch.on_step(step + 1, self.steps, {"fvu": fvu})
            self.watch.save(partial(_state, adam, step + 1, fvu))
        return float(fvu)


def _state(adam: Adam, step: int, fvu: Tensor) -> dict[str, Tensor]:
    return {**adam.state(), "step": torch.tensor(step), "fvu": fvu}
