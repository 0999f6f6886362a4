"""The study of interpretable features: its plan, its pieces on small data, its claims and the page of a trial."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from unmix.core.errors import UsageError
from unmix.finders.dictionary import SparseCoding
from unmix.finders.linear import FastICA
from unmix.papers.interpretable_features import atlases, claims, runs
from unmix.papers.interpretable_features import page as page_of
from unmix.papers.interpretable_features.study import InterpretableFeatures
from unmix.study.engines import Serial
from unmix.worlds.superposition import SuperpositionWorld


def script(file) -> object:
    """What a script of an atlas holds."""
    return json.loads(file.read_text().split(",", 1)[1].removesuffix(");\n"))


def summary(atlas) -> dict:
    return script(atlas / "data" / "summary.js")


def texts(atlas) -> list[str]:
    return script(atlas / "data" / "texts.js")["tokens"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A recording with repeats, tables of choices, stimuli of two units, and images: small, and made here."""
    root, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    images = draw.integers(0, 255, (60, 12, 12, 3)).astype(np.uint8)
    (root / "recordings" / "images_1").mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(root / "recordings" / "images_1" / f"image{number}.png")
    raw = images.reshape(60, -1)[:, :8].T[..., None] / 50.0 + draw.standard_normal((8, 60, 4))
    raw[:, :10, 3] = np.nan
    np.save(root / "recordings" / "responses_raw_1.npy", raw)
    np.save(root / "recordings" / "responses_1.npy", np.nanmean(raw, 2))
    (root / "choices").mkdir()
    for experiment, right in (("I", 0.9), ("II", 0.7)):
        rows = [
            (person, unit, kind, draw.random() < right)
            for person in range(6)
            for unit in range(4)
            for kind in ("natural", "optimized")
            for _ in range(3)
        ]
        table = pd.DataFrame(rows, columns=["subject_id", "channel", "instr_type", "correct"])
        table = table.assign(trial_type="main", catch_trial=False, layer="l", kernel_size=1, condition_name="Max-1")
        table.to_csv(root / "choices" / f"experiment_{experiment}_x.csv")
    with zipfile.ZipFile(root / "stimuli.zip", "w") as archive:
        for unit in range(2):
            for kind, angle in (("max", 0.0), ("min", 1.5)):
                for number in range(4):
                    wave = np.add.outer(np.arange(24) * np.cos(angle), np.arange(24) * np.sin(angle))
                    grey = (127 + 100 * np.sin(wave + number + unit)).astype(np.uint8)
                    Image.fromarray(grey).save(root / "one.png")
                    archive.write(root / "one.png", f"u/unit{unit}/natural_images/{kind}_{number}.png")
    (root / "net.py").write_text(
        "import torch\n\n\ndef build(seed=0):\n    torch.manual_seed(seed)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU())\n"
    )
    for number, image in enumerate(draw.integers(0, 255, (120, 10, 10, 3)).astype(np.uint8)):
        folder = root / "images" / f"class{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def study(data):
    return InterpretableFeatures(
        seeds=(0,),
        samples=300,
        recordings=str(data / "recordings"),
        splits=1,
        choices=str(data / "choices"),
        stimuli=str(data / "stimuli.zip"),
        network=f"{data / 'net.py'}:build",
        untrained={"seed": 1},
        images=str(data / "images"),
        layers=("1",),
        training=0.02,
    )


@pytest.fixture(scope="module")
def page(study, tmp_path_factory):
    before = torch.random.get_rng_state()
    made = study.run(tmp_path_factory.mktemp("study") / "run", small=True, engine=Serial())
    assert torch.equal(torch.random.get_rng_state(), before)
    return made


def test_a_trial_ends_in_claims_and_a_page(page):
    told = json.loads((page.parent / "claims.json").read_text())
    assert len(told) >= 15 and all(claim["measured"] for claim in told)
    text = page.read_text()
    for words in ("Where the features are known", "Recordings", "People", "Stimuli of units", "A network", "class"):
        assert words in text, words
    assert "random pools" in text and "on shuffled neurons" in text and "half predicts half" in text


def test_the_page_has_atlases_of_planted_features_and_of_the_last_layer(study, page):
    text = page.read_text()
    for kind, section in (("planted", "Where the features are known"), ("network", "A network")):
        assert text.index(section) < text.index(f'<a href="atlas-{kind}/index.html">Atlas</a>')
        assert (page.parent / f"atlas-{kind}" / "index.html").is_file()
    planted, layer = (summary(page.parent / f"atlas-{kind}") for kind in ("planted", "network"))
    assert planted["width"] == 32 and planted["rows"] == 150 and layer["width"] == 12 and layer["rows"] == 60
    assert {column["name"] for column in planted["columns"]} >= {"planted", "cosine", "interpretability", "z", "q"}
    assert set(texts(page.parent / "atlas-network")) == {"class0", "class1", "class2"}
    settings = next(part.settings for what, part in study.parts(True) if what.get("of") == "planted")
    world = SuperpositionWorld(patterns="gabor", seed=settings["seed"])
    columns = {column["name"]: column["values"] for column in planted["columns"]}
    found = atlases.planted_features(**settings)
    cosine = (torch.nn.functional.normalize(torch.tensor(found["atoms"])) @ world.atoms.T).abs().amax(1)
    assert columns["cosine"] == pytest.approx(cosine.tolist(), abs=1e-3)


def test_a_basis_is_one_line_with_its_readings_and_those_on_shuffled_neurons():
    def row(basis, read, z):
        return {"basis": basis, "read": read, "z": z, "value": z / 10} | dict.fromkeys(page_of.NUMBERS[2:], 0.5)

    rows = [row("neurons", "columns", 1.0), row("neurons", "angles", 2.0)]
    for number, read in enumerate(("codes", "projections", "angles")):
        rows += [row("k-means", read, 3.0 + number), row("k-means on shuffled neurons", read, 6.0 + number)]
    blocks = [page_of._means([{"table": rows}, {"table": rows}], "One.", [])]
    frame = blocks[0].frame.set_index("basis")
    assert list(frame.index) == ["neurons", "k-means"] and frame.loc["k-means", "value"] == 0.3
    assert frame.loc["neurons", page_of.TABLED[:3]].tolist() == [1, 1, 2]
    assert frame.loc["k-means", page_of.TABLED].tolist() == [3, 4, 5, 6, 7, 8]
    assert blocks[0].notes and not page_of._means([{"table": rows}], "Two.", blocks).notes
    told = ["k-means (codes): z 3.00, above", "k-means (angles): z 1, not more than 1 above the neurons (1)", "Last."]
    words = page_of._sentences({"told": told})
    assert words == (
        "K-means (codes): z 3.00, above. At most 1 null deviation above the neurons: 1 of 2 readings of bases. Last."
    )


def test_running_it_again_makes_nothing_anew(study, page, monkeypatch):
    monkeypatch.setattr("unmix.papers.parts.load_class", lambda *_: pytest.fail("a part was run again"))
    assert study.run(page.parent, small=True, engine=Serial()) == page


def test_sections_without_data_are_left_out_and_said_to_be(tmp_path):
    study = InterpretableFeatures(seeds=(0,), samples=200, training=0.01)
    assert study.plan(True).count("left out") == 4
    assert InterpretableFeatures(sections=("people",)).parts(True) == []
    page = study.but(sections=("people", "network")).run(tmp_path / "run", small=True, engine=Serial())
    assert "Left out: no tables of people" in page.read_text()
    with pytest.raises(UsageError, match="recordings=nowhere: no such"):
        study.but(recordings="nowhere").plan(True)
    with pytest.raises(UsageError, match="give images=PATH"):
        study.but(network="a:b").plan(True)


def test_stimuli_are_told_apart_and_shuffled_ones_are_not(data):
    found = runs.stimuli(str(data / "stimuli.zip"))
    assert found["units"] == 2 and found["images"] == 4
    assert np.mean(found["right"]["OrientedEnergy"]) > 0.9 and abs(found["shuffled"] - 0.5) < 0.25
    with pytest.raises(UsageError, match="natural_images"):
        runs.stimuli(str(data / "images"))


def test_ica_that_does_not_converge_on_a_recording_is_left_out_and_said_to_be(data, monkeypatch):
    given = {"folder": str(data / "recordings"), "session": "1", "splits": 1, "draws": 20, "whiten": None}
    monkeypatch.setattr(
        runs, "FastICA", lambda **fields: FastICA(**{**fields, "max_iterations": 1, "tolerance": 1e-12})
    )
    monkeypatch.setattr(runs, "SparseCoding", lambda **fields: SparseCoding(**{**fields, "passes": 1}))
    found = runs.recorded(**given, everything=True)
    assert "no convergence in 1 iterations" in found["left_out"]
    bases = {row["basis"] for row in found["table"]}
    assert "sparse coding" in bases and not any("ICA" in basis for basis in bases)
    words = page_of._recordings([({"session": "1", "whiten": None}, found)]).blocks[-1].text
    assert "Left out: FastICA: no convergence" in words
    assert runs.recorded(**given, everything=False)["left_out"] == ""


def test_claims_are_judged_on_both_sides():
    def result(gain):
        table = [
            {"basis": basis, "read": read, "role": role, "z": z, "beside": z - 1}
            for basis, read, role, z in (
                ("neurons", "columns", "basis", 1.0),
                ("neurons", "angles", "basis", 1.0),
                ("k-means", "projections", "basis", 1.0 + gain),
                ("k-means", "codes", "basis", 1.0),
                ("k-means", "angles", "basis", 1.0),
                ("k-means on shuffled neurons", "projections", "control", 2.5),
                ("random pools", "projections", "control", 1.5),
                ("shuffled activations", "columns", "control", 0.0),
            )
        ]
        centred = {"table": table, "dictionary": 0.9}
        return {"table": table, "told": ["no sign of superposition"], "centred": centred}

    what = {"session": "1", "whiten": None}
    verdicts = [claims.recording_claims([(what, result(gain))])[0]["verdict"] for gain in (0.6, 0.4)]
    assert verdicts == ["replicates", "differs"]
    what = {"world": "one neuron a feature", "seed": 0}
    for gain, verdict in ((0.9, "replicates"), (1.4, "differs")):
        single = claims.planted_claims([(what, result(gain))])
        assert [claim["verdict"] for claim in single] == ["replicates", verdict, "replicates"]
        assert single[1]["measured"] == f"{gain:.2f}" and "(k-means, projections)" in single[1]["why"]
    shares = [{"experiment": "I", "images": "natural", "accuracy": a, "error": 0, "people": 10, "trials": 9} for a in
              (0.9222, 0.93)]  # fmt: skip
    found = [claims.people_claims({"accuracies": [row]})[0]["verdict"] for row in shares]
    assert found == ["replicates", "differs"]
