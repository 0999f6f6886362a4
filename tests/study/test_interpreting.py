"""Features of a run scored on the images that they were not fitted on, and shown in its atlas."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from unmix.activations.data import Data
from unmix.activations.recordings import collect_recording
from unmix.atlas.run import atlas_run
from unmix.core.errors import Notice, UsageError
from unmix.finders.clusters import SphericalKMeans
from unmix.finders.linear import PCA
from unmix.study import verbs
from unmix.study.interpreting import interpret, summary
from unmix.worlds.superposition import SuperpositionWorld

pytestmark = pytest.mark.filterwarnings("ignore:(20 of 700|30 of 430) images are copies of others")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Neurons of a planted world as a recording over its images, the last twenty of which are copies."""
    root = tmp_path_factory.mktemp("interpreting")
    sample = SuperpositionWorld(latents=12, width=8, side=8, patterns="gabor").sample(700, 0)
    x = sample.x.numpy()
    images = ((x - x.min()) / (x.max() - x.min()) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    images[-20:] = images[:20]
    np.save(root / "images.npy", images)
    np.save(root / "responses.npy", sample.h.numpy())
    acts = root / "acts"
    rows = collect_recording(root / "responses.npy", root / "images.npy", acts)
    assert rows.shape == (700, 8) and rows.items.kind == "image" and "reliability" not in rows.about
    with pytest.warns(Notice, match="20 of 700 images are copies of others; copies are on one side of the split"):
        verbs.fit(Data(path=str(acts)), [SphericalKMeans(width=12), PCA(width=8)], root / "run")
    return root / "run"


def test_every_basis_and_feature_is_scored_on_held_out_images(run):
    found = interpret(run, "Pixels", draws=200)
    assert 60 <= found.images <= 70  # a tenth, copies together
    assert {"neurons", "SphericalKMeans", "PCA", "random pools", "PCA on shuffled neurons"} <= set(
        found.bases["basis"]
    )
    assert found.told[-1].startswith(f"Only {found.images} images are scored") and "2,000" in found.told[-1]
    clusters = found.features["SphericalKMeans"]
    assert (
        len(clusters) == 12 and clusters["z"].mean() > 2 and (clusters["q"].dropna() >= clusters["p"].dropna()).all()
    )
    assert not clusters["turned"].any() and "two_choices" in clusters
    table = found.table()
    assert table.columns[0] == "basis" and len(table) == 20
    again = interpret(run, "Pixels", draws=200)
    assert again.bases.equals(found.bases)
    for words, options in (
        ("no such fit here; known", {"finder": "NMF"}),
        ("no such file", {"untrained": "none.npy"}),
    ):
        with pytest.raises(UsageError, match=words):
            interpret(run, "Pixels", **options)


def embedding_of(path, **options):
    return {"kind": "Embedding", "path": str(path), **options}


def test_an_embedding_has_one_row_for_each_image_of_the_run_in_any_form(run, tmp_path):
    images = np.load(run.parent / "images.npy")
    vectors = images.reshape(700, -1).astype(np.float32)[:, :30] + np.random.default_rng(0).random((1, 30))
    np.save(tmp_path / "e.npy", vectors)
    wanted = interpret(run, embedding_of(tmp_path / "e.npy"), draws=20)
    assert wanted.images >= 60 and wanted.bases["z"].notna().all()
    pd.DataFrame(vectors).to_csv(tmp_path / "e.csv", index=False)
    np.savez(tmp_path / "e.npz", e=vectors.astype(np.float64))
    np.save(tmp_path / "maps.npy", vectors[..., None, None])
    save_file({"vectors": torch.from_numpy(vectors), "more": torch.zeros(2)}, tmp_path / "e.safetensors")
    for name in ("e.csv", "e.npz", "maps.npy", "e.safetensors", "e.safetensors:vectors"):
        found = interpret(run, str(tmp_path / name), draws=20).bases
        np.testing.assert_allclose(found["value"], wanted.bases["value"], rtol=1e-4, atol=1e-5)
    for name, given, words in (
        ("few", vectors[:70], "has 70 rows for 700 images"),
        ("turned", vectors.T, "has 30 rows for 700 images, but 700 columns: turn it round"),
        ("tokens", np.zeros((700, 5, 3)), r"\[700, 5, 3\]; average it"),
        ("missing", np.where(np.arange(700) == 7, np.nan, vectors.T).T, "row 7, column 0 is nan"),
        ("circular", np.load(run.parent / "responses.npy") * 3 + 1, "proves nothing"),
    ):
        np.save(tmp_path / f"{name}.npy", given)
        with pytest.raises(UsageError, match=words):
            interpret(run, embedding_of(tmp_path / f"{name}.npy"), draws=20)
    with pytest.raises(UsageError, match="no such file"):
        interpret(run, embedding_of(tmp_path / "none.npy"))


def test_features_with_few_active_images_are_counted_and_named(tmp_path):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (430, 8, 8, 3), dtype=np.uint8)
    images[-30:] = images[:30]
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "responses.npy", draw.random((430, 12)).astype(np.float32))
    collect_recording(tmp_path / "responses.npy", tmp_path / "images.npy", tmp_path / "acts")
    verbs.fit(Data(path=str(tmp_path / "acts")), [SphericalKMeans(width=16)], tmp_path / "run")
    found = interpret(tmp_path / "run", "Pixels", draws=50)
    table, bases = found.features["SphericalKMeans"], found.bases.set_index(["basis", "read"])
    few = int(table["few"].sum())
    assert few >= 6 and (table["few"] == ((table["active"] < 5) & (table["active"] > 0))).all()
    assert table.loc[table["few"], ["value", "z", "p", "q"]].isna().all(axis=None)
    assert table.loc[~table["few"] & (table["active"] > 0), "z"].notna().all()
    assert bases.loc[("SphericalKMeans", "codes"), "few"] == few
    assert f"{few} left out, active on fewer than 5 images" in summary(table, found.count)
    left_out = f"without {few} of 16 features that are active on too few images"
    assert any(left_out in told or "no feature is active on as many" in told for told in found.told)
    index = atlas_run(tmp_path / "run")
    text = (index.parent / "data" / "summary.js").read_text()
    columns = {column["name"]: column for column in json.loads(text[text.index(",") + 1 : -3])["columns"]}
    assert sum(note.startswith("left out: active on") for note in columns["z"]["notes"]) == few
    assert {"low_level", "low_level_value", "beyond", "explained"} <= set(table) and "low level" in columns


def test_what_is_said_of_a_table_of_features():
    table = pd.DataFrame(
        {"feature": range(6), "q": [0.01, 0.01, 0.5, None, None, 0.01], "few": [False] * 3 + [True, False, False]}
        | {
            "active": [9, 9, 9, 2, 0, 9],
            "tied": [0, 30, 0, 98, 0, 0],
            "explained": [True, False, False, False, False, True],
        }
        | {"low_level": ["luminance", "red", "red", None, None, "luminance"]}
    )
    assert summary(table, 5) == (
        "3 of 6 features above random images (false discovery rate 5 %), 2 of them no more than other images alike "
        "in a low-level measure (luminance 2); 1 left out, active on fewer than 5 images of those scored (3); 1 do "
        "not vary; in 1 ties decide on some images of the set, and the value is the mean over their orders"
    )


def test_the_atlas_shows_the_scores_with_their_null(run):
    interpret(run, "Pixels", draws=50)
    index = atlas_run(run, finder="SphericalKMeans")
    text = (index.parent / "data" / "summary.js").read_text()
    summary = json.loads(text[text.index(",") + 1 : -3])
    columns = {column["name"]: column for column in summary["columns"]}
    assert {"interpretability", "z", "q", "two choices"} <= set(columns)
    assert all("chance" in note for note in columns["interpretability"]["notes"])
    assert len(summary["map"]) == 2 and len(summary["map"][0]) == 12 and 0 < summary["map_share"] <= 1
    assert "held-out images" in dict(summary["about"])["interpretability"]


def test_rows_without_images_are_refused(tmp_path):
    np.save(tmp_path / "h.npy", np.random.default_rng(0).standard_normal((400, 5)).astype(np.float32))
    verbs.fit(Data(path=str(tmp_path / "h.npy")), [PCA(width=3)], tmp_path / "run")
    with pytest.raises(UsageError, match="vector items"):
        interpret(tmp_path / "run")


def test_too_few_images_are_refused_with_how_many_it_takes(tmp_path):
    draw = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", draw.integers(0, 255, (120, 8, 8, 3), dtype=np.uint8))
    np.save(tmp_path / "responses.npy", draw.standard_normal((120, 5)).astype(np.float32))
    collect_recording(tmp_path / "responses.npy", tmp_path / "images.npy", tmp_path / "acts")
    verbs.fit(Data(path=str(tmp_path / "acts")), [PCA(width=3)], tmp_path / "run")
    with pytest.raises(UsageError, match=r"12 different images are held out.*from 300 images or more"):
        interpret(tmp_path / "run", "Pixels")
