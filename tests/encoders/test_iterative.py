"""Convex solvers: one objective from any start, certified; the per-row optimisation and least squares."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from scipy.optimize import nnls as scipy_nnls

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.encoders import ENCODERS
from unmix.encoders.perrow import Exponentiated
from unmix.kernels.lasso import certificate

SOLVERS = {
    "Ista": {},
    "Fista": {"solver": "fista"},
    "CoordinateDescent": {},
    "Lca": {},
}


def problem(n, d, m, seed=0, dtype=torch.float64, shared=0.0):
    """Rows and a dictionary whose atoms have a part in common, `shared` times as long as the rest."""
    draw = torch.Generator().manual_seed(seed)
    atoms = torch.randn(m, d, generator=draw, dtype=torch.float64)
    if shared:
        atoms += shared * torch.randn(1, d, generator=draw, dtype=torch.float64)
    atoms = torch.nn.functional.normalize(atoms).to(dtype)
    x = torch.randn(n, d, generator=draw, dtype=torch.float64).to(dtype)
    return SimpleNamespace(atoms=atoms, bias=atoms.new_zeros(d)), x


def objective(codes, dictionary, x, penalty):
    left = x - codes.decode(dictionary.atoms)
    return left.square().sum(1) / 2 + penalty * codes.dense().abs().sum(1)


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("penalty", [0.005, 0.02, 0.1, 0.8])
@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_all_solvers_reach_one_objective_from_any_start(positive, penalty, shared):
    dictionary, x = problem(24, 12, 30, shared=shared)
    draw = torch.Generator().manual_seed(9)
    sparse = torch.randn(24, 3, generator=draw).double()
    places = (torch.randint(0, 30, (24, 1), generator=draw) + torch.arange(3)) % 30
    dense = 3 * torch.randn(24, 30, generator=draw).double()
    starts = {"none": None, "sparse": Codes(sparse, places, 30), "dense": Codes(dense, None, 30)}
    wanted = None
    for name, options in [*SOLVERS.items(), ("Fista", {})]:
        recipe = {"kind": name, "penalty": penalty, "positive": positive, "tolerance": 1e-8, **options}
        encoder = ENCODERS.make(recipe).bind(dictionary)
        reached = {begun: encoder(x, start=start) for begun, start in starts.items()}
        if positive:
            refined = {"kind": "Refine", "first": {"kind": "TopK", "init": "tied", "k": 4}, "then": recipe}
            reached["TopK"] = ENCODERS.make(refined).bind(dictionary)(x)
        for begun, codes in reached.items():
            assert codes.certificate.max() < 1e-6, (name, begun)
            value = objective(codes, dictionary, x, penalty)
            wanted = value if wanted is None else wanted
            torch.testing.assert_close(value, wanted, rtol=1e-5, atol=0)


def test_without_a_step_on_the_support_a_small_penalty_takes_many_times_as_long():
    dictionary, x = problem(24, 12, 30)
    for name in ("Ista", "Lca"):
        recipe = ENCODERS.make({"kind": name, "penalty": 0.1, "tolerance": 1e-6})
        polished, plain = (recipe.but(polish=polish).bind(dictionary)(x) for polish in (True, False))
        assert plain.cost.sum() > 3 * polished.cost.sum()
        values = (objective(codes, dictionary, x, 0.1) for codes in (polished, plain))
        torch.testing.assert_close(*values, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_certificate_is_the_gap_that_can_be_computed_from_the_codes(name):
    dictionary, x = problem(10, 8, 20, 1)
    recipe = ENCODERS.make({"kind": name, "penalty": 0.2, "tolerance": 1e-3})
    codes = recipe.bind(dictionary)(x)
    _, gap = certificate(x, codes.dense(), dictionary.atoms, torch.full((10,), 0.2).double(), True)
    torch.testing.assert_close(codes.certificate, gap, rtol=1e-6, atol=1e-9)
    assert recipe.but(penalty=0.0, max_iterations=20).bind(dictionary)(x).certificate is None


@pytest.mark.parametrize("name", SOLVERS)
def test_a_start_near_the_optimum_costs_less(name):
    dictionary, x = problem(20, 12, 30, 2)
    encoder = ENCODERS.make({"kind": name, "penalty": 0.8, "tolerance": 1e-6, **SOLVERS[name]}).bind(dictionary)
    cold = encoder(x)
    warm = encoder(x, start=ENCODERS.make({"kind": name, "penalty": 0.82}).bind(dictionary)(x))
    assert warm.cost.sum() < cold.cost.sum()


def test_an_unfinished_row_says_so():
    dictionary, x = problem(10, 8, 30, 3)
    codes = ENCODERS.make({"kind": "Ista", "penalty": 0.01, "max_iterations": 5}).bind(dictionary)(x)
    assert (codes.certificate > 1e-4).all()


def test_the_locally_competitive_algorithm_takes_only_stable_rates():
    with pytest.raises(UsageError, match=r"Lca\.rate"):
        ENCODERS.make({"kind": "Lca", "rate": 1.5})
    dictionary, x = problem(10, 8, 20, 3)
    slow = ENCODERS.make({"kind": "Lca", "penalty": 0.3, "rate": 0.2}).bind(dictionary)(x)
    assert (slow.certificate <= 1e-4).all()


def reference(x, atoms, penalty, steps, lr, start):
    """The optimisation as its authors wrote it: autograd and torch's Adam over the log-codes."""
    s = torch.full((len(x), len(atoms)), start, dtype=x.dtype, requires_grad=True)
    optimiser = torch.optim.Adam([s], lr=lr)
    for _ in range(steps):
        z = s.exp()
        loss = ((x - z @ atoms).square().sum(1) / 2 + penalty * z.sum(1)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return s.detach().exp()


def test_the_exponentiated_optimisation_is_adam_on_log_codes():
    dictionary, x = problem(6, 8, 16, 4)
    recipe = Exponentiated(penalty=0.1, steps=150, lr=0.05)
    codes = recipe.bind(dictionary)(x).dense()
    torch.testing.assert_close(codes, reference(x, dictionary.atoms, 0.1, 150, 0.05, -10.0), rtol=1e-6, atol=1e-12)


def test_the_papers_weight_is_the_textbook_penalty_in_other_units():
    dictionary, x = problem(6, 8, 16, 5)
    assert Exponentiated(weight=0.01).textbook_penalty(16, 8) == pytest.approx(0.0025)
    short = {"steps": 60, "lr": 0.1}
    one = Exponentiated(weight=0.4, **short).bind(dictionary)(x)
    two = Exponentiated(penalty=0.1, **short).bind(dictionary)(x)
    assert torch.equal(one.values, two.values)
    for wrong in ({}, {"penalty": 0.1, "weight": 0.1}):
        with pytest.raises(UsageError, match="one of penalty"):
            Exponentiated(**wrong)


def test_the_exponentiated_optimisation_approaches_the_optimum_and_uses_its_start():
    dictionary, x = problem(12, 8, 16, 6)
    recipe = Exponentiated(penalty=0.1, steps=1500, lr=0.02)
    codes = recipe.bind(dictionary)(x)
    best = ENCODERS.make({"kind": "CoordinateDescent", "penalty": 0.1, "tolerance": 1e-9}).bind(dictionary)(x)
    gap = objective(codes, dictionary, x, 0.1) / objective(best, dictionary, x, 0.1) - 1
    assert (gap > -1e-9).all() and gap.median() < 1e-3 and gap.max() < 0.1
    assert codes.l0().min() == 16  # no code of this kind is ever exactly zero
    few = recipe.but(steps=30).bind(dictionary)
    started, cold = few(x, start=best), few(x)
    assert (objective(started, dictionary, x, 0.1) < objective(cold, dictionary, x, 0.1)).all()
    assert started.certificate.mean() < cold.certificate.mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("m", "d"), [(16, 8), (6, 20), (40, 12)])
def test_non_negative_least_squares_is_that_of_scipy(m, d, dtype):
    dictionary, x = problem(60, d, m, 7, dtype)
    codes = ENCODERS.make("Nnls").bind(dictionary)(x)
    # In single precision codes are rounded, and those of nearly dependent atoms are large.
    noise = 1e-12 if dtype == torch.float64 else 1e-6 * (1 + codes.dense().amax(1).double() / x.double().norm(dim=1))
    assert (codes.certificate < 100 * noise).all()
    assert (codes.l0() <= min(m, d)).all() and (codes.values > 0).all()
    residual = x.double() - codes.dense().double() @ dictionary.atoms.double()
    atoms = dictionary.atoms.double().numpy()
    wanted = torch.tensor([scipy_nnls(atoms.T, row.double().numpy())[1] for row in x], dtype=torch.float64)
    size = x.double().norm(dim=1)
    assert ((residual.norm(dim=1) - wanted).abs() < 100 * noise * size).all()
    slope = residual @ dictionary.atoms.double().T
    violation = torch.where(codes.dense() > 0, slope.abs(), slope.clamp_min(0)).amax(1) / size
    assert ((violation - codes.certificate).abs() < 100 * noise).all()


def test_non_negative_least_squares_starts_from_any_codes():
    dictionary, x = problem(40, 12, 30, 8)
    encoder = ENCODERS.make("Nnls").bind(dictionary)
    cold = encoder(x)
    warm = encoder(x, start=cold)
    assert warm.cost.sum() < cold.cost.sum()
    draw = torch.Generator().manual_seed(1)
    other = encoder(x, start=Codes(torch.randn(40, 30, generator=draw).double(), None, 30))
    for codes in (warm, other):
        assert codes.certificate.max() < 1e-10
        left, wanted = ((x - c.decode(dictionary.atoms)).norm(dim=1) for c in (codes, cold))
        torch.testing.assert_close(left, wanted, rtol=1e-9, atol=1e-9)
    stopped = ENCODERS.make({"kind": "Nnls", "max_rounds": 1}).bind(dictionary)(x)
    assert stopped.certificate.max() > 1e-3
