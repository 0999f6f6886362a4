"""Every score: needs are honoured and named, values are finite or defined, order and layout do not matter."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.scores import SCORES
from unmix.scores.base import Inputs, Outcome
from unmix.worlds.sparse import SparseWorld

WORLD = SparseWorld(latents=12, width=10, roots=4, branching=2, rates=0.4, noise=0.05)
# Needs items and a judge; needs a categorical factor; need views of one datum: tested in tests/scores.
ELSEWHERE = {"autointerp", "balanced_accuracy", "lidar", "alignment"}
# Need images (or labels) beside codes: tested in tests/scores/interpretability.
OF_IMAGES = {
    "interpretability_index",
    "clarity",
    "monosemanticity",
    "machine_interpretability",
    "two_choices",
    "intruder",
    "label_purity",
}
TABLE = [name for name in SCORES if name not in ELSEWHERE | OF_IMAGES]
ROWS = ("codes", "z", "h", "reconstruction")
# Other rows are held out when the rows come in another order.
HELD_OUT = {"linear_ceiling": 0.03, "r2": 0.03, "r2_linear": 0.03, "procrustes": 0.03, "procrustes_scaled": 0.03}


@pytest.fixture(scope="module")
def everything() -> Inputs:
    draw = torch.Generator().manual_seed(0)
    sample = WORLD.sample(600, 0)
    atoms = torch.nn.functional.normalize(WORLD.atoms + 0.1 * torch.randn(12, 10, generator=draw))
    codes = torch.relu(sample.z - 0.1 + 0.05 * torch.randn(600, 12, generator=draw))
    others = [torch.nn.functional.normalize(WORLD.atoms + 0.1 * torch.randn(12, 10, generator=draw)) for _ in "ab"]
    return Inputs(
        codes=Codes(codes, None, 12),
        z=sample.z,
        h=sample.x,
        reconstruction=codes @ atoms,
        atoms=atoms,
        truth=WORLD.atoms,
        other=others[0],
        parents=WORLD.parents,
        others=others,
        weights=torch.randn(60, 10, generator=draw),
        weight_classes=torch.arange(60) % 30,
        class_vectors=torch.randn(30, 12, generator=draw),
        beta=1.0,
        concentration=5.0,
        loss=torch.rand(600, generator=draw) + 1,
        bayes_loss=torch.rand(600, generator=draw),
    )


def only(inputs: Inputs, names) -> Inputs:
    return Inputs(**{name: getattr(inputs, name) for name in names})


@pytest.mark.parametrize("name", list(SCORES))
def test_every_score_names_what_it_lacks(name, everything):
    score = SCORES[name]()
    assert score.better in ("higher", "lower", "")
    assert score.reference and score.equation and score.name == name
    assert score.needs <= {field.name for field in dataclasses.fields(Inputs)}
    with pytest.raises(UsageError, match=f"{name}: needs"):
        score.measure(Inputs())
    for lacking in score.needs & everything.provides:
        with pytest.raises(UsageError, match=rf"{name}: needs .*{lacking}"):
            score.measure(only(everything, score.needs - {lacking}))


@pytest.mark.parametrize("name", TABLE)
def test_a_score_uses_only_what_it_says_it_needs(name, everything):
    score = SCORES[name]()
    alone = score.measure(only(everything, score.needs), 3)
    assert alone.value == score.measure(everything, 3).value
    assert isinstance(alone, Outcome) and isinstance(alone.value, float) and math.isfinite(alone.value)
    assert alone.value == score.measure(only(everything, score.needs), 3).value
    low, high = alone.interval
    assert math.isnan(low) or low - 1e-9 <= alone.value <= high + 1e-9
    if not math.isnan(alone.chance):
        assert math.isfinite(alone.chance) and "chance" in str(alone)
    if not math.isnan(alone.ceiling):
        assert alone.value <= alone.ceiling + 1e-9 if score.better != "lower" else alone.value >= alone.ceiling - 1e-9


@pytest.mark.parametrize("name", TABLE)
def test_the_order_of_rows_and_the_layout_of_codes_do_not_matter(name, everything):
    score = SCORES[name]()
    given = only(everything, score.needs)
    value = score.measure(given).value
    order = torch.from_numpy(np.random.default_rng(0).permutation(600))
    shuffled = {}
    for field in score.needs:
        part = getattr(given, field)
        if field in ROWS:
            part = Codes(part.dense()[order], None, 12) if isinstance(part, Codes) else part[order]
        shuffled[field] = part
    tolerance = HELD_OUT.get(name, 1e-9)
    assert score.measure(Inputs(**shuffled)).value == pytest.approx(value, abs=tolerance)
    if "codes" in score.needs:
        for layout in (given.codes.ragged(), given.codes.dense().double().numpy()):
            again = score.measure(dataclasses.replace(given, codes=layout)).value
            assert again == pytest.approx(value, abs=1e-9)
    if "z" in score.needs:
        sparse = dataclasses.replace(given, z=Codes(given.z, None, 12).ragged())
        assert score.measure(sparse).value == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("name", [n for n in TABLE if "codes" in SCORES[n].needs])
def test_the_order_of_features_does_not_matter_and_silence_is_defined(name, everything):
    score = SCORES[name]()
    given = only(everything, score.needs)
    order = torch.from_numpy(np.random.default_rng(1).permutation(12))
    turned = dataclasses.replace(given, codes=Codes(given.codes.dense()[:, order], None, 12))
    if given.atoms is not None:
        turned = dataclasses.replace(turned, atoms=given.atoms[order])
    assert score.measure(turned).value == pytest.approx(score.measure(given).value, abs=1e-9)
    silent = score.measure(dataclasses.replace(given, codes=Codes(torch.zeros(600, 12), None, 12)))
    assert math.isfinite(silent.value) or name in ("hoyer", "splitting")


@pytest.mark.parametrize("name", [n for n in TABLE if SCORES[n].needs & {*ROWS, "atoms"}])
def test_inputs_are_left_alone_and_nan_is_refused(name, everything):
    score = SCORES[name]()
    given = only(everything, score.needs)
    plain = score.needs & {"z", "h", "reconstruction", "atoms", "truth"}
    before = {field: getattr(given, field).clone() for field in plain}
    score.measure(given)
    assert all(torch.equal(getattr(given, field), kept) for field, kept in before.items())
    for field, kept in before.items():
        kept[1, 2] = float("nan")
        with pytest.raises(UsageError, match="row 1, column 2 is nan"):
            score.measure(dataclasses.replace(given, **{field: kept}))
    if {"codes", "z"} <= score.needs:
        with pytest.raises(UsageError, match="600 rows"):
            score.measure(dataclasses.replace(given, z=given.z[:100]))


def test_a_study_gives_scores_what_its_world_knows():
    from unmix.study.cells import Cell, measure, split, swapped
    from unmix.worlds.synth import SynthSAEBench

    names = ("mcc", "absorption", "splitting", "hedging", "support", "rare_recovery", "linear_ceiling")
    finder = {"kind": "DataAtoms", "width": 12, "k": 3}
    for world in (WORLD, SynthSAEBench(latents=40, width=10, roots=8)):
        cell = Cell(world=world, finder=finder, samples=300, test=200, scores=names)
        assert cell.refusal() is None
        part = split(cell)
        features = cell.finder.fit(part.train)
        stored = measure(cell, features, part)["scores"]
        assert set(stored) == set(names) and stored["mcc"]["corrected"] is not None
        assert stored["mcc"]["at_chance"] in (True, False)
        codes = swapped(cell, features, part).encode(part.test)
        inputs = Inputs(codes=codes, z=part.z, atoms=features.atoms, truth=part.truth, parents=part.parents)
        assert SCORES["absorption"]().measure(inputs).value == pytest.approx(stored["absorption"]["value"])
    flat = Cell(world=SparseWorld(), finder=finder, samples=300, scores=("absorption",))
    assert "absorption needs parents, which SparseWorld does not know" in flat.refusal()
    other = Cell(world=WORLD, finder=finder, samples=300, scores=("stability",))
    assert "stability needs others" in other.refusal()
