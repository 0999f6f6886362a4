"""Embeddings that are what is scored, in other words: refused; others, of any width: not."""

from __future__ import annotations

import numpy as np
import pytest

from unmix.core.errors import UsageError
from unmix.scores.interpretability.sets import interpretability_index
from unmix.scores.similarity.base import embedded

DRAW = np.random.default_rng(0)
CODES = DRAW.standard_normal((400, 16)).astype(np.float32)
TURN = np.linalg.qr(DRAW.standard_normal((16, 16)))[0]
SAME = {
    "twice": 2 * CODES,
    "standardised": (CODES - CODES.mean(0)) / CODES.std(0),
    "offset": CODES + 1e4,
    "in other units": CODES * 1e-13,
    "columns permuted and turned": -CODES[:, ::-1],
    "columns in units of their own": CODES * 10.0 ** DRAW.uniform(-3, 3, 16) + DRAW.uniform(-5, 5, 16),
    "rotated": CODES @ TURN,
    "mixed": CODES @ DRAW.standard_normal((16, 16)),
    "wider": CODES @ DRAW.standard_normal((16, 60)),
    "narrower": CODES @ DRAW.standard_normal((16, 4)),
    "some columns": CODES[:, :5],
    "with others beside": np.c_[CODES, DRAW.standard_normal((400, 40))],
    "half precision": CODES.astype(np.float16),
    "two decimals": CODES.round(2),
    "integers": (CODES * 30).round().astype(np.int16),
    "a little noise": CODES + 1e-3 * DRAW.standard_normal(CODES.shape),
}
OTHER = {
    "unrelated": DRAW.standard_normal((400, 16)),
    "as wide as there are images": DRAW.standard_normal((400, 400)),
    "nearly as wide": DRAW.standard_normal((400, 395)),
    "far wider": DRAW.standard_normal((400, 3000)),
    "a single column": DRAW.standard_normal((400, 1)),
    "of low rank": DRAW.standard_normal((400, 3)) @ DRAW.standard_normal((3, 500)),
    "correlated": CODES + 0.3 * DRAW.standard_normal(CODES.shape),
    "rectified": np.maximum(CODES @ DRAW.standard_normal((16, 32)), 0),
    "classes": np.eye(300)[DRAW.integers(0, 300, 400)],
    "constant": np.ones((400, 3)),
}
WIDE = DRAW.standard_normal((60, 128)).astype(np.float32)  # more features than images: anything is affine in them


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("rule", ["cosine", "distance"])
def test_an_affine_function_of_what_is_scored_is_refused(name, rule):
    with pytest.raises(UsageError, match=r"affine function .* which proves nothing"):
        interpretability_index(CODES, embedded(SAME[name], rule), draws=2)


@pytest.mark.parametrize("name", OTHER)
def test_other_embeddings_are_taken_whatever_their_width(name):
    assert np.isfinite(interpretability_index(CODES, embedded(OTHER[name]), draws=2).mean)


def test_with_more_features_than_images_columns_and_distances_are_compared():
    turn = np.linalg.qr(DRAW.standard_normal((128, 128)))[0]
    for same in (2 * WIDE, WIDE[:, ::-1] + 3, WIDE / WIDE.std(0), WIDE[:, :70], WIDE @ turn):
        with pytest.raises(UsageError, match="proves nothing"):
            interpretability_index(WIDE, embedded(same), draws=2)
    for width in (3, 128, 5000):
        for offset in (0, 100):
            other = DRAW.standard_normal((60, width)) + offset
            assert np.isfinite(interpretability_index(WIDE, embedded(other), draws=2).mean)


def test_sparse_features_of_few_images_are_no_affine_function_by_accident():
    codes = np.where(DRAW.random((300, 500)) < 0.01, DRAW.random((300, 500)), 0)
    one_hot = np.eye(12)[DRAW.integers(0, 12, 30)]
    for given, n in ((codes, 300), (one_hot, 30)):
        for width in (8, n - 9, n, 3 * n):
            assert np.isfinite(
                interpretability_index(given, embedded(DRAW.standard_normal((n, width))), draws=2).mean
            )
        with pytest.raises(UsageError, match="proves nothing"):
            interpretability_index(given, embedded(2 * given + 1), draws=2)


def test_copies_do_not_make_an_embedding_fit():
    """Ten images, forty times each: ten rows, not four hundred, speak for a fit in eight columns."""
    draw = np.random.default_rng(1)
    a, e = draw.standard_normal((30, 4)), draw.standard_normal((30, 25))
    assert np.isfinite(interpretability_index(np.tile(a, (20, 1)), embedded(np.tile(e, (20, 1))), draws=2).mean)
