"""A factor as the label: the codes are those of z, and other worlds and factors are refused."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.worlds import WORLDS
from unmix.worlds.labelled import Labelled
from unmix.worlds.sprites import SpritesWorld


def test_the_label_is_the_factor():
    world = Labelled(world=SpritesWorld(pixels=16))
    sample, plain = world.sample(40, 1), world.world.sample(40, 1)
    assert torch.equal(sample.x, plain.x) and torch.equal(sample.z, plain.z)
    assert sample.y.dtype == torch.int64 and torch.equal(sample.y.float(), sample.z[:, 0])
    assert world.classes == 3 and set(sample.y.tolist()) == {0, 1, 2}
    assert world.provides == sample.provides
    steps = [(step, batch.y) for step, batch in world.batches(8, 4, Stream(0), 2)]
    assert [step for step, _ in steps] == [2, 3] and all(len(y) == 8 for _, y in steps)
    assert WORLDS.make(world.as_dict()) == world and world.digest != world.but(world=SpritesWorld()).digest


@pytest.mark.parametrize("factor", ["scale", "colour"])
def test_only_categories_are_labels(factor):
    with pytest.raises(UsageError, match="factor"):
        Labelled(factor=factor)
