"""Features put back into the model they came from: what is lost, and what one of them does."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from unmix.activations.collect import TextActivations
from unmix.activations.data import Data
from unmix.activations.modules import ModuleActivations
from unmix.activations.transforms import Scale, Whiten
from unmix.core.errors import Failure, UsageError
from unmix.encoders import ENCODERS
from unmix.finders.linear import PCA
from unmix.finders.topk_sae import TopKSAE
from unmix.study import verbs
from unmix.study.downstream import downstream, estimate, measured
from unmix.study.inside import open_inside
from unmix.study.steering import steer
from unmix.study.study import Results

from ..tiny_models import causal_folder, sentence_folder, stories

with torch.random.fork_rng():
    torch.manual_seed(0)
    NET = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


def collected(folder: Path, model: Path, layer: str, finders, transforms=(), **options) -> Path:
    recipe = TextActivations(model=str(model), layer=layer, context=16, batch=8, **options)
    recipe.collect(stories(120), folder / "acts")
    verbs.fit(Data(path=str(folder / "acts"), transforms=transforms), finders, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downstream")
    model = causal_folder(folder / "model")
    return collected(folder, model, "layers.0", [TopKSAE(width=24, k=4, steps=300, batch=256), PCA(width=16)])


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    model = sentence_folder(folder / "model")
    return collected(folder, model, "encoder.layer.0", [TopKSAE(width=24, k=4, steps=300, batch=256)])


def test_what_is_lost_lies_between_nothing_and_the_mean(causal):
    made = downstream(causal, "TopKSAE", tokens=200)
    numbers = made.numbers
    assert numbers["original"]["kl"].value == 0 and numbers["original"]["recovered"].value == 1
    assert numbers["mean"]["recovered"].value == 0
    assert 0 < numbers["codes"]["kl"].value < numbers["random"]["kl"].value < numbers["zero"]["kl"].value
    low, high = numbers["codes"]["kl"][1:]
    assert low < numbers["codes"]["kl"].value < high
    assert made.facts["untouched"] == ["padding", "start"] and made.facts["tokens"] >= 150
    assert made.facts["fvu"] < made.facts["random_fvu"]
    table = made.table()
    assert len(table) == 5 and {"loss", "kl_low", "same", "recovered_high"} <= set(table.columns)
    assert "start tokens left as they are" in str(made) and "decode(encode(h))" in str(made)


def test_it_is_made_once_and_read_again(causal):
    made = downstream(causal, "TopKSAE", tokens=150)
    files = sorted((causal / "downstream").glob("*.json"))
    again = downstream(causal, "TopKSAE", tokens=150)
    assert again.numbers == made.numbers and again.facts == made.facts
    assert sorted((causal / "downstream").glob("*.json")) == files
    newest = max(files, key=lambda file: file.stat().st_mtime)
    stored = json.loads(newest.read_text())
    stored["facts"]["groups"] = 12345
    newest.write_text(json.dumps(stored))
    assert downstream(causal, "TopKSAE", tokens=150).facts["groups"] == 12345


def test_a_whole_basis_loses_nothing_and_held_out_passages_were_not_fitted_on(causal):
    inside = open_inside(causal, "PCA")
    made = measured(inside.limited(150), Results(causal))
    assert made.numbers["codes"]["kl"].value < 1e-5
    assert made.numbers["codes"]["recovered"].value == pytest.approx(1, abs=1e-3)
    bounds, places = inside.reader.text.bounds, inside.raw.items.places
    inside_held = np.zeros(len(inside.reader.text.stream), bool)
    for passage in inside.reader.chosen:
        inside_held[bounds[passage] : bounds[passage + 1]] = True
    assert not inside_held[places[inside.train]].any() and inside_held[places[inside.test]].all()
    limited = inside.limited(60)
    assert len(limited.reader) < len(inside.reader) and limited.reader.touched.sum() < 90
    assert np.array_equal(limited.reader.chosen, inside.limited(60).reader.chosen)


@pytest.mark.parametrize("transforms", [(Scale(),), (Whiten(ridge=1e-3), Scale())])
def test_transforms_are_undone(causal, tmp_path, transforms):
    data = Data(path=str(causal.parent / "acts"), transforms=transforms)
    verbs.fit(data, [PCA(width=16)], tmp_path / "run")
    inside = open_inside(tmp_path / "run")
    h = inside.raw.take(inside.test)
    torch.testing.assert_close(inside.reconstructed(h), h, atol=1e-3, rtol=1e-3)
    moved = inside.affine.inverse(inside.seen(h) + 2 * inside.features.atoms[3])
    torch.testing.assert_close(moved, h + 2 * inside.direction(3), atol=1e-3, rtol=1e-3)


def test_an_encoder_that_was_compared(causal):
    verbs.compare(causal, [ENCODERS["Omp"]()], l0=4)
    inside = open_inside(causal, "TopKSAE", encoder="Omp")
    assert inside.features.encoder.recipe.kind == "Omp"
    assert inside.key["features"] != open_inside(causal, "TopKSAE").key["features"]
    with pytest.raises(UsageError, match="encoder=Fista: not compared on this fit; known: Omp"):
        open_inside(causal, "TopKSAE", encoder="Fista")


def test_sentences_keep_their_direction(sentences):
    made = downstream(sentences)
    cosine = {name: numbers["cosine"].value for name, numbers in made.numbers.items()}
    assert (
        cosine["original"] == pytest.approx(1)
        and cosine["codes"] > cosine["random"]
        and cosine["codes"] > cosine["mean"]
    )
    assert made.numbers["original"]["neighbour"].value == 1 and 0 < made.numbers["codes"]["recovered"].value < 1
    steered = steer(sentences, 3, amount=20, draws=4)
    assert steered.effect["cosine"].value < 0.999 and len(steered.examples) == 3
    assert all(isinstance(part, str) and part for example in steered.examples for part in example)
    assert steer(sentences, 3, amount=20, draws=4) == steered, "read again from disk"
    assert "near" in str(steered) and "cosine" in str(steered)


def test_a_feature_is_taken_away_only_where_it_fires(causal):
    inside = open_inside(causal, "TopKSAE")
    codes = inside.features.encode(inside.rows.take(inside.test)).dense()
    feature = int((codes != 0).sum(0).argmax())
    found = steer(causal, feature, ablate=True, finder="TopKSAE", draws=5, tokens=300)
    assert found.effect["kl"].value > 0 and found.facts["rate"] == pytest.approx(
        float((codes[:, feature] != 0).float().mean())
    )
    assert found.control["kl"].low <= found.control["kl"].value <= found.control["kl"].high
    assert 1 / 6 <= found.p["kl"] <= 1
    assert "its code set to 0" in str(found) and "random directions, range of 5" in str(found)
    same = steer(causal, feature, value=0.0, finder="TopKSAE", draws=1, tokens=300)
    assert 0 < same.effect["kl"].value < found.effect["kl"].value, "diluted by tokens where it does not fire"
    nothing = steer(causal, feature, amount=0, finder="TopKSAE", draws=1, tokens=300)
    assert nothing.effect["kl"].value < 1e-6 and not nothing.noise > 1e-6


def test_adding_a_feature_is_adding_its_atom(causal):
    inside = open_inside(causal, "TopKSAE")
    large = steer(causal, 2, amount=50, finder="TopKSAE", draws=3, tokens=200)
    small = steer(causal, 2, amount=0.5, finder="TopKSAE", draws=3, tokens=200)
    assert large.effect["kl"].value > 10 * small.effect["kl"].value > 0
    reader = inside.limited(200).reader
    groups = np.arange(len(reader))
    with torch.no_grad():
        plain = reader.read(groups).log_softmax(1)
        moved = reader.read(groups, lambda h: h + 50 * inside.features.atoms[2]).log_softmax(1)
    shift = (moved - plain).mean(0)
    best = inside.raw.items.vocabulary[int(shift.argmax())]
    assert large.rising[0][0] == repr(best) and large.rising[0][1] == pytest.approx(float(shift.max()), rel=1e-3)
    assert large.falling[0][1] == pytest.approx(float(shift.min()), rel=1e-3)
    other = steer(causal, 2, amount=50, control="features", finder="TopKSAE", draws=3, tokens=200)
    assert other.effect["kl"].value == pytest.approx(large.effect["kl"].value) and other.control != large.control


def test_a_classifier_by_its_inputs(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "net_under_test", sys.modules[__name__])
    x = torch.randn(600, 5, generator=torch.Generator().manual_seed(3))
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "y.npy", NET(x).argmax(1).numpy())
    model = "net_under_test:NET"
    ModuleActivations(model=model, layer="0").collect(x.numpy(), tmp_path / "acts")
    verbs.fit(Data(path=str(tmp_path / "acts")), [TopKSAE(width=16, k=4, steps=300, batch=128)], tmp_path / "run")
    made = downstream(tmp_path / "run", model=model, data=tmp_path / "x.npy", labels=tmp_path / "y.npy")
    assert made.facts["groups"] == 60, "held-out data only"
    accuracy = {name: numbers["accuracy"].value for name, numbers in made.numbers.items()}
    assert accuracy["original"] == 1 and 1 >= accuracy["codes"] > accuracy["mean"]
    fresh = downstream(tmp_path / "run", model=model, data=x.numpy()[:50] + 1, tokens=40)
    assert fresh.facts["groups"] == 40 and "loss" not in fresh.numbers["codes"]
    assert 0 < fresh.numbers["codes"]["recovered"].value < 1
    found = steer(
        tmp_path / "run", 1, amount=5, model=model, data=tmp_path / "x.npy", labels=tmp_path / "y.npy", draws=3
    )
    assert found.effect["accuracy"].value <= 0 and found.effect["kl"].value > 0
    assert {name for name, _ in found.rising + found.falling} <= {"0", "1", "2"}
    with pytest.raises(UsageError, match="needs its input"):
        downstream(tmp_path / "run", model=model)
    with pytest.raises(UsageError, match="expected 600 whole numbers"):
        downstream(tmp_path / "run", model=model, data=tmp_path / "x.npy", labels=np.zeros(3))


def test_what_cannot_be_is_one_sentence(causal, sentences, tmp_path):
    np.save(tmp_path / "h.npy", np.random.default_rng(0).standard_normal((200, 4)))
    verbs.fit(Data(path=str(tmp_path / "h.npy")), [PCA(width=2)], tmp_path / "plain")
    with pytest.raises(UsageError, match="no activations of a model"):
        downstream(tmp_path / "plain")
    with pytest.raises(UsageError, match="no run here"):
        downstream(tmp_path / "none")
    with pytest.raises(UsageError, match="its weights are not those"):
        downstream(causal, model=str(sentences.parent / "model"))
    with pytest.raises(UsageError, match="own held-out text"):
        downstream(causal, data=np.zeros((3, 2)))
    with pytest.raises(UsageError, match="there are 24 features"):
        steer(causal, 24, amount=1, finder="TopKSAE")
    for given in ({}, {"amount": 1, "ablate": True}, {"amount": 1, "value": 2}):
        with pytest.raises(UsageError, match="exactly one of amount, value and ablate"):
            steer(causal, 0, **given)
    with pytest.raises(UsageError, match="draws=0"):
        steer(causal, 0, amount=1, draws=0)
    inside = open_inside(causal, "TopKSAE")
    dead = dataclasses.replace(
        inside.features, atoms=inside.features.atoms.clone().index_fill_(0, torch.tensor([1]), 0)
    )
    from unmix.study.steering import steered

    with pytest.raises(UsageError, match="its atom is zero"):
        steered(dataclasses.replace(inside, features=dead), Results(causal), 1, 1.0, None, False, "random", 2, 100)


def test_a_feature_that_never_fires_cannot_be_taken_away(causal, monkeypatch):
    import unmix.study.steering as steering

    monkeypatch.setattr(steering, "one_code", lambda features, x, feature: torch.zeros(len(x)))
    with pytest.raises(Failure, match="fires in fewer than 2 held-out passages"):
        steer(causal, 0, ablate=True, finder="TopKSAE", draws=7)


def test_the_costs_are_told(causal):
    costs = estimate(causal, tokens=150, finder="TopKSAE")
    assert 100 < costs["rows"] < 250 and costs["seconds"] > 0 and costs["memory_bytes"] > 1000


@pytest.mark.slow
def test_a_real_model_keeps_more_of_its_predictions_than_under_a_random_dictionary(tmp_path):
    default = Path(__file__).parents[3] / "shared" / "data" / "stories260k"
    folder = Path(os.environ.get("UNMIX_STORIES260K", default))
    if not (folder / "config.json").is_file():
        pytest.skip(f"no real model: set UNMIX_STORIES260K to the folder of stories260k (looked in {folder})")
    recipe = TextActivations(model=str(folder), layer="layers.2", tokens=20_000)
    recipe.collect("standard-library", tmp_path / "acts")
    verbs.fit(Data(path=str(tmp_path / "acts")), [TopKSAE(width=512, k=12, steps=800)], tmp_path / "run")
    numbers = downstream(tmp_path / "run", tokens=2000).numbers
    for better, worse in (("codes", "random"), ("random", "mean"), ("mean", "zero")):
        assert numbers[better]["kl"].high < numbers[worse]["kl"].low
    assert numbers["codes"]["same"].low > numbers["random"]["same"].high
