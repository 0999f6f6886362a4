"""The family of scores: identities between its members, hand-made cases, nulls, and inputs that mislead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.scores.interpretability.controls import correlation_between
from unmix.scores.interpretability.sets import (
    clarity,
    interpretability_index,
    label_purity,
    nearest,
    pairwise,
    polysemanticity,
    redundancy,
)
from unmix.scores.interpretability.synergy import synergy
from unmix.scores.interpretability.ties import extreme_sets
from unmix.scores.interpretability.trials import intruder, machine_interpretability, two_choices
from unmix.scores.interpretability.weighted import monosemanticity, monosemanticity_pairwise
from unmix.scores.similarity.base import embedded, labelled


def drawn(n=400, m=12, p=9, seed=0):
    draw = np.random.default_rng(seed)
    return draw.standard_normal((n, m)).astype(np.float32), draw.standard_normal((n, p)).astype(np.float32)


def concepts(n=600, m=6, seed=0):
    """Activations that each follow one of m concepts, and embeddings that show the concept of every image."""
    draw = np.random.default_rng(seed)
    kind = draw.integers(0, m, n)
    one = np.eye(m)[kind]
    return (one + 0.05 * draw.random((n, m))).astype(np.float32), one + 0.1 * draw.standard_normal((n, m)), kind


def test_index_clarity_and_monosemanticity_with_equal_weights_are_one_number():
    a, e = drawn()
    alike = embedded(e)
    index, clear = interpretability_index(a, alike), clarity(a, alike)
    assert np.abs(index.values - clear.values).max() < 1e-6
    member = np.zeros_like(a)
    np.put_along_axis(member, index.detail["rows"].T, 1.0, 0)
    weighted = monosemanticity(member, alike, draws=2)
    assert np.abs(weighted.values - index.values).max() < 1e-6
    assert np.allclose(weighted.effective, 5)


def test_the_linear_form_is_the_quadratic_form_and_errors_are_the_jackknife():
    a, e = drawn(n=150)
    alike = embedded(e)
    linear = monosemanticity(a, alike)
    assert np.abs(linear.values - monosemanticity_pairwise(a, alike, 64)).max() < 1e-6
    rest = []
    for image in range(150):
        rows = np.delete(np.arange(150), image)
        # The scale is that of all images.
        ends = np.stack([a.min(0), a.max(0)])
        scaled = (a[rows] - ends[0]) / (ends[1] - ends[0])
        w, g = scaled.astype(np.float64), alike.take(rows).vectors.double().numpy()
        top = ((w.T @ g) ** 2).sum(1) - (w**2).sum(0)
        rest.append(top / (w.sum(0) ** 2 - (w**2).sum(0)))
    spread = np.sqrt(149 / 150 * ((rest - np.mean(rest, 0)) ** 2).sum(0))
    assert np.allclose(linear.error, spread, rtol=1e-3)


def test_the_mean_over_the_whole_matrix_is_four_fifths_of_the_index_for_distances():
    a, e = drawn()
    alike = embedded(e, "distance")
    whole, index = interpretability_index(a, alike, diagonal=True), interpretability_index(a, alike)
    assert np.allclose(whole.values, 0.8 * index.values, atol=1e-6)
    assert index.mean < 0
    with pytest.raises(UsageError, match="needs a cosine"):
        clarity(a, alike)


def test_the_index_of_a_hand_made_set():
    e = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    assert float(pairwise(torch.tensor([[0, 1, 2]]), embedded(e))[0]) == pytest.approx(2 / 3 * 0.5**0.5)
    a = torch.tensor([[0.9], [0.5], [0.8], [-3.0]])
    assert interpretability_index(a, embedded(e), 3).values[0] == pytest.approx(2 / 3 * 0.5**0.5)


def test_the_null_is_random_sets_and_shuffled_features_are_at_chance():
    a, e = drawn(n=600, m=200)
    alike = embedded(e)
    found = interpretability_index(a, alike)
    assert abs(found.mean_z) < 0.25
    assert abs((found.p < 0.05).mean() - 0.05) < 0.06
    known, shown, _ = concepts()
    good = interpretability_index(known, embedded(shown))
    assert good.z.min() > 3 and good.p.max() < 0.01
    assert good.outcome(Stream(0)).chance == pytest.approx(good.null_mean[0])
    assert not good.outcome(Stream(0)).at_chance and found.outcome(Stream(0)).at_chance


@pytest.mark.parametrize("score", [interpretability_index, clarity, machine_interpretability, two_choices, intruder])
def test_scale_and_shift_of_activations_change_nothing(score):
    a, e = drawn()
    a[:, 3] = np.maximum(a[:, 3] - 1.5, 0)  # ties
    alike = embedded(e)
    changed = a.astype(np.float64) * np.linspace(0.5, 4, 12) + np.linspace(-3, 9, 12)
    assert np.array_equal(score(a, alike, rng=3).values, score(changed, alike, rng=3).values)
    assert np.array_equal(score(a, alike, rng=3).values, score(a, alike, rng=3).values)


def test_scale_and_shift_do_not_change_monosemanticity():
    a, e = drawn()
    alike = embedded(e)
    moved = a.astype(np.float64) * 3 + 7
    assert np.allclose(monosemanticity(a, alike).values, monosemanticity(moved, alike).values, atol=1e-6)


def test_machine_interpretability_by_hand():
    """One trial of 2 references a side: every number in it can be written down."""
    e = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1.0], [0, 1], [-1, 0.0]])
    a = np.array([[5.0], [4], [3], [2], [1], [0]])
    found = machine_interpretability(a, embedded(e), trials=1, references=2, quantile=0.5, draws=2)
    plus, minus = e[2], e[3]  # the least extreme of three on either side
    difference = (plus - minus) @ (e[[0, 1]].mean(0) - e[[4, 5]].mean(0))
    assert found.values[0] == pytest.approx(1 / (1 + np.exp(-0.16 * difference)), abs=1e-7)
    hard = machine_interpretability(a, embedded(e), 1, 2, None, 0.5, draws=2)
    assert hard.values[0] == float(difference > 0)
    ranked = machine_interpretability(a, embedded(e), 1, 2, 1.0, 0.5, "ranks", draws=2)
    far = (e[0] - e[5]) @ (e[[1, 2]].mean(0) - e[[4, 3]].mean(0))
    assert ranked.values[0] == pytest.approx(1 / (1 + np.exp(-far)), abs=1e-7)


def test_machine_interpretability_of_noise_is_a_half_and_hard_values_are_shares_of_trials():
    a, e = drawn(n=2000, m=300)
    alike = embedded(e)
    soft = machine_interpretability(a, alike)
    assert soft.mean == pytest.approx(0.5, abs=0.02)
    hard = machine_interpretability(a, alike, alpha=None)
    assert hard.mean == pytest.approx(0.5, abs=0.02)
    assert np.allclose(hard.values * 20, np.round(hard.values * 20))
    assert not hard.detail["exhausted"].any()
    sparse = np.maximum(a - 2, 0)
    assert machine_interpretability(sparse, alike).detail["exhausted"].all()
    with pytest.raises(UsageError, match="too few"):
        machine_interpretability(a[:30], alike.take(np.arange(30)))


def test_choices_and_intruders_find_concepts_and_are_at_chance_on_noise():
    a, e = drawn(n=1000, m=300)
    assert two_choices(a, embedded(e)).mean == pytest.approx(0.5, abs=0.03)
    assert intruder(a, embedded(e)).mean == pytest.approx(1 / 6, abs=0.03)
    known, shown, _ = concepts()
    alike = embedded(shown)
    assert two_choices(known, alike, 100).values.min() > 0.8  # a foil may show the same concept
    assert intruder(known, alike).values.min() > 0.7
    same = embedded(np.ones((1000, 3)))
    assert intruder(a, same).mean == pytest.approx(1 / 6) and two_choices(a, same).mean == 0.5


def test_foils_are_never_among_the_exciting_images():
    from unmix.scores.interpretability.trials import _outside

    rows = torch.rand(40, 30, generator=torch.Generator().manual_seed(0)).argsort(1)[:, :20]
    foils = _outside(rows, 30, 500, Stream(0))
    for mine, drawn_ in zip(rows, foils, strict=True):
        assert set(drawn_.tolist()) == set(range(30)) - set(mine.tolist())


def test_labels_purity_and_entropy():
    known, _, kind = concepts()
    found = label_purity(known, kind)
    assert np.array_equal(found.values, np.ones(6)) and np.array_equal(found.detail["label"], np.arange(6))
    assert np.array_equal(found.detail["negative_entropy"], np.zeros(6))
    assert interpretability_index(known, labelled(kind)).mean == 1.0
    noise = label_purity(drawn(n=600)[0], kind)
    assert abs(noise.mean_z) < 1.0
    with pytest.raises(UsageError, match="two kinds"):
        label_purity(known, np.zeros(600))


def test_dead_constant_and_tied_features_are_named_and_not_averaged():
    known, shown, _ = concepts()
    alike = embedded(shown)
    known[:, 2] = 0.3
    known[:, 4] = 0.0
    known[[5, 77], 4] = 1.0
    found = interpretability_index(known, alike)
    assert np.isnan(found.values[2]) and found.effective[2] == 0 and found.detail["constant"] == 1
    assert found.effective[4] == 2 and set(found.detail["rows"][4][:2]) == {5, 77}
    assert np.isfinite(found.mean) and np.isfinite(found.outcome(Stream(0)).value)
    assert np.isnan(monosemanticity(known, alike).values[2])
    # Ties go to images at random, not to the first ones.
    sets = [extreme_sets(torch.zeros(200, 1), 5, Stream(seed)).rows.tolist()[0] for seed in range(4)]
    assert len({tuple(rows) for rows in sets}) == 4 and max(max(rows) for rows in sets) > 50


def test_a_feature_with_two_concepts_is_polysemantic_and_its_copy_redundant():
    e = np.repeat(np.eye(4), 10, 0)
    sets = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, 10, 11], [0, 1, 2, 3, 5], [30, 31, 32, 33, 34]])
    alike = embedded(e)
    assert np.allclose(polysemanticity(sets, alike), [0, 1, 0, 0], atol=1e-12)
    found = redundancy(sets, alike)
    assert found[0] == pytest.approx(1) and found[3] == pytest.approx(0)
    # Two clusters around 5 and 85 degrees, wherever the plane lies.
    angles, turn = np.deg2rad([0, 10, 80, 90, 10]), np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    turned = embedded(np.stack([np.cos(angles), np.sin(angles)], 1) @ turn[:2])
    assert polysemanticity(torch.tensor([[0, 1, 2, 3]]), turned)[0] == pytest.approx(1 - np.cos(np.deg2rad(80)))
    assert np.isnan(redundancy(sets[:1], alike)).all()


def test_the_nearest_of_many_rows_is_found_block_by_block(monkeypatch):
    unit = torch.nn.functional.normalize(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).double())
    monkeypatch.setattr("unmix.scores.interpretability.sets.NEAREST", 7)
    for absolute in (False, True):
        gram = (unit @ unit.T).abs() if absolute else unit @ unit.T
        assert torch.allclose(nearest(unit, absolute), gram.fill_diagonal_(-1).amax(1))
    copies = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
    assert correlation_between(torch.cat([copies, -copies], 1)) == pytest.approx(1)


def test_large_sets_are_sorted_and_small_ones_inserted_and_both_are_the_same(monkeypatch):
    a = torch.from_numpy(drawn(n=300)[0]).round(decimals=1)  # ties
    a[:, 3] = torch.where(torch.arange(300) % 2 == 0, -0.0, 0.0) * (a[:, 3] < 1) + a[:, 3] * (a[:, 3] >= 1)
    many = [extreme_sets(a, 80, Stream(1), least) for least in (False, True)]
    monkeypatch.setattr("unmix.scores.interpretability.ties.SORTED", 900)  # three columns at once
    split = [extreme_sets(a, 80, Stream(1), least) for least in (False, True)]
    monkeypatch.setattr("unmix.scores.interpretability.ties.MANY", 100)
    one = [extreme_sets(a, 80, Stream(1), least) for least in (False, True)]
    for first, second, third in zip(many, split, one, strict=True):
        for name in ("rows", "values", "sure", "tied"):
            assert torch.equal(getattr(first, name), getattr(second, name))
            assert torch.equal(getattr(first, name), getattr(third, name))
    for one, least in zip(many, (False, True), strict=True):
        assert torch.equal(extreme_sets(a.double(), 80, Stream(1), least).rows, one.rows)


def test_trials_are_the_same_however_many_are_drawn_at_once(monkeypatch):
    a, e = drawn()
    whole = machine_interpretability(a, embedded(e))
    pairs = np.array([(i, j) for i in range(12) for j in range(i)])
    gain = synergy(a, embedded(e), pairs, draws=20)["gain"]
    monkeypatch.setattr("unmix.scores.interpretability.trials._DRAWN", 5000)  # one or two features at once
    monkeypatch.setattr("unmix.scores.interpretability.synergy.PAIRS", 7)
    assert np.array_equal(machine_interpretability(a, embedded(e)).values, whole.values)
    assert np.allclose(synergy(a, embedded(e), pairs, draws=20)["gain"], gain, atol=1e-12)


def test_an_embedding_does_not_judge_itself():
    a, e = drawn(p=12)
    with pytest.raises(UsageError, match="proves nothing"):
        interpretability_index(a, embedded(a))
    rows = np.arange(0, 400, 3)
    for score in (clarity, monosemanticity, two_choices, intruder, machine_interpretability):
        with pytest.raises(UsageError, match="proves nothing"):
            score(a[rows], embedded(a).take(rows))
    assert np.isfinite(interpretability_index(a, embedded(e)).mean)
    with pytest.raises(UsageError, match="400 images"):
        interpretability_index(a[:30], embedded(e))
    a[3, 2] = np.nan
    with pytest.raises(UsageError, match="row 3, column 2 is nan"):
        interpretability_index(a, embedded(e))


@pytest.mark.parametrize("none", [-1, np.nan, None, ""])
def test_images_without_a_label_are_of_no_class(none):
    kind = np.arange(600) % 4
    labels = np.asarray([none if k == 3 else int(k) for k in kind], object)
    codes = torch.eye(4)[torch.from_numpy(kind)] + 0.01 * torch.rand(
        600, 4, generator=torch.Generator().manual_seed(0)
    )
    found = label_purity(codes, labels, 10, draws=50)
    assert np.allclose(found.values[:3], 1) and found.values[3] == 0
    assert [float(label) for label in found.detail["label"][:3]] == [0, 1, 2]
    assert labelled(labels).within(torch.tensor([[0, 4, 3, 7]]))[0].tolist() == [
        *([1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]),
    ]
