"""The dictionary update and its statistics against their definitions."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.kernels.update import gram_matrix, gram_statistics, update_atoms, update_atoms_reported

BACKENDS = ["torch", "numba"]


def problem(n, m, d, seed, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(n, m, generator=draw, dtype=dtype)
    z[torch.rand(n, m, generator=draw) < 0.7] = 0
    atoms = torch.nn.functional.normalize(torch.randn(m, d, generator=draw, dtype=dtype))
    return z, torch.randn(n, d, generator=draw, dtype=dtype), atoms


def naive(atoms, a, b, positive, sweeps, constraint):
    atoms = atoms.clone()
    for _ in range(sweeps):
        for j in range(len(atoms)):
            if a[j, j] <= 1e-12 * a.diagonal().max():
                continue
            new = atoms[j] + (b[j] - a[j] @ atoms) / a[j, j]
            new = new.clamp_min(0) if positive else new
            norm = new.norm()
            if norm > 0 or constraint == "ball":
                atoms[j] = new / (norm if constraint == "sphere" else max(1.0, norm))
    return atoms


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 60),
    m=st.integers(1, 150),
    d=st.integers(1, 12),
    positive=st.booleans(),
    sweeps=st.integers(1, 2),
    constraint=st.sampled_from(["sphere", "ball"]),
    seed=st.integers(0, 99),
)
def test_blocks_are_the_naive_loop(n, m, d, positive, sweeps, constraint, seed):
    z, x, atoms = problem(n, m, d, seed)
    a, b = z.T @ z, z.T @ x
    kept = [tensor.clone() for tensor in (atoms, a, b)]
    wanted = naive(atoms, a, b, positive, sweeps, constraint)
    for backend in BACKENDS:
        found = update_atoms(atoms, a, b, positive=positive, sweeps=sweeps, constraint=constraint, backend=backend)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)
        assert all(torch.equal(now, then) for now, then in zip((atoms, a, b), kept, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_unused_atoms_stay_and_are_reported(backend):
    z, x, atoms = problem(50, 70, 6, 1, torch.float32)
    z[:, [3, 66]] = 0
    updated = update_atoms_reported(atoms, z.T @ z, z.T @ x, backend=backend)
    assert updated.idle.nonzero().squeeze(1).tolist() == [3, 66]
    assert torch.equal(updated.atoms[[3, 66]], atoms[[3, 66]])
    assert (updated.atoms.norm(dim=1) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_objective_falls_and_out_receives_the_result(backend):
    z, x, atoms = problem(200, 40, 8, 2, torch.float32)
    a, b = z.T @ z, z.T @ x
    errors = [(x - z @ atoms).square().sum()]
    target = atoms.clone()
    for _ in range(4):
        assert update_atoms(target, a, b, constraint="ball", out=target, backend=backend) is target
        errors.append((x - z @ target).square().sum())
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(errors))
    assert errors[-1] < 0.8 * errors[0]


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 50), m=st.integers(1, 60), d=st.integers(1, 20), seed=st.integers(0, 99))
def test_statistics_are_the_dense_products(n, m, d, seed):
    z, x, _ = problem(n, m, d, seed, torch.float32)
    best = z.abs().topk(min(5, m), dim=1).indices
    layouts = {
        "dense": (Codes(z, None, m), z),
        "ragged": (Codes(z, None, m).ragged(), z),
        "rectangular": (Codes(z.gather(1, best), best, m), torch.zeros_like(z).scatter(1, best, z.gather(1, best))),
    }
    for codes, dense in layouts.values():
        for backend in BACKENDS:
            a, b = gram_statistics(codes, x, backend=backend)
            torch.testing.assert_close(a, dense.T @ dense, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(b, dense.T @ x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 3), (1, 4), (300, 5)])
def test_the_gram_matrix_is_the_product(shape):
    atoms = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found = gram_matrix(atoms)
            assert not found.requires_grad
            torch.testing.assert_close(found, (atoms @ atoms.T).detach())
    finally:
        torch.set_num_threads(threads)


def test_wrong_shapes_are_refused_by_name():
    z, x, atoms = problem(9, 5, 3, 0)
    with pytest.raises(UsageError, match="a, b"):
        update_atoms(atoms, z.T @ z, (z.T @ x)[:2])
    with pytest.raises(UsageError, match="constraint"):
        update_atoms(atoms, z.T @ z, z.T @ x, constraint="cube")
    with pytest.raises(UsageError, match="codes"):
        gram_statistics(Codes(z, None, 5), x[:3])
