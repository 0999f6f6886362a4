"""Matching of features: planted permutations found by atoms and by codes, chance at chance, other rows refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.activations.data import Data
from unmix.core.errors import UsageError
from unmix.encoders.amortised import TopK
from unmix.encoders.greedy import Nearest
from unmix.finders.features import assemble
from unmix.finders.topk_sae import TopKSAE
from unmix.scores.matching import dictionary_chance, mcc
from unmix.study import matching, verbs
from unmix.study.matching import match, match_runs
from unmix.worlds.sparse import SparseWorld


@pytest.fixture(scope="module")
def two_spaces():
    """The same 32 latents seen through two dictionaries of unlike width, and the features that read them exactly."""
    world = SparseWorld(latents=32, width=48, active=3)
    z = world.sample(3000, 0).z
    draw = torch.Generator().manual_seed(0)
    order = torch.randperm(32, generator=draw)
    spaces = []
    for width, latents in ((48, z), (40, z[:, order])):
        atoms = torch.linalg.qr(torch.randn(width, 32, generator=draw))[0].T.contiguous()
        rows = latents @ atoms
        tensors = {"weight": atoms.clone(), "shift": torch.zeros(32)}
        spaces.append((assemble(atoms, torch.zeros(width), TopK(k=3), tensors), rows))
    return (*spaces, order)


def test_by_codes_finds_a_permutation_across_spaces(two_spaces):
    (a, rows_a), (b, rows_b), order = two_spaces
    found = match(a, b, rows_a, rows_b)
    assert found.by == "codes"
    assert (order[found.pairs[:, 1]].numpy() == found.pairs[:, 0]).all()
    assert found.similarity.min() > 0.999 and found.shared == 1 and found.mutual.all()
    assert found.chance.mean() < 0.15 and found.shared_by_chance == 0
    assert found.mean == pytest.approx(mcc(a.encode(rows_a), b.encode(rows_b)).value, abs=1e-6)
    assert "codes on the same rows" in found.sentence and "100% above 0.7" in found.sentence
    assert list(found.table["b"]) == [int((order == i).nonzero()) for i in range(32)]


def test_by_atoms_finds_signs_and_its_chance_is_that_of_gaussian_dictionaries():
    atoms = torch.nn.functional.normalize(torch.randn(60, 16, generator=torch.Generator().manual_seed(1)))
    flipped = atoms.flip(0) * torch.tensor([1.0, -1.0]).repeat(30)[:, None]
    one, two = (assemble(t, torch.zeros(16), Nearest()) for t in (atoms, flipped))
    found = match(one, two)
    assert found.by == "atoms" and (found.pairs.sum(1) == 59).all()
    assert np.allclose(np.abs(found.similarity), 1, atol=1e-5) and (found.similarity < 0).sum() == 30
    assert found.chance.mean() == pytest.approx(dictionary_chance(60, 60, 16, draws=4), abs=0.03)


def test_widths_may_differ_and_many_may_share_a_partner(two_spaces):
    (a, _), _, _ = two_spaces
    twice = assemble(torch.cat([a.atoms, a.atoms[:5] + 0.05 * a.atoms[5:10]]), a.bias, Nearest())
    found = match(twice, a)
    assert len(found.pairs) == 32 and len(found.best_a) == 37
    assert (found.best_a[32:] == np.arange(5)).all() and not found.mutual[32:].any()
    assert found.table["b"].eq(-1).sum() == 5
    other = match(a, twice)
    assert len(other.pairs) == 32 and other.mean == pytest.approx(found.mean, abs=1e-6)


def test_large_dictionaries_use_candidates_and_agree_with_the_exact_assignment(two_spaces, monkeypatch):
    (a, rows_a), (b, rows_b), _ = two_spaces
    rng = torch.Generator().manual_seed(2)
    noisy = assemble(a.atoms + 0.3 * torch.randn(a.atoms.shape, generator=rng), a.bias, Nearest())
    exact = match(a, noisy)
    by_codes = match(a, b, rows_a, rows_b)
    monkeypatch.setattr(matching, "EXACT", 0)
    monkeypatch.setattr(matching, "BLOCK", 7 * 32)
    assert match(a, noisy).mean == pytest.approx(exact.mean, abs=1e-6)
    again = match(a, b, rows_a, rows_b)
    assert (again.pairs == by_codes.pairs).all()
    assert np.allclose(again.best_b_similarity, by_codes.best_b_similarity)
    monkeypatch.setattr(matching, "CANDIDATES", 4)
    assert match(a, noisy).mean == pytest.approx(exact.mean, abs=0.02)


def test_dense_and_sparse_codes_give_the_same_correlations(two_spaces):
    from unmix.core.codes import Codes

    (a, rows_a), (b, rows_b), _ = two_spaces
    one, two = a.encode(rows_a), b.encode(rows_b)
    dead = torch.cat([one.dense(), torch.zeros(3000, 1)], 1)
    expected = np.corrcoef(one.dense().double().T, two.dense().double().T)[:32, 32:]
    for left in (one, Codes(dead, None, 33)):
        for right in (two, Codes(two.dense(), None, 32)):
            block = matching._Columns(left).correlations(matching._Columns(right))
            assert np.allclose(block(0, 32), expected, atol=1e-5)
    assert (matching._Columns(Codes(dead, None, 33)).correlations(matching._Columns(two))(32, 33) == 0).all()
    assert (matching._Columns(Codes(dead, None, 33).ragged()).correlations(matching._Columns(two))(32, 33) == 0).all()


def test_refusals(two_spaces):
    (a, rows_a), (b, rows_b), _ = two_spaces
    with pytest.raises(UsageError, match="widths 48 and 40"):
        match(a, b)
    with pytest.raises(UsageError, match="needs rows_a"):
        match(a, a, by="codes")
    with pytest.raises(UsageError, match="3000 rows, rows_b 2999"):
        match(a, b, rows_a, rows_b[:-1])
    with pytest.raises(UsageError, match="at least 3 rows"):
        match(a, b, rows_a[:2], rows_b[:2])
    with pytest.raises(UsageError, match="by=cosine"):
        match(a, b, by="cosine")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, two_spaces):
    """Two runs on two views of the same data, and one on other data."""
    folder = tmp_path_factory.mktemp("matching")
    (_, rows_a), (_, rows_b), _ = two_spaces
    for name, rows in (("a", rows_a), ("b", rows_b), ("short", rows_b[:2000])):
        np.save(folder / f"{name}.npy", rows.numpy())
        finder = TopKSAE(width=32, k=3, steps=700, batch=256)
        verbs.fit(
            Data(path=str(folder / f"{name}.npy")), [finder], folder / name, seeds=(0, 1) if name == "a" else (0,)
        )
    return folder


def test_runs_by_atoms_between_seeds_and_by_codes_between_spaces(runs):
    found, names = match_runs(runs / "a", runs / "a", seeds=(0, 1))
    assert found.by == "atoms" and names == ("TopKSAE seed 0", "TopKSAE seed 1")
    assert found.mean > found.chance.mean() + 0.2
    by_codes, _ = match_runs(runs / "a", runs / "a", seeds=(0, 1), by="codes", limit=1000)
    assert by_codes.by == "codes" and by_codes.shared > 0.3
    with pytest.raises(UsageError, match="--same-rows"):
        match_runs(runs / "a", runs / "b")
    across, names = match_runs(runs / "a", runs / "b", seeds=(0, 0), same_rows=True)
    assert across.by == "codes" and across.mean > across.chance.mean() + 0.3
    assert names == ("TopKSAE seed 0 on a.npy", "TopKSAE seed 0 on b.npy")


def test_runs_that_cannot_be_matched_are_refused(runs):
    with pytest.raises(UsageError, match=r"both are .*name two fits"):
        match_runs(runs / "a", runs / "a", seeds=(0, 0))
    with pytest.raises(UsageError, match="3,000 rows in one run and 2,000"):
        match_runs(runs / "a", runs / "short")
    with pytest.raises(UsageError, match="by=atoms: the two fits are of different data"):
        match_runs(runs / "a", runs / "b", by="atoms")
    with pytest.raises(UsageError, match="no such fit here"):
        match_runs(runs / "a", runs / "b", finders=("PCA", None))


def test_items_tell_whether_rows_are_the_same_data():
    from unmix.core.items import ImageItems, TextItems
    from unmix.core.rows import ArrayRows

    rows = [ArrayRows(np.random.default_rng(i).standard_normal((4, 2))) for i in range(2)]
    text = TextItems(np.arange(6, dtype=np.int32), np.array([0, 6]), np.arange(4), tuple("abcdef"), ("t",))
    other = TextItems(np.arange(6, dtype=np.int64), np.array([0, 6]), np.arange(4), tuple("abcdef"), ("t",))
    moved = TextItems(np.arange(6, dtype=np.int32), np.array([0, 6]), np.arange(1, 5), tuple("abcdef"), ("t",))
    images = [ImageItems(np.full((4, 2, 2), i, np.uint8)) for i in range(2)]
    matching._require_same_rows(*rows, text, other)
    matching._require_same_rows(*rows, images[0], images[0])
    for one, two in ((text, moved), (text, images[0]), (images[0], images[1])):
        with pytest.raises(UsageError, match="not the same data"):
            matching._require_same_rows(*rows, one, two)
