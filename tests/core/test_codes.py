"""The three layouts of codes agree with each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.codes import Codes
from unmix.core.errors import UsageError


def layouts(n: int, m: int, k: int, seed: int) -> tuple[torch.Tensor, list[Codes]]:
    draw = torch.Generator().manual_seed(seed)
    indices = torch.rand(n, m, generator=draw).argsort(1)[:, :k]
    values = torch.randn(n, k, generator=draw).relu()
    dense = torch.zeros(n, m).scatter(1, indices, values)
    rectangular = Codes(values, indices, m)
    return dense, [Codes(dense, None, m), rectangular, rectangular.ragged()]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.integers(1, 7), st.integers(0, 99), st.data())
def test_layouts_agree(n, m, seed, data):
    k = data.draw(st.integers(1, m))
    dense, all_codes = layouts(n, m, k, seed)
    atoms, bias = torch.randn(2, m, 3, generator=torch.Generator().manual_seed(seed + 1)).unbind(0)
    for codes in all_codes:
        assert codes.shape == (n, m)
        assert torch.equal(codes.dense(), dense)
        assert torch.equal(codes.l0(), (dense != 0).sum(1))
        assert torch.equal(codes.firing(), (dense != 0).sum(0))
        assert torch.allclose(codes.decode(atoms, bias[0]), dense @ atoms + bias[0], atol=1e-5)
        both = Codes.concatenate([codes, codes])
        assert torch.equal(both.dense(), torch.cat([dense, dense]))
    mixed = Codes.concatenate(all_codes)
    assert torch.equal(mixed.dense(), torch.cat([dense] * 3))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9), st.integers(1, 7), st.integers(0, 12), st.integers(0, 12), st.integers(0, 99))
def test_rows_and_rectangles_of_any_layout(n, m, begin, end, seed):
    dense, all_codes = layouts(n, m, max(1, m // 2), seed)
    for codes in all_codes:
        part = replace(codes, cost=torch.arange(n).double()).rows(slice(begin, end))
        assert torch.equal(part.dense(), dense[begin:end])
        assert torch.equal(part.cost, torch.arange(n).double()[begin:end])
        assert (part.indices is None, part.pointers is None) == (codes.indices is None, codes.pointers is None)
        values, indices = codes.rectangular()
        assert torch.equal(torch.zeros(n, m).scatter_add_(1, indices, values), dense)


def test_wrong_shapes_are_refused():
    with pytest.raises(UsageError, match=r"\[n, 4\]"):
        Codes(torch.zeros(2, 3), None, 4)
    with pytest.raises(UsageError, match="differ in shape"):
        Codes(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.long), 4)
    with pytest.raises(UsageError, match="without a step"):
        Codes(torch.zeros(4, 3), None, 3).rows(slice(0, 4, 2))
    with pytest.raises(UsageError, match="nothing"):
        Codes.concatenate([])


@pytest.mark.parametrize("layout", ["dense", "rectangular", "ragged"])
def test_rows_are_taken_by_number_in_any_layout(layout):
    dense = torch.tensor([[0.0, 1, 2], [0, 0, 0], [3, 0, 0]])
    codes = {
        "dense": Codes(dense, None, 3),
        "rectangular": Codes(dense.sort(1).values[:, 1:], dense.sort(1).indices[:, 1:], 3),
        "ragged": Codes(dense, None, 3).ragged(),
    }[layout]
    assert torch.equal(codes.take([2, 0, 1, 2]).dense(), dense[[2, 0, 1, 2]])
    assert len(codes.take([])) == 0


def test_complex_codes_are_refused():
    with pytest.raises(UsageError, match=r"codes: must be real numbers, got torch\.complex64"):
        Codes(torch.zeros(2, 3, dtype=torch.complex64), None, 3)
