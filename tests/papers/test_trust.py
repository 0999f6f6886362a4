"""The study of trust: its plan, what a promise is, its errors, and the lesson that a run gets from it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from unmix.core.errors import UsageError
from unmix.finders import FINDERS
from unmix.papers.trust import claims, grids, lessons, runs
from unmix.papers.trust.study import TrustStudy
from unmix.study.engines import Serial
from unmix.worlds import WORLDS


@pytest.fixture(scope="module")
def short():
    worlds = (grids.ASSUMED, "trees", "linear mixing")
    sections = ("features", "motion")
    return TrustStudy(seeds=(0,), training=0.01, samples=(300,), sections=sections, worlds=worlds)


@pytest.fixture(scope="module")
def page(short, tmp_path_factory):
    return short.run(tmp_path_factory.mktemp("trust") / "run", small=True, engine=Serial())


def test_worlds_differ_from_the_assumed_one_in_one_respect():
    worlds = grids.sparse_worlds(0)
    assumed = worlds[grids.ASSUMED].as_dict()
    for name, world in worlds.items():
        given = world.as_dict()
        if world.kind == "SparseWorld":
            assert name == grids.ASSUMED or given != assumed
        assert world.sample(8, 0).x.shape == (8, grids.WIDTH)
    made = TrustStudy().parts(small=True)
    assert len({str(part) for _, part in made}) == len(made)
    for what, part in made:
        if what["section"] == "features":
            assert FINDERS.make(dict(part.settings["finder"])).width == what["width"]
            WORLDS.make(dict(part.settings["world"]))


def test_worlds_that_are_none_are_refused():
    with pytest.raises(UsageError, match=r"worlds=moon.*as assumed"):
        TrustStudy(worlds=("moon",)).plan(True)


def test_a_promise_is_kept_where_it_should_be():
    world = grids.sparse_worlds(0)[grids.ASSUMED].but(latents=16, width=16, rates=0.1, dictionary="orthogonal")
    finder = {"kind": "SparseCoding", "width": 16, "active": 1.6, "passes": 15}
    found = runs.promised(world.as_dict(), finder, 0, 1500, 500)
    assert found["real"]["true"] > 0.9 and found["promise"]["true"] > 0.8 and found["shared"] > 0.9
    assert found["latents"] == 16
    json.dumps(found)
    refused = runs.promised(world.as_dict(), {"kind": "PCA", "width": 16}, 0, 500, 200)
    assert "no sparse sum" in refused["refused"] and "promise" not in refused
    failed = runs.promised(world.as_dict(), {"kind": "PCA", "width": 32}, 0, 500, 200)
    assert "at most min" in failed["error"]


def test_errors_are_of_promises_against_what_is_real():
    frame = pd.DataFrame(
        {"world": ["a", "b", "c"], "promise": [0.9, 0.5, 0.2], "real": [0.8, 0.1, 0.3], "seed": [0, 0, 0]}
    )
    found = lessons.errors(frame)
    assert found["error"] == pytest.approx(0.2) and found["bias"] == pytest.approx(0.4 / 3)
    assert found["worst"] == pytest.approx(0.4) and found["worst_world"] == "b"
    assert found["ranks"] == pytest.approx(0.5)
    assert lessons.errors(frame.iloc[:0]) == {"count": 0}
    table = lessons.by_world(frame)
    assert table["too_high"].tolist() == pytest.approx([0.1, 0.4, -0.1])


def test_a_short_run_ends_in_claims_and_a_page(short, page):
    told = json.loads((page.parent / "claims.json").read_text())
    assert {claim["verdict"] for claim in told} <= {"replicates", "differs"} and told
    text = page.read_text()
    for words in ("Features", "Learners of motion", "Methods", "unmix study trust seeds=0"):
        assert words in text, words
    frame = lessons.outcomes(short, page.parent, small=True)
    assert len(frame) == len(short.parts(True))
    features = frame[(frame["section"] == "features") & frame["promise"].notna()]
    assert len(features) and features[["promise", "real"]].stack().between(0, 1).all()


def test_a_run_is_told_what_the_study_taught(page, tmp_path):
    told = lessons.lesson(page.parent, None, {"together": 0.0, "alike": 0.0})
    assert "the promise was off by" in told and "These data's features" in told
    assert "no promise was tried for Diet" in lessons.lesson(page.parent, "Diet")
    with pytest.raises(UsageError, match="no results of the study of trust"):
        lessons.lesson(tmp_path)


def test_the_nearest_promises_are_told_apart(tmp_path):
    def row(world, promise, together, seed):
        row = {"section": "features", "world": world, "method": "TopKSAE", "seed": seed, "promise": promise}
        return {**row, "real": 0.5, "together": together, "alike": 0.0, "cautious": min(promise, 0.6)}

    rows = [row(grids.ASSUMED, 0.5, 0.0, seed) for seed in range(8)]
    rows += [row("fire together", 0.9, 0.2, seed) for seed in range(8)]
    lessons.keep(pd.DataFrame(rows), tmp_path)
    far = lessons.lesson(tmp_path, None, {"together": 0.19, "alike": 0.0})
    assert '(mostly "fire together") were too high by 0.40 on average' in far
    assert "the smaller of promise and agreement of two seeds too high by 0.10" in far
    near = lessons.lesson(tmp_path, None, {"together": 0.01, "alike": 0.0})
    assert '(mostly "as assumed") were too high by 0.00 on average' in near


def test_claims_are_judged_on_both_sides():
    def rows(away):
        return pd.DataFrame(
            [
                {"section": "features", "world": world, "seed": 0, "promise": real + away, "real": real,
                 "shared": real, "cautious": real}
                for world, real in ((grids.ASSUMED, 0.8), ("trees", 0.5), ("more noise", 0.3))
            ]
        )  # fmt: skip

    good, bad = (claims.claims(rows(away)) for away in (0.02, 0.3))
    assert [claim["verdict"] for claim in good] == ["replicates"] * 4
    assert [claim["verdict"] for claim in bad] == ["differs", "differs", "replicates", "replicates"]
    assert np.isclose(float(bad[0]["measured"].split(";")[0]), 0.3)
