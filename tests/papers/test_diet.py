"""DIET's study: its plan, the closed form, its pieces and claims, and the page of a run that is much too short."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from unmix.core.errors import UsageError
from unmix.learners import LEARNERS
from unmix.papers.diet import claims, grids, linear, runs
from unmix.papers.diet.page import outcomes
from unmix.papers.diet.study import DietStudy
from unmix.study.engines import Serial
from unmix.worlds import WORLDS

# One setting learns from an eighth of the digits, fewer than a batch.
pytestmark = pytest.mark.filterwarnings("ignore:batch=256. Images has 179 rows")
TINY = {"network": {"kind": "ResNet", "channels": 4, "blocks": [1]}, "width": 4, "batch": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of 30 pictures of 8 pixels: bright above or below."""
    root, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number, kind in enumerate(("above", "below")):
        (root / kind).mkdir()
        for place in range(30):
            values = draw.integers(0, 90, (8, 8, 3), dtype=np.uint8)
            values[4 * number : 4 * number + 4] += 120
            Image.fromarray(values).save(root / kind / f"{place}.png")
    return str(root)


@pytest.fixture(scope="module")
def short():
    return DietStudy(training=1e-6, seeds=(0,), sections=("digits", "sensitivity"))


@pytest.fixture(scope="module")
def page(short, tmp_path_factory):
    return short.run(tmp_path_factory.mktemp("study") / "run", small=True, engine=Serial())


@pytest.mark.parametrize("small", [True, False])
def test_every_piece_of_the_plan_is_possible(small, folder):
    study = DietStudy(images=folder)
    parts = study.parts(small)
    worlds = {}
    for what, part in parts:
        if part.settings.get("learner") is None:
            continue
        key = (what["section"], json.dumps(part.settings["world"]))
        world = worlds.setdefault(key, WORLDS.make(dict(part.settings["world"])))
        made = LEARNERS.make(dict(part.settings["learner"]))
        assert made.but(batch=8).refusal(world) is None, what
    files = [str(part) for _, part in parts]
    assert len(files) == len(set(files))
    methods = {what["method"] for what, _ in parts if what["section"] == "images"}
    assert methods == {*grids.OBJECTIVES, grids.UNTRAINED, grids.RAW}
    assert "left out" in DietStudy().plan(small) and "left out" not in study.plan(small)


def test_the_encoder_for_photographs_stays_below_thirty_million_operations():
    from torch.utils.flop_counter import FlopCounterMode

    network = grids.image_fields()["network"].build((3, 32, 32), 64, 0)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 32, 32))
    assert 5e6 < counter.get_total_flops() < 30e6


def test_views_grow_with_their_strength():
    nothing, twice = (grids.strength(grids.GENTLE, times) for times in (0.0, 2.0))
    x = grids.digits().sample(3).x
    assert torch.equal(nothing(x, runs.Stream(0)), x)
    assert (twice.rotate, twice.shift) == (20.0, 0.2)


def test_the_closed_form_is_the_least_loss():
    draw = torch.Generator().manual_seed(0)
    views = torch.randn(12, 1, 5, generator=draw) + 0.3 * torch.randn(12, 6, 5, generator=draw)
    views = views.double()
    values, rows = linear.solution(views, 3)
    least = 1 - float(values.sum()) / 12
    h = views.flatten(0, 1) @ rows.T
    targets = torch.eye(12, dtype=torch.float64).repeat_interleave(6, 0)
    head = torch.linalg.lstsq(h, targets).solution.T
    assert float(linear.squared_error(views, rows, head)) == pytest.approx(least, abs=1e-12)
    assert float((targets - h @ head.T).square().sum(1).mean()) == pytest.approx(least, abs=1e-12)
    other = torch.randn(3, 5, generator=draw, dtype=torch.float64)
    worse = torch.linalg.lstsq(views.flatten(0, 1) @ other.T, targets).solution.T
    assert float(linear.squared_error(views, other, worse)) > least
    assert linear.angle(rows, rows.flip(0) * 2) < 1e-6 and linear.angle(rows[:1], other[:1]) > 1
    found = linear.check(widths=(2,))
    assert all(abs(record["closed"] - record["descended"]) < 1e-8 for record in found)
    assert [c["verdict"] for c in claims.linear_claims(found)] == ["replicates", "replicates"]
    off = [{**record, "descended": record["descended"] + 1e-3} for record in found]
    assert {c["verdict"] for c in claims.linear_claims(off)} == {"differs"}


def test_steps_follow_from_the_compute_and_fewer_pictures_are_probed_on_all():
    world = grids.digits().as_dict()
    learner = {"kind": "Diet", **TINY}
    step = LEARNERS.make(learner).flops(grids.digits())
    found = runs.trained(world, learner, 0, 12.4 * step, looks=3, pictures=2)
    assert found["steps"] == 12 and [look["step"] for look in found["looks"]] == [3, 6, 12]
    assert found["flops"] == step and 0 < found["linear"]["accuracy"] < 1
    assert found["looks"][-1]["excess"] > 0 and 0 < found["plain"] < 1.5
    assert runs.unpacked(found["pictures"]).shape == (2, 9, 8, 8, 1)
    assert found["pictures"]["right"][0] and json.dumps(found)
    fewer = runs.trained(world, learner, 0, 4 * step, most=100)
    assert fewer["floor"] < found["floor"] and fewer["linear"]["chosen"] > 0
    failed = runs.trained(world, {**learner, "lr": 1e18, "optimiser": "sgd"}, 0, 20 * step)
    assert "not finite" in failed["error"] or "loss is" in failed["error"]


def test_known_latents_are_scored_beside_the_class_probe():
    _, world, learner = grids.known_worlds(0, 3)[0]
    found = runs.known_latents(world.but(classes=6).as_dict(), learner.but(batch=64).as_dict(), 0, test=200)
    assert found["scores"]["r2"]["minimum"] <= found["scores"]["r2"]["value"] < 1
    assert 0 < found["probe"] <= 1 and found["bayes"] > 0.3


def test_what_is_not_there_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(UsageError, match=r"no folder, \.zip or array"):
        DietStudy(images=str(tmp_path / "none")).plan(True)
    np.save(tmp_path / "bare.npy", np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8))
    with pytest.raises(UsageError, match="has no classes"):
        DietStudy(images=str(tmp_path / "bare.npy")).plan(True)


def test_a_short_run_ends_in_claims_and_a_page(page, short):
    told = json.loads((page.parent / "claims.json").read_text())
    verdicts = {claim["claim"]: claim["verdict"] for claim in told}
    assert verdicts["digits: DIET's linear probe beats raw pixels on the mean"] == "differs"
    assert verdicts["CIFAR-100: linear probe of DIET, ResNet-101"] == "not comparable"
    text = page.read_text()
    words = ("Digits, at equal compute", "Training loss and probe", "Sensitivity", "Failures", "training=1e-06")
    assert all(word in text for word in words)
    frame = outcomes(short, page.parent, small=True)
    assert set(frame[frame["section"] == "digits"]["method"]) == {*grids.OBJECTIVES, grids.UNTRAINED, grids.RAW}
    assert (frame["error"] == "").all()


def test_running_it_again_makes_nothing_anew(short, page, monkeypatch):
    monkeypatch.setattr("unmix.papers.parts.load_class", lambda *_: pytest.fail("a part was run again"))
    assert short.run(page.parent, small=True, engine=Serial()) == page


def test_claims_are_judged_on_both_sides():
    def rows(diet, simclr=0.9, rank=40.0):
        each = {grids.DIET: diet, grids.UNTRAINED: [0.8] * 3, grids.RAW: [0.95], "SimCLR": [simclr] * 3,
                "VICReg": [0.85] * 3, grids.LABELLED: [0.99] * 3}  # fmt: skip
        return pd.DataFrame(
            {"section": "digits", "method": m, "seed": s, "linear": v, "rankme": rank if m == grids.DIET else 20.0}
            for m, values in each.items()
            for s, v in enumerate(values)
        )

    def verdicts(frame):
        return [c["verdict"] for c in claims.compared_claims(frame, "digits")]

    assert verdicts(rows([0.96, 0.97, 0.96])) == ["replicates"] * 4
    assert verdicts(rows([0.79, 0.94, 0.93], simclr=0.98, rank=10.0)) == ["differs"] * 4
    assert claims.compared_claims(rows([0.88, 0.9, 0.9]), "images")[0]["verdict"] == "differs"
    assert claims.correlation([1, 2, 3], [3, 2, 1]) == -1 and claims.correlation([1, 1], [2, 3]) == 0
    looks = pd.DataFrame({"section": "digits", "seed": 0, "excess": [3, 2, 1], "accuracy": [0.1, 0.2, 0.3]})
    none = pd.DataFrame()
    assert claims.tracking_claims(looks, none)[0]["verdict"] == "replicates"
    assert claims.tracking_claims(looks.assign(excess=[1, 2, 3]), none)[0]["verdict"] == "differs"
