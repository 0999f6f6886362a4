"""Features of a run scored on the images that they were not fitted on, and shown in its atlas."""

from __future__ import annotations

import json

import numpy as np
import pytest

from unmix.activations.data import Data
from unmix.activations.recordings import collect_recording
from unmix.atlas.run import atlas_run
from unmix.core.errors import UsageError
from unmix.finders.clusters import SphericalKMeans
from unmix.finders.linear import PCA
from unmix.study import verbs
from unmix.study.interpreting import interpret
from unmix.worlds.superposition import SuperpositionWorld


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
    verbs.fit(Data(path=str(acts)), [SphericalKMeans(width=12), PCA(width=8)], root / "run")
    return root / "run"


def test_every_basis_and_feature_is_scored_on_held_out_images(run):
    found = interpret(run, "Pixels", draws=200)
    assert found.images < 70 and found.images >= 60  # a tenth, less copies of fitted ones
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
