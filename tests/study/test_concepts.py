"""Labels from files and patterns, concept search and probes on a run whose concept is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unmix.activations.data import Data
from unmix.activations.shards import ShardWriter
from unmix.core.errors import Failure, UsageError
from unmix.core.items import TextItems, VectorItems
from unmix.core.labels import known
from unmix.core.rows import ArrayRows
from unmix.finders.topk_sae import TopKSAE
from unmix.scores.probes import SparseProbe
from unmix.study import verbs
from unmix.study.concepts import concepts, probe
from unmix.study.labels import labels_of, matches
from unmix.study.texts import snippet, words
from unmix.worlds.sparse import SparseWorld

WORDS = ("[CLS]", "cat", "play", "##ing", "dog")
PIECES = TextItems(
    np.asarray([0, 1, 2, 3, 0, 4, 4]), np.asarray([0, 4, 7]), np.asarray([1, 2, 3, 5, 6]), WORDS, ("a", "b")
)
OWN = TextItems(
    np.asarray([0, 1, 2, 1]), np.asarray([0, 4]), np.asarray([1, 2, 3]), ("<s>", " th", "ou art"), ("one",)
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Rows of a sparse world; the concept is its first latent, and each document holds twenty rows."""
    folder = tmp_path_factory.mktemp("concepts")
    world = SparseWorld(latents=12, width=12, active=2, noise=0.01)
    sample = world.sample(3000, 0)
    titles = tuple(f"t{number}" for number in range(150))
    places = np.arange(3000) + np.arange(3000) // 20 + 1  # a document begins with its own title, which has no row
    stream = (sample.z[:, 0].numpy() > 0).astype(np.int32)
    whole = np.concatenate([np.arange(150)[:, None] + 2, stream.reshape(150, 20)], 1).reshape(-1)
    items = TextItems(whole, np.arange(0, 3151, 21), places, ("other", "this", *titles), titles)
    with ShardWriter(folder / "acts", 12) as writer:
        writer.append(sample.x)
        writer.finish(items)
    verbs.fit(Data(path=str(folder / "acts")), [TopKSAE(width=12, k=2, steps=800, batch=256)], folder / "run")
    np.save(folder / "y.npy", stream)
    (folder / "y.csv").write_text("a,b\n" + "\n".join(f"{'yes' if s else 'no'},{i}" for i, s in enumerate(stream)))
    return folder


def test_concepts_ranks_the_feature_that_is_the_latent_first(run):
    found = concepts(run / "run", run / "y.npy", top=3)
    assert list(found.columns[:5]) == ["label", "feature", "name", "rate", "auc"]
    first = found.iloc[0]
    assert first["label"] == 1 and first["auc"] > 0.9 and first["held_auc"] > 0.9
    assert first["precision"] > 0.9 and first["recall"] > 0.75
    assert first["q"] < 1e-10 and first["p"] == pytest.approx(1 / 201)
    assert (found["auc"].diff().dropna() <= 0).all()
    by_text = concepts(run / "run", pattern="^this$", top=3)
    assert (
        by_text["feature"].tolist() == found["feature"].tolist() and by_text["auc"].tolist() == found["auc"].tolist()
    )
    named = concepts(run / "run", f"{run / 'y.csv'}:a", top=1)
    assert named["label"].tolist() == ["yes"] and named["feature"].iloc[0] == first["feature"]


def test_a_concept_that_means_nothing_is_not_found(run):
    labels = np.random.default_rng(5).random(3000) < 0.3
    found = concepts(run / "run", labels, top=12)
    assert found["p"].min() > 0.02 and found["q"].min() > 0.01 and found["auc"].max() < 0.55


def test_features_that_never_fire_are_not_listed(run):
    verbs.fit(Data(path=str(run / "acts")), [TopKSAE(width=200, k=1, steps=1)], run / "idle")
    found = concepts(run / "idle", run / "y.npy", top=200)
    assert 0 < len(found) < 200 and (found["rate"] > 0).all()


def test_concepts_of_several_classes_leave_rows_without_a_label_out(run):
    rng = np.random.default_rng(0)
    labels = np.where(np.load(run / "y.npy") == 1, "first", rng.choice(["x", "w", ""], 3000))
    found = concepts(run / "run", labels, top=2)
    assert found["label"].tolist() == ["first"] * 2 + ["w"] * 2 + ["x"] * 2
    assert found["auc"].iloc[0] > 0.9 > 0.8 > found["auc"].iloc[2]
    small = concepts(run / "run", labels, top=1, limit=400)
    assert small["feature"].iloc[0] == found["feature"].iloc[0]


def test_probe_beside_rows_random_atoms_and_the_majority(run):
    found = probe(run / "run", run / "y.npy", recipe=SparseProbe(active=(1, None)))
    assert found["read from"].tolist() == ["features"] * 2 + ["rows"] * 2 + ["random atoms"] * 2 + ["majority"]
    table = found.set_index(["read from", "k"])["auc"]
    assert table["features", 1] > 0.9 and table["features", 1] > table["rows", 1]
    assert table["rows", 12] > 0.9 and table["majority", 0] == 0.5
    best = concepts(run / "run", run / "y.npy", top=1)["feature"].iloc[0]
    assert found["chosen"].iloc[0] == [best]
    few = probe(run / "run", run / "y.npy", recipe=SparseProbe(active=(1,)), limit=100)
    assert few["auc"].iloc[0] > 0.9


def test_labels_are_checked(run, tmp_path):
    with pytest.raises(UsageError, match="expected 3000 of them"):
        concepts(run / "run", np.zeros(7))
    with pytest.raises(UsageError, match="only one class"):
        concepts(run / "run", np.zeros(3000))
    with pytest.raises(UsageError, match="no row matches"):
        concepts(run / "run", pattern="^nowhere$")
    with pytest.raises(UsageError, match="at most 40"):
        concepts(run / "run", np.arange(3000))
    with pytest.raises(UsageError, match=r"several columns; name one, such as y\.csv:a"):
        concepts(run / "run", run / "y.csv")
    with pytest.raises(UsageError, match="no column 'c'; known: a, b"):
        concepts(run / "run", f"{run / 'y.csv'}:c")
    with pytest.raises(UsageError, match="no such file"):
        concepts(run / "run", tmp_path / "none.npy")
    with pytest.raises(UsageError, match="none came with the rows"):
        concepts(run / "run")
    with pytest.raises(UsageError, match="not both"):
        concepts(run / "run", np.zeros(3000), pattern="a")
    with pytest.raises(UsageError, match="no regular expression"):
        concepts(run / "run", pattern="(")
    np.save(tmp_path / "bad.npy", np.asarray([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="pickled objects, which are never loaded"):
        concepts(run / "run", tmp_path / "bad.npy")


def test_labels_that_came_with_the_rows_and_missing_ones():
    rows = ArrayRows(np.zeros((3, 2)) + np.arange(2))
    rows.labels = np.asarray([1, 0, 1])
    assert labels_of(None, rows, VectorItems(np.arange(3))).tolist() == [1, 0, 1]
    assert known(labels_of(["a", None, ""], rows, None)).tolist() == [True, False, False]
    column = pd.Series(["a", np.nan, pd.NA], dtype=object)
    assert known(labels_of(column, rows, None)).tolist() == [True, False, False]
    assert known(np.asarray([1.0, np.nan])).tolist() == [True, False]
    with pytest.raises(UsageError, match="no tokens of text"):
        matches("a", VectorItems(np.arange(3)))


def test_labels_are_read_as_spreadsheets_write_them(tmp_path):
    rows, file = ArrayRows(np.ones((3, 2))), tmp_path / "labels.csv"
    file.write_bytes("\ufeffkind,age\r\ncat,1\r\n,2\r\ndog,3\r\n\r\n".encode())
    assert labels_of(f"{file}:kind", rows, None).tolist() == ["cat", "", "dog"]
    file.write_bytes("kind\nKüche\n".encode("latin-1"))
    with pytest.raises(Failure, match="it is no text in UTF-8"):
        labels_of(file, rows, None)


def test_text_is_put_together_and_patterns_span_tokens():
    assert words(PIECES, 0, 4)[0] == " cat playing" and words(OWN, 0, 4)[0] == "  thou art th"
    assert snippet(PIECES, 0, 7) == "cat playing dog dog" and snippet(PIECES, 0, 7, limit=10) == "cat pla..."
    assert matches("ing", PIECES).tolist() == [False, False, True, False, False]
    assert matches("playing", PIECES).tolist() == [False] * 5
    assert matches("playing", PIECES, "text").tolist() == [False, True, True, False, False]
    assert matches("^dog", PIECES, "text").tolist() == [False] * 5
    assert matches("thou", OWN, "text").tolist() == [True, True, False]
    with pytest.raises(UsageError, match="on=word"):
        matches("a", OWN, "word")
