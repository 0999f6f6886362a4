"""Known dictionary, noiseless, (N, M, K) = (16, 8, 3): what each inference reaches, and an exhaustive search."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from sklearn.linear_model import orthogonal_mp

from unmix.encoders import ENCODERS
from unmix.scores.matching import mcc
from unmix.worlds.sparse import SparseWorld


@dataclass(frozen=True)
class Truth:
    atoms: torch.Tensor
    bias: torch.Tensor
    x: torch.Tensor
    z: torch.Tensor


@pytest.fixture(scope="module")
def truths():
    made = []
    for seed in range(8):
        world = SparseWorld(latents=16, width=8, active=3, seed=seed)
        sample = world.sample(512, 0)
        made.append(Truth(world.atoms.double(), torch.zeros(8).double(), sample.x.double(), sample.z.double()))
    return made


def recovered(recipe, truths):
    """Mean code MCC and mean rate of rows whose support is exactly the true one."""
    found, exact = [], []
    for truth in truths:
        codes = ENCODERS.make(recipe).bind(truth)(truth.x)
        found.append(mcc(codes, truth.z).value)
        exact.append(((codes.dense() > 1e-6) == (truth.z > 0)).all(1).double().mean().item())
    return float(np.mean(found)), float(np.mean(exact))


def lasso(penalty, kind="Fista"):
    return {"kind": kind, "penalty": penalty, "tolerance": 1e-7}


def test_the_l1_problem_recovers_the_codes(truths):
    assert recovered(lasso(1e-3), truths)[0] == pytest.approx(0.990, abs=0.004)
    value, exact = recovered(lasso(0.01), truths)
    assert value == pytest.approx(0.987, abs=0.004)
    debiased, better = recovered({"kind": "Debiased", "base": lasso(0.01)}, truths)
    assert exact < 0.5 and better == pytest.approx(0.88, abs=0.03)
    assert debiased >= value
    refined, _ = recovered(
        {"kind": "Refine", "first": {"kind": "TopK", "init": "tied", "k": 3}, "then": lasso(1e-3)}, truths
    )
    assert refined == pytest.approx(recovered(lasso(1e-3, "CoordinateDescent"), truths)[0], abs=1e-3)


def test_non_negative_least_squares_and_pursuit_are_where_they_should_be(truths):
    value, exact = recovered("Nnls", truths)
    assert value == pytest.approx(0.938, abs=0.016)
    assert exact == pytest.approx(0.87, abs=0.04)
    assert recovered({"kind": "Omp", "k": 3}, truths)[0] == pytest.approx(0.909, abs=0.025)


def test_signed_pursuit_is_that_of_scikit_learn_and_worse_than_non_negative(truths):
    values, wanted = [], []
    for truth in truths:
        codes = ENCODERS.make({"kind": "Omp", "k": 3, "positive": False}).bind(truth)(truth.x)
        peer = torch.from_numpy(orthogonal_mp(truth.atoms.numpy().T, truth.x.numpy().T, n_nonzero_coefs=3).T)
        torch.testing.assert_close(codes.dense(), peer, rtol=1e-9, atol=1e-9)
        values.append(mcc(codes, truth.z).value)
        wanted.append(mcc(peer, truth.z).value)
    assert np.mean(values) == pytest.approx(np.mean(wanted), abs=1e-6)
    # Over 40 dictionaries the mean is .855 with a standard deviation of .024.
    assert np.mean(values) == pytest.approx(0.855, abs=0.03)
    assert np.mean(values) < recovered({"kind": "Omp", "k": 3}, truths)[0]


def exhaustive(atoms, x, k):
    """The best non-negative code with k atoms, by least squares on every support: support and residual."""
    best = (np.inf, ())
    for support in itertools.combinations(range(len(atoms)), k):
        part = atoms[list(support)]
        code = np.linalg.lstsq(part.T, x, rcond=None)[0]
        left = np.linalg.norm(x - code @ part) if (code > 0).all() else np.inf
        best = min(best, (left, support))
    return best


def test_an_exhaustive_search_finds_the_truth_and_bounds_every_encoder(truths):
    truth = truths[0]
    atoms, rows = truth.atoms.numpy(), truth.x[:40].numpy()
    found = [exhaustive(atoms, x, 3) for x in rows]
    supports = [tuple(z.nonzero().squeeze(1).tolist()) for z in truth.z[:40]]
    assert [support for _, support in found] == supports
    noisy = rows + 0.1 * np.random.default_rng(0).standard_normal(rows.shape)
    best = np.array([exhaustive(atoms, x, 3)[0] for x in noisy])
    for kind in ("MatchingPursuit", "GradientPursuit", "Omp"):
        codes = ENCODERS.make({"kind": kind, "k": 3}).bind(truth)(torch.from_numpy(noisy))
        left = (torch.from_numpy(noisy) - codes.decode(truth.atoms)).norm(dim=1).numpy()
        assert (codes.l0() <= 3).all()
        reachable = np.isfinite(best) & (codes.l0().numpy() == 3)
        assert (left[reachable] >= best[reachable] - 1e-9).all()


def test_the_l1_penalty_picks_the_best_of_all_supports():
    """Every optimum of the l1 problem is found by solving it on every subset of the atoms."""
    draw = torch.Generator().manual_seed(4)
    atoms = torch.nn.functional.normalize(torch.randn(6, 4, generator=draw).double())
    x = torch.randn(30, 4, generator=draw).double()
    truth = Truth(atoms, torch.zeros(4).double(), x, x)
    codes = ENCODERS.make(lasso(0.2)).bind(truth)(x)
    objective = (x - codes.decode(atoms)).square().sum(1) / 2 + 0.2 * codes.dense().sum(1)
    for row, value in zip(x.numpy(), objective.numpy(), strict=True):
        best = float(row @ row) / 2
        for size in range(1, 5):
            for support in itertools.combinations(range(6), size):
                part = atoms[list(support)].numpy()
                code = np.linalg.solve(part @ part.T, part @ row - 0.2)
                if (code >= 0).all():
                    left = row - code @ part
                    best = min(best, float(left @ left) / 2 + 0.2 * float(code.sum()))
        assert value == pytest.approx(best, rel=1e-6)


def exact_shares(width, active, trials=40):
    """Share of trials in which a non-negative code of `active` of 100 atoms comes back from `width` dimensions.

    By the l1 problem with a small penalty and least squares on its support; and by linear programming.
    """
    draw = np.random.default_rng(100 * width + active)
    recipe = ENCODERS.make({"kind": "Debiased", "base": {"kind": "Fista", "penalty": 1e-3, "tolerance": 1e-10}})
    hits = np.zeros(2)
    for _ in range(trials):
        atoms = draw.standard_normal((100, width))
        atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
        z = np.zeros(100)
        z[draw.choice(100, active, replace=False)] = np.abs(draw.standard_normal(active))
        none = torch.zeros(0)
        truth = Truth(torch.from_numpy(atoms), torch.zeros(width).double(), none, none)
        codes = recipe.bind(truth)(torch.from_numpy(z @ atoms)[None]).dense()[0].numpy()
        exact = linprog(np.ones(100), A_eq=atoms.T, b_eq=z @ atoms, bounds=(0, None)).x
        hits += [np.abs(code - z).max() < 1e-2 * z.max() for code in (codes, exact)]
    return hits / trials


@pytest.mark.parametrize(
    ("width", "active", "share"),
    [(50, 18, 1.0), (50, 24, 0.85), (25, 6, 1.0), (25, 10, 0.5), (25, 14, 0.0)],
)
def test_phase_transition_of_non_negative_basis_pursuit(width, active, share):
    found, exact = exact_shares(width, active)
    assert found == pytest.approx(exact, abs=0.03)
    assert found == pytest.approx(share, abs=0.15)
