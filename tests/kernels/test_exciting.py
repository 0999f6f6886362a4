"""The most and least exciting rows in one pass: exact, stable under ties, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.activations.exciting import exciting
from unmix.core.errors import UsageError
from unmix.kernels.exciting import Extremes


def wanted(values, size, smallest=False):
    """Stable order: ties go to the first row."""
    order = np.argsort(values if smallest else -values, axis=0, kind="stable")[:size].T
    return order, np.take_along_axis(values, order.T, 0).T


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("smallest", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes_are_those_of_a_stable_sort(backend, smallest, dtype):
    draw = np.random.default_rng(0)
    values = draw.standard_normal((700, 77)).round(1)  # many ties
    values[:, 5], values[:, 6] = 0.0, np.abs(values[:, 6]) * (draw.random(700) < 0.01)
    given = torch.from_numpy(values).to(dtype)
    for cut in (1, 97, 700):
        best = Extremes(77, 9, smallest, dtype, backend)
        for start in range(0, 700, cut):
            best.update(given[start : start + cut], start)
        rows, found = best.result()
        order, extreme = wanted(given.numpy(), 9, smallest)
        assert np.array_equal(rows.numpy(), order)
        assert np.array_equal(found.numpy(), extreme)


def test_many_columns_on_several_threads_and_fewer_rows_than_asked_for():
    given = torch.randn(20, 3000, generator=torch.Generator().manual_seed(0))
    best = Extremes(3000, 30)
    best.update(given[:8], 0)
    best.update(given[:0], 8)
    best.update(given[8:], torch.arange(8, 20) * 2)
    rows, values = best.result()
    assert bool((rows[:, 20:] == -1).all()) and bool((values[:, 20:] == 0).all())
    order = torch.argsort(-given, dim=0, stable=True).T
    assert torch.equal(rows[:, :20], torch.where(order < 8, order, 2 * order))


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_wrong_blocks_are_refused(backend):
    best = Extremes(4, 2, backend=backend)
    with pytest.raises(UsageError, match=r"\[rows, 4\]"):
        best.update(torch.zeros(3, 5))
    with pytest.raises(UsageError, match="float32"):
        best.update(torch.zeros(3, 4, dtype=torch.float64))
    bad = torch.zeros(3, 4)
    bad[1, 2] = torch.nan
    with pytest.raises(UsageError, match="row 1, column 2 is nan"):
        best.update(bad)
    best.update(torch.zeros(3, 4), 10)
    with pytest.raises(UsageError, match="rise"):
        best.update(torch.zeros(3, 4), 12)
    with pytest.raises(UsageError, match=r"numbers: must be \[3\]"):
        best.update(torch.zeros(3, 4), torch.arange(20, 22))
    with pytest.raises(UsageError, match="at least 1"):
        Extremes(0, 1)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("place", [(0, 0), (5, 63), (8, 64), (9, 70), (2, 3)])
def test_a_block_that_is_not_finite_changes_nothing(backend, place):
    given = torch.randn(40, 71, generator=torch.Generator().manual_seed(0))
    for value in (torch.nan, torch.inf, -torch.inf):
        for smallest in (False, True):
            best = Extremes(71, 3, smallest, backend=backend)
            best.update(given[:20], 0)
            bad = 10 * given[20:31]
            bad[place] = value
            with pytest.raises(UsageError, match=f"row {20 + place[0]}, column {place[1]} is {value}"):
                best.update(bad, 20)
            best.update(given[20:], 20)
            assert np.array_equal(best.result()[0].numpy(), wanted(given.numpy(), 3, smallest)[0])
    huge = torch.full((8, 64), 3e38)  # finite, though sums of four are not
    best = Extremes(64, 2, backend=backend)
    best.update(huge)
    assert best.result()[0][0].tolist() == [0, 1]


def test_directions_duplicates_and_bias():
    draw = np.random.default_rng(1)
    h, atoms = draw.standard_normal((300, 6)).astype(np.float32), draw.standard_normal((11, 6)).astype(np.float32)
    images = draw.integers(0, 255, (300, 4, 4)).astype(np.uint8)
    images[200:] = images[:100]
    h[200:] += 5  # the copies would be the most exciting
    bias = h.mean(0)
    found = exciting(h, atoms, bias, 7, images, block=64)
    values = (h[:200] - bias) @ atoms.T
    assert np.array_equal(found.most.numpy(), wanted(values, 7)[0])
    assert np.allclose(found.least_values.numpy(), wanted(values, 7, True)[1], atol=1e-5)
    assert np.array_equal(exciting(h, count=3).most.numpy(), wanted(h, 3)[0])
    with pytest.raises(UsageError, match="200 different images"):
        exciting(h, count=201, images=images)
    with pytest.raises(UsageError, match=r"directions: must be \[m, 6\]"):
        exciting(h, atoms[:, :5])


def test_where_ties_decide_on_the_exciting_images_is_said():
    rows = torch.tensor([[3.0, 2, 1, 0], [3, 2, 2, 0], [3, 2, 2, 2], [1, 0, 0, 0]]).T
    found = exciting(rows, count=2)
    assert found.most.tolist()[0] == [0, 1] and found.most_tied.tolist() == [False, True, True, True]
    assert found.least_tied.tolist() == [False, True, True, True]
    assert not exciting(rows, count=4).most_tied.any() and not exciting(rows, count=4).least_tied.any()


def test_an_image_of_several_positions_has_the_value_of_its_peak():
    draw = np.random.default_rng(2)
    h = draw.standard_normal((60, 12, 5)).astype(np.float32)  # images, positions, neurons
    atoms = draw.standard_normal((7, 5)).astype(np.float32)
    images = draw.integers(0, 255, (60, 8, 6)).astype(np.uint8)
    images[40:] = images[:20]
    h[40:] += 3
    for directions, values in ((atoms, h @ atoms.T), (None, h)):
        found = exciting(h.reshape(-1, 5), directions, count=4, images=images, block=50, positions=12)
        peak, place = values[:40].max(1), values[:40].argmax(1)
        for smallest, rows, extreme, places in (
            (False, found.most, found.most_values, found.most_places),
            (True, found.least, found.least_values, found.least_places),
        ):
            order, expected = wanted(peak, 4, smallest)
            assert np.array_equal(rows.numpy(), order) and np.allclose(extreme.numpy(), expected, atol=1e-5)
            assert np.array_equal(places.numpy(), np.take_along_axis(place, order.T, 0).T)
    assert bool((exciting(h[:, 0], count=4).most_places == 0).all())
    with pytest.raises(UsageError, match="no whole number of images"):
        exciting(h.reshape(-1, 5), positions=7)
    with pytest.raises(UsageError, match="59 for 60 rows of 12 positions"):
        exciting(h.reshape(-1, 5), images=images[:59], positions=12)


def test_memory_is_the_block_and_the_best():
    from unmix.core.rows import ArrayRows

    asked = []

    class Watched(ArrayRows):
        def blocks(self, size, rng=None, device="cpu"):
            for block in super().blocks(size, rng, device):
                asked.append(len(block))
                yield block

    h = np.random.default_rng(0).standard_normal((1000, 4)).astype(np.float32)
    rows = Watched(h)
    asked.clear()
    exciting(rows, count=3, block=128)
    assert max(asked) == 128 and sum(asked) == 1000
    best = Extremes(4, 3)
    held = sum(part.numel() * part.element_size() for part in (best._values, best._rows, best._least))
    assert held == 4 * 3 * (4 + 8) + 4 * 4
