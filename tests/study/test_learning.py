"""Learning in a run folder: stored once, resumed, scored beside its baselines, refused with a sentence."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.learners.contrastive import InfoNCE
from unmix.learners.supervised import InstanceDiscrimination, Supervised
from unmix.networks.mlp import MLP
from unmix.study.learning import Learned, Learning, learn, warnings_of
from unmix.study.learning_costs import estimate
from unmix.study.present import show_learned
from unmix.worlds.cluster import ClusterWorld
from unmix.worlds.pairs import PairWorld

WORLD = ClusterWorld(latents=3, classes=12, instances=24, seed=1)
FIELDS = {"network": MLP(hidden=(32,)), "width": 3, "steps": 120, "batch": 256, "lr": 1e-2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning") / "run"
    learners = [Supervised(**FIELDS, unit_features=True, unit_weights=True), InstanceDiscrimination(**FIELDS)]
    return folder, learners, learn(WORLD, learners, folder, (0, 1), test=1500)


def test_every_learner_and_seed_is_stored_with_scores_and_baselines(run):
    folder, _, learned = run
    table = learned.table()
    assert len(table) == 4 and not learned.failures
    assert set(table["learner"]) == {"Supervised", "InstanceDiscrimination"}
    assert (table["r2_minimum"] <= table["r2"]).all() and (table["r2"] <= 1).all()
    assert (table["r2"] > table["r2_untrained"]).all()
    assert table[["r2_x", "loss", "beta", "mcc"]].notna().all().all()
    assert (table["excess_loss"] > -0.05).all()
    assert table["within_class"][table["learner"] == "InstanceDiscrimination"].notna().all()
    assert len(list((folder / "learned").glob("*/representation.json"))) == 4
    assert not list((folder / "learned").glob("*.working"))


def test_what_is_stored_loads_and_is_not_trained_again(run, monkeypatch):
    folder, learners, _ = run
    job = Learning(world=WORLD, learner=learners[0], seed=0, test=1500)
    learnt = Learned(folder).representation(job)
    x = WORLD.sample(20, 5).x
    assert torch.equal(learners[0].fit(WORLD, 0)(x), learnt(x))
    monkeypatch.setattr(Supervised, "fit", lambda *_: pytest.fail("trained again"))
    again = learn(WORLD, learners, folder, (0, 1), test=1500)
    assert len(again.table()) == 4
    (folder / "learned" / f"{job.digest}.json").unlink()
    assert len(learn(WORLD, learners, folder, (0, 1), test=1500).table()) == 4


def test_a_failure_is_stored_with_its_reason_and_tried_again(tmp_path):
    wild = Supervised(**{**FIELDS, "optimiser": "sgd", "lr": 1e30, "network": MLP(hidden=(8,), normalise="none")})
    learned = learn(WORLD, [wild], tmp_path / "run", test=400)
    assert len(learned.failures) == 1 and "at step" in learned.failures[0]
    assert not len(learned.table())
    assert not list((tmp_path / "run" / "learned").glob("*/representation.json"))


def test_a_world_that_lacks_what_is_needed_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(UsageError, match="InfoNCE: needs group, time, x; ClusterWorld gives"):
        learn(WORLD, [InfoNCE(**FIELDS)], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pairs_are_scored_in_whole_sequences(tmp_path):
    world = PairWorld(latents=3, length=3, seed=1)
    learned = learn(world, [InfoNCE(**{**FIELDS, "batch": 255})], tmp_path / "run", test=1000)
    assert learned.table()["test"].tolist() == [999]
    assert learned.table()["r2"].notna().all()


def test_assumptions_that_do_not_hold_are_told_and_stored(run):
    assert warnings_of(ClusterWorld(latents=3, classes=12, vectors="subspace"))
    outcome = Learned(run[0]).outcomes()[0]
    assert outcome["warnings"] == list(warnings_of(WORLD))


def test_an_estimate_runs_a_few_steps_only():
    costs = estimate(WORLD, [Supervised(**{**FIELDS, "steps": 10_000})], 2)
    per_row = 2 * 3 * (3 * 32 + 32 * 3 + 3 * 12) - 2 * 3 * 32  # the input needs no gradient
    assert costs["flops"] == pytest.approx(2 * 10_000 * 256 * per_row, rel=0.01)
    assert costs["seconds"] > 0 and costs["disk_bytes"] > 0


def test_the_table_prints_the_worst_dimension_beside_the_mean(run, capsys):
    show_learned(run[2])
    shown = capsys.readouterr().out
    assert "worst" in shown and "start" in shown and "InstanceDiscrimination" in shown


def test_a_beta_that_is_no_factor_is_not_shown(run, tmp_path, capsys):
    show_learned(run[2])
    assert " beta" in capsys.readouterr().out
    fixed = Supervised(**{**FIELDS, "steps": 2}, learn_beta=False)
    show_learned(learn(WORLD, [fixed], tmp_path / "run", test=400))
    shown = capsys.readouterr().out
    assert "Supervised" in shown and " beta" not in shown
