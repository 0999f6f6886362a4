"""The transformer: scikit-learn's own checks, recipes as parameters, dense and sparse codes, pipelines."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from unmix.core.errors import UsageError
from unmix.finders import FINDERS
from unmix.interop.sklearn import UnmixTransformer

from ..contracts.test_finders import QUICK


def of(kind, **fields):
    return UnmixTransformer(FINDERS.make({"kind": kind, **fields}))


CHECKED = [
    of("PCA", width=1),
    of("NMF", width=1),
    of("KMeans", width=2, starts=1),
    of("TopKSAE", width=5, k=2, steps=15, batch=16),
    of("SAE", width=5, active=2.0, steps=15, batch=16),
    of("SparseCoding", width=5, penalty=0.1, passes=2, batch=16),
]


@parametrize_with_checks(CHECKED)
def test_what_scikit_learn_asks_of_a_transformer(estimator, check):
    state = np.random.get_state()  # noqa: NPY002
    try:
        check(estimator)
    finally:
        np.random.set_state(state)  # noqa: NPY002  # a check of scikit-learn's draws from the global state itself


@pytest.fixture(scope="module")
def rows():
    draw = np.random.default_rng(0)
    codes = draw.random((300, 8)) * (draw.random((300, 8)) < 0.3)
    return codes @ draw.standard_normal((8, 6)) + 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("estimator", CHECKED, ids=lambda e: e.finder.kind)
def test_codes_dense_and_sparse_are_those_of_the_features(estimator, dtype, rows):
    h = np.abs(rows).astype(dtype)
    before = h.copy()
    fitted = clone(estimator).fit(h)
    codes = fitted.transform(h)
    assert codes.dtype == dtype and codes.shape == (300, len(fitted.components_))
    features = estimator.finder.fit(h, rng=0)
    assert np.array_equal(fitted.components_, features.atoms.numpy())
    close = features.encode(torch.from_numpy(h)).dense().numpy()
    assert np.allclose(codes, close, atol=1e-3) and np.mean(np.abs(codes - close)) < 1e-5
    thin = clone(estimator).set_params(sparse_output=True).fit(h).transform(h)
    assert sparse.issparse(thin) and thin.dtype == dtype
    assert np.array_equal(thin.toarray(), codes)
    back = fitted.inverse_transform(codes)
    assert back.dtype == dtype and np.allclose(back, codes @ fitted.components_ + fitted.bias_, atol=1e-5)
    assert np.allclose(fitted.inverse_transform(thin), back, atol=1e-6)
    assert np.array_equal(h, before)


@pytest.mark.parametrize("name", list(QUICK))
def test_every_finder_is_a_transformer(name, sample):
    h = sample.x.double().numpy()
    h = np.abs(h) if FINDERS[name].nonnegative else h
    fitted = UnmixTransformer(FINDERS[name](**QUICK[name])).fit(h)
    codes = fitted.transform(h)
    assert codes.dtype == np.float64 and codes.shape == (len(h), QUICK[name]["width"])
    assert np.isfinite(codes).all() and (codes != 0).any()
    one_by_one = np.concatenate([fitted.transform(h[place : place + 1]) for place in range(5)])
    assert np.allclose(one_by_one, codes[:5], atol=1e-6)
    explained = 1 - np.square(h - fitted.inverse_transform(codes)).sum() / np.square(h - h.mean(0)).sum()
    assert fitted.score(h) == pytest.approx(explained, abs=1e-5)


def test_the_score_is_the_explained_variance(rows):
    whole = of("PCA", width=6).fit(rows)
    assert whole.score(rows) == pytest.approx(1, abs=1e-9)
    one = of("PCA", width=1).fit(rows)
    values = np.linalg.eigvalsh(np.cov(rows.T))
    assert one.score(rows) == pytest.approx(values[-1] / values.sum(), abs=1e-6)
    with pytest.raises(ValueError, match="all rows are equal"):
        one.score(np.ones((5, 6)))


def test_a_finder_may_be_a_recipe_or_a_name_and_its_fields_are_parameters(rows):
    named = UnmixTransformer("PCA")
    assert named.get_params() == {"finder": "PCA", "seed": 0, "sparse_output": False}
    named.set_params(finder__width=2)
    assert named.finder == FINDERS["PCA"](width=2)
    assert named.get_params()["finder__width"] == 2
    assert "finder__width" not in named.get_params(deep=False)
    copy = clone(named)
    assert copy.finder == named.finder and copy is not named
    copy.set_params(finder="KMeans", finder__width=3, seed=4)
    assert (copy.finder.kind, copy.finder.width, copy.seed) == ("KMeans", 3, 4)
    assert named.fit(rows).transform(rows).shape == (300, 2)
    for wrong in ({"finder__widht": 3}, {"finder__width": 0}, {"finders": 1}):
        with pytest.raises(ValueError, match=r"width|widht|finders"):
            named.set_params(**wrong)
    assert named.finder.width == 2
    with pytest.raises(UsageError, match="no such finder"):
        UnmixTransformer("Nothing").fit(rows)
    assert UnmixTransformer().finder == "TopKSAE"


def test_grid_search_and_pipelines(rows):
    search = GridSearchCV(of("PCA", width=1), {"finder__width": [1, 2, 4]}, cv=3).fit(rows)
    assert search.best_params_ == {"finder__width": 4}
    pipe = make_pipeline(StandardScaler(), of("PCA", width=2)).set_output(transform="pandas")
    frame = pipe.fit_transform(rows)
    assert list(frame.columns) == ["unmixtransformer0", "unmixtransformer1"]
    assert list(pipe.get_feature_names_out()) == list(frame.columns)


def test_the_seed_decides(rows):
    make = CHECKED[3]
    one, two = (clone(make).set_params(seed=seed).fit(rows) for seed in (0, 0))
    other = clone(make).set_params(seed=1).fit(rows)
    assert np.array_equal(one.components_, two.components_)
    assert not np.array_equal(one.components_, other.components_)


@pytest.mark.parametrize("estimator", CHECKED, ids=lambda e: e.finder.kind)
def test_pickles_fitted_or_not(estimator, rows):
    h = np.abs(rows)
    assert pickle.loads(pickle.dumps(clone(estimator))).finder == estimator.finder
    fitted = clone(estimator).fit(h)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.transform(h), fitted.transform(h))
    assert again.features_.digest == fitted.features_.digest


def test_codes_of_another_width_are_refused(rows):
    fitted = of("PCA", width=2).fit(rows)
    with pytest.raises(ValueError, match="X has 3 features, but UnmixTransformer gives codes of 2"):
        fitted.inverse_transform(np.ones((4, 3)))
    with pytest.raises(ValueError, match="X has 4 features, but UnmixTransformer is expecting 6"):
        fitted.transform(rows[:, :4])
