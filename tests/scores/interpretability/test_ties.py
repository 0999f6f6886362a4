"""Ties, copies and few: features that know nothing are at chance, whatever the order of images, and none is lost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.scores.interpretability.sets import clarity, index_of, interpretability_index, label_purity, pairwise
from unmix.scores.interpretability.stimuli import leave_one_out
from unmix.scores.interpretability.synergy import synergy
from unmix.scores.interpretability.ties import constant, extreme_sets, resting
from unmix.scores.interpretability.trials import intruder, machine_interpretability, two_choices
from unmix.scores.interpretability.weighted import monosemanticity
from unmix.scores.similarity import SIMILARITIES
from unmix.scores.similarity.base import embedded
from unmix.scores.similarity.pixels import Pixels
from unmix.worlds.superposition import SuperpositionWorld

SCORED = {
    "index": (interpretability_index, {"draws": 30}),
    "clarity": (clarity, {"draws": 30}),
    "monosemanticity": (monosemanticity, {"draws": 3}),
    "machine": (machine_interpretability, {"draws": 10, "trials": 4, "references": 3}),
    "two choices": (two_choices, {"draws": 10, "trials": 5, "references": 3, "pool": 8}),
    "intruder": (intruder, {"draws": 10, "trials": 5, "count": 3, "pool": 6}),
}
TOLD = ("values", "z", "p", "q", "error", "effective", "active", "tied", "few")


def kinds_of_codes(n, seed=0):
    """Features of every kind: dense, rectified, counts, few active, binary, sparse with a sign, on almost always."""
    draw = np.random.default_rng(seed)
    a = draw.standard_normal((n, 7)).astype(np.float32)
    a[:, 1] = np.maximum(a[:, 1], 0)
    a[:, 2] = draw.poisson(1.0, n)
    a[:, 3] = np.where(np.isin(np.arange(n), draw.permutation(n)[:3]), 1 + draw.random(n), 0)
    a[:, 4] = draw.random(n) < 0.4
    a[:, 5] = np.where(np.abs(a[:, 5]) > 1.0, a[:, 5], 0)
    a[:, 6] = draw.random(n) < 0.9
    return a


def agree(one, two, names=TOLD):
    for name in names:
        left, right = (np.asarray(getattr(side, name), float) for side in (one, two))
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6, equal_nan=True, err_msg=name)


def test_features_that_know_nothing_are_at_chance_whatever_the_order_of_ties():
    n, m = 600, 300
    images = Pixels().bind(SuperpositionWorld().sample(n).x)
    draw = torch.Generator().manual_seed(0)
    codes = torch.zeros(n, m)
    for j in range(m):
        codes[torch.randperm(n, generator=draw)[:2], j] = torch.rand(2, generator=draw) + 0.5
    found = [interpretability_index(codes, images, 5, seed) for seed in range(4)]
    assert max(abs(one.mean_z) for one in found) < 0.15
    assert all(np.array_equal(one.values, found[0].values) for one in found)  # exactly averaged: no order decides
    assert found[0].few.all() and (found[0].active == 2).all() and (found[0].effective == 2).all()
    assert (found[0].tied == n - 2).all() and np.isnan(found[0].outcome(Stream(0)).value)


@pytest.mark.parametrize("rule", ["cosine", "distance"])
@pytest.mark.parametrize("diagonal", [False, True])
def test_the_value_is_the_mean_over_all_orders_of_ties(rule, diagonal):
    """One image is sure, three of five that tie fill the set of four; in another feature two of nearly all."""
    draw = np.random.default_rng(0)
    e = embedded(draw.standard_normal((12, 5)), rule)
    a = torch.zeros(12, 2)
    a[0, 0], a[[2, 4, 5, 8, 11], 0] = 2.0, 1.0
    a[[3, 7], 1] = torch.tensor([1.0, 2.0])
    sets = extreme_sets(a, 4, Stream(0))
    assert sets.tied.tolist() == [5, 10] and sets.sure.tolist() == [1, 2]
    values, error = index_of(a, sets, e, Stream(0), diagonal)
    for j, sure, among, r in (
        (0, [0], [2, 4, 5, 8, 11], 3),
        (1, [3, 7], [i for i in range(12) if i not in (3, 7)], 2),
    ):
        every = torch.tensor([[*sure, *rest] for rest in itertools.combinations(among, r)])
        wanted = float(pairwise(every, e, diagonal).mean())
        assert values[j] == pytest.approx(wanted, abs=1e-6 if rule == "cosine" else 0.06)
    assert np.isfinite(error).all()


def test_orders_of_ties_differ_between_features_and_cover_the_ties():
    a = torch.zeros(40, 3)
    a[0] = 1.0
    sets = extreme_sets(a, 5, Stream(0))
    assert len({tuple(rows[1:]) for rows in sets.rows.tolist()}) == 3 and (sets.rows[:, 0] == 0).all()
    for _, orders in sets.orders(a, 50, Stream(1)):
        assert (orders[:, 0] == 0).all() and all(len(set(rows)) == 5 for rows in orders.tolist())
        assert set(orders[:, 1:].flatten().tolist()) == set(range(1, 40))
    least = extreme_sets(-a, 5, Stream(0), least=True)
    assert least.tied.tolist() == [39] * 3 and torch.equal(least.rows, sets.rows)
    inside = torch.tensor([[3.0, 2, 2, 2, 1, 0, 0, 0]]).T.repeat(1, 30)
    order = extreme_sets(inside, 5, Stream(0))
    assert not order.tied.any() and len({tuple(rows) for rows in order.rows.tolist()}) == 6  # 3! orders inside


def test_where_a_feature_rests_is_zero_for_codes_of_any_sign_and_the_least_for_others():
    a = torch.tensor([[0.0, 0, 0, 2, 1], [0, 0, 0, -3, 2], [0, 1, 1, 1, 1], [3, 1, 2, 0, 1], [5, 4, 6, 5, 7]]).T
    assert resting(a).tolist() == [0, 0, 0, 0, 4]
    assert resting(3 * a - 7).tolist() == [-7, -7, -7, -7, 5]
    assert constant(torch.tensor([[0.3, 0.0, 1e-20], [0.3 + 1e-8, 0.0, 3e-20]])).tolist() == [True, True, False]


def test_few_active_features_are_left_out_and_counted_and_the_others_are_not_moved():
    draw = np.random.default_rng(0)
    kind = draw.integers(0, 6, 300)
    shown = np.eye(6)[kind] + 0.1 * draw.standard_normal((300, 6))
    codes = np.eye(6)[kind] * (1 + draw.random((300, 1)))
    rare = np.zeros((300, 4))
    rare[draw.permutation(300)[:4], [0, 1, 2, 2]] = 1
    every, good = np.c_[codes, rare], interpretability_index(codes, embedded(shown))
    found = interpretability_index(every, embedded(shown))
    assert found.few.tolist() == [False] * 6 + [True] * 3 + [False] and found.detail["constant"] == 1
    assert found.active.tolist()[6:] == [1, 1, 2, 0] and found.mean == pytest.approx(good.mean)
    frame, outcome = found.frame(), found.outcome(Stream(0))
    assert frame["value"].isna().tolist() == [False] * 6 + [True] * 4 and frame["few"].sum() == 3
    assert outcome.value == pytest.approx(good.mean) and outcome.detail["few"].sum() == 3
    assert found.q[:6].max() < 0.01 and np.isnan(found.q[6:]).all() and (found.q[:6] >= found.p[:6]).all()
    noise = interpretability_index(draw.random((300, 200)), embedded(shown))
    assert (noise.q < 0.05).sum() <= 2 < (noise.p < 0.05).sum()
    for name in ("two_choices", "machine_interpretability", "intruder"):
        score = SCORES[name](similarity="Pixels")
        told = score.measure(
            Inputs(codes=Codes(torch.from_numpy(rare).float(), None, 4), x=torch.from_numpy(shown[:, :, None]))
        )
        assert np.isnan(told.value) and told.detail["few"].tolist() == [True] * 3 + [False]


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("similarity", ["Pixels", "OrientedEnergy"])
def test_copies_count_once_and_the_order_of_images_changes_nothing(name, similarity):
    score, options = SCORED[name]
    draw, n = np.random.default_rng(1), 90
    a, images = kinds_of_codes(n), draw.integers(0, 256, (n, 10, 10, 3)).astype(np.uint8)
    recipe = SIMILARITIES.make(similarity)
    whole = score(a, recipe.bind(images), **options)
    again = np.r_[np.arange(n), draw.integers(0, n, 25), [5] * 6]
    rows = again[draw.permutation(len(again))]
    found = score(a[rows], recipe.bind(images[rows]), **options)
    agree(whole, found)
    assert found.detail["copies"] == 31 and whole.detail["copies"] == 0
    if "rows" in found.detail:
        assert np.array_equal(images[rows][found.detail["rows"]], images[whole.detail["rows"]])


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(sorted(SCORED)), st.integers(0, 10**6), st.sampled_from(["cosine", "distance"]))
def test_scores_do_not_change_with_order_with_rising_functions_of_codes_or_a_rotation(name, seed, rule):
    score, options = SCORED[name]
    if name in ("clarity", "monosemanticity"):
        rule = "cosine"
    draw, n = np.random.default_rng(seed), 80
    a, e = kinds_of_codes(n, seed), draw.standard_normal((n, 6))
    whole = score(a, embedded(e, rule), **options)
    rows = np.r_[draw.permutation(n), draw.integers(0, n, 10)]
    agree(whole, score(a[rows], embedded(e[rows], rule), **options))
    turn = np.linalg.qr(draw.standard_normal((6, 6)))[0]
    if rule == "distance":
        moved = score(a, embedded(e @ turn + 3, rule), **options)
    else:
        moved = score(a, embedded(10.0 ** draw.integers(-12, 12) * e @ turn, rule), **options)
    agree(whole, moved)
    if name != "monosemanticity":
        up = np.where(a > 0, np.expm1(2 * a.astype(float)), 5 * a.astype(float) ** 3)
        agree(whole, score(up, embedded(e, rule), **options))


def test_copies_known_only_by_an_embedding_have_equal_activations_and_labels_of_classes_are_none():
    draw = np.random.default_rng(0)
    a, e = draw.random((60, 3)), draw.standard_normal((60, 4))
    twice = interpretability_index(np.r_[a, a[:20]], embedded(np.r_[e, e[:20]]), draws=20)
    agree(twice, interpretability_index(a, embedded(e), draws=20))
    assert twice.detail["copies"] == 20
    other = interpretability_index(np.r_[a, a[:20] + 1], embedded(np.r_[e, e[:20]]), draws=20)
    assert other.detail["copies"] == 0
    of_classes = interpretability_index(
        (a > 0.5).astype(float), embedded(np.eye(5)[draw.integers(0, 5, 60)]), draws=20
    )
    assert of_classes.detail["copies"] == 0
    images = draw.integers(0, 256, (80, 4, 4)).astype(np.uint8)
    images[60:] = images[:20]
    shown = interpretability_index(np.r_[a, a[:20] + 1], embedded(np.r_[e, e[:20]], images=images), draws=20)
    assert shown.detail["copies"] == 20  # copies with unlike activations have their mean
    mixed = np.r_[a[:20] + 0.5, a[20:]]
    agree(shown, interpretability_index(mixed, embedded(e, images=images[:60]), draws=20))


def test_stimuli_that_are_copies_count_once_and_none_is_on_both_sides():
    e = np.random.default_rng(0).standard_normal((8, 3))
    images = np.random.default_rng(1).integers(0, 256, (8, 4, 4)).astype(np.uint8)
    images[6:] = images[0]
    alike = embedded(e, images=images)
    assert leave_one_out(alike, [0, 1, 2], [3, 4, 5]) == leave_one_out(alike, [6, 1, 2, 0, 7], [5, 4, 3])
    for most, least, words in (([0, 1], [2, 7], "among the most and"), ([0, 6], [2, 3], "1 most and 2 least")):
        with pytest.raises(UsageError, match=words):
            leave_one_out(alike, most, least)


def test_purity_counts_copies_once_and_ties_are_averaged():
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (200, 4, 4)).astype(np.uint8), draw.integers(0, 3, 200)
    codes = np.zeros((200, 2))
    codes[:30, 0] = 1  # a binary feature: any 10 of 30
    codes[:, 1] = draw.random(200)
    found = label_purity(codes, labels, 10, draws=50)
    assert found.tied.tolist() == [30, 0]
    rows = np.r_[np.arange(200), [3] * 9]
    copied = label_purity(codes[rows], labels[rows], 10, draws=50, images=images[rows])
    once = label_purity(codes, labels, 10, draws=50, images=images)
    agree(once, copied)
    assert copied.detail["copies"] == 9
    share = np.bincount(labels[:30]).max() / 30
    assert abs(found.values[0] - share) < 0.15 and found.detail["label"][0] == np.bincount(labels[:30]).argmax()
    with pytest.raises(UsageError, match="images: other than 200"):
        label_purity(codes, labels, 10, images=images[:100])


def test_synergy_of_sparse_features_does_not_follow_one_order_of_ties():
    draw = np.random.default_rng(0)
    a = np.where(draw.random((400, 12)) < 0.01, draw.random((400, 12)), 0)
    a[:2] = draw.random((2, 12))
    pairs = np.array(list(itertools.combinations(range(12), 2)))
    e = embedded(draw.standard_normal((400, 6)))
    gains = [synergy(a, e, pairs, rng=seed, draws=10)["gain"] for seed in range(2)]
    assert np.array_equal(*gains)
