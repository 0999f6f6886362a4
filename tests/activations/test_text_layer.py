"""Text models of many kinds: which part reads the text, how long a passage may be, and what rows depend on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import transformers

from tests.tiny_models import MARKED, folder_of, stories
from unmix.activations.collect import TextActivations
from unmix.activations.downstream import SentenceReader, embeddings, text_reader
from unmix.activations.hooks import capture, layer_of
from unmix.activations.models import FolderModel
from unmix.activations.modules import ModuleActivations
from unmix.activations.text_layer import passage_limit
from unmix.core.errors import Notice, UsageError

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
BERT = {**SIZES, "vocab_size": MARKED, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": MARKED, "pad_token_id": 1}
CLIP = {
    "text_config": {**BERT, "max_position_embeddings": 32},
    "vision_config": {"image_size": 32, "patch_size": 8, **SIZES},
    "projection_dim": 8,
}
XLNET = {"vocab_size": MARKED, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32}
CONFIGS: dict[str, Callable[[], Any]] = {
    "roberta": lambda: transformers.RobertaConfig(max_position_embeddings=34, **BERT),
    "xlnet": lambda: transformers.XLNetConfig(**XLNET),
    "clip": lambda: transformers.CLIPConfig(**CLIP),
    "t5": lambda: transformers.T5Config(**T5),
    "fnet": lambda: transformers.FNetConfig(max_position_embeddings=32, **BERT),
    "albert": lambda: transformers.AlbertConfig(embedding_size=16, max_position_embeddings=32, **BERT),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = folder_of(CONFIGS[name](), tmp_path_factory.mktemp(name))
        return made[name]

    return folder


def alone(folder: Path, layer: str, tower: str, call: int, context: int) -> torch.Tensor:
    """A layer's rows for the ordinary tokens of the stories, one passage at a time."""
    source = FolderModel(folder)
    model, tokenizer, rows = source.load(), source.tokenizer(), []
    reader = layer_of(model, tower) if tower else model
    for _, text in stories(12):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for begin in range(0, len(ids), context - 2):
            passage = torch.tensor([[0, *ids[begin : begin + context - 2], 2]])
            with torch.no_grad(), capture(layer_of(model, layer), call=call) as got:
                reader(input_ids=passage)
            rows.append(got.value.reshape(-1, 16)[1:-1])  # one passage: whichever axis comes first
    return torch.cat(rows)


KINDS = {
    "roberta": ("encoder.layer.1", "", 0, "btc"),
    "xlnet": ("layer.1", "", 0, "tbc"),
    "clip": ("text_model.encoder.layers.1", "text_model", 0, "btc"),
    "t5": ("encoder.block.1", "encoder", 0, "btc"),
    "fnet": ("encoder.layer.1", "", 0, "btc"),
    "albert": ("encoder.albert_layer_groups.0", "", 1, "btc"),
}


@pytest.mark.parametrize("name", KINDS)
def test_rows_are_those_of_each_passage_alone(name: str, folders: Callable[[str], Path], tmp_path: Path) -> None:
    layer, tower, call, layout = KINDS[name]
    folder = folders(name)
    recipe = TextActivations(model=str(folder), layer=layer, context=10, call=call, massive="keep")
    rows = {batch: recipe.but(batch=batch).collect(stories(12), tmp_path / f"{batch}") for batch in (1, 3, 32)}
    about = rows[3].about
    assert about["reading"]["layout"] == layout and about["reading"]["tower"] == tower
    assert about["reading"]["padded"] == (name != "fnet") and about["taken"].startswith(f"{layer} gives {layout}")
    wanted = alone(folder, layer, tower, call, 10)
    for found in rows.values():
        assert found.shape == wanted.shape
        torch.testing.assert_close(found.take(np.arange(len(found))), wanted, atol=2e-5, rtol=1e-4)
    if name == "fnet":
        assert about["tokens"]["padding"]["dropped"] == 0


def test_longest_passages(folders: Callable[[str], Path], tmp_path: Path) -> None:
    roberta = TextActivations(model=str(folders("roberta")), layer="encoder.layer.0", tokens=60)
    long = [("long", " ".join(["the cat sat"] * 30))]
    with pytest.raises(UsageError, match=r"context=34: .* reads at most 32 tokens .*; give at most context=32"):
        roberta.but(context=34).collect(long, tmp_path / "a")
    assert roberta.but(context=32).collect(long, tmp_path / "b").shape == (60, 16)
    for name in ("xlnet", "t5"):
        assert passage_limit(FolderModel(folders(name)).load()) is None
    assert passage_limit(FolderModel(folders("clip")).load()) == 32
    xlnet = TextActivations(model=str(folders("xlnet")), layer="layer.0", tokens=80, context=64)
    assert xlnet.collect(long, tmp_path / "c").shape == (80, 16)
    shutil.copytree(folders("xlnet"), tmp_path / "short")
    file = tmp_path / "short" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": 20}))
    with pytest.raises(UsageError, match=r"at most 20 tokens \(model_max_length of its tokenizer\)"):
        xlnet.but(model=str(tmp_path / "short")).collect(long, tmp_path / "d")


def test_layers_that_do_not_read_text_alone(folders: Callable[[str], Path], tmp_path: Path) -> None:
    wrong = {
        ("t5", "decoder.block.0"): r"is not in the encoder.*behind encoder: .*block\.0 \.\. block\.1",
        ("clip", "vision_model.encoder.layers.0"): "does not read passages|no text|not called",
        ("albert", "encoder.albert_layer_groups.0"): r"runs 2 times when the model reads a text.*call=0 \.\. call=1",
        ("xlnet", "layer.0.rel_attn.q"): "has no such layer; did you mean",
        ("roberta", "pooler"): r"gives \[2, 16\] for 2 passages|pooler",
    }
    for (name, layer), words in wrong.items():
        with pytest.raises(UsageError, match=words):
            TextActivations(model=str(folders(name)), layer=layer, context=10).collect(stories(2), tmp_path / "a")
    with pytest.raises(UsageError, match="runs 2 times, there is no call=2"):
        TextActivations(
            model=str(folders("albert")), layer="encoder.albert_layer_groups.0", context=10, call=2
        ).collect(stories(2), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_change_reaches_the_layer_wherever_its_axes_are(folders: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("xlnet", "t5", "fnet"):
        layer, context = KINDS[name][0], 8
        recipe = TextActivations(model=str(folders(name)), layer=layer, context=context, massive="keep")
        rows = recipe.collect(stories(5), tmp_path / name)
        reader = text_reader(FolderModel(folders(name)), layer, rows.items, context, 3)
        assert isinstance(reader, SentenceReader) and reader.batch == (1 if name == "fnet" else 3)
        seen: list[torch.Tensor] = []
        found = embeddings(
            reader, {"same": lambda h, seen=seen: seen.append(h.clone()) or h, "zero": torch.zeros_like}
        )
        torch.testing.assert_close(found["same"], found["original"])
        assert float((found["zero"] - found["original"]).norm(dim=1).min()) > 1e-3
        torch.testing.assert_close(torch.cat(seen), rows.take(np.arange(len(rows))), atol=1e-5, rtol=1e-4)


def test_next_tokens_are_told_only_by_models_that_do_not_see_them(tmp_path: Path) -> None:
    folder = folder_of(transformers.XLNetConfig(**XLNET), tmp_path / "x", "XLNetLMHeadModel")
    assert FolderModel(folder).causal
    rows = TextActivations(model=str(folder), layer="layer.0", context=8).collect(stories(3), tmp_path / "a")
    with pytest.warns(Notice, match="its predictions see the tokens after"):
        assert isinstance(text_reader(FolderModel(folder), "layer.0", rows.items, 8), SentenceReader)


def test_weights_that_do_not_fit(folders: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    def changed(name: str, keep: Callable[[str], bool], **config: Any) -> TextActivations:
        folder = tmp_path / name
        shutil.copytree(folders("roberta"), folder)
        weights = {key: value for key, value in load_file(folder / "model.safetensors").items() if keep(key)}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        told = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**told, **config}))
        return TextActivations(model=str(folder), layer="encoder.layer.1", context=10)

    whole = TextActivations(model=str(folders("roberta")), layer="encoder.layer.1", context=10)
    rows = whole.collect(stories(3), tmp_path / "whole")
    pooler = changed("pooler", lambda key: "pooler" not in key).collect(stories(3), tmp_path / "1")
    assert pooler.digest == rows.digest, "a layer in front of what is missing is as it was"
    lacks = changed("lacks", lambda key: "layer.0.output.dense.weight" not in key)
    with pytest.raises(
        UsageError, match=r"encoder\.layer\.0\.output\.dense\.weight, of which the folder has no weights"
    ):
        lacks.collect(stories(3), tmp_path / "2")
    assert lacks.but(layer="encoder.layer.0.intermediate").collect(stories(3), tmp_path / "3").shape[1] == 32
    table = changed("table", lambda key: "word_embeddings" not in key)
    with pytest.raises(UsageError, match=r"needs embeddings\.word_embeddings\.weight"):
        table.collect(stories(3), tmp_path / "4")
    with pytest.warns(Notice, match=r"leaves out layers that the folder has \(encoder\.layer\.1"):
        shorter = changed("shorter", lambda _: True, num_hidden_layers=1).but(layer="encoder.layer.0")
        shorter.collect(stories(3), tmp_path / "4")
    wider = changed("wider", lambda _: True, intermediate_size=48)
    with pytest.raises(UsageError, match="transformers cannot open it"):
        wider.collect(stories(3), tmp_path / "5")
    quantised = changed("quantised", lambda _: True, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UsageError, match=r"its weights are quantised .*gptq"):
        quantised.collect(stories(3), tmp_path / "5")


def test_tokenizers_of_another_model(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "added"
    shutil.copytree(folders("roberta"), folder)
    tokenizer = FolderModel(folder).tokenizer()
    tokenizer.add_tokens(["new"])
    tokenizer.save_pretrained(folder)
    recipe = TextActivations(model=str(folder), layer="encoder.layer.0", context=10)
    assert recipe.collect(stories(2), tmp_path / "a").shape[1] == 16, "as long as the token does not occur"
    with pytest.raises(UsageError, match=f"gives 'new' the id {MARKED}, the model has embeddings of {MARKED}"):
        recipe.collect([("a", "the new cat")], tmp_path / "b")
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(
        UsageError, match=r"has no tokenizer; a model that reads no text is given as my\.module:build"
    ):
        recipe.collect(stories(2), tmp_path / "b")


def test_text_that_the_tokenizer_does_not_know(folders: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = TextActivations(model=str(folders("roberta")), layer="encoder.layer.0", context=10)
    with pytest.warns(Notice, match="67% of the tokens are unknown to the tokenizer"):
        rows = recipe.collect([("a", "die Katze sat")], tmp_path / "a")
    assert rows.about["tokens"]["special"] == {"kept": 2, "dropped": 0}


def test_a_vision_folder_through_arrays(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = transformers.ViTConfig(image_size=16, patch_size=8, **SIZES)
    folder = folder_of(config, tmp_path / "vit")
    images = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3)).astype(np.uint8)
    recipe = ModuleActivations(model=str(folder), layer="layernorm", tokens="patches", pooling="all")
    rows = recipe.collect(images, tmp_path / "a")
    model = FolderModel(folder).load()
    with torch.no_grad():
        wanted = model(torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))).last_hidden_state[:, 1:]
    torch.testing.assert_close(rows.take(np.arange(20)), wanted.reshape(20, 16), atol=1e-5, rtol=1e-4)
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "cls_token" in name)
    save_file({name: value for name, value in weights.items() if name != lost}, folder / "model.safetensors")
    with pytest.raises(UsageError, match="cls_token, of which the folder has no weights"):
        recipe.collect(images, tmp_path / "b")
