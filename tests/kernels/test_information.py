"""Mutual information by counting: compiled against plain and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.errors import UsageError
from unmix.core.seeds import untouched
from unmix.kernels.information import mutual_information


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99), st.booleans())
def test_compiled_equals_plain_for_any_weights(n, m, f, seed, own):
    rng = np.random.default_rng(seed)
    bins, labels = rng.integers(0, 5, (m, f if own else 1, n)), rng.integers(0, 4, (f, n))
    weights = rng.multinomial(n, np.full(n, 1 / n), 3)
    one, two = (mutual_information(bins, labels, weights, b) for b in ("numba", "plain"))
    assert one[0] == pytest.approx(two[0], abs=1e-12) and one[1] == pytest.approx(two[1], abs=1e-12)
    assert (one[0] <= one[1][:, None] + 1e-12).all()


def test_it_is_scikit_learns():
    with untouched():
        from sklearn.metrics import mutual_info_score

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, (2, 3000))
    bins = (labels[[0, 1, 0]] + rng.integers(0, 3, (3, 3000)))[:, None]
    found, entropy = mutual_information(bins, labels)
    for i in range(3):
        for j in range(2):
            assert found[0, i, j] == pytest.approx(mutual_info_score(labels[j], bins[i, 0]), abs=1e-12)
    assert entropy[0, 0] == pytest.approx(mutual_info_score(labels[0], labels[0]), abs=1e-12)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="do not fit"):
        mutual_information(np.zeros((2, 2, 5)), np.zeros((3, 5)))
    with pytest.raises(UsageError, match="whole numbers from 0"):
        mutual_information(-np.ones((2, 1, 5)), np.zeros((3, 5)))
