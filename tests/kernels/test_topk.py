"""The TopK encoder and decoder: numba against torch against a sort."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.errors import UsageError
from unmix.kernels.topk import decode, encode_topk

BACKENDS = ["torch", "numba"]


def whole(n, d, m, seed, dtype=torch.float32):
    """Whole numbers: products are exact, and ties are common."""
    draw = torch.Generator().manual_seed(seed)
    h, weight = (torch.randint(-2, 3, (rows, d), generator=draw).to(dtype) for rows in (n, m))
    return h, weight, torch.randint(-2, 3, (m,), generator=draw).to(dtype)


def by_sort(h, weight, bias, k):
    codes = (h @ weight.T + bias).relu()
    order = codes.sort(dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values
    return codes.gather(1, order), order


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 40),
    d=st.integers(1, 9),
    m=st.integers(1, 400),
    share=st.floats(0, 1),
    columns=st.sampled_from([None, 7, 64]),
    rows=st.sampled_from([None, 1, 13]),
    seed=st.integers(0, 99),
)
def test_encode_is_the_stable_sort_for_any_size_and_block(n, d, m, share, columns, rows, seed):
    k = 1 + round(share * (m - 1))
    h, weight, bias = whole(n, d, m, seed)
    wanted = by_sort(h, weight, bias, k)
    for backend in BACKENDS:
        found = encode_topk(h, weight, bias, k, block_rows=rows, block_columns=columns, backend=backend)
        assert torch.equal(found[0], wanted[0])
        assert torch.equal(found[1], wanted[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_wide_rows_take_the_way_through_block_maxima(backend):
    h, weight, bias = whole(30, 6, 5003, 1)
    for k in (1, 3, 32):
        found = encode_topk(h, weight, bias, k, backend=backend)
        wanted = by_sort(h, weight, bias, k)
        assert torch.equal(found[0], wanted[0])
        assert torch.equal(found[1], wanted[1])
    draw = torch.Generator().manual_seed(0)
    h, weight = torch.randn(50, 33, generator=draw), torch.randn(4099, 33, generator=draw)
    values, indices = encode_topk(h, weight, None, 17, backend=backend)
    wanted = (h @ weight.T).relu().topk(17).values.sort(1).values
    torch.testing.assert_close(values.sort(1).values, wanted)
    torch.testing.assert_close(values, (h @ weight.T).gather(1, indices).relu())


@pytest.mark.parametrize("backend", BACKENDS)
def test_layout_of_the_input_and_its_neighbours_do_not_matter(backend):
    draw = torch.Generator().manual_seed(3)
    h, weight = torch.randn(20, 12, generator=draw), torch.randn(600, 12, generator=draw)
    wanted = encode_topk(h, weight, None, 5, backend=backend)
    found = encode_topk(h.T.contiguous().T, weight.T.contiguous().T, None, 5, backend=backend)
    assert torch.equal(found[1], wanted[1])
    alone = encode_topk(h[7:8], weight, None, 5, backend=backend)
    assert torch.equal(alone[1], wanted[1][7:8])
    torch.testing.assert_close(alone[0], wanted[0][7:8], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_encoding_takes_weights_in_training_and_leaves_the_number_of_threads(backend):
    draw = torch.Generator().manual_seed(3)
    h = torch.randn(200, 12, generator=draw).requires_grad_()
    weight = torch.randn(600, 12, generator=draw).requires_grad_()
    before = torch.get_num_threads()
    values, _ = encode_topk(h, weight, None, 5, backend=backend)
    assert not values.requires_grad
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_without_positive_pre_activations_has_zero_codes(backend):
    weight = torch.ones(80, 2)
    values, indices = encode_topk(torch.tensor([[-1.0, -1.0], [1.0, 0.0]]), weight, None, 3, backend=backend)
    assert values.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert indices.tolist() == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_is_not_hidden(backend):
    h = torch.zeros(2, 3)
    h[1, 2] = torch.nan
    values, _ = encode_topk(h, torch.ones(700, 3), None, 4, backend=backend)
    assert values[0].isfinite().all()
    assert values[1].isnan().all()


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(0, 40), k=st.integers(0, 11), d=st.integers(1, 37), m=st.integers(1, 50), seed=st.integers(0, 99)
)
def test_decode_is_the_dense_product(n, k, d, m, seed):
    draw = torch.Generator().manual_seed(seed)
    values, indices = torch.randn(n, k, generator=draw), torch.randint(0, m, (n, k), generator=draw)
    atoms, bias = torch.randn(m, d, generator=draw), torch.randn(d, generator=draw)
    rows = torch.arange(n)[:, None].expand(n, k)
    dense = torch.zeros(n, m).index_put_((rows, indices), values, accumulate=True)
    for backend in BACKENDS:
        for kind in (torch.int64, torch.int32):
            torch.testing.assert_close(
                decode(values, indices.to(kind), atoms, bias, backend), dense @ atoms + bias, atol=1e-4, rtol=1e-4
            )


def test_decode_carries_gradients():
    atoms = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    decode(torch.ones(2, 2), torch.tensor([[0, 1], [1, 1]]), atoms).sum().backward()
    assert atoms.grad[:3].tolist() == [[1] * 4, [3] * 4, [0] * 4]


def test_wrong_options_are_refused_by_name():
    h, weight, bias = whole(3, 2, 5, 0)
    for wrong in (0, 6):
        with pytest.raises(UsageError, match="k: must be between 1 and the number of latents 5"):
            encode_topk(h, weight, bias, wrong)
    with pytest.raises(UsageError, match="bias"):
        encode_topk(h, weight, bias[:2], 2)
    with pytest.raises(UsageError, match="h: must be"):
        encode_topk(h[:, :1], weight, bias, 2)
    with pytest.raises(UsageError, match="backend"):
        encode_topk(h, weight, bias, 2, backend="fast")
    with pytest.raises(UsageError, match="numba"):
        encode_topk(h.half(), weight.half(), None, 2, backend="numba")
    for backend in BACKENDS[1:]:
        with pytest.raises(UsageError, match=r"indices: must be in 0\.\.4"):
            decode(torch.ones(1, 1), torch.tensor([[5]]), weight, backend=backend)
