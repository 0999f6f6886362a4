"""Boosted trees: compiled against plain, against scikit-learn, and what their importances must do."""

from __future__ import annotations

import numpy as np
import pytest

from unmix.core.errors import UsageError
from unmix.core.seeds import untouched
from unmix.kernels.boosting import binned, boost


def drawn(n=700, m=5, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.integers(0, 4, (n, 3))
    mixed = z @ rng.standard_normal((3, m)) + 0.3 * rng.standard_normal((n, m))
    return z, mixed.astype(np.float32)


@pytest.mark.parametrize("classes", [0, 2, 4])
@pytest.mark.parametrize(("depth", "count"), [(1, 16), (3, 16), (1, 256), (3, 256)])
def test_compiled_equals_plain(classes, depth, count):
    z, h = drawn()
    y = {0: h[:, 0] + z[:, 1], 2: z[:, 0] > 1, 4: z[:, 0]}[classes]
    bins, test = binned(h[:500], h[500:], count)
    one, two = (boost(bins, y[:500], classes, test, 6, depth, backend=b) for b in ("numba", "plain"))
    for name in ("importances", "raw", "test_raw"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), abs=1e-10)
    assert one.importances.sum() > 0


@pytest.mark.parametrize("classes", [0, 2, 4])
def test_importances_and_predictions_are_those_of_scikit_learn(classes):
    with untouched():
        from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    z, h = drawn(900, 5, 1)
    y = {0: z[:, 0] + h[:, 1] ** 2, 2: z[:, 0] > 1, 4: z[:, 0]}[classes]
    model = (GradientBoostingClassifier if classes else GradientBoostingRegressor)(n_estimators=30, random_state=0)
    model.fit(h[:700], y[:700])
    bins, test = binned(h[:700], h[700:])
    found = boost(bins, y[:700], classes, test, rounds=30)
    assert found.importances / found.importances.sum() == pytest.approx(model.feature_importances_, abs=0.02)
    guess = model.predict(h[700:])
    if classes == 0:
        assert np.std(found.test_raw[:, 0] - guess) < 0.1 * np.std(y)
    else:
        mine = found.test_raw[:, 0] > 0 if classes == 2 else found.test_raw.argmax(1)
        assert (mine == guess).mean() > 0.9


@pytest.mark.parametrize("classes", [0, 2, 6])
def test_importances_on_noisy_codes_are_those_of_scikit_learn_where_every_value_has_a_bin(classes):
    with untouched():
        from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    n, draw = 900, np.random.default_rng(7)
    z = np.stack([draw.integers(size, size=n) for size in (3, 6, 10, 8)], 1)
    codes = (z - z.mean(0)) / z.std(0) + 0.5 * draw.standard_normal(z.shape)
    y = {0: z[:, 1] + 0.3 * draw.standard_normal(n), 2: z[:, 1] > 2, 6: z[:, 1]}[classes]
    model = GradientBoostingClassifier if classes else GradientBoostingRegressor
    right = model(random_state=0, n_estimators=40).fit(codes, y).feature_importances_
    bins, _ = binned(codes, None, 256)
    assert bins.dtype == np.uint16 and len(np.unique(bins[:, 0])) == n
    found = boost(bins, y, classes, rounds=40).importances
    assert found / found.sum() == pytest.approx(right, abs=0.02)


def test_equal_columns_share_the_credit_and_dead_ones_get_none():
    z, h = drawn()
    doubled = np.concatenate([h[:, :2], h[:, :2], np.ones((len(h), 1))], 1)
    found = boost(binned(doubled)[0], z[:, 0], 4, rounds=10).importances
    assert found[:2] == pytest.approx(found[2:4], rel=1e-6)
    assert found[4] == 0
    assert not boost(binned(np.ones((50, 2)))[0], np.arange(50) % 2, 2, rounds=3).importances.any()


def test_bins_follow_values_where_they_are_few_and_quantiles_where_they_are_many():
    values = np.array([[3.0], [1.0], [3.0], [2.0]])
    own, other = binned(values, np.array([[1.4], [1.6], [9.0]]))
    assert own[:, 0].tolist() == [2, 0, 2, 1] and other[:, 0].tolist() == [0, 1, 2]
    many = np.random.default_rng(0).standard_normal((1000, 1))
    counts = np.bincount(binned(many, count=10)[0][:, 0])
    assert len(counts) == 10 and counts.min() == counts.max() == 100


def test_what_cannot_be_boosted_is_refused():
    bins = np.zeros((4, 2), np.uint8)
    with pytest.raises(UsageError, match="class 1 of 3 has no row"):
        boost(bins, np.array([0, 0, 2, 2]), 3)
    with pytest.raises(UsageError, match="3 targets"):
        boost(bins, np.zeros(3), 0)
    with pytest.raises(UsageError, match="backend"):
        boost(bins, np.zeros(4), 0, backend="c")
    with pytest.raises(UsageError, match="2 to 256"):
        binned(np.zeros((3, 1)), count=300)
