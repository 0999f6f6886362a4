"""Explaining a run's features: planted words are found, controls are not, and nothing is judged twice."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from unmix.activations.data import Data
from unmix.activations.shards import ShardWriter
from unmix.core.errors import Failure, UsageError
from unmix.core.items import TextItems
from unmix.core.watch import Watch
from unmix.finders.topk_sae import TopKSAE
from unmix.scores.autointerp import AutoInterp, paired_difference
from unmix.scores.judging.tokens import TokenJudge
from unmix.study import verbs
from unmix.study.explain import explain, named
from unmix.study.study import Results

QUICK = {"features": 12, "contexts": 20}


def silent(label: str) -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Rows that are a direction for their token and noise, in 48 dimensions."""
    folder = tmp_path_factory.mktemp("explain")
    draw = np.random.default_rng(0)
    stream = draw.integers(0, 40, 200 * 60).astype(np.int32)
    directions = np.linalg.qr(draw.standard_normal((48, 48)))[0][:, :40].T.astype(np.float32)
    rows = directions[stream] + 0.02 * draw.standard_normal((len(stream), 48)).astype(np.float32)
    items = TextItems(
        stream,
        np.arange(0, len(stream) + 1, 60),
        np.arange(len(stream)),
        tuple(f"word{i}" for i in range(40)),
        tuple(f"document {i}" for i in range(200)),
    )
    write_shards(folder / "acts", rows, items)
    finders = [TopKSAE(width=40, k=1, steps=800, batch=256), TopKSAE(width=40, k=1, steps=1, batch=64)]
    verbs.fit(Data(path=str(folder / "acts")), finders, folder / "run", seeds=(0,))
    return folder / "run"


def write_shards(folder, rows, items):
    writer = ShardWriter(folder, rows.shape[1], key="test")
    writer.append(torch.from_numpy(rows))
    writer.finish(items)


def test_learnt_words_are_told_apart_and_controls_are_not(run):
    made = explain(run, recipe=AutoInterp(**QUICK), watch=silent)
    assert made.found.outcome().value > 0.9
    assert set(made.controls) == {"random", "shuffled"}
    shuffled = made.beyond("shuffled")
    assert made.controls["shuffled"].outcome().value < 0.6 and shuffled.interval[0] > 0.2
    assert made.controls["random"].outcome().value < made.found.outcome().value
    table, summary = made.table(), made.summary()
    assert len(table) == 12 and table["explanation"].str.startswith("fires on word").all()
    assert list(summary["what"])[-2:] == ["always yes", "a coin"]
    assert summary["detect"].iloc[-2] == pytest.approx(1 / 3)
    assert "macro-F1" in made.sentence and "random directions" in made.sentence and "0% token" in made.sentence
    fits = Results(run)
    features = verbs.chosen(fits)[1]
    names = named(features, made.found).names
    assert sum(bool(name) for name in names) == 12
    assert names[made.found.features[0].feature] == made.found.features[0].explanation


def test_the_file_holds_everything_and_is_read_again(run):
    made = explain(run, recipe=AutoInterp(**QUICK), watch=silent)
    stored = json.loads(made.path.read_text())
    assert stored["recipe"]["judge"]["kind"] == "TokenJudge" and stored["finder"]["kind"] == "TopKSAE"
    assert {"explanation", "f1", "sources", "explained", "scored"} <= stored["parts"]["found"]["features"][0].keys()
    before = made.path.stat().st_mtime_ns
    again = explain(run, recipe=AutoInterp(**QUICK), watch=silent)
    assert again.found == made.found and again.controls == made.controls
    assert again.path.stat().st_mtime_ns == before and len(list(made.path.parent.iterdir())) == 1


def test_an_interrupted_run_goes_on_where_it_stopped(run, monkeypatch):
    recipe = AutoInterp(**QUICK, before=10)
    asked: list[int] = []
    real = TokenJudge.explain

    def counted(self, evidence):
        asked.append(1)
        if len(asked) == 6:
            raise Failure("the judge is away")
        return real(self, evidence)

    monkeypatch.setattr(TokenJudge, "explain", counted)
    with pytest.raises(Failure, match="away"):
        explain(run, recipe=recipe, controls=(), watch=silent)
    journal = next((run / "explanations").glob("*.working.jsonl"))
    assert len(journal.read_text().splitlines()) == 5
    with open(journal, "a") as file:
        file.write('{"part": "found", "fea')
    made = explain(run, recipe=recipe, controls=(), watch=silent)
    assert len(asked) == 6 + 7 and not journal.exists()
    made.path.unlink()
    assert explain(run, recipe=recipe, controls=(), watch=silent).found == made.found


def test_two_finders_are_compared_in_pairs(run):
    labels = sorted({str(cell.finder) for cell, _ in Results(run).cells()}, key=len)
    good, poor = (explain(run, label, recipe=AutoInterp(**QUICK), controls=(), watch=silent) for label in labels)
    difference = paired_difference(good.found, poor.found)
    assert len(difference.detail["pairs"]) == 12
    assert difference.interval[0] <= difference.value <= difference.interval[1]


def test_refusals(run, tmp_path):
    with pytest.raises(UsageError, match="did you mean shuffled"):
        explain(run, controls=("shufled",), watch=silent)
    np.save(tmp_path / "h.npy", np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32))
    verbs.fit(Data(path=str(tmp_path / "h.npy")), [TopKSAE(width=4, k=1, steps=5)], tmp_path / "run")
    with pytest.raises(UsageError, match=r"text only, the rows of .* are vector items"):
        explain(tmp_path / "run", watch=silent)
