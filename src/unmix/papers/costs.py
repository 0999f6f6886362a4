"""What a study's training would cost on this machine: short runs, scaled up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from unmix.learners import LEARNERS
from unmix.worlds import WORLDS

FEW, MORE = 2, 8


def per_unit(run: Callable[[int], Any], few: int = FEW, more: int = MORE) -> float:
    """Seconds that one more unit of work (a step, an epoch) takes: a run of `more` units less one of `few`."""
    run(few)  # the first one pays for imports and compiled kernels
    taken = []
    for count in (few, more):
        begun = time.perf_counter()
        run(count)
        taken.append(time.perf_counter() - begun)
    return max(0.0, taken[1] - taken[0]) / (more - few)


def training(world: Mapping[str, Any], learner: Mapping[str, Any]) -> tuple[float, float]:
    """Floating-point operations and seconds of one whole training; world and learner as plain JSON values."""
    known, made = WORLDS.make(dict(world)), LEARNERS.make(dict(learner))
    seconds = per_unit(lambda steps: made.but(steps=steps).fit(known))
    return made.steps * made.flops(known), made.steps * seconds
