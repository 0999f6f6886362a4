"""Calibration: published accuracies, agreement that does not beat the majority, and sensitivities found again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unmix.core.errors import Failure, UsageError
from unmix.scores.interpretability.human import accuracy, agreement, fit_sensitivity, noise_ceiling, read_choices

FOLDER = os.environ.get("UNMIX_DATA")


def observers(alpha=3.0, trials=8000, lapse=0.0, seed=0):
    """People who choose by a logistic of the margin, and guess in a share of the trials."""
    draw = np.random.default_rng(seed)
    margin = 0.4 * draw.standard_normal(trials) + 0.3
    chance = lapse / 2 + (1 - lapse) / (1 + np.exp(-alpha * margin))
    return margin, draw.random(trials) < chance


def answers(people=12, units=20, trials=12, spread=1.5, seed=0):
    draw = np.random.default_rng(seed)
    hard = 1 / (1 + np.exp(-(0.5 + spread * draw.standard_normal(units))))
    rows = [(p, u, draw.random() < hard[u]) for p in range(people) for u in range(units) for _ in range(trials)]
    table = pd.DataFrame(rows, columns=["subject_id", "channel", "correct"])
    return table.assign(trial_type="main", catch_trial=False, instr_type="natural", layer="l", kernel_size=1), hard


@pytest.mark.parametrize(("alpha", "lapse"), [(3.0, 0.0), (0.5, 0.0), (4.0, 0.2), (-2.0, 0.0)])
def test_the_sensitivity_of_simulated_observers_is_found(alpha, lapse):
    margin, right = observers(alpha, lapse=lapse)
    found = fit_sensitivity(margin, right, lapse)
    low, high = found.interval
    assert abs(found.alpha - alpha) < 3 * (high - low) / 3.92 and high - low < 1.0
    assert abs(found.predict(margin).mean() - right.mean()) < 0.03
    scaled = fit_sensitivity(100 * margin, right, lapse)
    assert scaled.alpha == pytest.approx(found.alpha / 100, rel=1e-4)


def test_the_interval_of_the_sensitivity_covers():
    hits = 0
    for seed in range(60):
        low, high = fit_sensitivity(*observers(trials=400, seed=seed)).interval
        hits += low < 3.0 < high
    assert hits >= 52


def test_agreement_is_shown_beside_the_majority():
    margin, right = observers(trials=20000)
    found = agreement(margin, right)
    assert 0.5 < found.auc < 0.9 and found.kappa > 0.2
    assert "majority" in str(found)
    draw = np.random.default_rng(0)
    blind = agreement(draw.standard_normal(20000) + 1, draw.random(20000) < 0.8)
    assert abs(blind.kappa) < 0.03 and blind.auc == pytest.approx(0.5, abs=0.02)
    assert blind.agreement < blind.majority  # a judge that looks right often and knows nothing
    assert np.isnan(agreement(margin, np.ones(20000)).auc)
    three = agreement([1.0, 1.0, -1.0, 2.0], [True, False, False, True])
    assert three.agreement == 0.75 and three.majority == 0.5 and three.auc == pytest.approx(0.875)


def test_a_judge_that_cannot_decide_is_right_half_of_the_time():
    draw = np.random.default_rng(0)
    right = draw.random(1000) < 0.8
    found = agreement(np.zeros(1000), right)
    assert found.agreement == 0.5 and found.kappa == 0 and found.auc == 0.5
    some = agreement(np.where(right, 1.0, 0.0), right)
    assert some.agreement == pytest.approx(right.mean() + (1 - right.mean()) / 2)


def test_answers_that_allow_no_fit_are_refused():
    with pytest.raises(UsageError, match="all are 0"):
        fit_sensitivity(np.zeros(5), np.ones(5))
    with pytest.raises(UsageError, match="predicts every answer"):
        fit_sensitivity([1.0, 2.0, -1.0], [True, True, False])
    with pytest.raises(UsageError, match="both be"):
        agreement([1.0, 2.0], [True])
    with pytest.raises(UsageError, match="trial 1 is nan"):
        agreement([1.0, np.nan], [True, False])


def test_the_noise_ceiling_of_people_is_what_the_units_reach():
    table, hard = answers()
    table = table.assign(unit=table["channel"])
    found = noise_ceiling(table)
    reached = np.corrcoef(hard, table.groupby("unit")["correct"].mean())[0, 1]
    assert found["ceiling"] == pytest.approx(reached, abs=0.02) and found["units"] == 20
    flat, _ = answers(spread=0.0, units=40)
    assert noise_ceiling(flat.assign(unit=flat["channel"]))["half"] < 0.3
    with pytest.raises(UsageError, match="4 people"):
        noise_ceiling(table[table["subject_id"] < 3])


def test_tables_are_read_without_catch_trials_and_errors_are_named(tmp_path):
    table, _ = answers(people=3, units=2, trials=2)
    table.loc[0, "catch_trial"], table.loc[1, "trial_type"] = True, "practice"
    table.to_csv(tmp_path / "t.csv")
    assert len(read_choices(tmp_path / "t.csv")) == 10
    assert len(read_choices(tmp_path / "t.csv", catch=True)) == 11
    assert len(read_choices(tmp_path / "t.csv", catch=True, practice=True)) == 12
    table.drop(columns="correct").to_csv(tmp_path / "u.csv")
    with pytest.raises(UsageError, match="lacks the columns correct"):
        read_choices(tmp_path / "u.csv")
    with pytest.raises(UsageError, match="no such file"):
        read_choices(tmp_path / "v.csv")
    (tmp_path / "w.csv").write_text("")
    with pytest.raises(Failure, match="not a whole table"):
        read_choices(tmp_path / "w.csv")
    table.assign(correct="yes").to_csv(tmp_path / "x.csv")
    with pytest.raises(UsageError, match="column 'correct' is not of numbers"):
        read_choices(tmp_path / "x.csv")


@pytest.mark.skipif(FOLDER is None, reason="UNMIX_DATA, the folder of the tables, is not set")
def test_published_accuracies():
    folder = Path(FOLDER or "") / "psychophysics"
    one = read_choices(folder / "experiment_I_main_practice_catch_repeated_trials_preprocessed.csv")
    first = accuracy(one).set_index("instr_type")["accuracy"]
    two = read_choices(folder / "experiment_II_main_practice_catch_trials_preprocessed.csv")
    second = accuracy(two[two["condition_name"] == "Max-1"]).set_index("instr_type")["accuracy"]
    assert first["natural"] == pytest.approx(0.9222, abs=1e-3) and first["optimized"] == pytest.approx(0.82, abs=1e-3)
    assert second["natural"] == pytest.approx(0.7304, abs=1e-3)
    assert second["optimized"] == pytest.approx(0.652, abs=1e-3)
