"""The command line as a person meets it: fast help, one-line errors, exit statuses, nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from importlib import metadata

import numpy as np
import pytest

from unmix.worlds.sparse import SparseWorld


def unmix(*words: str, cwd=None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "unmix", *map(str, words)], capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    np.save(folder / "h.npy", SparseWorld(latents=16, width=8, active=2).sample(800, 0).x.numpy())
    made = unmix("fit", folder / "h.npy", "finder=TopKSAE", "finder.width=16", "finder.k=2", "finder.steps=60",
                 "seed=0..1", "-o", folder / "run")  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "TopKSAE" in made.stdout and "FVU" in made.stdout
    return folder / "run"


def test_help_and_tables_do_not_import_torch():
    code = (
        "import sys\nsys.argv = ['unmix', {words}]\nfrom unmix.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules, 'heavy import'\n"
    )
    for words in ("'--help'", "'--version'", "'list'", "'list', 'finders'", "'fit', '--help'"):
        done = subprocess.run([sys.executable, "-c", code.format(words=words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "TopKSAE" in unmix("list").stdout
    light = "import sys, unmix; assert 'torch' not in sys.modules; unmix.SparseWorld; assert len(unmix.__all__) == 16"
    assert subprocess.run([sys.executable, "-c", light], capture_output=True).returncode == 0


def test_version_is_that_of_the_package():
    assert unmix("--version").stdout.split() == ["unmix", metadata.version("unmix")]


def test_show_gives_fields_equation_and_reference():
    shown = unmix("show", "TopKSAE").stdout
    assert "top_k" in shown and "2406.04093" in shown and "width" in shown and "1024" in shown


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["fit", "no/such.npy"], 2, "no/such.npy"),
        (["fit", "digits", "finder=TopKSEA"], 2, "did you mean TopKSAE"),
        (["fit", "digits", "finder.widht=4"], 2, "did you mean width"),
        (["fit", "digits", "finder.width=4", "finder.k=9"], 2, "k=9 must be at most the number of atoms"),
        (["fit", "digits", "sede=1"], 2, "did you mean seed"),
        (["fit", "digits", "width"], 2, "expected key=value"),
        (["fit", "digits", "--engine", "warp"], 2, "no such engine"),
        (["show", "Topk_SAE"], 2, "did you mean"),
        (["list", "finder"], 2, "did you mean finders"),
        (["compare", "nowhere"], 2, "no run here"),
        (
            ["activations", "no-model", "--layer", "a", "--data", "standard-library", "-o", "acts"],
            2,
            "no-model",
        ),
        (["nonsense"], 2, "no such command 'nonsense'"),
    ],
)
def test_usage_errors_are_one_line_and_status_2(words, status, message, tmp_path):
    done = unmix(*words, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("run*/cells/*"))


def test_debug_shows_the_traceback(tmp_path):
    assert "Traceback" in unmix("fit", "no/such.npy", "--debug", cwd=tmp_path).stderr


def test_nan_in_activations_is_named(tmp_path):
    bad = np.ones((50, 4), dtype=np.float32)
    bad[17, 2] = np.nan
    np.save(tmp_path / "h.npy", bad)
    done = unmix("fit", "h.npy", "finder.width=4", "finder.k=1", cwd=tmp_path)
    assert done.returncode == 2 and "row 17, column 2" in done.stderr


def test_compare_trust_table_export_report_and_atlas(run, tmp_path):
    compared = unmix("compare", run, "encoder=Omp,Fista", "l0=2")
    assert compared.returncode == 0 and "Omp" in compared.stdout, compared.stderr
    trusted = unmix("trust", run, "size=.3,1")
    assert trusted.returncode == 0 and "matched world" in trusted.stdout, trusted.stderr
    assert "chance" in trusted.stdout
    assert unmix("table", run, "--csv", tmp_path / "t.csv").returncode == 0
    header, *lines = (tmp_path / "t.csv").read_text().splitlines()
    assert "fvu" in header and len(lines) == 2 + 4 + 2
    exported = unmix("export", run, "--codes", tmp_path / "c.parquet", "--features", tmp_path / "f.csv")
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "c.parquet").stat().st_size > 500
    assert "cells done, 0 failed" in unmix("status", run).stdout
    reported = unmix("report", run)
    assert reported.returncode == 0, reported.stderr
    page = (run / "report.html").read_text()
    assert "matched world" in page and "http://" not in page.replace("http://www.w3.org", "")
    drawn = unmix("atlas", run)
    assert drawn.returncode == 0, drawn.stderr
    assert (run / "atlas" / "index.html").is_file()


def test_a_run_of_another_version_and_a_cut_off_fit_are_one_line(run, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "run.json").write_text(json.dumps({"schema": 99}))
    done = unmix("status", copy)
    assert done.returncode == 2 and "another version (schema 99" in done.stderr
    shutil.copyfile(run / "run.json", copy / "run.json")
    for file in copy.glob("fits/*/tensors.safetensors"):
        file.write_bytes(file.read_bytes()[:200])
    done = unmix("atlas", copy)
    assert done.returncode == 1 and "not a whole safetensors file" in done.stderr


def test_fit_on_a_synthetic_world_and_dry_run(tmp_path):
    done = unmix("fit", "SparseWorld", "world.latents=12", "world.width=6", "world.active=2", "samples=300",
                 "finder=SparseCoding", "finder.width=12", "finder.active=2", "-o", tmp_path / "r")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "dict. MCC" in done.stdout and "chance" in done.stdout
    dry = unmix("fit", "digits", "finder.width=64", "finder.k=4", "--dry-run", "-o", tmp_path / "dry")
    assert dry.returncode == 0 and "memory" in dry.stdout and "disk" in dry.stdout
    assert not (tmp_path / "dry").exists()


def test_score_two_arrays(tmp_path):
    z = np.random.default_rng(0).standard_normal((200, 3))
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "h.npy", -2 * z[:, ::-1])
    done = unmix("score", "--latents", tmp_path / "z.npy", "--codes", tmp_path / "h.npy")
    assert done.stdout.startswith("mcc  1 ") and "chance" in done.stdout


def test_notices_are_lines_of_their_own_and_said_once(monkeypatch, capsys):
    from unmix.core.errors import Notice, notice
    from unmix.core.watch import show_notices

    with warnings.catch_warnings():
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        show_notices()
        for _ in range(2):
            notice("2 of 10 rows were left out")
        with pytest.warns(Notice, match="3 of 10"):
            notice("3 of 10 rows were left out")
    assert capsys.readouterr().err == "note: 2 of 10 rows were left out\n"
