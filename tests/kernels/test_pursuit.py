"""Matching and gradient pursuit: the compiled and the plain version agree, with the Gram matrix and without."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.errors import UsageError
from unmix.kernels.pursuit import gradient_pursuit, matching_pursuit

WAYS = {
    "numba": {"backend": "numba"},
    "gram": {"backend": "torch"},
    "residual": {"backend": "torch", "gram_bytes": 0},
}
METHODS = {"matching": matching_pursuit, "gradient": gradient_pursuit}


def problem(n, d, m, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    atoms = torch.randn(m, d, generator=draw, dtype=torch.float64)
    return torch.randn(n, d, generator=draw, dtype=torch.float64).to(dtype), atoms.to(dtype)


def dense(found, m):
    values, indices = found[:2]
    return values.new_zeros(len(values), m).scatter_add_(1, indices, values)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(0, 9),
    d=st.integers(1, 14),
    m=st.integers(1, 80),
    share=st.floats(0, 1),
    positive=st.booleans(),
    seed=st.integers(0, 99),
)
def test_ways_agree(method, n, d, m, share, positive, seed):
    h, atoms = problem(n, d, m, seed)
    k = min(1 + round(share * (m - 1)), 6)
    found = [METHODS[method](h, atoms, k, positive=positive, **options) for options in WAYS.values()]
    for values, indices, steps, cost in found:
        assert values.shape == indices.shape == (n, k)
        assert values.isfinite().all() and (steps <= k).all() and (cost >= 2 * m * d).all()
        assert not positive or (values >= 0).all()
        # With one dimension an atom fits exactly and rounding decides whether there is more to take.
        if d > 1:
            torch.testing.assert_close(dense((values, indices), m), dense(found[0], m), rtol=1e-7, atol=1e-7)


def slowly(h, atoms, k):
    """Matching pursuit as the textbook has it."""
    codes = torch.zeros(len(h), len(atoms), dtype=h.dtype)
    sizes = atoms.norm(dim=1)
    for row, x in enumerate(h):
        residual = x.clone()
        for _ in range(k):
            products = atoms @ residual
            j = int((products / sizes).abs().argmax())
            codes[row, j] += products[j] / sizes[j] ** 2
            residual = x - codes[row] @ atoms
    return codes


@pytest.mark.parametrize("way", WAYS)
def test_matching_pursuit_is_the_textbooks(way):
    h, atoms = problem(20, 6, 90, 1)
    found = matching_pursuit(h, atoms, 12, **WAYS[way])
    torch.testing.assert_close(dense(found, 90), slowly(h, atoms, 12), rtol=1e-8, atol=1e-9)
    assert (found[2] == 12).all()
    assert ((found[0] != 0).sum(1) < 12).any()  # an atom was taken again, and has one slot


@pytest.mark.parametrize("way", WAYS)
def test_a_gradient_step_has_the_exact_length(way):
    h, atoms = problem(15, 10, 30, 2)
    one, two = (dense(gradient_pursuit(h, atoms, k, **WAYS[way]), 30) for k in (1, 2))
    residual = h - one @ atoms
    gradient = torch.where(two != 0, residual @ atoms.T, 0)
    moved = gradient @ atoms
    length = (moved * residual).sum(1) / moved.square().sum(1)
    torch.testing.assert_close(two, one + length[:, None] * gradient, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_zero_rows_zero_atoms_copies_and_all_atoms(method, way, positive):
    h, atoms = problem(5, 4, 9, 3, torch.float32)
    atoms[3], atoms[5], h[1] = 0, atoms[4], 0
    values, indices, steps, _ = METHODS[method](h, atoms, 9, positive=positive, **WAYS[way])
    assert values.isfinite().all()
    assert steps[1] == 0 and (values[1] == 0).all()
    assert not ((indices == 3) & (values != 0)).any()
    assert not ((indices == 5) & (values != 0)).any()  # the first of two copies is taken
    empty = METHODS[method](h[:0], atoms, 2, positive=positive, **WAYS[way])
    assert empty[0].shape == (0, 2) and empty[3].shape == (0,)
    strided = torch.stack([h, h], 2)[..., 0]
    again = METHODS[method](strided, atoms.T.contiguous().T, 9, positive=positive, **WAYS[way])
    assert torch.allclose(dense(again, 9), dense((values, indices), 9), atol=1e-4)


def test_wrong_options_are_refused_by_name():
    h, atoms = problem(3, 4, 6)
    for method in METHODS.values():
        with pytest.raises(UsageError, match="k: must be between 1 and the number of atoms 6"):
            method(h, atoms, 7)
        with pytest.raises(UsageError, match="tolerance"):
            method(h, atoms, 2, tolerance=1.0)
        with pytest.raises(UsageError, match="gram"):
            method(h, atoms, 2, gram=atoms)
        with pytest.raises(UsageError, match="dtype"):
            method(h.float(), atoms, 2)
