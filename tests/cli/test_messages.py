"""Whatever is written on the command line is done or refused in one sentence that names it; nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unmix.cli import run

FIT = ["finder=TopKSAE", "finder.width=8", "finder.k=2", "finder.steps=3", "finder.batch=32"]
LONG = "a" * 300
# What every option is tried with; none of them is right for any.
ODD = ["a", "nan", "1e400", "[[[", "[" * 9_999, "{}", '{"kind":1}', "1.5", "..", "0..", "é", "1" * 5000]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of data, with a run of two seeds in it."""
    path = tmp_path_factory.mktemp("messages")
    rng = np.random.default_rng(0)
    for name, array in (
        ("h", rng.standard_normal((120, 4)).astype(np.float32)),
        ("z", rng.standard_normal((120, 2))),
        ("y", rng.integers(0, 2, 120)),
    ):
        np.save(path / f"{name}.npy", array)
    (path / "empty.npy").write_bytes(b"")
    (path / "afile").write_text("x")
    (path / "nothing").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        assert run(["fit", "h.npy", *FIT, "seed=0,1", "-o", "run"]) == 0
    return path


@pytest.fixture
def said(folder, monkeypatch, capsys):
    """The exit status and the sentence of a command in that folder, which leaves the data as they were."""
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in folder.glob("*.npy")}

    def done(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        status = run(list(words))
        told = capsys.readouterr().err
        lines = [line for line in told.splitlines() if line]
        assert status in (1, 2) and len(lines) == 1 and lines[0].startswith("error: "), (words, status, told)
        for raw in ("unexpected ", "Traceback", "Errno", "pydantic", "Input should", "object at 0x", "<class"):
            assert raw not in told, (words, told)
        assert {path: path.read_bytes() for path in folder.glob("*.npy")} == before
        return status, lines[0]

    return done


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["fit", "h.npy", *FIT, "-o", "o"], "seed"),
        (["fit", "h.npy", *FIT, "-o", "o"], "samples"),
        (["fit", "h.npy", *FIT, "-o", "o"], "finder.aux_k"),
        (["fit", "h.npy", *FIT, "-o", "o"], "transform"),
        (["choose", "h.npy", *FIT, "-o", "o"], "test"),
        (["compare", "run", "encoder=Linear"], "seed"),
        (["match", "run", "run"], "seed"),
        (["match", "run", "run", "seed=0,1"], "limit"),
        (["concepts", "run", "y.npy"], "top"),
        (["concepts", "run", "y.npy"], "draws"),
        (["probe", "run", "y.npy"], "limit"),
        (["trust", "run"], "seed"),
        (["learn", "ClusterWorld", "learner=Supervised", "learner.steps=2", "-o", "o"], "test"),
        (["learn", "ClusterWorld", "learner=Supervised", "learner.steps=2", "-o", "o"], "learner.network"),
        (["check", "ClusterWorld"], "samples"),
        (["explain", "run"], "feature"),
        (["steer", "run", "1", "--ablate"], "draws"),
        (["downstream", "run"], "tokens"),
        (["score", "run"], "count"),
        (["study", "trust", "--dry-run"], "seed"),
    ],
)
def test_a_value_of_another_kind_is_named_with_what_would_be_right(said, words, key):
    for odd in ODD:
        status, told = said(*words, f"{key}={odd}")
        assert status == 2 and len(told) < 400, (odd, told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fit", "h.npy", "seed=0..", "-o", "o"], "seed=0..: must be a whole number"),
        (["fit", "h.npy", "seed=0..99999999999", "-o", "o"], "at most 10,000 at a time"),
        (["fit", "h.npy", "seed=3..1", "-o", "o"], "write the smaller number first"),
        (["fit", "h.npy", "seed=,", "-o", "o"], "holds no value"),
        (["fit", "h.npy", "samples=true", "-o", "o"], "samples=True: must be a number"),
        (["fit", "h.npy", "finder.width=8", "finder.width=9", "-o", "o"], "given twice; write the values as"),
        (["fit", "h.npy", *FIT, "finder.lr=nan", "-o", "o"], "TopKSAE.lr=nan: must be finite"),
        (["fit", "h.npy", *FIT, "finder.k=true", "-o", "o"], "finder.k: given twice"),
        (["fit", "h.npy", *FIT[:2], "finder.k=true", "-o", "o"], "TopKSAE.k=True: must be a number"),
        (["fit", "empty.npy", "-o", "o"], "empty.npy"),
        (["fit", "nothing", "-o", "o"], "nothing"),
        (["fit", "h.npy", *FIT, "-o", "afile"], "afile: is a file; name a folder"),
        (["fit", "h.npy", *FIT, "-o", f"o/{LONG}"], "File name too long"),
        (["fit", LONG, *FIT, "-o", "o"], "File name too long"),
        (["status", "afile"], "it is a file; name a folder"),
        (["table", "nothing"], "no run here: the folder is empty"),
        (["report", "nowhere"], "no run here: there is no such folder"),
        (["atlas", "h.npy"], "no run here: it is a file"),
        (["table", "run", "--csv", "t.txt"], "must end in .csv or .parquet"),
        (["table", "run", "--csv", "afile/t.csv"], "afile is a file, not a folder"),
        (["report", "run", "-o", "h.npy"], "must end in .html"),
        (["score", "--latents", "z.npy", "--codes", "h.npy", "--json", "z.npy"], "must end in .json"),
        (["export", "run", "--codes", "c.csv", "--seed", "a"], "--seed=a: must be a whole number"),
        (["steer", "run", "x"], "feature=x: must be a whole number"),
        (["steer", "run", "1", "--amount", "nan"], "amount=nan: must be finite"),
        (["concepts", "run", "y.npy", "top=0"], "top=0: should be greater than or equal to 1"),
        (["explain", "run", "controls=1"], "controls=1: must be text"),
        (["import", "afile", "-o", "imported"], "is a file; name a folder that holds"),
        (["nonsense"], "no such command 'nonsense' (see unmix --help)"),
        (["fit", "--nonsense"], "no such option"),
        (["fit"], "missing argument"),
    ],
)
def test_the_sentence_says_what_is_wrong(said, words, told):
    assert told in said(*words)[1]


def test_every_help_shows_its_brackets_as_they_were_written(capsys):
    for verb in ("score", "fit"):
        assert run([verb, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "True latents [n, f]: .npy" in shown and "Raw observations [n, ...]" in shown and "\\[" not in shown
    assert run(["show", "RandomAtoms"]) == 0 and run([]) == 0 and "Commands" in capsys.readouterr().out


def test_status_of_a_run_is_json_safe_and_counts(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert run(["status", "run"]) == 0
    assert capsys.readouterr().out == "2 cells done, 0 failed, 0 interrupted\n"
    assert json.loads((folder / "run" / "run.json").read_text()) == {"schema": 1}
