"""Encoders made of encoders: warm starts that are used, least squares on supports, projections, saving, refusals."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from scipy.optimize import nnls as scipy_nnls

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.encoders import ENCODERS
from unmix.encoders.composed import Debiased, Largest, Refine, Thresholded, debias, refine
from unmix.encoders.iterative import Fista
from unmix.finders.features import Features, assemble, replace
from unmix.finders.topk_sae import TopKSAE
from unmix.worlds.sparse import SparseWorld


@pytest.fixture(scope="module")
def rows():
    return SparseWorld(latents=48, width=24, active=4, noise=0.02).sample(1500, 0).x


@pytest.fixture(scope="module")
def sae(rows):
    return TopKSAE(width=48, k=4, steps=300).fit(rows)


@pytest.fixture(scope="module")
def features(rows):
    atoms = SparseWorld(latents=48, width=24, active=4).atoms.double()
    return assemble(atoms, torch.zeros(24).double(), ENCODERS.make("Nearest"))


def objective(codes, features, x, penalty):
    left = x - features.bias - codes.decode(features.atoms)
    return left.square().sum(1) / 2 + penalty * codes.dense().abs().sum(1)


@pytest.mark.parametrize("solver", ["fista", "coordinate"])
def test_refine_uses_the_readout_it_finds_and_its_warm_start(sae, rows, solver):
    then = Fista(penalty=0.02, tolerance=1e-5, solver=solver, max_iterations=20_000)
    x = rows[:400]
    refined = replace(sae, encoder=refine(ENCODERS.make({"kind": "TopK", "k": 4}), then))
    assert torch.equal(refined.encoder.tensors["first.weight"], sae.encoder.tensors["weight"])
    assert "gram" in refined.encoder.tensors and "then.gram" not in refined.encoder.tensors
    codes, cold = refined.encode(x), replace(sae, encoder=then).encode(x)
    torch.testing.assert_close(objective(codes, sae, x, 0.02), objective(cold, sae, x, 0.02), rtol=1e-4, atol=1e-6)
    first = sae.encode(x, cost=True)
    again = replace(sae, encoder=then).encoder(x, start=first)
    torch.testing.assert_close(codes.cost, first.cost + again.cost)
    solved = replace(sae, encoder=then).encoder(x, start=cold)
    assert solved.cost.sum() < 0.5 * cold.cost.sum()
    if solver == "fista":  # a cold working set is as cheap as this autoencoder's support
        assert (codes.cost - first.cost).sum() < cold.cost.sum()


def test_refine_reaches_the_same_objective_in_double_precision(features, rows):
    then = {"kind": "Fista", "penalty": 0.02, "tolerance": 5e-7}
    x = rows[:300].double()
    first = {"kind": "TopK", "k": 4, "init": "tied"}
    warm = replace(features, encoder=Refine(first=first, then=then)).encode(x)
    cold = replace(features, encoder=ENCODERS.make(then)).encode(x)
    assert warm.certificate.max() < 1e-6 and cold.certificate.max() < 1e-6
    torch.testing.assert_close(
        objective(warm, features, x, 0.02), objective(cold, features, x, 0.02), rtol=1e-5, atol=1e-9
    )


def test_nested_parts_are_saved_under_their_names_and_come_back(sae, rows, tmp_path):
    recipe = Debiased(base=Largest(base=Refine(first="Linear", then=Fista(penalty=0.05)), k=6))
    features = replace(sae, encoder=recipe)
    assert "base.base.first.threshold" in features.encoder.tensors
    again = Features.load(features.save(tmp_path / "features"))
    assert again.encoder.recipe == recipe and again.digest == features.digest
    assert torch.allclose(again.encode(rows[:50]).dense(), features.encode(rows[:50]).dense(), atol=1e-5)
    kept = replace(features, encoder="TopK")
    assert torch.equal(kept.encoder.tensors["weight"], sae.encoder.tensors["weight"])
    double = features.to(torch.float64)
    assert double.encoder.tensors["gram"].dtype == torch.float64
    torch.testing.assert_close(double.encoder.tensors["gram"], double.atoms @ double.atoms.T, rtol=0, atol=0)


def test_an_encoder_with_weights_refuses_a_foreign_dictionary_unless_it_is_given_a_start(features, rows):
    for recipe in (Refine(), Thresholded(base="Linear")):
        with pytest.raises(UsageError, match="give rows"):
            replace(features, encoder=recipe)
    fitted = replace(features, encoder=Refine(first={"kind": "TopK", "k": 4, "steps": 30}), rows=rows)
    assert fitted.encoder.tensors["first.weight"].shape == (48, 24)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"kind": "Refine", "then": "Omp"}, "then=Omp cannot begin from given codes; use one of Ista"),
        ({"kind": "Refine", "then": {"kind": "Fista", "positive": False}}, "first=TopK gives non-negative codes"),
        (
            {"kind": "Refine", "first": {"kind": "Omp", "positive": False}},
            "first=Omp gives signed codes and then=Fista non-negative ones",
        ),
        ({"kind": "Refine", "then": "Refine"}, "then=Refine"),
        ({"kind": "Debiased", "base": "Debiased"}, "base=Debiased inside Debiased"),
        ({"kind": "Largest", "base": {"kind": "Largest"}}, "base=Largest inside Largest"),
        ({"kind": "Thresholded", "threshold": -1}, "threshold"),
        ({"kind": "Debiased", "base": "Fistaa"}, "did you mean Fista"),
    ],
)
def test_impossible_compositions_are_refused_with_a_sentence(recipe, message):
    with pytest.raises(UsageError, match=message):
        ENCODERS.make(recipe)


def test_a_composition_is_as_signed_as_what_gives_its_codes():
    signed = {"kind": "Fista", "positive": False}
    assert Debiased(base=signed).signed and Largest(base=signed).signed and not Debiased().signed
    both = Refine(first={"kind": "Omp", "k": 2, "positive": False}, then=signed)
    assert both.signed and not both.warm and both.weights is False


def test_debiased_codes_are_least_squares_on_the_support(features, rows):
    x = rows[:60].double()
    for positive in (True, False):
        base = Fista(penalty=0.3, positive=positive, tolerance=1e-8)
        first = replace(features, encoder=base).encode(x).dense()
        codes = replace(features, encoder=Debiased(base=base)).encode(x)
        found = codes.dense()
        assert ((found != 0) <= (first != 0)).all()
        for row, code, support in zip(x, found, first != 0, strict=True):
            part = features.atoms[support]
            if not len(part):  # scipy's compiled code ends the process on an empty matrix
                continue
            if positive:
                wanted = torch.from_numpy(scipy_nnls(part.numpy().T, row.numpy())[0])
            else:
                wanted = torch.linalg.lstsq(part.T, row).solution
            torch.testing.assert_close(code[support], wanted, rtol=1e-6, atol=1e-8)
        assert codes.certificate is None
        extra = codes.cost - replace(features, encoder=base).encode(x).cost
        assert torch.equal(extra > 0, (first != 0).any(1)) and (extra >= 0).all()
    given = Codes(first, None, 48)
    torch.testing.assert_close(debias(given, x, features, positive=False).dense(), found, rtol=1e-6, atol=1e-8)
    assert (debias(Codes(first.clamp_min(0), None, 48), x, features).dense() >= 0).all()
    with pytest.raises(UsageError, match=r"codes: expected \[60, 48\]"):
        debias(given.rows(slice(0, 10)), x, features)


@pytest.mark.parametrize("positive", [True, False])
def test_debias_survives_copies_zero_rows_and_dense_supports(positive):
    draw = torch.Generator().manual_seed(0)
    atoms = torch.randn(12, 5, generator=draw).double()
    atoms[3], atoms[7] = atoms[2], 0
    features = assemble(atoms, torch.zeros(5).double(), ENCODERS.make("Nearest"))
    x = torch.randn(9, 5, generator=draw).double()
    x[4] = 0
    codes = Codes(torch.rand(9, 12, generator=draw).double() + 0.1, None, 12)
    fitted = debias(codes, x, features, positive=positive)
    assert torch.isfinite(fitted.values).all()
    left = (x - fitted.decode(atoms)).norm(dim=1)
    if positive:
        wanted = torch.tensor([scipy_nnls(atoms.numpy().T, row.numpy())[1] for row in x], dtype=torch.float64)
        torch.testing.assert_close(left, wanted, rtol=1e-7, atol=1e-9)
    else:
        assert left.max() < 1e-8  # as many independent atoms as dimensions
    assert debias(codes.rows(slice(0, 0)), x[:0], features, positive=positive).shape == (0, 12)


def test_thresholds_and_largest_codes_are_projections_of_the_base(features, rows):
    x = rows[:80].double()
    base = Fista(penalty=0.02, positive=False)
    plain = replace(features, encoder=base).encode(x).dense()
    cut = replace(features, encoder=Thresholded(base=base, threshold=0.3)).encode(x)
    assert torch.equal(cut.dense(), plain * (plain.abs() > 0.3))
    assert torch.equal(cut.l0(), (plain.abs() > 0.3).sum(1))
    few = replace(features, encoder=Largest(base=base, k=3)).encode(x)
    assert (few.l0() == 3).all()
    kept = few.dense()
    assert torch.equal(kept[kept != 0], plain[kept != 0])
    smallest = torch.where(kept != 0, kept.abs(), torch.inf).amin(1)
    dropped = torch.where(kept == 0, plain.abs(), 0).amax(1)
    assert (smallest >= dropped).all()


def test_ties_go_to_the_lowest_index():
    atoms = torch.eye(6).double()
    features = assemble(atoms, torch.zeros(6).double(), ENCODERS.make("Nearest"))
    linear = {"kind": "Linear", "init": "tied"}
    codes = replace(features, encoder=Largest(base=linear, k=2)).encode(torch.ones(3, 6).double())
    assert torch.equal(codes.dense(), torch.tensor([[1.0, 1, 0, 0, 0, 0]] * 3).double())


def test_replace_keeps_what_is_the_same_and_starts_new_thresholds_at_zero(sae):
    linear = replace(sae, encoder="Linear")
    assert torch.equal(linear.encoder.tensors["weight"], sae.encoder.tensors["weight"])
    assert linear.encoder.tensors["threshold"].item() == 0
    level = {**linear.encoder.tensors, "threshold": torch.tensor(0.25)}
    level = dataclasses.replace(linear, encoder=linear.encoder.recipe.restore(linear, level))
    back = replace(replace(level, encoder={"kind": "Linear", "active": 3.0}), encoder="Linear")
    assert back.encoder.tensors["threshold"].item() == 0.25
    assert replace(sae, encoder=sae.encoder.recipe).encoder is sae.encoder
    for kind in ("MLP", "Gated"):
        with pytest.raises(UsageError, match="give rows"):
            replace(sae, encoder=kind)
