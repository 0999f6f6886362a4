"""Choosing on held-out rows: description lengths, the one-standard-error rule, and a world whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from unmix.activations.data import Data
from unmix.core.codes import Codes
from unmix.core.errors import Failure, UsageError
from unmix.core.watch import Watch
from unmix.encoders.greedy import Nearest
from unmix.encoders.iterative import Fista
from unmix.finders.dictionary import SparseCoding
from unmix.finders.features import assemble
from unmix.finders.linear import PCA
from unmix.finders.topk_sae import TopKSAE
from unmix.study import description
from unmix.study.choose import choose, suggest_row
from unmix.study.description import describe
from unmix.study.learning_curve import Curve, learning_curve
from unmix.study.study import Results
from unmix.worlds.sparse import SparseWorld


def silent(label: str) -> Watch:
    return Watch()


def test_bits_of_a_gaussian_without_features_are_its_rate():
    """A dictionary that never fires leaves the Gaussian code: 1/2 log2 det(I + S / t) on average."""
    draw = torch.Generator().manual_seed(0)
    scale = torch.tensor([4.0, 1.0, 0.25])
    train, test = (torch.randn(60_000, 3, generator=draw) * scale for _ in range(2))
    empty = assemble(torch.eye(3), torch.zeros(3), Fista(penalty=1e9))
    found = describe(empty, train, test, 0.01)
    noise = 0.01 * float(train.var(0, correction=0).mean())
    expected = 0.5 * float(torch.log2(1 + scale.double() ** 2 / noise).sum())
    assert found.residual.mean() == pytest.approx(expected, rel=0.01)
    assert torch.allclose(found.residual, found.plain)
    assert found.codes.mean() == pytest.approx(0, abs=1e-3)


def test_bits_of_codes_are_the_entropy_of_what_is_sent(monkeypatch):
    """One of 8 atoms, always with code 1: in steps of about 1, only eight Bernoulli entropies are sent."""
    monkeypatch.setattr(description, "SHARES", (10.0,))
    which = np.random.default_rng(0).integers(0, 8, 20_000)
    rows = torch.eye(8)[torch.from_numpy(which)] * 5
    features = assemble(torch.eye(8) * 5, torch.zeros(8), Nearest())
    found = describe(features, rows[:10_000], rows[10_000:], 0.01)
    p = 1 / 8
    assert found.codes.mean() == pytest.approx(-8 * (p * math.log2(p) + (1 - p) * math.log2(1 - p)), rel=0.01)
    assert found.residual.mean() < 0.5 * found.plain.mean() and found.mean < found.plain.mean()


def test_every_row_costs_a_proper_code():
    """Kraft: over all code words of one feature the probabilities that the bits stand for add up to one."""
    draw = np.random.default_rng(1)
    dense = torch.from_numpy(np.where(draw.random((500, 1)) < 0.3, draw.exponential(2, (500, 1)), 0.0))
    tables = description._Tables(Codes(dense, None, 1), 0.5)
    words = torch.arange(0, 4000, dtype=torch.float64)[:, None] * 0.5
    assert float((2 ** -tables.bits(Codes(words, None, 1))).sum()) == pytest.approx(1, abs=1e-6)


def test_a_feature_that_does_not_hold_costs_bits_on_held_out_rows():
    world = SparseWorld(latents=12, width=12, active=2, dictionary="orthogonal", noise=0.05)
    train, test = world.sample(2000, 0).x, world.sample(2000, 1).x
    true = assemble(world.atoms, torch.zeros(12), Fista(penalty=0.05))
    random = assemble(
        torch.nn.functional.normalize(torch.randn(12, 12, generator=torch.Generator().manual_seed(3))),
        torch.zeros(12),
        Fista(penalty=0.05),
    )
    good, bad = describe(true, train, test), describe(random, train, test)
    assert good.mean < float(good.plain.mean()) - 3 and good.mean < bad.mean - 3
    assert good.error < 0.5


def test_describe_refuses_what_has_no_answer():
    features = assemble(torch.eye(3), torch.zeros(3), Nearest())
    rows = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UsageError, match="distortion=0"):
        describe(features, rows, rows, 0)
    with pytest.raises(UsageError, match="all rows are equal"):
        describe(features, torch.ones(5, 3), rows)
    with pytest.raises(UsageError, match="at least 2 training rows"):
        describe(features, rows[:1], rows)


def test_the_simplest_within_one_standard_error_is_suggested():
    table = pd.DataFrame(
        {"width": [64, 32, 16, 32], "l0": [3.0, 6.0, 3.0, 3.0], "bits": [10.0, 10.3, 12.0, 10.4], "error": 0.5}
    )
    assert suggest_row(table) == 3 and list(table["near"]) == [True, True, False, True]
    table["error"] = 0.0
    assert suggest_row(table) == 0
    with pytest.raises(UsageError, match="no recipes"):
        suggest_row(table[:0])


@pytest.fixture(scope="module")
def sparse_choice(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choose") / "run"
    world = SparseWorld(latents=32, width=16, active=3, noise=0.02)
    finders = [
        SparseCoding(width=width, active=active, passes=12, batch=256)
        for width in (16, 32, 64)
        for active in (2.0, 4.0, 6.0)
    ]
    return world, finders, folder, choose(world, finders, folder, (0,), (3000,), test=2000, watch=silent)


def test_on_a_sparse_world_the_suggestion_is_the_true_width_and_near_the_true_active_count(sparse_choice):
    _, _, _, choice = sparse_choice
    assert choice.finder.width == 32
    # The l1 penalty shrinks codes, and a few more active ones make up for it: 4 to 6 where 3 are true.
    assert choice.finder.active in (4, 6)
    best = choice.table[choice.table["suggested"]].iloc[0]
    assert best["bits"] < choice.plain - 10
    assert "not the true number of features" in choice.sentence and "without features" in choice.sentence


def test_a_topk_autoencoder_is_given_the_true_number_of_active_codes(tmp_path):
    world = SparseWorld(latents=32, width=16, active=3, noise=0.02)
    finders = [TopKSAE(width=48, k=k, steps=800, batch=256) for k in (1, 3, 6)]
    choice = choose(world, finders, tmp_path / "run", (0,), (3000,), test=2000, watch=silent)
    assert choice.finder.k == 3
    assert choice.table["fvu"].is_monotonic_decreasing, "by error alone, the most active codes always win"


def test_nothing_is_fitted_or_described_twice(sparse_choice):
    world, finders, folder, choice = sparse_choice
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    again = choose(world, finders, folder, (0,), (3000,), test=2000, watch=silent)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")} == before
    pd.testing.assert_frame_equal(again.table, choice.table)
    assert len(pd.read_csv(folder / "choose.csv")) == 9
    assert len(Results(folder).cells()) == 9


def test_seeds_agree_and_sizes_make_a_curve(tmp_path):
    rows = SparseWorld(latents=16, width=8, active=2, noise=0.02).sample(3000, 0).x
    np.save(tmp_path / "h.npy", rows.numpy())
    data = Data(path=str(tmp_path / "h.npy"))
    finders = [SparseCoding(width=width, active=2.0, passes=15, batch=128) for width in (8, 16)]
    choice = choose(data, finders, tmp_path / "run", (0, 1), (300, None), watch=silent)
    assert choice.finder.width == 16 and set(choice.table["seeds"]) == {2}
    assert choice.table["agreement"].gt(choice.table["chance"]).any()
    assert "its seeds share" in choice.sentence and "edge of the grid: try more atoms" in choice.sentence
    assert list(choice.curve.table["samples"]) == [300, 2700]
    assert choice.curve.measure == "fvu" and "a doubling" in choice.curve.sentence
    assert (tmp_path / "run" / "learning_curve.csv").is_file()


def test_failed_fits_are_told(tmp_path):
    np.save(tmp_path / "h.npy", np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32))
    data = Data(path=str(tmp_path / "h.npy"))
    choice = choose(data, [PCA(width=3), PCA(width=9)], tmp_path / "run", watch=silent)
    assert list(choice.table["recipe"]) == ["PCA(width=3)"]
    assert "left out: PCA(width=9) (PCA.width=9: at most min" in choice.sentence
    with pytest.raises(Failure, match=r"no recipe could be fitted; first: PCA\(width=9\)"):
        choose(data, [PCA(width=9)], tmp_path / "run", watch=silent)
    with pytest.raises(UsageError, match="no recipes"):
        choose(data, [], tmp_path / "run", watch=silent)


def test_the_learning_curve_says_whether_more_rows_would_help(tmp_path):
    world = SparseWorld(latents=24, width=12, active=2, noise=0.02)
    finder = SparseCoding(width=24, active=2.0, passes=15, batch=128)
    curve = learning_curve(world, finder, tmp_path / "run", (60, 1500), (0, 1), test=500)
    first, last = (curve.table.iloc[i] for i in (0, -1))
    assert curve.measure == "dictionary_mcc" and last["dictionary_mcc"] > first["dictionary_mcc"] + 0.1
    assert first["dictionary_mcc_chance"] < first["dictionary_mcc"] and last["fvu"] < first["fvu"]
    assert curve.sentence.endswith("more rows would help.")
    with pytest.raises(UsageError, match="at least two sizes"):
        learning_curve(world, finder, tmp_path / "run", (60, 60))


def test_a_curve_that_has_levelled_off_is_told_so():
    table = pd.DataFrame({"samples": [100, 400], "fvu": [0.300, 0.298], "fvu_error": 0.001})
    assert Curve("x", table).sentence.endswith("more rows would change little.")


def test_a_curve_within_its_error_is_called_too_close():
    table = pd.DataFrame({"samples": [100, 200], "fvu": [0.50, 0.45], "fvu_error": [0.05, 0.05]})
    assert "too close to tell" in Curve("x", table).sentence
    gain, error = Curve("x", table).gain()
    assert gain == pytest.approx(0.1) and error == pytest.approx(math.hypot(0.05, 0.05) / 0.5)
