"""What a model says under a change of one layer, against the same by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from tests.tiny_models import causal_folder, sentence_folder, stories
from unmix.activations.collect import TextActivations
from unmix.activations.downstream import (
    ArrayReader,
    CausalReader,
    SentenceReader,
    embeddings,
    predictions,
    text_reader,
)
from unmix.activations.hooks import capture, layer_of
from unmix.activations.inputs import inputs_of
from unmix.activations.models import FolderModel
from unmix.activations.reading import Reading
from unmix.activations.tokens import passages
from unmix.core.errors import UsageError

CONTEXT = 16


@pytest.fixture(scope="module")
def causal(tmp_path_factory) -> Path:
    return causal_folder(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def sentence(tmp_path_factory) -> Path:
    return sentence_folder(tmp_path_factory.mktemp("sentence"))


def reader_of(folder: Path, out: Path, layer: str, batch: int = 4):
    rows = TextActivations(model=str(folder), layer=layer, context=CONTEXT, batch=3).collect(stories(20), out)
    return text_reader(FolderModel(folder), layer, rows.items, CONTEXT, batch), rows


def test_the_head_is_loaded_only_where_there_is_one(causal: Path, sentence: Path, tmp_path: Path) -> None:
    model = FolderModel(causal).load("causal")
    assert (
        type(model).__name__ == "LlamaForCausalLM" and layer_of(model.base_model, "layers.1") is model.model.layers[1]
    )
    assert type(FolderModel(causal).load()).__name__ == "LlamaModel"
    assert FolderModel(causal).causal and not FolderModel(sentence).causal
    with pytest.raises(UsageError, match="names no model that predicts the next token"):
        FolderModel(sentence).load("causal")
    shutil.copytree(causal, tmp_path / "headless")
    config = json.loads((causal / "config.json").read_text())
    (tmp_path / "headless" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(UsageError, match=r"no weights for lm_head\.weight"):
        FolderModel(tmp_path / "headless").load("causal")


def test_passages_are_found_again_from_the_items(causal: Path, tmp_path: Path) -> None:
    reader, rows = reader_of(causal, tmp_path / "a", "layers.0")
    wanted = passages(stories(20), FolderModel(causal).tokenizer(), 100_000, CONTEXT)
    np.testing.assert_array_equal(reader.text.bounds, wanted.bounds)
    np.testing.assert_array_equal(reader.text.roles, wanted.roles)
    np.testing.assert_array_equal(reader.text.stream, wanted.stream)
    assert reader.touched.sum() == len(rows) and not reader.touched[wanted.bounds[:-1]].any()


def test_losses_are_those_of_the_model(causal: Path, tmp_path: Path) -> None:
    reader, _ = reader_of(causal, tmp_path / "a", "layers.0")
    assert isinstance(reader, CausalReader)
    said = predictions(reader, {"same": lambda h: h.clone(), "zero": torch.zeros_like})
    model, text = reader.model, reader.text
    for group in range(len(text)):
        ids = torch.from_numpy(text.stream[text.bounds[group] : text.bounds[group + 1]].astype(np.int64))[None]
        with torch.no_grad():
            log_p = model(input_ids=ids).logits[0, :-1].log_softmax(1)
        # The first word is said by the start token, which no change reaches: it is not counted.
        wanted = -log_p.gather(1, ids[0, 1:, None])[1:, 0]
        assert said["original"].count[group] == len(wanted)
        assert said["original"].loss[group] == pytest.approx(float(wanted.sum()), rel=1e-4)
        assert said["original"].right[group] == int((log_p.argmax(1) == ids[0, 1:])[1:].sum())
    assert said["same"].kl.max() < 1e-4 and (said["same"].same == said["same"].count).all()
    np.testing.assert_allclose(said["same"].loss, said["original"].loss, rtol=1e-4)
    assert said["zero"].kl.sum() > 1 and said["zero"].kl.min() >= 0
    assert said["zero"].shift.shape == (21,) and np.abs(said["same"].shift).max() < 1e-3


def test_kl_and_shift_by_hand(causal: Path, tmp_path: Path) -> None:
    reader, _ = reader_of(causal, tmp_path / "a", "layers.1", batch=64)
    groups = np.arange(len(reader))
    with torch.no_grad():
        p, q = reader.read(groups).softmax(1).double(), reader.read(groups, lambda h: h + 1).softmax(1).double()
    found = predictions(reader, {"moved": lambda h: h + 1})["moved"]
    assert found.kl.sum() == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4)
    np.testing.assert_allclose(found.shift, (q.log() - p.log()).sum(0).numpy(), rtol=1e-3, atol=1e-3)


def test_untouched_places_stay_and_the_layer_is_left_as_it_was(causal: Path, tmp_path: Path) -> None:
    reader, rows = reader_of(causal, tmp_path / "a", "layers.0")
    groups, seen = np.arange(3), []
    places, inside = reader.places(groups)

    def zero(h):
        seen.append(h.clone())
        return torch.zeros_like(h)

    with torch.no_grad():
        with capture(reader.layer.layer) as before:
            reader.read(groups)
        plain = before.value.clone()
        hidden = plain.clone()
        hidden[torch.from_numpy(reader.touched[places] & inside)] = 0
        with capture(reader.model.model.layers[1].input_layernorm) as after:
            reader.read(groups, zero)
        expected = reader.model.model.layers[1].input_layernorm(hidden)
    torch.testing.assert_close(after.value, expected)
    assert float(hidden[:, 0].abs().min()) > 0, "start tokens are not touched"
    first = rows.items.places < reader.text.bounds[3]
    torch.testing.assert_close(seen[0], rows.take(np.flatnonzero(first)), atol=1e-4, rtol=1e-4)
    assert not reader.layer.layer._forward_hooks
    with pytest.raises(UsageError, match="must keep the shape"):
        reader.read(groups, lambda h: h[:, :3])


def test_embeddings_are_means_over_tokens_whatever_the_batch(sentence: Path, tmp_path: Path) -> None:
    reader, _ = reader_of(sentence, tmp_path / "a", "encoder.layer.0")
    assert isinstance(reader, SentenceReader)
    found = embeddings(reader, {"same": lambda h: h, "zero": torch.zeros_like})
    text = reader.text
    for group in range(len(text)):
        ids = torch.from_numpy(text.stream[text.bounds[group] : text.bounds[group + 1]].astype(np.int64))[None]
        with torch.no_grad():
            wanted = reader.model(input_ids=ids).last_hidden_state[0].mean(0)
        torch.testing.assert_close(found["original"][group], wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["same"], found["original"])
    assert float((found["zero"] - found["original"]).norm(dim=1).min()) > 1e-2


class Net(nn.Module):
    """A convolution, its mean over places, a read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.first(x).relu().mean((2, 3)))


def test_modules_change_pooled_rows_and_count_what_is_right() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
    x = torch.randn(10, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = net(x)
        h = net.first(x)
    labels = logits.argmax(1).numpy().copy()
    labels[:3] = (labels[:3] + 1) % 3
    first, data = Reading("bchw"), inputs_of(x)
    reader = ArrayReader(net, net.first, data, labels, first, batch=4)
    said = predictions(reader, {"up": lambda rows: rows + 1})
    assert said["original"].right.sum() == 7 and (said["original"].count == 1).all()
    with torch.no_grad():
        wanted = net.last((h + 1).relu().mean((2, 3))).log_softmax(1)
    loss = -wanted.gather(1, torch.from_numpy(labels)[:, None])[:, 0]
    np.testing.assert_allclose(said["up"].loss, loss.numpy(), rtol=1e-4)
    rows = torch.randn(10, 4, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(first.changed(h, lambda old: rows).mean((2, 3)), rows)
    one = Reading("bchw", pooling="position", position=5).changed(h, torch.zeros_like)
    changed = (one != h).any(1).flatten(1)
    assert changed.sum() == 10 and changed[:, 5].all()
    every = Reading("bchw", pooling="all").changed(h, torch.zeros_like)
    assert not every.any()
    assert np.isnan(predictions(ArrayReader(net, net.first, data, None, first), {})["original"].loss).all()
    with pytest.raises(UsageError, match="labels: 7 for a model of 3 classes"):
        predictions(ArrayReader(net, net.first, data, np.full(10, 7), first), {})
    with pytest.raises(UsageError, match=r"expected logits \[b, classes\]"):
        ArrayReader(net.first, net.first, data, None, first).read(np.arange(2))
