"""fit, compare and trust on data: splits, matched sparsity, the matched world, the verdict."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.activations.data import Data
from unmix.core.errors import Notice, UsageError
from unmix.core.items import ImageItems, TextItems
from unmix.core.rows import ArrayRows
from unmix.encoders import ENCODERS
from unmix.encoders.greedy import Omp
from unmix.encoders.iterative import Fista
from unmix.encoders.matched import at_sparsity
from unmix.finders.dictionary import SparseCoding
from unmix.finders.linear import PCA
from unmix.finders.topk_sae import TopKSAE
from unmix.study import verbs
from unmix.study.agreement import agreement
from unmix.study.cells import split_rows
from unmix.study.export import codes_table, feature_table, write_table
from unmix.study.verdict import verdict
from unmix.worlds.sparse import SparseWorld


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run on rows whose truth the verbs are not told."""
    folder = tmp_path_factory.mktemp("verbs")
    world = SparseWorld(latents=24, width=12, active=2, noise=0.02)
    np.save(folder / "h.npy", world.sample(3000, 0).x.numpy())
    finders = (
        TopKSAE(width=24, k=2, steps=300, batch=256),
        SparseCoding(width=24, active=2.0, passes=12, batch=256),
    )
    verbs.fit(Data(path=str(folder / "h.npy")), finders, folder / "run", seeds=(0, 1))
    verbs.compare(folder / "run", [ENCODERS[n]() for n in ("Linear", "TopK", "Fista", "Omp")], l0=2)
    verbs.trust(folder / "run", sizes=(0.2, 1.0))
    return folder / "run"


def test_compare_is_at_matched_sparsity(run):
    from unmix.study.study import Results

    table = Results(run).table()
    compared = table[(table["world"] == "data") & ~table["own"]]
    assert len(compared) == 2 * 2 * 4
    assert compared["l0"].between(1.5, 2.4).all(), compared[["finder", "encoder", "l0"]]
    assert compared["fvu"].between(0, 1).all()
    own = compared[compared["finder"] == "TopKSAE"].groupby("encoder")["fvu"].mean()
    assert own["Omp"] < own["TopK"], "exact greedy inference explains more than the amortised encoder"


def test_trust_says_what_recovery_to_expect(run):
    from unmix.study.study import Results

    results = Results(run)
    table = results.table()
    matched = table[table["world"] == "matched"]
    assert set(matched["samples"]) == {540, 2700}
    assert matched["dictionary_mcc_chance"].between(0.2, 0.9).all()
    best = matched[(matched["finder"] == "SparseCoding") & (matched["samples"] == 2700)]
    assert best["dictionary_mcc"].iloc[0] > best["dictionary_mcc_chance"].iloc[0] + 0.1
    found = verdict(results)
    assert "matched world" in found.sentence and "%" in found.sentence
    pairs = agreement(results)
    assert set(pairs["finder"]) == {"TopKSAE", "SparseCoding"}
    assert pairs["agreement"].between(0, 1).all() and (pairs["cosines"].map(len) == 24).all()


def test_verbs_name_what_is_missing(tmp_path, run):
    with pytest.raises(UsageError, match="no run here"):
        verbs.compare(tmp_path / "none", [ENCODERS["Omp"]()])
    world = SparseWorld(latents=6, width=4, active=1)
    verbs.fit(world, [TopKSAE(width=6, k=1, steps=5)], tmp_path / "synthetic", samples=(100,))
    with pytest.raises(UsageError, match="no fits on data"):
        verbs.trust(tmp_path / "synthetic")
    data = Data(path=str(run.parent / "h.npy"))
    failed = verbs.fit(data, [TopKSAE(width=6, k=1, steps=5)], tmp_path / "many", samples=(5000,))
    assert failed.table().empty and "only 2700 rows" in failed.failures[0]


def test_held_out_rows_are_whole_documents_and_the_same_for_every_seed():
    starts = np.arange(0, 1001, 20)
    items = TextItems(np.arange(1000, dtype=np.int32), starts, np.arange(1000), ("a",), ("t",) * 50)
    rows = ArrayRows(np.random.default_rng(0).standard_normal((1000, 3)))
    train, test = split_rows(rows, 8192, items)
    assert not set(items.documents()[train]) & set(items.documents()[test])
    assert 80 <= len(test) <= 120
    again = split_rows(rows, 8192, items)
    assert (again[1] == test).all()
    train, test = split_rows(rows, 50, None)
    assert len(test) == 50 and len(train) == 950 and not set(train) & set(test)


@pytest.mark.parametrize(
    ("sizes", "whole"),
    [
        ([10] * 90 + [100], True),
        ([850] + [30] * 5, True),
        ([5, 900, 40, 30, 25], True),
        ([200] * 5, True),
        ([300] * 2 + [400], False),
        ([1000], False),
        ([900, 25, 25, 25, 25], True),
        ([990, 3, 3, 2, 2], False),
        ([250] * 4, False),
        ([0] * 8 + [500] * 2, False),
    ],
)
def test_few_or_long_documents_still_hold_out_enough(sizes, whole):
    starts = np.concatenate([[0], np.cumsum(sizes)])
    n = int(starts[-1])
    items = TextItems(np.arange(n, dtype=np.int32), starts, np.arange(n), ("a",), ("t",) * len(sizes))
    train, test = split_rows(ArrayRows(np.random.default_rng(0).standard_normal((n, 3))), 8192, items)
    assert n / 20 <= len(test) <= n / 5 and not set(train) & set(test)
    shared = set(items.documents()[train]) & set(items.documents()[test])
    if whole:
        assert not shared
    else:
        assert len(shared) <= 1 and (test == np.arange(n - n // 10, n)).all()


@pytest.mark.parametrize("name", ["Fista", "Omp", "TopK"])
def test_at_sparsity_reaches_the_number_asked_for(name):
    world = SparseWorld(latents=40, width=20, active=4)
    x = world.sample(2000, 0).x
    features = TopKSAE(width=40, k=4, steps=100).fit(x)
    encoder = at_sparsity(ENCODERS[name](), features, x, 4)
    found = encoder.bind(features, x if encoder.weights else None)(x).l0().double().mean().item()
    assert found == pytest.approx(4, rel=0.12)
    with pytest.raises(UsageError, match="no option"):
        at_sparsity(ENCODERS["Nearest"](), features, x, 4)


def test_codes_and_features_to_csv_and_parquet(tmp_path):
    import pandas as pd

    x = SparseWorld().sample(50, 0).x
    features = TopKSAE(width=16, k=3, steps=10).fit(x)
    codes = features.encode(x)
    table = codes_table(codes)
    for ending in ("csv", "parquet"):
        path = write_table(table, tmp_path / f"codes.{ending}")
        again = pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)
        dense = torch.zeros(50, 16)
        dense[list(again["row"]), list(again["feature"])] = torch.tensor(list(again["value"]))
        assert torch.allclose(dense, codes.dense(), atol=1e-6)
    frame = feature_table(features, codes)
    assert len(frame) == 16
    assert frame["rate"].sum() * 50 == pytest.approx(codes.l0().sum().item())
    with pytest.raises(UsageError, match=r"\.csv or \.parquet"):
        write_table(table, tmp_path / "codes.xlsx")


def test_encoders_are_compared_on_a_world_with_their_recovery(tmp_path):
    world = SparseWorld(latents=16, width=8, active=2)
    verbs.fit(world, [TopKSAE(width=16, k=2, steps=100)], tmp_path / "run", samples=(800,), test=200)
    table = verbs.compare(tmp_path / "run", [Omp(), Fista()], l0=2).table()
    assert set(table["encoder"]) == {"TopK", "Omp", "Fista"}
    assert table["mcc"].notna().all() and (table["mcc_chance"] < 0.3).all()
    assert (table["encode_flops"] > 0).all()


def test_a_fit_goes_on_from_the_features_of_another_run(tmp_path):
    world = SparseWorld(latents=16, width=8, active=2)
    finder = SparseCoding(width=16, active=2, passes=2, batch=200)
    verbs.fit(world, [finder], tmp_path / "one", samples=(800,), test=200)
    fits = next((tmp_path / "one" / "fits").iterdir())
    again = verbs.fit(world, [finder], tmp_path / "two", samples=(800,), test=200, start=fits)
    cell, _ = again.cells()[0]
    assert again.store.features(cell).about["start"] == cell.start[1]
    anew = verbs.fit(world, [finder], tmp_path / "two", samples=(800,), test=200)
    assert len(anew.cells()) == 2, "a fit that goes on is another than one that begins anew"
    with pytest.raises(UsageError, match="PCA cannot go on"):
        verbs.fit(world, [PCA(width=8)], tmp_path / "three", samples=(800,), test=200, start=fits)


def test_copies_of_rows_images_and_documents_are_held_out_together():
    draw = np.random.default_rng(0)
    h = draw.standard_normal((200, 3)).astype(np.float32)
    twice = np.concatenate([h, h])[draw.permutation(400)]
    with pytest.warns(Notice, match="200 of 400 rows are copies of others"):
        train, test = split_rows(ArrayRows(twice), 8192)
    assert len(test) == 40 and not {row.tobytes() for row in twice[train]} & {row.tobytes() for row in twice[test]}
    images = draw.integers(0, 255, (200, 4, 4), np.uint8)
    with pytest.warns(Notice, match="200 of 400 images are copies of others"):
        train, test = split_rows(ArrayRows(twice), 8192, ImageItems(np.concatenate([images, images])))
    assert len(test) == 40 and not set(train % 200) & set(test % 200)
    tokens = np.tile(draw.integers(0, 99, (50, 4)), (2, 1)).reshape(-1)
    items = TextItems(tokens, np.arange(0, 401, 4), np.arange(400), tuple(map(str, range(99))), ("t",) * 100)
    with pytest.warns(Notice, match="50 of 100 documents are copies of others"):
        train, test = split_rows(ArrayRows(twice), 8192, items)
    assert len(test) and not set(train // 4 % 50) & set(test // 4 % 50)
    same = pytest.raises(UsageError, match="rows: 20 of 20 are copies of one; none can be held out")
    with pytest.warns(Notice, match="19 of 20 rows are copies"), same:
        split_rows(ArrayRows(np.ones((20, 2))), 8192)


def test_rows_of_one_image_are_held_out_together_without_a_word():
    rows = ArrayRows(np.random.default_rng(0).standard_normal((400, 3)))
    rows.about = {"positions": 4}
    images = np.random.default_rng(1).integers(0, 255, (100, 4, 4), np.uint8)
    train, test = split_rows(rows, 8192, ImageItems(np.repeat(images, 4, 0)))
    assert len(test) == 40 and not set(train // 4) & set(test // 4)
