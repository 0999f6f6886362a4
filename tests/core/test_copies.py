"""Copies: found by content in any kind of rows, and never on both sides of a split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.copies import first_copies, hold_out
from unmix.core.items import ImageItems
from unmix.core.rows import ArrayRows


def test_copies_are_found_by_content():
    images = np.random.default_rng(0).integers(0, 255, (6, 4, 4)).astype(np.uint8)
    images[4] = images[1]
    wanted = [0, 1, 2, 3, 1, 5]
    rows = images.reshape(6, -1).astype(np.float32)
    for given_ in (images, torch.from_numpy(images), ImageItems(images), rows, ArrayRows(rows), rows[:, ::-1]):
        assert first_copies(given_).tolist() == wanted
    assert first_copies(np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 2.0]])).tolist() == [0, 0, 2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(0, 20), st.integers(0, 5))
def test_copies_are_on_one_side_and_nothing_changes_without_them(content, wanted, seed):
    order = np.random.default_rng(seed).permutation(len(content))
    assert hold_out(order, np.arange(len(content)), wanted).tolist() == sorted(order[:wanted])
    first = first_copies(np.asarray(content))
    held = hold_out(order, first, wanted)
    rest = np.setdiff1d(order, held)
    assert not set(first[held]) & set(first[rest])
    largest = np.bincount(first).max()
    if wanted and largest <= wanted <= len(content):
        assert wanted - largest < len(held) <= wanted
    if wanted and 2 * largest <= len(content):
        assert len(held)


@pytest.mark.parametrize(
    "content, wanted, count", [([0, 0, 0, 0], 1, 0), ([0, 0, 0, 1, 1, 1], 1, 3), ([0, 0, 0, 1], 1, 1)]
)
def test_groups_larger_than_wanted(content, wanted, count):
    assert len(hold_out(np.arange(len(content)), first_copies(np.asarray(content)), wanted)) == count
