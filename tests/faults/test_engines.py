"""Engines: the same table from each; a worker that dies loses its own job at most, and a job that kills is told."""

from __future__ import annotations

import importlib
import os
import signal
from typing import Any

import pytest

from unmix.core.errors import Failure, UsageError
from unmix.study import ENGINES
from unmix.study.engines import Serial
from unmix.study.study import Study
from unmix.worlds.sparse import SparseWorld

PACKAGES = {"dask": "distributed", "ray": "ray", "slurm": "submitit"}


def engine_of(name: str, folder: Any, **fields: Any) -> Any:
    """An engine with two workers of this machine; skipped where its package is not installed."""
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    own = {"cluster": "local", "folder": str(folder / "slurm")} if name == "slurm" else {}
    return ENGINES[name](workers=2, **own, **fields)


def grid(**changes: Any) -> Study:
    fields: dict[str, Any] = {
        "worlds": (SparseWorld(latents=12, width=6, active=2),),
        "finders": ({"kind": "PCA", "width": 4}, {"kind": "RandomAtoms", "width": 12, "k": 2}),
        "encoders": (None, "Omp"),
        "samples": (200,),
        "l0": 2,
        "test": 100,
        "scores": ("fvu", "l0", "mcc"),
    }
    return Study(**{**fields, **changes})


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ["processes", *(pytest.param(n, marks=pytest.mark.slow) for n in PACKAGES)])
def test_two_workers_give_the_table_of_one_process_and_survive_a_job_that_kills_them(name, tmp_path, capfd):
    engine = engine_of(name, tmp_path, retries=1)
    cells = importlib.import_module("unmix.study.study")
    whole = grid().run(tmp_path / "serial").table()
    marker = str(tmp_path / "died once")

    def deadly(root: Any, group: Any) -> int:
        """run_cells on a worker, but one cell always ends the process and one fit does so the first time."""
        own = importlib.import_module("unmix.study.study")
        for cell in group:
            if cell.finder.kind == "PCA" and cell.encoder is not None:
                os._exit(3)
            if cell.finder.kind == "RandomAtoms" and not os.path.exists(marker):
                open(marker, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            own.run_cells(root, [cell])
        return len(group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "run_cells", deadly)
        results = grid().run(tmp_path / name, engine)
    told = capfd.readouterr().err
    assert "RandomAtoms" in told and "its worker died" in told and "again, 1 of 1" in told
    assert len(results.failures) == 1 and "PCA + Omp" in results.failures[0]
    assert "every worker that took it died, 2 in all" in results.failures[0]
    timeless = [column for column in whole if column != "fit_seconds"]
    lost = (whole["finder"] == "PCA") & (whole["encoder"] == "Omp")
    expected = whole.loc[~lost, timeless].reset_index(drop=True)
    assert results.table()[timeless].equals(expected)
    # What failed is run again by the same command, and nothing else is.
    done = {p: p.stat().st_mtime_ns for p in (tmp_path / name / "fits").rglob("*.safetensors")}
    again = grid().run(tmp_path / name, Serial())
    assert again.table()[timeless].equals(whole[timeless]) and not again.failures
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / name / "fits").rglob("*.safetensors")} == done


def test_what_a_job_raises_is_raised_here_and_the_pool_can_be_used_again(tmp_path):
    engine = engine_of("processes", tmp_path)

    def fail(job: int) -> int:
        if job == 1:
            raise Failure("no such luck")
        return job

    with pytest.raises(Failure, match="no such luck"):
        list(engine.map(fail, [0, 1, 2, 3]))
    assert sorted(engine.map(fail, [0, 2, 3])) == [(0, 0), (2, 2), (3, 3)]


def leave(status: int) -> None:
    os._exit(status)


def test_a_part_that_kills_its_workers_is_told_when_the_others_are_there(tmp_path):
    from unmix.papers.parts import Part, results, run_parts

    engine = engine_of("processes", tmp_path, retries=0)
    parts = [Part("tests.faults.test_engines:leave", {"status": 5}), Part("json:dumps", {"obj": [1]})]
    with pytest.raises(Failure, match=r"1 parts of the study are missing; first: leave .*every worker"):
        run_parts(tmp_path, parts, engine)
    assert [(part.function, result) for part, result in results(tmp_path, parts)] == [("json:dumps", "[1]")]


def test_workers_stand_in_the_folder_of_the_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = dict(engine_of("processes", tmp_path).map(lambda job: os.getcwd(), [1, 2, 3]))
    assert found == dict.fromkeys([1, 2, 3], str(tmp_path.resolve()))


def test_engines_refuse_before_any_work(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"Processes.workers=0"):
        ENGINES["processes"](workers=0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="under torchrun"):
        list(ENGINES["processes"]().map(str, [1]))
    monkeypatch.delenv("WORLD_SIZE")
    real = importlib.import_module

    def missing(name: str, package: str | None = None) -> Any:
        if name in PACKAGES.values():
            raise ModuleNotFoundError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    for name in PACKAGES:
        engine = ENGINES[name]()
        with pytest.raises(UsageError, match=rf'engine={name}: needs .*pip install "unmix\[{name}\]"'):
            list(engine.map(str, [1]))


def test_slurm_and_foreign_clusters_that_are_not_there_are_told(tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(UsageError, match=r"engine=slurm: .*Slurm"):
        list(ENGINES["slurm"](folder=str(tmp_path)).map(str, [1]))
