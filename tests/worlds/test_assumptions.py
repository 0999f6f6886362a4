"""Assumptions of the theorems: worlds that meet them, and one violation of each."""

from __future__ import annotations

import json

import pytest
import torch

from unmix import SparseWorld
from unmix.core.errors import UsageError
from unmix.worlds.assumptions import check_assumptions
from unmix.worlds.cluster import ClusterWorld
from unmix.worlds.mixing import InvertibleMLP, Orthogonal
from unmix.worlds.pairs import PairWorld


def test_a_world_of_the_theorem_has_all_four_cases():
    found = check_assumptions(ClusterWorld(), 1000)
    assert found.ok and found.cases == ("C1", "C2", "C3", "C4") and not found.warnings
    assert "Cases C1, C2, C3, C4 of theorem 1C apply" in str(found)
    assert json.loads(json.dumps(found.as_dict()))["cases"] == list(found.cases)
    assert check_assumptions(ClusterWorld(), 1000) == found


@pytest.mark.parametrize(
    ("options", "name", "cases"),
    [
        ({"vectors": "subspace"}, "affine rank", 0),
        ({"classes": 5}, "class count", 0),
        ({"classes": 8}, "rank 2d", 3),
        ({"balance": "zipf"}, "class balance", 4),
        ({"label_noise": 0.2}, "label noise", 0),
        ({"concentration": 200.0}, "overlap", 4),
        ({"conditional": "laplace"}, "conditional", 0),
        ({"cap": 1.0}, "conditional", 0),
        ({"space": "euclidean", "conditional": "normal"}, "conditional", 0),
        ({"mixing": Orthogonal()}, "linear baseline R2", 4),
        ({"mixing": InvertibleMLP(condition=50.0)}, "mixing condition", 4),
    ],
)
def test_a_violation_is_named_and_takes_its_cases_away(options, name, cases):
    found = check_assumptions(ClusterWorld(**options), 500)
    assert not found[name].ok and any(warning.startswith(name) for warning in found.warnings)
    assert len(found.cases) == cases
    assert ("C3" in found.cases) == (cases == 4)
    assert ("No case (C1-C4)" in str(found)) == (not cases)


def test_instances_of_unequal_classes_are_within_the_theorem():
    found = check_assumptions(ClusterWorld(instances=300, balance="zipf"), 500)
    assert found["class balance"].ok and len(found.cases) == 4


def test_anisotropy_of_one_is_von_mises_fisher():
    assert check_assumptions(ClusterWorld(conditional="anisotropic", anisotropy=1.0), 500)["conditional"].ok
    assert not check_assumptions(ClusterWorld(conditional="anisotropic"), 500)["conditional"].ok


def test_pairs_have_theorems_of_their_own():
    assert "rotation" in check_assumptions(PairWorld(), 500).verdict
    assert "permutation" in check_assumptions(PairWorld(space="box", conditional="laplace"), 500).verdict
    assert not check_assumptions(PairWorld(space="euclidean", conditional="normal"), 500).ok


def test_a_mixing_that_folds_is_flagged(monkeypatch):
    from unmix.worlds import latents
    from unmix.worlds.mixing import Map

    def fold(z):
        return torch.cat([z[..., :1].abs(), z[..., 1:]], -1)

    monkeypatch.setattr(latents, "_map", lambda *_: Map(5, 5, fold, fold, True))
    found = check_assumptions(ClusterWorld(concentration=1.0), 1000)
    assert not found["injectivity"].ok and not found.cases and "loses latents" in found.verdict


def test_other_worlds_and_too_few_rows_are_refused():
    with pytest.raises(UsageError, match="ClusterWorld and PairWorld"):
        check_assumptions(SparseWorld())
    with pytest.raises(UsageError, match="at least 200"):
        check_assumptions(ClusterWorld(), 10)
