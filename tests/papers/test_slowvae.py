"""SlowVAE's study: its plan, its pieces, its claims, and the page of a run that is much too short."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.core.store import read_json
from unmix.learners import LEARNERS
from unmix.papers.parts import Part, run_part
from unmix.papers.slowvae import claims, grids, runs
from unmix.papers.slowvae.page import outcomes
from unmix.papers.slowvae.study import SlowVaeStudy
from unmix.study.engines import Serial
from unmix.worlds import WORLDS

LAPLACE = {"kind": "TransitionWorld", "latents": 3, "transition": {"kind": "Laplace", "rate": 2.0}}
FAST = {"kind": "SlowVAE", "network": {"kind": "MLP", "hidden": [8], "normalise": "none"}, "width": 3, "steps": 2}


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    """Two sources of Laplace walks."""
    draw = Stream(0).child("tracks").numpy()
    rows = []
    for source in ("davis", "kitti-car"):
        for track in range(4):
            steps = draw.laplace(size=(60, 3)) * draw.choice([0.1, 1.0], (60, 1))
            walk = 200 + steps.cumsum(0)
            rows += [(source, "s", track, frame, *walk[frame]) for frame in range(60)]
    path = tmp_path_factory.mktemp("tracks") / "tracks.csv"
    names = ["source", "sequence", "object", "frame", "x", "y", "area"]
    pd.DataFrame(rows, columns=names).to_csv(path, index=False)
    return str(path)


@pytest.fixture(scope="module")
def short(tracks):
    return SlowVaeStudy(
        seeds=(0, 1), training=0.0005, sections=("motion", "latents", "choice"), tracks=tracks, latents=2, test=200
    )


@pytest.fixture(scope="module")
def page(short, tmp_path_factory):
    return short.run(tmp_path_factory.mktemp("study") / "run", small=True, engine=Serial())


@pytest.mark.parametrize("small", [True, False])
def test_every_piece_of_the_plan_is_possible(small, tracks):
    study = SlowVaeStudy(tracks=tracks)
    seen = set()
    for what, part in study.parts(small):
        if part.function.endswith(":trained"):
            kind = (what["section"], what["law"], what["method"])
            if kind not in seen:
                world, learner = part.settings["world"], part.settings["learner"]
                made = LEARNERS.make(dict(learner)).but(batch=8)
                assert made.refusal(WORLDS.make(dict(world))) is None, kind
            seen.add(kind)
    assert {law for _, law, _ in seen} >= {"Laplace", "Gaussian", "zero-inflated", "natural", "LAP"}
    files = [str(part) for _, part in study.parts(small)]
    assert len(files) == len(set(files))
    motion = {"sections": ("motion",)}
    assert "left out" in SlowVaeStudy(**motion).plan(small) and "left out" not in study.but(**motion).plan(small)


def test_the_full_sprites_are_the_papers():
    slow = grids.sprite_learners(False, 300_000)[grids.SLOW]
    assert (slow.width, slow.batch, slow.lr, slow.gamma, slow.rate_prior, slow.beta) == (10, 64, 1e-4, 10, 6, 1)
    assert slow.convention == "official" and slow.kaiming and slow.schedule == "constant"
    assert grids.sprite_learners(False, 1)[grids.BETA].gamma == 0


def test_ica_of_differences_recovers_a_linear_mixing_and_gaussian_steps_stay_open():
    found = runs.ica(LAPLACE, 1, test=2000)
    assert found["converged"] and found["spearman"]["value"] > 0.999
    gaussian = {**LAPLACE, "transition": {"kind": "Gaussian"}}
    assert runs.ica(gaussian, 1, test=2000)["spearman"]["value"] < 0.95


def test_a_fit_that_fails_is_kept_with_its_reason():
    found = runs.trained(LAPLACE, {**FAST, "lr": 1e18, "optimiser": "sgd", "steps": 20}, 0)
    assert "not finite" in found["error"] or "loss is" in found["error"]
    good = runs.trained(LAPLACE, FAST, 0, test=500, measures=("mig",), keep=20)
    assert np.array(good["codes"]).shape == (20, 3) and len(good["informative"]) == 3
    assert 0 <= good["mig"]["value"] <= 1 and 0 < good["spearman"]["value"] <= 1
    json.dumps(good)


def test_tracks_that_are_not_there_are_refused():
    with pytest.raises(UsageError, match="no such file"):
        SlowVaeStudy(tracks="nowhere.csv").plan(True)


def test_a_short_run_ends_in_claims_and_a_page(page):
    told = json.loads((page.parent / "claims.json").read_text())
    verdicts = {claim["claim"]: claim["verdict"] for claim in told}
    first = next(text for text in verdicts if text.startswith("Laplace transitions: SlowVAE recovers"))
    assert verdicts[first] == "differs", "a share of 0.0005 of the training recovers nothing"
    assert verdicts["Laplace transitions, linear mixing: ICA of the differences recovers the latents in closed form"]
    text = page.read_text()
    for words in ("How real objects move", "A few latents", "Choosing without the truth", "Failures", "seeds=0,1"):
        assert words in text, words


def test_every_seed_is_a_row_and_failures_are_named(short, page):
    frame = outcomes(short, page.parent, small=True)
    slow = frame[(frame["section"] == "latents") & (frame["method"] == "SlowVAE") & (frame["law"] == "Laplace")]
    assert sorted(slow["seed"]) == [0, 1] and (frame["error"] == "").all()


def test_running_it_again_makes_nothing_anew(short, page, monkeypatch):
    monkeypatch.setattr("unmix.papers.parts.load_class", lambda *_: pytest.fail("a part was run again"))
    assert short.run(page.parent, small=True, engine=Serial()) == page


def test_claims_are_judged_on_both_sides():
    def rows(slow, beta, law="Laplace"):
        made = []
        for method, values in (("SlowVAE", slow), ("beta-VAE", beta), ("ICA of differences", [0.9999])):
            made += [
                {"section": "latents", "law": law, "method": method, "seed": s, "spearman": v, "chance": 0.77}
                for s, v in enumerate(values)
            ]
        return pd.DataFrame(made)

    good, bad = (claims.latent_claims(rows(slow, [0.7, 0.72])) for slow in ([0.95, 0.99], [0.75, 0.7]))
    assert [c["verdict"] for c in good] == ["replicates", "replicates"]
    assert [c["verdict"] for c in bad] == ["differs", "replicates"]
    gaussian = claims.latent_claims(rows([0.95, 0.99], [0.7], "Gaussian"))
    assert gaussian[0]["verdict"] == "differs", "SlowVAE cannot be above random rotations on Gaussian steps"
    sprites = rows([0.9], [0.5]).assign(section="sprites")
    assert claims.sprite_claims(sprites)[0]["verdict"] == "replicates"
    assert claims.sprite_claims(sprites.assign(chance=0.95))[0]["verdict"] == "differs"


@pytest.mark.parametrize("law", ["LAP", "UNI"])
def test_the_full_sprites_start_and_an_interrupted_one_goes_on(law, tmp_path, monkeypatch):
    world = grids.sprite_worlds(False, None)[law].as_dict()
    learner = grids.sprite_learners(False, 6)[grids.SLOW].but(batch=8).as_dict()
    part = Part("unmix.papers.slowvae.runs:trained", {"world": world, "learner": learner, "seed": 0, "test": 200})
    run_part(tmp_path / "whole", part)
    monkeypatch.setattr(runs, "SAVED", 0.0)
    seen = []

    def stop(step, total, facts):
        seen.append(step)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("unmix.core.watch.Checkpoint.on_step", lambda self, *told: stop(*told))
        with pytest.raises(KeyboardInterrupt):
            run_part(tmp_path / "cut", part)
        run_part(tmp_path / "cut", part)
    assert seen == [1, 2, 3, 4, 4, 5, 6], "it went on after the third step, the last one that was kept"
    whole, cut = (read_json(part.file(tmp_path / name))["result"] for name in ("whole", "cut"))
    assert {**whole, "seconds": 0} == {**cut, "seconds": 0}
    assert not list((tmp_path / "cut" / "parts").glob("*.working"))


def test_the_plan_says_what_training_costs():
    plan = SlowVaeStudy(sections=("sprites",), seeds=(0,), training=0.001).plan(small=True)
    assert "sprites: 7 pieces of work" in plan and "FLOPs" in plan and "of one core" in plan
