"""The one way through data in minibatches: seeded order, any start, steps counted."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from unmix.core.rows import Rows, gather
from unmix.core.seeds import Stream


def minibatches(
    rows: Rows, batch: int, steps: int, rng: Stream, start: int = 0, device: str = "cpu"
) -> Iterator[tuple[int, Tensor]]:
    """Steps `start` .. `steps` - 1 with their batches [batch, d]; each pass is a new order from `rng`.

    A start in the middle gives exactly the batches an uninterrupted run would have given. A batch of all rows has no
    order to draw: it is the same tensor in every step, a copy that a step must leave as it is.
    """
    batch = min(batch, rows.shape[0])
    if batch == rows.shape[0]:
        whole = gather(rows).to(device)
        for step in range(start, steps):
            yield step, whole
        return
    per_pass = rows.shape[0] // batch
    step = start
    while step < steps:
        number, skip = divmod(step, per_pass)
        for place, block in enumerate(rows.blocks(batch, rng.child(f"pass {number}"), device)):
            if place < skip:
                continue
            if place == per_pass or step == steps:
                break
            yield step, block
            step += 1


def warm_then_decay(step: int, steps: int, warm: float = 0.05, decay: float = 0.25) -> float:
    """Factor on the learning rate: linear rise over the first `warm` share, linear fall over the last `decay`."""
    rise, fall = max(1.0, warm * steps), max(1.0, decay * steps)
    return min(1.0, (step + 1) / rise, (steps - step) / fall)
