"""Studies: refusals before anything runs, reuse, resume, engines, tables, claims."""

from __future__ import annotations

import json

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.watch import Checkpoint, Watch
from unmix.finders.controls import RandomAtoms
from unmix.finders.dictionary import SparseCoding
from unmix.finders.linear import PCA
from unmix.finders.sae import SAE
from unmix.finders.topk_sae import TopKSAE
from unmix.study.runs import Store
from unmix.study.study import Results, Study
from unmix.worlds.sparse import SparseWorld

WORLD = SparseWorld(latents=12, width=6, active=2)


def small_study(**changes) -> Study:
    fields = {
        "worlds": (WORLD,),
        "finders": (PCA(width=4), RandomAtoms(width=12, k=2)),
        "encoders": (None, "Omp"),
        "samples": (200,),
        "l0": 2,
        "seeds": (0, 1),
        "test": 100,
        "scores": ("fvu", "l0", "mcc", "dictionary_mcc", "found"),
    }
    return Study(**{**fields, **changes})


def test_a_study_runs_once_and_its_table_has_every_cell(tmp_path):
    results = small_study().run(tmp_path / "run")
    table = results.table()
    assert len(table) == 8 and not results.failures
    assert {"fvu", "fvu_low", "mcc", "mcc_chance", "encode_flops", "seed", "own"} <= set(table)
    assert (table.loc[table["encoder"] == "Omp", "l0"] <= 2).all()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()}
    again = small_study().run(tmp_path / "run")
    assert again.table().equals(table)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_finders_of_one_kind_are_told_apart_and_go_by_each_of_their_names(tmp_path):
    few, many = (RandomAtoms(width=12, k=k) for k in (2, 3))
    results = small_study(finders=(few, many, PCA(width=4)), encoders=(None,), l0=None).run(tmp_path / "run")
    assert set(results.table()["finder"]) == {"RandomAtoms(k=2)", "RandomAtoms(k=3)", "PCA"}
    assert set(results.table()["recipe"]) >= {str(few), str(many)}
    for name in (None, "RandomAtoms", "RandomAtoms(k=2)", str(few)):
        assert results.is_called(few, name)
    assert not results.is_called(many, "RandomAtoms(k=2)") and not results.is_called(few, "PCA")


def test_impossible_cells_are_refused_with_a_sentence_before_anything_runs(tmp_path):
    import numpy as np

    np.save(tmp_path / "h.npy", np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32))
    from unmix.activations.data import Data

    study = small_study(worlds=(Data(path=str(tmp_path / "h.npy")),), samples=(None,))
    assert any("mcc needs z" in reason for reason in study.check())
    with pytest.raises(UsageError, match="cannot be run"):
        study.run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert any("samples must be given" in reason for reason in small_study(samples=(None,)).check())
    assert any("no option that sets" in reason for reason in small_study(encoders=("Nearest",)).check())
    with pytest.raises(UsageError, match="did you mean"):
        small_study(scores=("fvuu",)).check()


def test_a_failing_cell_is_kept_with_its_reason_and_the_others_go_on(tmp_path):
    results = small_study(finders=(PCA(width=4), PCA(width=40)), encoders=(None,)).run(tmp_path / "run")
    assert len(results.table()) == 2
    assert len(results.failures) == 2 and "at most min(rows, dimensions)" in results.failures[0]
    json.loads(next((tmp_path / "run" / "cells").glob("*.json")).read_text())


def test_an_error_that_nobody_foresaw_is_kept_with_its_traceback_and_the_sweep_goes_on(tmp_path, monkeypatch):
    def broken(self, rows, rng, watch, device):
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(RandomAtoms, "_fit", broken)
    results = small_study(encoders=(None,), seeds=(0,)).run(tmp_path / "run")
    assert len(results.table()) == 1
    assert results.failures[0].endswith("unexpected ZeroDivisionError: nobody foresaw this")
    stored = [json.loads(file.read_text()) for file in (tmp_path / "run" / "cells").glob("*.json")]
    assert any("in broken" in outcome.get("traceback", "") for outcome in stored)


def test_a_store_refuses_another_version_and_a_foreign_folder(tmp_path):
    small_study(seeds=(0,)).run(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"schema": 999}')
    with pytest.raises(UsageError, match="another version"):
        Results(tmp_path / "run")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="not a run folder"):
        Store(tmp_path / "foreign")
    with pytest.raises(UsageError, match="no run here"):
        Results(tmp_path / "nothing")


class Interrupting(Checkpoint):
    """A checkpoint at every step, and Ctrl-C after some of them."""

    def __init__(self, folder, after: int) -> None:
        super().__init__(folder, "test", seconds=0)
        self.after = after

    def on_step(self, step, total, facts):
        super().on_step(step, total, facts)
        self.steps = step

    def save(self, state):
        super().save(state)
        if self.steps == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "finder",
    [
        TopKSAE(width=16, k=2, steps=30, batch=64, aux_k=4, dead_after=200),
        SAE(width=16, active=2, steps=30, batch=64),
        SparseCoding(width=16, active=2, passes=6, batch=64),
        SparseCoding(width=16, active=2, passes=6, batch=64, inference="omp"),
    ],
    ids=str,
)
def test_an_interrupted_fit_goes_on_to_the_same_numbers(finder, tmp_path):
    x = WORLD.sample(300, 0).x
    whole = finder.fit(x, 5)
    with pytest.raises(KeyboardInterrupt):
        finder.fit(x, 5, Interrupting(tmp_path, 11))
    assert (tmp_path / "checkpoint.safetensors").is_file()
    resumed = finder.fit(x, 5, Interrupting(tmp_path, -1))
    assert torch.equal(resumed.atoms, whole.atoms)
    assert resumed.digest == whole.digest
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_an_interrupted_study_goes_on(tmp_path, monkeypatch):
    study = small_study(finders=(SparseCoding(width=12, active=2, passes=4, batch=50),), encoders=(None,))
    whole = study.run(tmp_path / "whole").table()
    real, calls = Watch.on_step, []

    def stop(self, step, total, facts):
        calls.append(step)
        if len(calls) == 6:
            raise KeyboardInterrupt
        real(self, step, total, facts)

    monkeypatch.setattr("unmix.core.watch.Progress.on_step", stop)
    with pytest.raises(KeyboardInterrupt):
        study.run(tmp_path / "cut")
    assert Results(tmp_path / "cut").table().empty or len(Results(tmp_path / "cut").table()) < len(whole)
    monkeypatch.undo()
    resumed = study.run(tmp_path / "cut").table()
    timeless = [column for column in whole if column != "fit_seconds"]
    assert resumed[timeless].equals(whole[timeless])


def test_claims_need_all_their_parts(tmp_path):
    results = small_study(seeds=(0,)).run(tmp_path / "run")
    claim = dict.fromkeys(("claim", "source", "published", "measured", "seeds", "interval", "why"), "x")
    path = results.write_claims([{**claim, "verdict": "differs"}])
    assert json.loads(path.read_text())[0]["verdict"] == "differs"
    with pytest.raises(UsageError, match="verdict"):
        results.write_claims([{**claim, "verdict": "great"}])
