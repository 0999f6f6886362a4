"""The three layouts of codes agree with each other."""

from __future__ import annotations

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


def test_wrong_shapes_are_refused():
    with pytest.raises(UsageError, match=r"\[n, 4\]"):
        Codes(torch.zeros(2, 3), None, 4)
    with pytest.raises(UsageError, match="differ in shape"):
        Codes(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.long), 4)
    with pytest.raises(UsageError, match="nothing"):
        Codes.concatenate([])
