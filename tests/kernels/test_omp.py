"""Orthogonal matching pursuit against scikit-learn, scipy and its own conditions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp

from unmix.core.errors import UsageError
from unmix.kernels.omp import omp
from unmix.kernels.topk import decode

# The compiled pursuit, and the plain one with the Gram matrix and without.
WAYS = {
    "numba": {"backend": "numba"},
    "gram": {"backend": "torch"},
    "residual": {"backend": "torch", "gram_bytes": 0},
}


def problem(n, d, m, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(m, d, generator=draw, dtype=torch.float64))
    return torch.randn(n, d, generator=draw, dtype=torch.float64).to(dtype), atoms.to(dtype)


def dense(values, indices, m):
    rows = torch.arange(len(values))[:, None].expand_as(indices)
    return values.new_zeros(len(values), m).index_put_((rows, indices), values, accumulate=True)


@pytest.fixture(scope="module")
def signals():
    h, atoms = problem(1000, 24, 60)
    codes = orthogonal_mp(atoms.numpy().T, h.numpy().T, n_nonzero_coefs=6).T
    return h, atoms, torch.from_numpy(codes)


@pytest.mark.parametrize("way", WAYS)
def test_supports_are_those_of_scikit_learn_on_1000_signals(way, signals):
    h, atoms, wanted = signals
    found = dense(*omp(h, atoms, 6, **WAYS[way]), len(atoms))
    assert torch.equal(found != 0, wanted != 0)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("way", WAYS)
def test_norms_of_atoms_do_not_change_the_reconstruction(way, signals):
    h, atoms, wanted = signals
    scale = torch.linspace(0.2, 5, len(atoms), dtype=h.dtype)[:, None]
    found = dense(*omp(h[:200], atoms * scale, 6, **WAYS[way]), len(atoms)) * scale.T
    torch.testing.assert_close(found, wanted[:200], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_single_precision_takes_the_same_atoms(way, signals):
    h, atoms, wanted = signals
    gram = (atoms @ atoms.T).float() if way == "gram" else None
    found = dense(*omp(h.float(), atoms.float(), 6, gram=gram, **WAYS[way]), len(atoms))
    same = ((found != 0) == (wanted != 0)).all(1)
    assert same.double().mean() > 0.895
    torch.testing.assert_close(found[same], wanted[same].float(), rtol=1e-4, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(0, 9),
    d=st.integers(1, 14),
    m=st.integers(1, 30),
    share=st.floats(0, 1),
    positive=st.booleans(),
    seed=st.integers(0, 99),
)
def test_ways_agree_and_the_residual_leaves_the_support(n, d, m, share, positive, seed):
    h, atoms = problem(n, d, m, seed)
    k = min(1 + round(share * (m - 1)), 8)
    codes = [omp(h, atoms, k, positive=positive, **options) for options in WAYS.values()]
    scale = h.norm(dim=1, keepdim=True)
    for values, indices in codes:
        assert values.shape == indices.shape == (n, k)
        assert ((indices >= 0) & (indices < m)).all()
        for row_values, row in zip(values, indices, strict=True):
            used = row[row_values != 0]
            assert len(used.unique()) == len(used)
        residual = h - decode(values, indices, atoms)
        left = (residual @ atoms.T).gather(1, indices)
        assert (left.abs() * (values != 0) <= 1e-6 * (1 + scale)).all()
        if positive:
            assert (values >= 0).all()
        # Near ties may part the ways in the support, never in how well they fit at the first atom.
        torch.testing.assert_close(values[:, :1], codes[0][0][:, :1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_positive_codes_are_non_negative_least_squares_on_the_support(way):
    h, atoms = problem(25, 10, 40, 2)
    values, indices = omp(h, atoms, 7, positive=True, **WAYS[way])
    assert (values == 0).any()
    for x, found, support in zip(h, values, indices, strict=True):
        used = support[: 1 + int((found != 0).nonzero().max())]
        wanted, _ = nnls(atoms[used].numpy().T, x.numpy())
        np.testing.assert_allclose(found[: len(used)].numpy(), wanted, atol=1e-7)
    signed = decode(*omp(h, atoms, 7, **WAYS[way]), atoms)
    assert ((h - signed).norm(dim=1) <= (h - decode(values, indices, atoms)).norm(dim=1) + 1e-9).double().mean() > 0.8


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_rows_stop_when_nothing_is_left(way, positive):
    h, atoms = problem(4, 12, 30, 3)
    atoms = torch.cat([atoms, atoms[:2], atoms.new_zeros(2, 12)])
    rows = torch.stack([h[0] * 0, 3 * atoms[5], 2 * atoms[7] + atoms[9]])
    values, indices = omp(rows, atoms, 20, positive=positive, **WAYS[way])
    assert (values != 0).sum(1).tolist() == [0, 1, 2]
    assert indices[1, 0] == 5
    assert sorted(indices[2, :2].tolist()) == [7, 9]
    values, indices = omp(h, atoms, 34, positive=positive, **WAYS[way])
    assert values.isfinite().all()
    assert not ((indices >= 32) & (values != 0)).any()
    if not positive:
        assert ((values != 0).sum(1) == 12).all()
        torch.testing.assert_close(decode(values, indices, atoms), h)


@pytest.mark.parametrize("way", WAYS)
def test_tolerance_ends_a_row_at_its_share_of_the_energy(way, signals):
    h, atoms, _ = signals
    values, indices = omp(h[:100], atoms, 20, tolerance=0.1, **WAYS[way])
    share = (h[:100] - decode(values, indices, atoms)).square().sum(1) / h[:100].square().sum(1)
    assert (share <= 0.1).all()
    count = (values != 0).sum(1)
    for row in range(100):
        used = indices[row, : count[row] - 1]
        fit = torch.linalg.lstsq(atoms[used].T, h[row]).solution
        assert (h[row] - fit @ atoms[used]).square().sum() > 0.1 * h[row].square().sum()


def test_wrong_options_are_refused_by_name():
    h, atoms = problem(3, 4, 6)
    with pytest.raises(UsageError, match="k: must be between 1 and the number of atoms 6"):
        omp(h, atoms, 7)
    with pytest.raises(UsageError, match="tolerance"):
        omp(h, atoms, 2, tolerance=1.0)
    with pytest.raises(UsageError, match="gram"):
        omp(h, atoms, 2, gram=atoms)
    with pytest.raises(UsageError, match="h: must"):
        omp(h[:, :2], atoms, 2)
