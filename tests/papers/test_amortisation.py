"""The study's plan, its pieces with known truth, and its claims and page from a run that is much too short."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.papers.amortisation import claims, recovery, theory
from unmix.papers.amortisation.study import AmortisationGap
from unmix.papers.parts import Part, run_part, run_parts
from unmix.scores.matching import mcc
from unmix.study.engines import Serial
from unmix.worlds.sparse import SparseWorld


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    draw = np.random.default_rng(0)
    np.save(folder / "h.npy", draw.standard_normal((3000, 16)).astype(np.float32))
    return AmortisationGap(
        seeds=(0, 1), training=0.0005, sections=("settings", "sizes", "weights", "theory"), model=None
    )


@pytest.fixture(scope="module")
def page(short, tmp_path_factory):
    return short.run(tmp_path_factory.mktemp("study") / "run", small=True, engine=Serial())


@pytest.mark.parametrize("small", [True, False])
def test_every_cell_of_the_plan_is_possible(small):
    study = AmortisationGap()
    for grid in study.grids(small):
        assert grid.check() == []
    assert len({str(part) for part in study.parts(small)}) == len(study.parts(small))
    assert "30,000 tokens" in study.plan(True) and "200,000 tokens" in study.plan(False)


def test_the_autoencoder_is_the_papers():
    sae = AmortisationGap().grids(small=True)[0].finders[0]
    assert sae.weight == 0.01 and sae.steps == 40_000 and sae.schedule == "constant"
    assert not sae.bias and not sae.scaled and sae.centre == "none" and not sae.encoder.bias


def test_sections_and_unknown_ones(tmp_path):
    assert AmortisationGap(sections=("theory",)).grids(small=True) == []
    with pytest.raises(UsageError, match="sections"):
        AmortisationGap(sections=("theorem",))
    with pytest.raises(UsageError, match="no such folder"):
        AmortisationGap(sections=("real",), model=None, data=("nowhere",)).run(tmp_path / "run", small=True)


def test_a_part_is_made_once(tmp_path):
    part = Part(
        "unmix.papers.amortisation.theory:transition", {"width": 8, "latents": 16, "counts": [2], "trials": 3}
    )
    run_parts(tmp_path, [part, part], Serial())
    made = part.file(tmp_path).stat().st_mtime_ns
    run_part(tmp_path, part)
    assert part.file(tmp_path).stat().st_mtime_ns == made


def test_basis_pursuit_is_exact_for_very_sparse_codes_and_not_for_dense_ones():
    easy, hard = theory.transition(25, 100, [2, 20], trials=10)
    assert easy["share"] == 1.0 and hard["share"] == 0.0


def test_a_square_orthogonal_dictionary_leaves_no_gap_and_a_narrow_one_does():
    square = theory.ceiling(0, latents=8, width=8, active=2, rows=4096, steps=800, orthogonal=True)
    narrow = theory.ceiling(0, latents=16, width=8, active=3, rows=4096, steps=400, orthogonal=False)
    assert square["encoder"] > 0.99 and abs(square["linear_r2"] - 1) < 0.01
    assert narrow["encoder"] < 0.92 < 0.97 < narrow["lasso"]
    assert abs(narrow["linear_r2"] - narrow["share"]) < 0.05


def test_index_correlation_sees_sign_and_order():
    z = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    assert theory.index_correlation(2 * z + 1, z) == pytest.approx(1)
    assert theory.index_correlation(-z, z) == pytest.approx(-1)
    assert theory.index_correlation(torch.zeros(100, 3), z) == 0


def test_a_claim_replicates_only_near_the_published_number():
    assert claims.compared("a", 0.5, [0.52, 0.54])["verdict"] == "replicates"
    assert claims.compared("a", 0.5, [0.62, 0.621, 0.622])["verdict"] == "differs"
    assert claims.compared("a", 0.5, [0.5, 0.7])["verdict"] == "not comparable", (
        "two seeds that far apart tell nothing"
    )
    assert claims.compared("a", 0.5, [0.5], "another metric")["verdict"] == "not comparable"
    assert claims.compared("a", 0.5, []) is None
    far = [0.62, 0.621, 0.622]
    elsewhere = claims.compared("a", 0.5, far, others=[0.45, 0.62, 0.7])
    assert elsewhere["verdict"] == "not comparable" and "3 of them give 0.45 to 0.70" in elsewhere["why"]
    assert claims.compared("a", 0.5, far, others=[0.55, 0.7])["verdict"] == "differs"


def test_a_known_dictionary_can_be_another_one():
    one, two = (theory.known_dictionary(0, None, 300, dictionary=number) for number in (0, 1))
    assert one != two and theory.known_dictionary(0, None, 300) == one


@pytest.mark.slow
def test_the_papers_methods_come_in_the_papers_order():
    """(16, 8, 3), five seeds: code MCC within .05 of .566 (SAE), .623 (MLP 32) and .691 (sparse coding)."""
    world, means = SparseWorld(latents=16, width=8, active=3), []
    recipes = (
        recovery.autoencoder(world, 40_000),
        recovery.autoencoder(world, 40_000, 32),
        recovery.joint(world, 40_000),
    )
    for recipe, published in zip(recipes, (0.566, 0.623, 0.691), strict=True):
        found = []
        for seed in range(5):
            train, test = (world.sample(1024, Stream(seed).child(name)) for name in ("train", "test"))
            found.append(mcc(recipe.fit(train.x, rng=seed).encode(test.x), test.z).value)
        means.append(float(np.mean(found)))
        assert means[-1] == pytest.approx(published, abs=0.05)
    assert means == sorted(means)


def test_a_short_run_ends_in_claims_and_a_page(page):
    told = json.loads((page.parent / "claims.json").read_text())
    numbers = [claim for claim in told if isinstance(claim["published"], float)]
    assert len(numbers) >= 18
    assert {claim["verdict"] for claim in numbers} == {"not comparable"}, "0.05 % of the training replicates nothing"
    text = page.read_text()
    for words in ("codes known", "The theorem, in numbers", "Other sizes", "unmix study amortisation-gap seeds=0,1"):
        assert words in text, words
    chance = next(claim for claim in told if claim["claim"].startswith("(128, 8, 3): the SAE's dictionary"))
    assert chance["verdict"] == "differs"


def test_running_it_again_makes_nothing_anew(short, page, monkeypatch):
    monkeypatch.setattr("unmix.study.study.run_cells", lambda *_: pytest.fail("a cell was run again"))
    monkeypatch.setattr("unmix.papers.parts.load_class", lambda *_: pytest.fail("a part was run again"))
    assert short.run(page.parent, small=True, engine=Serial()) == page


def test_the_transition_table_is_judged_on_both_sides():
    moves = pd.DataFrame(
        [
            {"width": 50, "active": 12, "share": 1.0, "trials": 9},
            {"width": 25, "active": 14, "share": 0.0, "trials": 9},
        ]
    )
    empty = pd.DataFrame()
    assert claims.theory_claims(empty, empty, moves)[0]["verdict"] == "replicates"
    assert claims.theory_claims(empty, empty, moves.assign(share=1.0))[0]["verdict"] == "differs"
