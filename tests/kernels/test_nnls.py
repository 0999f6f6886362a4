"""Non-negative least squares and least squares on a support: compiled and plain against scipy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls as scipy_nnls

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.kernels.nnls import nnls, on_support

BACKENDS = ["numba", "torch"]


def problem(n, d, m, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    atoms = torch.randn(m, d, generator=draw, dtype=torch.float64)
    return torch.randn(n, d, generator=draw, dtype=torch.float64).to(dtype), atoms.to(dtype)


def dense(codes, m):
    return Codes(codes[0], codes[1], m, codes[2]).dense()


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 6),
    d=st.integers(1, 12),
    m=st.integers(1, 30),
    copies=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_residual_is_that_of_scipy(n, d, m, copies, seed):
    h, atoms = problem(n, d, m, seed)
    if copies and m > 3:
        atoms[1], atoms[2] = atoms[0], 0
    for backend, size in (("numba", 1 << 30), ("torch", 1 << 30), ("auto", 0)):
        codes, violation, cost = nnls(h, atoms, backend=backend, gram_bytes=size)
        z = dense(codes, m)
        assert violation.shape == cost.shape == (n,)
        assert (violation < 1e-9).all() and (z >= 0).all() and ((z > 0).sum(1) <= d).all()
        for x, code in zip(h, z, strict=True):
            wanted = scipy_nnls(atoms.numpy().T, x.numpy())[1]
            assert float((x - code @ atoms).norm()) == pytest.approx(wanted, abs=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_zero_row_has_no_codes_and_single_precision_is_close(backend):
    h, atoms = problem(30, 10, 25, 1)
    h[4] = 0
    exact = dense(nnls(h, atoms, backend=backend)[0], 25)
    codes, violation, _ = nnls(h.float(), atoms.float(), backend=backend)
    assert (dense(codes, 25)[4] == 0).all()
    assert violation.max() < 1e-5
    left, wanted = ((h - z @ atoms).norm(dim=1) for z in (dense(codes, 25).double(), exact))
    torch.testing.assert_close(left, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_first_passive_set_saves_rounds_and_may_be_wrong_or_dependent(backend):
    h, atoms = problem(30, 10, 25, 2)
    atoms[1] = atoms[0]
    cold, _, cost = nnls(h, atoms, backend=backend)
    warm, violation, less = nnls(h, atoms, start=cold, backend=backend)
    assert less.sum() < cost.sum() and violation.max() < 1e-9
    torch.testing.assert_close(dense(warm, 25), dense(cold, 25), rtol=1e-7, atol=1e-8)
    everything = Codes(torch.ones(30, 25).double(), None, 25).ragged()
    start = everything.values, everything.indices, everything.pointers
    again, violation, _ = nnls(h, atoms, start=start, backend=backend)
    assert violation.max() < 1e-9
    left, wanted = ((h - dense(z, 25) @ atoms).norm(dim=1) for z in (again, cold))
    torch.testing.assert_close(left, wanted, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("positive", [True, False])
def test_backends_agree_on_supports_of_any_size(positive):
    h, atoms = problem(40, 8, 20, 3)
    draw = torch.Generator().manual_seed(0)
    given_codes = torch.randn(40, 20, generator=draw).double()
    given_codes = given_codes.abs() if positive else given_codes
    codes = Codes(given_codes * (torch.rand(40, 20, generator=draw) < 0.3), None, 20).ragged()
    support = codes.values, codes.indices, codes.pointers
    found = [on_support(h, atoms, support, positive=positive, backend=backend)[0] for backend in BACKENDS]
    left = [(h - dense((values, *support[1:]), 20) @ atoms).norm(dim=1) for values in found]
    torch.testing.assert_close(left[0], left[1], rtol=1e-8, atol=1e-8)
    few = codes.pointers.diff() <= 8
    one, two = (dense((values, *support[1:]), 20)[few] for values in found)
    torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)


def test_wrong_options_are_refused_by_name():
    h, atoms = problem(3, 4, 6)
    with pytest.raises(UsageError, match="gram"):
        nnls(h, atoms, gram=atoms)
    with pytest.raises(UsageError, match="start"):
        nnls(h, atoms, start=(torch.ones(1), torch.zeros(1, dtype=torch.int64), torch.zeros(2)))
    with pytest.raises(UsageError, match="codes"):
        on_support(h, atoms, (torch.ones(1), torch.zeros(1), torch.zeros(2)), positive=True)
