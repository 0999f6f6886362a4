"""A batch of all rows."""

from __future__ import annotations

import numpy as np
import torch

from unmix.core.loop import minibatches
from unmix.core.rows import ArrayRows
from unmix.core.seeds import Stream


def test_a_full_batch_is_the_same_copy_in_every_step():
    array = np.arange(12.0, dtype=np.float32).reshape(6, 2)
    steps = list(minibatches(ArrayRows(array), 50, 7, Stream(0), start=3))
    assert [step for step, _ in steps] == [3, 4, 5, 6]
    assert all(block is steps[0][1] for _, block in steps)
    assert torch.equal(steps[0][1], torch.from_numpy(array))
    steps[0][1].zero_()
    assert array[0, 1] == 1
    assert list(minibatches(ArrayRows(array), 6, 4, Stream(0), start=4)) == []
