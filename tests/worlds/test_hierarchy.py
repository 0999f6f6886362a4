"""RandomHierarchy against its definition: rules without repeats, all data distinct, exact class balance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.worlds.hierarchy import RandomHierarchy


def test_all_data_of_the_published_size_are_distinct_and_balanced():
    world = RandomHierarchy()
    assert world.size == 131072
    whole = world.sample(world.size)
    assert whole.x.shape == (131072, 64)
    symbols = whole.x.reshape(-1, 8, 8).argmax(2).numpy()
    assert (whole.x.reshape(-1, 8, 8).sum(2) == 1).all()
    assert len(np.unique(symbols @ 8 ** np.arange(8))) == 131072
    assert torch.bincount(whole.y).tolist() == [16384] * 8


def test_rules_are_unambiguous_and_the_class_can_be_read_off():
    world = RandomHierarchy(classes=3, synonyms=2, branching=2, vocabulary=4, depth=2, seed=5)
    for rule in world.rules:
        strings = {tuple(s) for s in rule.reshape(-1, 2).tolist()}
        assert len(strings) == rule.shape[0] * rule.shape[1]
    whole = world.sample(world.size)
    assert world.size == 3 * 2**3
    upward = [{tuple(s): k for k, some in enumerate(rule.tolist()) for s in some} for rule in world.rules]
    for x, y, z in zip(whole.x, whole.y, whole.z, strict=True):
        leaves = x.reshape(4, 4).argmax(1).tolist()
        middle = [upward[1][tuple(leaves[i : i + 2])] for i in (0, 2)]
        assert z.tolist() == [float(y), *map(float, middle)]
        assert upward[0][tuple(middle)] == int(y)
    assert [f.size for f in world.factor_kinds] == [3, 4, 4]


def test_training_rows_are_balanced_and_kept_apart():
    world = RandomHierarchy(rows=6304, seed=1)
    train, test = world.sample(6304), world.held_out.sample(20000, 1)
    assert torch.bincount(train.y).tolist() == [788] * 8
    assert torch.bincount(test.y).tolist() == [2500] * 8
    assert not set(train.index.tolist()) & set(test.index.tolist())
    assert world.held_out.size == 131072 - 6304
    assert torch.equal(train.x[:3], world.read(train.index[:3].numpy()).x)


def test_impossible_hierarchies_are_refused():
    with pytest.raises(UsageError, match="strings"):
        RandomHierarchy(synonyms=9)
    with pytest.raises(UsageError, match="without repeats"):
        RandomHierarchy(depth=5)
    with pytest.raises(UsageError, match="None takes all"):
        RandomHierarchy(rows=131072)
