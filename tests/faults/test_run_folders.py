"""Run folders that were cut off, emptied, copied or are at work: told in words, mended, and never overwritten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from unmix.activations.data import Data
from unmix.core.errors import Failure, Notice, UsageError
from unmix.core.store import is_locked, locked, read_json, write_tensors
from unmix.core.watch import Checkpoint
from unmix.encoders.amortised import Linear
from unmix.encoders.iterative import Fista
from unmix.finders.controls import RandomAtoms
from unmix.finders.features import Features
from unmix.finders.topk_sae import TopKSAE
from unmix.report.run import report_run
from unmix.study import verbs
from unmix.study.folders import told
from unmix.study.holdings import Holdings
from unmix.study.runs import Store
from unmix.study.study import Results

FINDERS = [RandomAtoms(width=8, k=2), TopKSAE(width=8, k=2, steps=20, batch=32)]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of two finders on rows of their own."""
    folder = tmp_path_factory.mktemp("folders")
    np.save(folder / "h.npy", np.random.default_rng(0).standard_normal((120, 4)).astype(np.float32))
    verbs.fit(Data(path=str(folder / "h.npy")), FINDERS, folder / "run")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def again(made: Path, run: Path) -> Results:
    return verbs.fit(Data(path=str(made / "h.npy")), FINDERS, run)


def timeless(results: Results):
    return results.table().drop(columns="fit_seconds")


@pytest.mark.parametrize("content", [b"", b'{"sch', b"\xff\xfe", b"[" * 99_999, None])
def test_a_header_that_is_lost_or_not_whole_is_written_anew(made, run, content):
    header = run / "run.json"
    header.unlink() if content is None else header.write_bytes(content)
    fits = {path: path.stat().st_mtime_ns for path in run.glob("fits/*/*")}
    with pytest.warns(Notice, match=r"run.json is (empty|not whole|missing)"):
        assert len(Results(run).table()) == 2  # reading does not need it
    with pytest.warns(Notice, match=r"run.json is"):
        again(made, run)
    assert Store.open(run).headless is False
    assert {path: path.stat().st_mtime_ns for path in run.glob("fits/*/*")} == fits, "nothing was fitted again"


@pytest.mark.parametrize("content", ['{"name": "mine"}', "[1]", '{"schema": "1"}'])
def test_a_header_of_something_else_is_left_alone(run, content):
    (run / "run.json").write_text(content)
    with pytest.raises(UsageError, match=r"run.json: was not written by unmix; use another folder"):
        Store(run)
    assert (run / "run.json").read_text() == content


DEEP, LONG = "[" * 99_999, "1" * 5000


@pytest.mark.parametrize("content", ["", '{"cell": {"k', "[]", "{}", DEEP, LONG, '{"cell": NaN}', "folder"])
def test_one_harmed_cell_stops_no_reader_and_is_made_again(made, run, content):
    file = next(run.glob("cells/*.json"))
    whole = json.loads(file.read_text())
    file.unlink()
    file.mkdir() if content == "folder" else file.write_text(content)
    with pytest.warns(Notice, match=str(file)):
        table = Results(run).table()
    assert len(table) == 1
    if content == "[]":
        with pytest.warns(Notice, match=str(file)):
            assert report_run(run).is_file()
    if content == "folder":
        file.rmdir()
    mended = again(made, run).table()
    assert len(mended) == 2
    assert {**read_json(file), "fit_seconds": 0} == {**whole, "fit_seconds": 0}


def test_copies_and_hidden_files_among_the_cells_are_no_cells(run):
    file = next(run.glob("cells/*.json"))
    shutil.copyfile(file, file.with_name(f"{file.stem} (copy).json"))
    (file.parent / f"._{file.name}").write_bytes(b"\0\5\26\7")  # as macOS leaves them on shared disks
    with pytest.warns(Notice, match=r"\(copy\).json: left out: the name is no digest"):
        table = Results(run).table()
    assert len(table) == 2


def test_a_cell_of_a_class_that_is_not_trusted_leaves_the_others_readable(run):
    files = sorted(run.glob("cells/*.json"))
    for count, file in enumerate(files, 1):
        record = read_json(file)
        record["cell"]["finder"] = {"kind": "nobody_has_this:Finder", "width": 4}
        file.write_text(json.dumps(record))
        if count < len(files):
            with pytest.warns(Notice, match=r"1 of 2 results are left out: .*UNMIX_TRUST"):
                assert len(Results(run).table()) == 1
    with pytest.raises(UsageError, match=r"nothing in it can be read here; first: .*nobody_has_this"):
        Results(run).table()


@pytest.mark.parametrize("harm", ["cut", "empty", "gone", "facts", "folder", "all"])
def test_a_fit_that_is_not_whole_is_set_aside_and_made_again(made, run, harm):
    before = timeless(Results(run))
    folder = next(path for path in run.glob("fits/*") if (path / "log.jsonl").is_file())  # the trained one
    tensors = folder / "tensors.safetensors"
    if harm == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-9])
    elif harm == "empty":
        tensors.write_bytes(b"")
    elif harm == "facts":
        (folder / "features.json").write_text('{"schema": 1, "enc')
    elif harm == "all":
        shutil.rmtree(folder)
    else:
        tensors.unlink()
        if harm == "folder":
            tensors.mkdir()
    assert len(Results(run).table()) == 2  # the table needs no features
    if harm == "all":
        again(made, run)
    else:
        with pytest.raises((Failure, UsageError), match=str(folder)):
            Features.load(folder)
        assert any(str(folder) in line and "run the same fit again" in line for line in Holdings(run).lines())
        with pytest.warns(Notice, match="set aside as .*harmed and is made anew"):
            again(made, run)
    assert Features.load(folder).shape == (8, 4) and not Holdings(run).harmed
    assert timeless(Results(run)).equals(before)


def test_a_checkpoint_that_is_cut_off_or_of_other_work_is_set_aside(tmp_path):
    rows, finder = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)), FINDERS[1]
    whole = finder.fit(rows, 0)

    class Kept(Checkpoint):
        def save(self, state):
            if not self.file.exists():
                write_tensors(self.file, state())

    finder.fit(rows, 0, kept := Kept(tmp_path / "a", "a", 0.0))
    for content in (b"", b"\0" * 40, None):
        file = kept.file
        write_tensors(file, {"step": torch.tensor(3), "other": torch.zeros(2)})
        if content is not None:
            file.write_bytes(content)
        from unmix.core.watch import resumed

        watch = Checkpoint(tmp_path / "a", "a")
        with pytest.warns(Notice, match=r"checkpoint.safetensors: .* set aside as checkpoint.safetensors.harmed"):
            found = resumed(watch, lambda watch=watch: finder.fit(rows, 0, watch))
        assert torch.equal(found.atoms, whole.atoms)


def test_trouble_after_the_first_step_is_not_blamed_on_the_checkpoint(tmp_path):
    from unmix.core.watch import resumed

    watch = Checkpoint(tmp_path, "a")
    write_tensors(watch.file, {"step": torch.tensor(3)})

    def work(error: Exception, steps: int) -> None:
        watch.restore()
        for step in range(steps):
            watch.on_step(step + 1, 9, {})
        raise error

    for error, steps in ((Failure("diverged"), 1), (MemoryError(), 0), (OSError(28, "No space left"), 0)):
        with pytest.raises(type(error)):
            resumed(watch, lambda error=error, steps=steps: work(error, steps))
        assert watch.file.is_file(), "the good state was put away"


def test_a_failure_never_takes_the_place_of_a_good_outcome(run):
    store = Store(run)
    cell, before = Results(run).cells()[0]
    store.keep(cell, {"error": "the disk was full", "world": "w"})
    assert store.outcome(cell) == before


def test_the_same_work_of_another_process_is_waited_for(tmp_path):
    import subprocess
    import sys
    import time

    code = (
        "import sys, time, pathlib\nfrom unmix.core.store import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 'abc', 'a fit'):\n    print('at it', flush=True)\n    time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "at it\n"
    assert is_locked(tmp_path, "abc") and not is_locked(tmp_path, "def")
    with locked(tmp_path, "def", "another fit"):  # other work of the folder goes on
        pass
    begun = time.monotonic()
    import threading

    threading.Timer(0.5, other.kill).start()  # the lock of a process that dies is free
    with pytest.warns(Notice, match="a fit: another process is at it"), locked(tmp_path, "abc", "a fit"):
        assert time.monotonic() - begun > 0.4
    other.wait()
    other.stdout.close()
    assert not is_locked(tmp_path, "abc")


def test_what_a_folder_is_that_is_no_run(made, tmp_path):
    fit = next((made / "run" / "fits").iterdir())
    (tmp_path / "outer").mkdir()
    (tmp_path / "empty").mkdir()
    shutil.copytree(made / "run", tmp_path / "outer" / "run")
    for folder, words in (
        (tmp_path / "nowhere", "there is no such folder"),
        (made / "h.npy", "it is a file"),
        (fit, f"it holds features; name its run, {made / 'run'}"),
        (tmp_path / "outer", f"the run is inside it: {tmp_path / 'outer' / 'run'}"),
        (tmp_path / "empty", "the folder is empty"),
    ):
        assert words in told(folder)
        with pytest.raises(UsageError, match="no run here: "):
            Results(folder)


def test_the_gap_is_told_of_two_recipes_of_one_kind_and_of_encoders_of_ones_own(made, run, monkeypatch):
    import sys
    import types

    class Solver(Fista):
        pass

    Solver.__module__, Solver.__qualname__ = "my_solvers", "Solver"
    module = types.ModuleType("my_solvers")
    module.Solver = Solver
    monkeypatch.setitem(sys.modules, "my_solvers", module)
    monkeypatch.setenv("UNMIX_TRUST", "my_solvers")
    for encoders, name in (
        ([Fista(tolerance=1e-3), Fista(tolerance=1e-4)], "Fista(tolerance="),
        ([Solver()], "my_solvers:Solver"),
    ):
        copy = Path(shutil.copytree(run, run.with_name(name[:4])))
        verbs.compare(copy, [Linear(steps=20), *encoders])
        page = report_run(copy).read_text()
        assert "The amortisation gap at matched sparsity: " in page and f"on the TopKSAE dictionary, {name}" in page
