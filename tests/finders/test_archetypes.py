"""Archetypes lie in the hull of the rows, up to the relaxation, and learn; resumption and odd rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from unmix.core.errors import UsageError
from unmix.core.watch import Watch
from unmix.finders.archetypes import Archetypes, to_simplex
from unmix.finders.controls import FrozenDecoder, RandomAtoms, UntrainedSAE
from unmix.scores.sparsity import fvu
from unmix.worlds.sparse import SparseWorld


@pytest.fixture(scope="module")
def rows():
    return SparseWorld(latents=12, width=6, active=2).sample(400, 0).x + 1


def distance(points: torch.Tensor, x: torch.Tensor) -> np.ndarray:
    """Distance of each point from the convex hull of the rows x, by least squares with weights that sum to one."""
    heavy = 1e3
    system = np.vstack([x.double().numpy().T, heavy * np.ones(len(x))])
    return np.array([nnls(system, np.append(point.double().numpy(), heavy))[1] for point in points])


@pytest.mark.parametrize("fields", [{}, {"candidates": 30}, {"candidates": 10}, {"candidates": 400}])
def test_atoms_lie_in_the_convex_hull_of_the_rows(rows, fields):
    features = Archetypes(width=20, k=3, steps=300, **fields).fit(rows)
    assert features.about["candidates"] == fields.get("candidates", 80)
    assert torch.allclose(features.bias, rows.mean(0), atol=1e-6)
    assert distance(features.atoms + features.bias, rows).max() < 1e-4


def test_the_relaxation_is_as_far_as_atoms_may_leave_the_hull(rows):
    few = rows[:9]
    features = Archetypes(width=9, k=2, steps=400, relaxation=0.3).fit(few)
    most = 0.3 * float((few - few.mean(0)).norm(dim=1).mean())
    found = distance(features.atoms + features.bias, few)
    assert found.max() <= most * (1 + 1e-3)
    assert found.max() > 0.1 * most  # it is used


def test_it_learns_and_the_relaxation_helps(rows):
    untrained = Archetypes(width=20, k=3, steps=1).fit(rows)
    trained = Archetypes(width=20, k=3, steps=600).fit(rows)
    relaxed = Archetypes(width=20, k=3, steps=600, relaxation=0.5).fit(rows)
    found = [fvu(rows, features.reconstruct(rows)).value for features in (untrained, trained, relaxed)]
    assert found[1] < 0.8 * found[0]
    assert found[2] < found[1]
    assert trained.about["fvu"] == pytest.approx(found[1], rel=0.2)


def test_the_units_of_the_rows_do_not_matter(rows):
    one, other = (Archetypes(width=20, k=3, steps=50).fit(x) for x in (rows, rows * 64))
    assert torch.allclose(other.atoms, one.atoms * 64, rtol=1e-3, atol=1e-2)
    assert torch.allclose(other.encode(rows * 64).dense(), one.encode(rows).dense(), atol=1e-3)


def test_mixtures_are_put_back_on_the_simplex():
    mixture = torch.tensor([[0.5, 0.7, -0.1], [-1.0, -0.2, -0.3], [0.0, 2.0, 0.0]])
    to_simplex(mixture)
    assert torch.allclose(mixture, torch.tensor([[5 / 12, 7 / 12, 0], [0, 1, 0], [0, 1, 0]]))


class Stopped(Watch):
    def __init__(self, at, state=None):
        self.at, self.kept = at, state

    def on_step(self, step, total, facts):
        if step == self.at:
            raise KeyboardInterrupt

    def save(self, state):
        self.kept = {name: tensor.clone() for name, tensor in state().items()}

    def restore(self):
        return self.kept


@pytest.mark.parametrize(
    "recipe",
    [Archetypes(width=20, k=3, steps=40, relaxation=0.2), FrozenDecoder(width=20, k=3, steps=40)],
    ids=lambda recipe: recipe.kind,
)
def test_resuming_is_the_same_as_never_stopping(rows, recipe):
    watch = Stopped(25)
    with pytest.raises(KeyboardInterrupt):
        recipe.fit(rows, watch=watch)
    resumed = recipe.fit(rows, watch=Stopped(0, watch.kept))
    assert resumed.digest == recipe.fit(rows).digest


def test_a_frozen_decoder_keeps_its_random_atoms_and_trains_its_encoder(rows):
    untrained = UntrainedSAE(width=20, k=3).fit(rows)
    frozen, short = (FrozenDecoder(width=20, k=3, steps=steps).fit(rows) for steps in (600, 1))
    assert torch.equal(frozen.atoms, short.atoms)
    assert (frozen.atoms.norm(dim=1) - 1).abs().max() < 1e-6
    assert torch.equal(untrained.encoder.tensors["weight"], untrained.atoms)
    found = [fvu(rows, features.reconstruct(rows)).value for features in (untrained, frozen)]
    assert found[1] < 0.5 * found[0]
    spread = (frozen.atoms @ frozen.atoms.T).fill_diagonal_(0).abs().mean()
    random = RandomAtoms(width=20, k=3).fit(rows).atoms
    assert spread == pytest.approx(float((random @ random.T).fill_diagonal_(0).abs().mean()), rel=0.3)


@pytest.mark.parametrize(
    "recipe",
    [Archetypes(width=9, k=2, steps=5), FrozenDecoder(width=9, k=2, steps=5), UntrainedSAE(width=9, k=2)],
    ids=lambda recipe: recipe.kind,
)
@pytest.mark.parametrize("kind", ["duplicated rows", "fewer rows than atoms", "zero rows", "width 1"])
def test_odd_rows_give_finite_features(recipe, kind):
    x = SparseWorld(latents=6, width=4, active=2).sample(60, 0).x
    x = {
        "duplicated rows": x[:3].repeat(20, 1),
        "fewer rows than atoms": x[:3],
        "zero rows": torch.cat([x[:8], torch.zeros(50, 4)]),
        "width 1": x[:, :1],
    }[kind]
    features = recipe.fit(x)
    assert torch.isfinite(features.atoms).all() and torch.isfinite(features.reconstruct(x)).all()


def test_more_active_codes_than_atoms_are_refused():
    for cls in (Archetypes, FrozenDecoder, UntrainedSAE):
        with pytest.raises(UsageError, match="at most the number of atoms"):
            cls(width=4, k=5)
