"""Scoring plain files from the command line and from Python."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from unmix.cli.score import score
from unmix.cli.shared import to_write
from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.study.scoring import factors_of, score_arrays, scored


def unmix(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "unmix", *map(str, words)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def arrays():
    draw = np.random.default_rng(0)
    z = np.column_stack([draw.uniform(-1, 1, (300, 2)), draw.uniform(0, 2 * np.pi, 300)])
    h = np.column_stack([z[:, :2], np.cos(z[:, 2]), np.sin(z[:, 2])]) @ draw.standard_normal((4, 4))
    x = np.tanh(3 * z @ draw.standard_normal((3, 6))).reshape(300, 2, 3)
    return z, h, x, draw.standard_normal((300, 4))


@pytest.fixture
def files(arrays, tmp_path):
    for name, array in zip(("z", "h", "x", "h0"), arrays, strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "g.npy", np.arange(300) // 3)
    return tmp_path


def test_without_metrics_mcc_and_r2_are_one_line_each(files):
    done = unmix("score", "--latents", files / "z.npy", "--codes", files / "z.npy", "--x", files / "x.npy")
    first, second = done.stdout.splitlines()
    assert first.startswith("mcc  1 [1, 1]") and "chance" in first and "; x " in first
    assert second.startswith("r2  1 [1, 1], minimum 1") and "; x " in second


def test_a_table_says_what_the_numbers_mean(files):
    table, page = files / "scores.csv", files / "scores.json"
    done = unmix("score", "--latents", files / "z.npy", "--codes", files / "h.npy", "--metrics", "r2,mcc_spearman",
                 "--factors", "a,b,angle:circular", "--x", files / "x.npy", "--untrained", files / "h0.npy",
                 "--group", files / "g.npy", "--csv", table, "--json", page)  # fmt: skip
    assert done.returncode == 0, done.stderr
    head, line, *_ = done.stdout.splitlines()
    assert head.split()[:3] == ["score", "value", "minimum"] and "untrained (minimum)" in head and "chance" in head
    assert line.split()[:3] == ["r2", "1", "1"]
    assert "read out of h by an affine map" in done.stdout
    frame = pd.read_csv(table)
    assert list(frame["score"]) == ["r2", "mcc_spearman"] and frame["value"][0] == pytest.approx(1)
    assert frame["untrained"][0] < 0.1 < frame["x"][0] < 1 and frame["x_minimum"][0] < frame["x"][0]
    stored = json.loads(page.read_text())
    assert len(stored["scores"]["r2"]["detail"]["per_dimension"]) == 3 and stored["not_measured"] == {}


def test_tables_without_their_columns_of_names(files, arrays):
    z, h, *_ = arrays
    pd.DataFrame(z).assign(id=np.arange(300)).to_csv(files / "z.csv", index=False)
    frame = pd.DataFrame(h, columns=list("abcd")).assign(run=np.arange(300) // 3, rat="r")
    frame.to_parquet(files / "h.parquet")
    words = ("score", "--latents", files / "z.csv", "--codes", files / "h.parquet", "latents.drop=id")
    done = unmix(*words, "codes.drop=rat,run", "--group", f"{files / 'z.csv'}:id")
    assert done.returncode == 0, done.stderr
    again = unmix("score", "--latents", files / "z.npy", "--codes", files / "h.npy")
    assert done.stdout.splitlines()[0].split("[")[0] == again.stdout.splitlines()[0].split("[")[0]
    wrong = unmix(*words)
    assert wrong.returncode == 2 and "leave out by codes.drop=rat" in wrong.stderr


def test_the_matching_is_drawn_as_svg_and_on_a_page(files):
    arrays = "--latents", files / "z.npy", "--codes", files / "h.npy", "--factors", "a,b,angle:circular"
    done = unmix("score", *arrays, "--figure", files / "match.svg")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == f"figure  {files / 'match.svg'}"
    svg = (files / "match.svg").read_text()
    assert svg.startswith("<svg") and ">angle<" in svg and "3 of 3 factors matched" in svg
    same = {"factors": "a,b,angle:circular", "metrics": "typed_mcc"}
    score(files / "z.npy", files / "h.npy", figure=files / "match.html", **same)
    page = (files / "match.html").read_text()
    assert "random projections of the true factors reach" in page and ">angle<" in page and "typed_mcc" in page
    with pytest.raises(UsageError, match=r"must end in \.html or \.svg"):
        to_write(".html", ".svg")(files / "match.png")


def test_mistakes_are_one_line(files):
    wrong = unmix("score", "--latents", files / "z.npy", "--codes", files / "h.npy", "--metrics", "r3")
    assert wrong.returncode == 2 and "metrics=r3: no such score" in wrong.stderr
    few = unmix("score", "--latents", files / "z.npy", "--codes", files / "h.npy", "--factors", "a,b")
    assert few.returncode == 2 and "factors: 2 given for 3 latents" in few.stderr


def test_what_cannot_be_measured_is_listed_only_when_all_is_asked(arrays):
    z, h, _, _ = arrays
    found = scored(z, np.column_stack([h, h]), "all", "a,b,angle:circular")
    assert list(found.outcomes)[:3] == ["typed_mcc", "mcc", "r2"] and "mcc_spearman" in found.outcomes
    assert "angle is circular" in found.reasons["procrustes"] and "needs beta" in found.reasons["singular_values"]
    frame = found.table()
    assert set(frame["score"]) == {*found.outcomes, *found.reasons}
    assert (frame[frame["reason"] != ""]["value"].isna()).all() and frame["meaning"].str.len().min() > 10
    json.dumps(found.as_dict(), allow_nan=False)
    with pytest.raises(UsageError, match="angle is circular"):
        score_arrays(z, h, "procrustes", "a,b,angle:circular")


def test_what_is_odd_about_the_arrays_is_said(arrays):
    z, h, _, _ = arrays
    odd = np.column_stack([z[:, :2], np.ones(300)])
    notes = scored(odd, np.column_stack([h[:, 0], h[:, 0]]), "mig", "a,b,still").notes
    assert notes[0].startswith("latents: still never changes") and "column 1 repeats" in notes[1]
    assert "cannot exceed 0.67" in notes[2] and len(notes) == 3
    assert scored(odd, np.column_stack([h[:, :3], np.zeros(300)]), "mig").notes[1] == "codes: column 3 is constant"
    assert not scored(z, h, "mig").notes


def test_scores_of_support_are_for_sparse_arrays_unless_named(arrays):
    z, h, _, _ = arrays
    about = scored(z, h, "all").reasons
    assert all("100% of these latents" in about[name] for name in ("support", "exact_support", "rare_recovery"))
    assert "support" in scored(z, h, "support").outcomes
    sparse = np.where(np.abs(z) > 0.8, z, 0.0)
    assert {"support", "rare_recovery"} <= set(scored(sparse, sparse, "all").outcomes)
    dense = scored(sparse, sparse + 1.0, "all")
    assert "of these codes" in dense.reasons["exact_support"] and "rare_recovery" in dense.outcomes


def test_arrays_of_one_column_and_their_errors(arrays):
    z, h, x, _ = arrays
    frame = score_arrays(z[:, 0], h).set_index("score")
    assert frame.loc["r2", "value"] == pytest.approx(1) and 0 < frame.loc["mcc", "minimum"] <= 1
    assert math.isnan(frame.loc["r2", "x"])
    with pytest.raises(UsageError, match="x: 100 rows, latents 300"):
        score_arrays(z, h, x=x[:100])
    with pytest.raises(UsageError, match="group: 4 numbers for 300 rows"):
        score_arrays(z, h, group=[0, 1, 2, 3])
    bad = h.copy()
    bad[5, 1] = np.inf
    with pytest.raises(UsageError, match="codes: row 5, column 1 is inf"):
        score_arrays(z, bad)
    with pytest.raises(UsageError, match="real numbers"):
        score_arrays(z.astype(str), h)


def test_a_study_keeps_the_minimum_beside_the_mean(tmp_path):
    from unmix.finders.linear import PCA
    from unmix.study.study import Study
    from unmix.worlds.sparse import SparseWorld

    study = Study(worlds=(SparseWorld(latents=6, width=6, active=2),), finders=(PCA(width=6),), samples=(200,),
                  test=200, scores=("r2", "fvu"))  # fmt: skip
    table = study.run(tmp_path / "run").table()
    assert table["r2_minimum"][0] <= table["r2"][0] and "fvu_minimum" not in table


def test_factors_from_text_and_json(tmp_path):
    assert factors_of("x, angle:circular:0:360", 2) == (Factor("x"), Factor("angle", "circular", None, 0.0, 360.0))
    assert factors_of("a:circular", 1)[0].high == pytest.approx(2 * math.pi)
    (tmp_path / "f.json").write_text('[{"name": "shape", "kind": "categorical", "size": 3}]')
    assert factors_of(tmp_path / "f.json", 1) == (Factor("shape", "categorical", 3),)
    (tmp_path / "g.json").write_text('[{"name": "shape", "colour": 3}]')
    with pytest.raises(UsageError, match="fields are name, kind"):
        factors_of(tmp_path / "g.json", 1)
    with pytest.raises(UsageError, match="'x:round': write NAME:KIND"):
        factors_of("x:round", 1)
    with pytest.raises(UsageError, match="must be numbers"):
        factors_of("x:circular:a:b", 1)
