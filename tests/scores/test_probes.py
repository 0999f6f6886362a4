"""Probes and single-feature scores against scikit-learn and scipy, and what they must never look at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.feature_selection import f_classif
from sklearn.metrics import precision_recall_curve, roc_auc_score

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.scores.association import best_threshold, entries, ranks_of, shifted
from unmix.scores.probes import Labelled, SparseProbe, auc, ranking


def coded(n: int, m: int = 12, seed: int = 0, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Sparse codes of which feature 3 fires with the second class, 5 a little; 7 is constant, 8 zero."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    x = rng.exponential(size=(n, m)) * (rng.random((n, m)) < 0.3)
    x[:, 3] = (y == 1) * (rng.random(n) < 0.8) * (1 + rng.random(n))
    x[:, 5] += 0.4 * (y == 1)
    x[:, 7], x[:, 8] = 2.0, 0.0
    return x.astype(np.float32), y


def parts(classes: int = 2) -> list[Labelled]:
    return [Labelled(*coded(n, seed=seed, classes=classes)) for n, seed in ((400, 0), (200, 1), (300, 2))]


def test_aucs_of_all_features_are_scikit_learns() -> None:
    x, y = coded(300)
    x[:, 2] *= -1
    x[:, 4] = np.round(x[:, 4]) - 1
    positive = np.stack([y == 1, y == 0, np.arange(300) < 20], 1)
    given = ranks_of(x)
    for column, found in enumerate(given.auc(positive)):
        wanted = [roc_auc_score(positive[:, column], x[:, j]) for j in range(12)]
        np.testing.assert_allclose(found, wanted, atol=1e-12)
    ragged = Codes(torch.from_numpy(x), None, 12).ragged()
    np.testing.assert_allclose(ranks_of(ragged).auc(positive), given.auc(positive), atol=1e-12)
    p = given.p(positive[:, :1])[0]
    for j in (0, 2, 3, 4):
        one, two = (x[y == c, j].astype(np.float64) for c in (1, 0))
        test = stats.mannwhitneyu(one, two, method="asymptotic", use_continuity=False)
        assert p[j] == pytest.approx(test.pvalue, rel=1e-9)
    assert p[7] == p[8] == 1 and given.auc(positive)[0, 8] == 0.5
    with pytest.raises(UsageError, match="rows with and rows without"):
        given.auc(np.ones((300, 1), bool))


def test_weighted_auc_counts_rows_as_often_as_they_are_drawn() -> None:
    rng = np.random.default_rng(0)
    scores, positive = np.round(rng.random(60), 1), rng.random(60) < 0.3
    weights = rng.integers(0, 4, 60)
    assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    drawn = np.repeat(np.arange(60), weights)
    assert auc(scores, positive, weights) == pytest.approx(roc_auc_score(positive[drawn], scores[drawn]))
    assert np.isnan(auc(scores, np.zeros(60, bool)))


def test_the_threshold_has_the_largest_f1() -> None:
    x, y = coded(200)
    for j in (0, 3, 8):
        threshold, precision, recall = best_threshold(x[:, j], y == 1)
        p, r, _ = precision_recall_curve(y == 1, x[:, j])
        best = np.nanmax(2 * p * r / np.maximum(p + r, 1e-12))
        fires = x[:, j] > threshold
        assert 2 * precision * recall / (precision + recall) == pytest.approx(best, rel=1e-9)
        assert precision == pytest.approx((y == 1)[fires].mean())
        assert recall == pytest.approx(fires[y == 1].mean())


def test_shifts_keep_runs_and_counts() -> None:
    positive = np.zeros(50, bool)
    positive[10:20] = True
    moved = shifted(positive, 30, 0)
    assert moved.shape == (50, 30) and (moved.sum(0) == 10).all()
    assert (np.abs(np.diff(moved.astype(int), axis=0, append=moved[:1].astype(int))).sum(0) == 2).all()
    assert np.array_equal(moved, shifted(positive, 30, 0)) and not np.array_equal(moved, shifted(positive, 30, 1))


def test_the_best_of_many_features_under_shifts_is_calibrated() -> None:
    given, small = ranks_of(coded(300)[0]), 0
    for seed in range(60):
        y = np.random.default_rng(700 + seed).random(300) < 0.3
        null = given.auc(shifted(y, 99, seed)).max(1)
        small += (1 + (null >= given.auc(y[:, None])[0].max()).sum()) / 100 <= 0.2
    assert 4 <= small <= 22, "12 of 60 are expected; outside this range once in a thousand"


@pytest.mark.parametrize("classes", [2, 4])
def test_anova_is_scikit_learns_and_constants_come_last(classes: int) -> None:
    from scipy import sparse

    x, y = coded(300, classes=classes)
    order = ranking(sparse.csc_array(x.astype(np.float64)), y, "anova")
    keep = [j for j in range(12) if j not in (7, 8)]
    wanted = np.asarray(keep)[np.argsort(-f_classif(x[:, keep], y)[0])]
    assert order[:10].tolist() == wanted.tolist() and set(order[10:].tolist()) == {7, 8}
    mean = ranking(sparse.csc_array(x.astype(np.float64)), y, "mean")
    gaps = [max(abs(x[y == c, j].mean() - x[y != c, j].mean()) for c in range(classes)) for j in range(12)]
    assert mean[0] == int(np.argmax(gaps))


def test_probes_find_the_feature_and_rise_with_k() -> None:
    found = SparseProbe().measure(*parts(), rng=0)
    assert [result.active for result in found] == [1, 2, 5, 12]
    assert found[0].chosen.tolist() == [3]
    assert 0.85 < found[0].auc.value < 0.95 and found[1].auc.value > found[0].auc.value
    for result in found:
        assert result.auc.interval[0] < result.auc.value < result.auc.interval[1]
        assert result.auc.chance == result.balanced.chance == 0.5 and result.converged
    test = parts()[2]
    fires = np.asarray(test.x)[:, 3] > 0
    assert found[0].auc.value == pytest.approx(roc_auc_score(test.y, np.asarray(test.x)[:, 3]), abs=0.05)
    assert found[0].balanced.value == pytest.approx((fires[test.y == 1].mean() + (~fires)[test.y == 0].mean()) / 2)


def test_nothing_is_chosen_on_test_rows() -> None:
    train, validation, test = parts()
    poisoned = np.zeros_like(test.x)
    poisoned[:, 0] = test.y
    plain = SparseProbe().measure(train, validation, test)
    other = SparseProbe().measure(train, validation, Labelled(poisoned, test.y))
    for one, two in zip(plain, other, strict=True):
        assert one.chosen.tolist() == two.chosen.tolist() and one.strength == two.strength
    # Labels that mean nothing give chance on the test rows, however well the training rows are fitted.
    noise = [p._replace(y=np.random.default_rng(90 + i).integers(2, size=len(p.y))) for i, p in enumerate(parts())]
    for result in SparseProbe().measure(*noise):
        assert abs(result.auc.value - 0.5) < 0.1


def test_classes_may_be_text_and_several_and_groups_widen_the_interval() -> None:
    names = np.asarray(["bird", "cat", "dog", "fish"])
    several = [p._replace(y=names[p.y]) for p in parts(4)]
    found = SparseProbe(active=(1, None), select="mean").measure(*several)
    assert found[0].balanced.chance == 0.25 and found[0].chosen.tolist() == [3]
    assert found[0].auc.value > 0.55
    train, validation, test = parts()
    doubled = Labelled(np.tile(test.x, (8, 1)), np.tile(test.y, 8))
    grouped = doubled._replace(groups=np.tile(np.arange(len(test.y)), 8))
    (rows,), (groups,) = (SparseProbe(active=(1,)).measure(train, validation, t) for t in (doubled, grouped))
    width = [result.auc.interval[1] - result.auc.interval[0] for result in (rows, groups)]
    assert width[1] > 2 * width[0] and rows.auc.value == pytest.approx(groups.auc.value)


def test_bad_labels_are_one_sentence() -> None:
    train, validation, test = parts()
    cases = [
        ((train._replace(y=np.zeros(400)), validation, test), "only one class"),
        ((train, validation._replace(y=np.zeros(200)), test), "no validation row of class 1"),
        ((train, validation, test._replace(y=np.full(300, 5))), "class 5 is among the test rows only"),
        ((train, validation, test._replace(y=test.y[:9])), "9 for 300 test rows"),
        ((train._replace(y=np.full(400, np.nan)), validation, test), "NaN"),
        ((train, validation, test._replace(x=np.asarray(test.x)[:, :4])), "unlike numbers of features"),
        ((train, validation, test._replace(groups=np.zeros(7))), r"groups: expected \[300\], .* got \[7\]"),
    ]
    for given, message in cases:
        with pytest.raises(UsageError, match=message):
            SparseProbe().measure(*given)
    with pytest.raises(UsageError, match="must be positive"):
        SparseProbe(active=(0,)).measure(train, validation, test)
    bad = np.asarray(train.x).copy()
    bad[3, 2] = np.nan
    with pytest.raises(UsageError, match="row 3, column 2"):
        entries(bad)
