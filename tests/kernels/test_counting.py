"""Counts of firing, and the streaming top rows, against a sort of everything."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.kernels.counting import TopRows, firing

BACKENDS = ["torch", "numba"]


def whole(n, m, seed):
    """Whole numbers with many zeros, so that ties are common."""
    return torch.randint(-1, 4, (n, m), generator=torch.Generator().manual_seed(seed)).float()


def by_sort(z, size):
    n, m = z.shape
    rows, values = torch.full((m, size), -1), torch.zeros(m, size, dtype=torch.float64)
    for j in range(m):
        order = sorted((i for i in range(n) if z[i, j] != 0), key=lambda i: (-float(z[i, j]), i))[:size]
        rows[j, : len(order)] = torch.tensor(order, dtype=torch.int64)
        values[j, : len(order)] = z[order, j].double()
    return rows, values


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 50),
    m=st.integers(1, 9),
    size=st.integers(1, 12),
    cut=st.integers(1, 20),
    backwards=st.booleans(),
    seed=st.integers(0, 99),
)
def test_top_rows_do_not_depend_on_how_the_stream_is_cut(n, m, size, cut, backwards, seed):
    z = whole(n, m, seed)
    wanted = by_sort(z, size)
    starts = list(range(0, n, cut))[:: -1 if backwards else 1]
    for backend in BACKENDS:
        for layout in ("dense", "ragged", "rectangular"):
            top = TopRows(m, size, backend=backend)
            for begin in starts:
                block = z[begin : begin + cut]
                codes = Codes(block, None, m)
                if layout == "ragged":
                    codes = codes.ragged()
                elif layout == "rectangular":
                    order = torch.arange(m).flip(0).expand(len(block), m)
                    codes = Codes(block.flip(1), order, m)
                top.update(codes.values, codes.indices, begin, codes.pointers)
            rows, values = top.result()
            assert torch.equal(rows, wanted[0])
            assert torch.equal(values, wanted[1])


def test_firing_counts_and_sums():
    z = whole(40, 7, 0)
    codes = Codes(z, None, 7).ragged()
    counts, sums = firing(codes.values, codes.indices, 7)
    assert torch.equal(counts, (z != 0).sum(0))
    torch.testing.assert_close(sums, z.double().sum(0))
    rectangular = firing(torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[1, 2], [1, 0]]), 3)
    assert rectangular[0].tolist() == [1, 2, 0]
    assert rectangular[1].tolist() == [1, 3, 0]


def test_indices_outside_are_refused():
    with pytest.raises(UsageError, match=r"indices: must be in 0\.\.2, got 0\.\.3"):
        firing(torch.ones(2), torch.tensor([0, 3]), 3)
    with pytest.raises(UsageError, match="indices"):
        TopRows(3, 2).update(torch.ones(1, 2), torch.tensor([[0, -1]]))
    with pytest.raises(UsageError, match="size"):
        TopRows(3, 0)
