"""Votes and mean differences of groups: compiled against plain, and their limits."""

from __future__ import annotations

import numpy as np
import pytest

from unmix.core.errors import UsageError
from unmix.kernels.votes import groups_of, least_variance, mean_differences


def drawn(seed=0, n=300, f=3, m=4, votes=200):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (f, n))
    codes = np.concatenate([labels.T + 0.1 * rng.standard_normal((n, f)), rng.standard_normal((n, m - f))], 1)
    return codes, labels, rng.integers(0, f, votes), rng.integers(0, n, (votes, 16)), rng.random((votes, 16))


def test_groups_hold_the_rows_of_each_value():
    labels = np.array([[1, 0, 1, 2, 0]])
    groups = groups_of(labels)
    for row in range(5):
        begin, size = groups.begin[0, row], groups.size[0, row]
        assert set(groups.order[0, begin : begin + size]) == set(np.flatnonzero(labels[0] == labels[0, row]))


@pytest.mark.parametrize("seed", range(3))
def test_compiled_equals_plain(seed):
    codes, labels, factor, rows, picks = drawn(seed)
    groups, scale = groups_of(labels), codes.var(0, ddof=1)
    one, two = (least_variance(codes, groups, factor, rows[:, 0], picks, scale, b) for b in ("numba", "plain"))
    assert (one == two).all()
    assert (one == factor).mean() > 0.95  # the code of the factor that is held varies least
    a, b = (mean_differences(codes, groups, factor, rows, picks, backend) for backend in ("numba", "plain"))
    assert a == pytest.approx(b, abs=1e-12)
    assert (a[:, :3].argmin(1) == factor).mean() > 0.95


@pytest.mark.parametrize("backend", ["numba", "plain"])
def test_codes_of_scale_zero_are_never_taken_and_nan_always(backend):
    codes, labels, factor, rows, picks = drawn()
    codes[:, 3] = 0
    groups, scale = groups_of(labels), codes.var(0, ddof=1)
    assert not (least_variance(codes, groups, factor, rows[:, 0], picks, scale, backend) == 3).any()
    scale[3] = np.nan
    assert (least_variance(codes, groups, factor, rows[:, 0], picks, scale, backend) == 3).all()


def test_one_row_has_no_variance():
    codes, labels, factor, rows, picks = drawn()
    with pytest.raises(UsageError, match="b >= 2"):
        least_variance(codes, groups_of(labels), factor, rows[:, 0], picks[:, :1], np.ones(4))
