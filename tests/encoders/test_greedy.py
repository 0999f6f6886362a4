"""Greedy encoders: residuals that never grow, exact recovery where theory says so."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from unmix.encoders import ENCODERS


def problem(n, d, m, seed=0):
    draw = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(m, d, generator=draw, dtype=torch.float64))
    return SimpleNamespace(atoms=atoms, bias=atoms.new_zeros(d)), torch.randn(n, d, generator=draw).double()


def left(kind, k, positive, dictionary, x):
    codes = ENCODERS.make({"kind": kind, "k": k, "positive": positive}).bind(dictionary)(x)
    return codes, (x - codes.decode(dictionary.atoms)).norm(dim=1)


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("kind", ["MatchingPursuit", "GradientPursuit", "Omp"])
def test_the_residual_never_grows_and_the_codes_are_few(kind, positive):
    dictionary, x = problem(50, 12, 40)
    before = x.norm(dim=1)
    for k in range(1, 16):
        codes, now = left(kind, k, positive, dictionary, x)
        assert (now <= before + 1e-9).all(), k
        assert (codes.l0() <= k).all()
        assert not positive or (codes.values >= 0).all()
        before = now
    assert (before < 0.6 * x.norm(dim=1)).double().mean() > 0.9


@pytest.mark.parametrize("positive", [True, False])
def test_the_methods_are_ordered_by_what_they_solve_for(positive):
    dictionary, x = problem(80, 16, 50, 1)
    matching, gradient, orthogonal = (
        left(kind, 6, positive, dictionary, x)[1].mean() for kind in ("MatchingPursuit", "GradientPursuit", "Omp")
    )
    assert orthogonal < gradient < matching


def test_orthogonal_pursuit_leaves_nothing_on_its_support_and_takes_no_atom_twice():
    dictionary, x = problem(200, 24, 60, 2)
    codes, _ = left("Omp", 8, False, dictionary, x)
    slope = (x - codes.decode(dictionary.atoms)) @ dictionary.atoms.T
    assert (slope.gather(1, codes.indices) * (codes.values != 0)).abs().max() < 1e-6
    assert (codes.indices.sort(1).values.diff(dim=1) > 0).all()
    assert (codes.l0() == 8).all()


@pytest.mark.parametrize("kind", ["Omp", "MatchingPursuit", "GradientPursuit"])
def test_every_code_below_the_coherence_bound_is_found(kind):
    """The true atoms are chosen whenever k < (1 + 1 / mu) / 2 (Tropp 2004); Omp then has the exact codes."""
    draw = torch.Generator().manual_seed(3)
    atoms = torch.linalg.qr(torch.randn(64, 64, generator=draw).double())[0]
    atoms = torch.nn.functional.normalize(torch.cat([atoms, torch.ones(1, 64).double() / 8 + 0.01 * atoms[:1]]))
    coherence = (atoms @ atoms.T).fill_diagonal_(0).abs().max().item()
    k = int((1 + 1 / coherence) / 2 - 1e-9)
    assert k >= 2
    truth = torch.zeros(300, 65).double()
    places = torch.rand(300, 65, generator=draw).argsort(1)[:, :k]
    truth.scatter_(1, places, torch.rand(300, k, generator=draw).double() + 0.1)
    dictionary = SimpleNamespace(atoms=atoms, bias=torch.zeros(64).double())
    codes = left(kind, k, True, dictionary, truth @ atoms)[0].dense()
    assert ((codes > 0) <= (truth > 0)).all()
    if kind == "Omp":
        torch.testing.assert_close(codes, truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["Omp", "MatchingPursuit", "GradientPursuit"])
def test_a_tolerance_ends_a_row_early(kind):
    dictionary, x = problem(40, 12, 40, 4)
    recipe = ENCODERS.make({"kind": kind, "k": 30, "tolerance": 0.2})
    codes = recipe.bind(dictionary)(x)
    share = (x - codes.decode(dictionary.atoms)).square().sum(1) / x.square().sum(1)
    assert (share <= 0.2 + 1e-9).all()
    full = recipe.but(tolerance=0.0).bind(dictionary)(x)
    assert codes.cost.sum() < full.cost.sum()
    assert (codes.l0() <= full.l0()).all()
