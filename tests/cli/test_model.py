"""The verbs downstream, steer, concepts and probe, as a person meets them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers")

from typer.testing import CliRunner

from unmix.activations.collect import TextActivations
from unmix.activations.data import Data
from unmix.cli import app
from unmix.core.errors import UsageError
from unmix.finders.topk_sae import TopKSAE
from unmix.study import verbs

from ..tiny_models import causal_folder, stories


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model = causal_folder(folder / "model")
    TextActivations(model=str(model), layer="layers.0", context=16).collect(stories(80), folder / "acts")
    verbs.fit(Data(path=str(folder / "acts")), [TopKSAE(width=20, k=4, steps=100, batch=256)], folder / "run")
    return folder / "run"


def unmix(*words: str) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_downstream_and_its_costs(run):
    dry = unmix("downstream", run, "tokens=120", "--dry-run")
    assert "memory" in dry and "time" in dry and not (run / "downstream").exists()
    told = unmix("downstream", run, "finder=TopKSAE", "seed=0", "tokens=120")
    assert "recovered" in told and "random dictionary" in told and list((run / "downstream").glob("*.json"))


def test_steer(run):
    assert "time" in unmix("steer", run, "3", "--ablate", "--dry-run") and not (run / "steering").exists()
    told = unmix("steer", run, "3", "--amount", "5", "draws=3", "tokens=120")
    assert "+5 times its atom" in told and "rises" in told and "p" in told
    assert "other features, range of 2" in unmix(
        "steer", run, "3", "--value", "2", "--control", "features", "draws=2", "tokens=120"
    )


def test_concepts_and_probe(run, tmp_path):
    found = unmix("concepts", run, "--pattern", "^(cat|dog)$", "top=3")
    assert len(found.strip().splitlines()) == 4 and "held_auc" in found and "name" not in found
    rows = np.load(run.parent / "acts" / "items" / "places.npy")
    np.save(tmp_path / "y.npy", np.arange(len(rows)) % 2)
    assert "majority" in unmix("probe", run, str(tmp_path / "y.npy"), "k=1,none", "C=1", "select=mean")
    written = unmix("concepts", run, "--pattern", "cat", "--csv", str(tmp_path / "c.csv"))
    assert "c.csv" in written and (tmp_path / "c.csv").read_text().startswith("label,feature,name,rate,auc")


def test_errors_name_the_option(run):
    for words, message in (
        (("downstream", run, "tokns=3"), "did you mean tokens"),
        (("downstream", run, "tokens=3,4"), "one value here"),
        (("probe", run, "--pattern", "cat", "K=1"), "K: no such option"),
        (("concepts", run), "none came with the rows"),
        (("steer", run, "3"), "exactly one of"),
    ):
        with pytest.raises(UsageError, match=message):
            unmix(*words)
