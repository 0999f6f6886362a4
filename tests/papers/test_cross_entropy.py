"""The study's plan, its pieces of work, and its claims and page from a run that is much too short."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.papers.cross_entropy import claims, grids, pretrained, runs, sprites
from unmix.papers.cross_entropy.study import CrossEntropy
from unmix.study.engines import Serial
from unmix.worlds.cluster import ClusterWorld


def test_the_plan_of_both_sizes():
    study = CrossEntropy()
    for small in (True, False):
        parts = study.parts(small)
        assert len({str(part) for part in parts}) == len(parts)
    assert "theorem: 15 pieces of work, 30,000 training steps" in study.plan(True)
    assert "photographs= and objects= not given, left out" in study.plan(True)
    assert not study.but(sections=()).parts(True)
    with pytest.raises(UsageError, match="sections"):
        CrossEntropy(sections=("theorems",))


def test_every_line_of_the_tables_is_there_and_small_ones_are_known():
    assert len({row.key for row in grids.ROWS}) == len(grids.ROWS) == 22
    assert set(grids.SMALL_ROWS) <= {row.key for row in grids.ROWS}
    assert {row.name for row, _ in grids.published((0, 1), False, 1.0)} == {row.name for row in grids.ROWS}
    world = grids.row_world(grids.ROWS[0], 3)
    assert (world.latents, world.classes, world.instances, world.concentration, world.mixing.layers) == (
        5, 100, 1000, 10, 4)  # fmt: skip


@pytest.mark.parametrize("case", grids.CASES)
def test_cases_are_the_theorems(case):
    made = grids.classifier(case, 5)
    assert runs.case_of(made.as_dict()) == case
    assert made.unit_features == (case in ("C1", "C2")) and made.unit_weights == (case in ("C1", "C3"))


def test_a_rank_deficient_world_is_flagged_before_training_and_is_no_success():
    flat = next(part for name, part in grids.violations(True, 1.0) if "subspace" in name)
    learner = {**flat.settings["learner"], "steps": 300}
    result = runs.trained(flat.settings["world"], learner, 0, 2048)
    row = runs.row_of(flat.settings, result)
    assert row["cases"] == 0 and "affine rank" in " ".join(row["warnings"])
    assert row["worst_direction"] < row["r2_minimum"] < row["r2"] and row["worst_direction"] < 0.7
    (claim,) = claims.violation_claims([("class vectors in a subspace", row)])
    assert claim["verdict"] == "replicates" and claim["measured"].startswith("0 cases apply")


def test_a_statement_needs_every_seed():
    rows = pd.DataFrame(
        [
            {"labels": "classes", "case": "C1", "r2": 0.99, "r2_minimum": 0.985, "beta_ratio": 1.01,
             "singular_values": 0.02, "excess_loss": 0.01},
            {"labels": "classes", "case": "C1", "r2": 0.99, "r2_minimum": 0.97, "beta_ratio": 0.9,
             "singular_values": 0.05, "excess_loss": 0.01},
        ]
    )  # fmt: skip
    told = {claim["claim"].split(": ")[1].split(" (")[0]: claim["verdict"] for claim in claims.theorem_claims(rows)}
    assert told["latents are linear in the representation"] == "replicates"
    assert told["each single latent is"] == "differs"
    assert told["the inverse temperature is the concentration"] == "differs"
    assert told["singular values of the map are kappa / beta"] == "replicates"
    assert {c["verdict"] for c in claims.theorem_claims(rows, "1 % of the steps")} == {"not comparable"}


def test_a_number_replicates_within_the_bound_only():
    assert claims.compared("a", "b", 0.9, [0.91])["verdict"] == "replicates"
    worse = claims.compared("a", "b", 0.9, [0.8], apart="few steps")
    assert worse["verdict"] == "differs" and worse["why"] == "-0.100: few steps"
    better = claims.compared("a", "b", 0.7, [0.9, 0.92])
    assert better["verdict"] == "differs" and "nearer to the truth" in better["why"]
    assert claims.compared("a", "b", 0.9, []) is None


def test_a_short_line_is_explained_by_the_loss_that_is_left():
    made = [
        {
            "r2": 0.9,
            "excess_loss": 0.1,
            "steps": 4000,
            "curve": [[1000, 0.5, 1.0], [2000, 0.8, 0.2], [4000, 0.9, 0.1]],
        }
    ]
    told = claims.unfinished(made)
    assert "0.100 nats" in told and "halfway it was 0.200 with an R2 of 0.800" in told
    bare = claims.unfinished([{"r2": 0.9, "excess_loss": 0.1, "steps": 4000}])
    assert bare == "the loss is 0.100 nats above the best possible after 4,000 steps"


@pytest.mark.parametrize("instances", [False, True])
def test_looks_see_what_is_measured_in_the_end(instances):
    world = ClusterWorld(classes=20, instances=40 if instances else None)
    learner = grids.classifier("C4", 64, instances, network=grids.network(16))
    result = runs.trained(world.as_dict(), learner.as_dict(), 0, 2048)
    assert [step for step, *_ in result["curve"]] == [1, 2, 4, 8, 16, 32, 64]
    _, r2, excess = result["curve"][-1]
    assert r2 == pytest.approx(result["scores"]["r2"]["value"], abs=0.03)
    assert excess == pytest.approx(result["scores"]["excess_loss"]["value"], abs=0.1)
    plain = learner.fit(world, 0)
    assert result["beta"] == pytest.approx(float(plain.parts["beta"])), "looking on changes nothing"


def test_read_out_is_not_led_astray_by_columns_that_hardly_vary():
    draw = torch.Generator().manual_seed(0)
    z = torch.rand(2000, 1, generator=draw)
    h = torch.cat([z + 0.1 * torch.randn(2000, 1, generator=draw), torch.zeros(2000, 300)], 1)
    rare = torch.randperm(2000, generator=draw)[:300]
    h[rare, 1 + torch.arange(300)] = 1e-3
    found = sprites.read_out(h, z, (Factor("x"),), 0)
    assert found["r2"]["x"] > 0.85 and found["r"]["x"] > 0.9


def test_read_out_knows_angles_and_offsets():
    draw = torch.Generator().manual_seed(0)
    angle, place = torch.rand(2000, generator=draw) * 6, torch.randn(2000, generator=draw)
    h = torch.stack([angle.cos(), angle.sin(), place + 5, torch.randn(2000, generator=draw)], 1)
    z = torch.stack([torch.zeros(2000), angle, 2 * place, torch.randn(2000, generator=draw)], 1)
    kinds = (
        Factor("shape", "categorical", 3),
        Factor("angle", "circular", None, 0, 2 * np.pi),
        Factor("x"),
        Factor("n"),
    )
    found = sprites.read_out(h, z, kinds, 0)
    assert found["r2"]["angle"] == pytest.approx(1) and found["r2"]["x"] == pytest.approx(1)
    assert abs(found["r2"]["n"]) < 0.05 and set(found["r"]) == {"x", "n"}
    # without an offset the column of ones is missing, but correlation does not see the mean
    assert 0.5 < found["r"]["x"] <= 1


def test_accuracies_are_balanced_and_held_out():
    draw = np.random.default_rng(0)
    y = draw.random(300) < 0.2
    noise = torch.from_numpy(draw.standard_normal((300, 40))).float()
    told = noise + 3 * torch.from_numpy(y)[:, None]
    by_chance, known = (np.mean(pretrained.accuracies(h, y, 5)) for h in (noise, told))
    assert 0.35 < by_chance < 0.65 and known > 0.95
    rows = pretrained.tested({"a": {"trained": [0.9, 0.92, 0.91], "untrained": [0.49, 0.5, 0.51]}})
    p = {row["source"]: row["p"] for row in rows}
    assert p["trained"] < 0.01 and p["untrained"] == 1.0


def test_image_factors_split_at_the_median():
    pictures = (
        torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        * torch.linspace(0.1, 1, 20)[:, None, None, None]
    )
    factors = pretrained.image_factors(pictures)
    assert factors["bright"].sum() == 10 and factors["bright"][10:].all()
    grey = pictures.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert not pretrained.image_factors(grey)["colourful"].any(), "no colour: nothing lies above the median"


def test_a_short_run_ends_in_claims_and_a_page(tmp_path):
    study = CrossEntropy(seeds=(0,), training=0.001, sections=("theorem", "pretrained"))
    page = study.run(tmp_path / "run", small=True, engine=Serial())
    told = json.loads((page.parent / "claims.json").read_text())
    assert len(told) >= 12 and {claim["verdict"] for claim in told} == {"not comparable"}
    text = page.read_text()
    for words in (
        "The theorem, where its assumptions hold",
        "worst",
        "photographs=",
        "unmix study cross-entropy seeds=0",
    ):
        assert words in text, words
    made = {file: file.stat().st_mtime_ns for file in (page.parent / "parts").iterdir()}
    study.run(page.parent, small=True, engine=Serial())
    assert made == {file: file.stat().st_mtime_ns for file in (page.parent / "parts").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["C1", "C3", "C4"])
def test_the_latents_come_back_in_every_seed(case):
    for seed in range(3):
        part = grids.part(ClusterWorld(seed=seed), grids.classifier(case, 2000), seed)
        row = runs.row_of(part.settings, runs.trained(**part.settings))
        assert row["r2"] >= 0.985 and row["r2_minimum"] >= 0.98 and -0.005 <= row["excess_loss"] <= 0.03
        assert case != "C1" or abs(row["beta_ratio"] - 1) <= 0.06
