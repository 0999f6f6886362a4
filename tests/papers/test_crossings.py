"""The study of crossings: what is refused and why, one piece of work, and the answers from its cells."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from unmix.core.errors import UsageError
from unmix.papers.crossings import answers, claims, grids, runs
from unmix.papers.crossings.study import Crossings
from unmix.study.engines import Serial

# Scores of so short trainings rest on few rows, and say so.
pytestmark = pytest.mark.filterwarnings("ignore::unmix.core.errors.Notice")
TINY = {"training": 0.01, "samples": 200, "test": 100}


@pytest.fixture(scope="module")
def short():
    return Crossings(
        seeds=(0, 1), worlds=("sparse", "motion", "digits", "recordings"), finders=("PCA", "TopKSAE"),
        encoders=("TopK", "Omp"), starts=("Balanced", "Upstream"), learners=("Supervised", "SlowVAE"), **TINY,
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(short, tmp_path_factory):
    return short.run(tmp_path_factory.mktemp("crossings") / "run", small=True, engine=Serial())


@pytest.fixture(scope="module")
def responses(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "responses.npy"
    np.save(path, np.random.default_rng(0).standard_normal((300, 6)).astype(np.float32) * 3 + 5)
    return str(path)


def test_impossible_crossings_are_refused_with_their_reason_before_anything_runs():
    refused = {(row["world"], row["what"]): row["why"] for row in Crossings().check()}
    assert "y" in refused["sparse", "Supervised"] and "index" in refused["sparse", "Diet"]
    assert "time" in refused["clusters", "SlowVAE"] and "time" in refused["digits", "SlowVAE"]
    assert refused["digits", "mcc"] == "Images does not know z"
    assert "directions of x" in refused["sparse", "dictionary_mcc after a learner"]
    assert ("sprites", "Supervised") not in refused and ("motion", "SlowVAE") not in refused
    assert not any(world in grids.GIVEN for world, _ in refused), "what has no path is left out, not refused"


def test_every_piece_of_the_plan_is_possible():
    study = Crossings()
    made = study.parts(small=True)
    assert len({str(part) for _, part in made}) == len(made)
    seen = {(what["world"], what["learner"]) for what, _ in made}
    assert ("sparse", "BetaVAE") in seen and ("sparse", "Supervised") not in seen
    assert ("clusters", "Diet") in seen and ("sprites", "SlowVAE") in seen and ("digits", "x") in seen
    starts = {what["start"] for what, _ in made if what["learner"] == "BetaVAE"}
    assert starts == set(grids.STARTS)
    assert "activations is left out: give activations=PATH" in study.plan(True)
    assert len(study.parts(small=False)) == len(made) / 2 * 5


def test_names_that_are_none_are_refused():
    with pytest.raises(UsageError, match="worlds=moon"):
        Crossings(worlds=("moon",))
    with pytest.raises(UsageError, match="none can be run"):
        Crossings(worlds=("recordings",)).run("nowhere", True)


def test_rows_of_ones_own_are_crossed_too(responses):
    study = Crossings(
        worlds=("recordings",), recordings=responses, seeds=(0,), learners=("Supervised",),
        finders=("SparseCoding",), encoders=("Omp",), **TINY,
    )  # fmt: skip
    (what, part), *rest = study.parts(True)
    assert not rest and what["learner"] == grids.RAW
    assert {row["what"] for row in study.check()} >= {"Supervised", "mcc"}
    found = runs.crossed(**part.settings)
    assert "r2" not in found and all("mcc" not in cell.get("scores", {}) for cell in found["cells"])
    scored = [cell for cell in found["cells"] if cell["finder"] == "SparseCoding" and "scores" in cell]
    assert scored and 0 <= scored[0]["scores"]["fvu"]["value"] < 1.5
    json.dumps(found)


def test_sparse_inference_beats_a_linear_read_out_where_there_are_more_latents_than_dimensions():
    study = Crossings(
        worlds=("sparse",), learners=(), finders=("SparseCoding",), encoders=("Linear", "Omp"), seeds=(0,)
    )
    ((_, part),) = study.parts(True)
    found = runs.crossed(**{**part.settings, "samples": 2000, "test": 1000})
    by = {cell["encoder"]: cell["scores"] for cell in found["cells"] if cell["finder"] == "SparseCoding"}
    assert found["r2"] == pytest.approx(0.5, abs=0.06), "16 dimensions hold half of 32 latents linearly"
    assert by["Omp"]["mcc"]["value"] > by["Linear"]["mcc"]["value"] > by["Linear"]["mcc"]["chance"]
    assert by["own"]["dictionary_mcc"]["value"] > 0.9


def test_a_learner_that_fails_is_kept_with_its_reason():
    study = Crossings(worlds=("motion",), learners=("BetaVAE",), finders=("PCA",), seeds=(0,), **TINY)
    part = next(part for what, part in study.parts(True) if what["learner"] == "BetaVAE")
    broken = {**part.settings["learner"], "lr": 1e18, "optimiser": "sgd", "steps": 20}
    assert "loss" in runs.crossed(**{**part.settings, "learner": broken})["error"]


def test_a_short_run_ends_in_claims_answers_and_a_page(short, page):
    told = json.loads((page.parent / "claims.json").read_text())
    assert told and {claim["verdict"] for claim in told} <= {"replicates", "differs"}
    text = page.read_text()
    for words in (
        "Where a linear read-out suffices", "Where sparse inference adds", "What the initialisation changes",
        "Which score agrees with the truth", "Refused", "Recordings are left out",
    ):  # fmt: skip
        assert words in text, words
    frame = answers.cells(short, page.parent, small=True)
    assert set(frame["world"]) == {"sparse", "motion", "digits"}
    assert frame.loc[frame["world"] == "digits", "mcc"].isna().all()
    assert set(answers.start_changes(frame)["start"]) == {"Upstream"}
    assert (page.parent / "cells.csv").is_file()


def test_running_it_again_makes_nothing_anew(short, page, monkeypatch):
    monkeypatch.setattr("unmix.papers.parts.load_class", lambda *_: pytest.fail("a part was run again"))
    assert short.run(page.parent, small=True, engine=Serial()) == page


def _cells(gain):
    """Two worlds: solving for codes adds `gain` to the MCC, FVU falls as the MCC rises, L0 says nothing."""
    rows = []
    for world in ("sparse", "motion"):
        for seed in (0, 1, 2):
            for learner, start in (("x", ""), ("BetaVAE", "Balanced"), ("BetaVAE", "Upstream")):
                for finder in ("columns", "TopKSAE", "SparseCoding"):
                    for encoder in ("own",) if finder == "columns" else ("own", "TopK", "Omp"):
                        mcc = 0.5 + 0.1 * (finder == "SparseCoding") + gain * (encoder == "Omp") + 0.01 * seed
                        rows.append(
                            {
                                "world": world, "learner": learner, "start": start, "seed": seed, "finder": finder,
                                "encoder": encoder, "failed": "", "mcc": mcc, "mcc_chance": 0.1, "fvu": 1 - mcc,
                                "l0": (seed * 7 + len(finder)) % 3, "stability": mcc, "r2_worst": 0.4,
                                "r2_read": 0.97 if learner == "BetaVAE" else 0.5 + 0.2 * (start == "Upstream"),
                            }
                        )  # fmt: skip
    return pd.DataFrame(rows)


def test_answers_follow_from_the_cells():
    frame = _cells(0.2)
    told = answers.sentences(frame)
    assert "sparse after BetaVAE (0.97)" in told["read-out"] and "sparse, x itself" not in told["read-out"]
    assert "sparse after BetaVAE (+0.47)" in told["read-out"]
    gains = answers.sparse_gains(frame)
    assert gains["gain"].to_numpy() == pytest.approx(0.2) and set(gains["solved"]) == {"Omp"}
    assert "adds to the MCC" in told["sparse"]
    assert "changes no MCC" in answers.sentences(_cells(0.0))["sparse"]
    assert "takes from the MCC" in answers.sentences(_cells(-0.2))["sparse"]
    changes = answers.start_changes(frame)
    assert changes["r2"].to_numpy() == pytest.approx(0.0) and "moves no read-out" in told["start"]
    judged = answers.agreements(frame, draws=30).set_index("score")
    assert judged.loc["fvu", "agreement"] == pytest.approx(1) and judged.loc["stability", "low"] > 0.9
    assert abs(judged.loc["l0", "agreement"]) < 0.8
    assert "fvu (+1.00" in told["scores"] and "agree with the true recovery" in told["scores"]
    assert answers.sentences(frame.iloc[:0])["scores"].startswith("No world with a known truth")


def test_claims_are_judged_on_both_sides():
    good = {claim["claim"]: claim["verdict"] for claim in claims.claims(_cells(0.2))}
    bad = {claim["claim"]: claim["verdict"] for claim in claims.claims(_cells(-0.2))}
    sparse = next(text for text in good if "recovers codes better" in text)
    assert (good[sparse], bad[sparse]) == ("replicates", "differs")
    assert next(verdict for text, verdict in good.items() if "M / N" in text) == "replicates"
    assert next(verdict for text, verdict in good.items() if "agreement of two seeds" in text) == "replicates"
