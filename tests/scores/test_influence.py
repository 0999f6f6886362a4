"""Single rows that decide a score are named; heavy tails and rare features are not taken for such rows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from unmix.core.errors import Notice
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.scores.influence import leading_rows
from unmix.scores.sparsity import fvu


@pytest.fixture
def z() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((200, 3))


@pytest.mark.parametrize("name", ["mcc", "typed_mcc", "sap"])
def test_rows_that_make_unrelated_codes_look_perfect_are_named(name, z):
    codes = np.random.default_rng(1).standard_normal((200, 3))
    for place in range(3):  # broken samples, each huge in one latent and one code
        z[17 + place, place] = codes[17 + place, place] = 1e4
    order = np.random.default_rng(2).permutation(200)
    rows = sorted(int(np.flatnonzero(order == 17 + place)[0]) for place in range(3))
    told = rf"{name}: 1, and 0\.[01]\d* without rows {', '.join(map(str, rows))}, which hold most of the variance"
    with pytest.warns(Notice, match=told):
        SCORES[name]().measure(Inputs(codes=codes[order], z=z[order]), 0)


@pytest.mark.parametrize("name", ["mcc", "typed_mcc", "r2", "r2_linear", "procrustes_scaled", "linear_ceiling"])
def test_a_row_that_hides_good_codes_is_named(name, z):
    codes = z + 0.05 * np.random.default_rng(1).standard_normal(z.shape)
    codes[5] = [3e6, -2e6, 5e6]
    told = rf"{name}: .*, and (0\.9\d*|1) without row 5, which holds most of the variance of column 0 of"
    with pytest.warns(Notice, match=told):
        SCORES[name]().measure(Inputs(codes=codes, h=codes, z=z), 0)


def test_a_row_that_makes_a_reconstruction_look_good_is_named(z):
    z[9] = 1e5
    with pytest.warns(Notice, match=r"fvu: .*e-0\d, and 1 without row 9, which holds most of the variance"):
        fvu(z, np.where(np.arange(200)[:, None] == 9, z, 0.0))


def test_ordinary_rows_and_rare_features_say_nothing():
    draw = np.random.default_rng(0)
    heavy = draw.exponential(size=(200, 5)) * (draw.random((200, 5)) < 0.1)
    rare = np.zeros((200, 2))
    rare[[3, 50], [0, 1]] = 4.0
    z = np.concatenate([heavy, rare, draw.laplace(size=(200, 2))], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("mcc", "typed_mcc", "sap", "r2"):
            SCORES[name]().measure(Inputs(codes=z + 0.01 * draw.standard_normal(z.shape), h=z, z=z), 0)


def test_up_to_three_rows_count_together(z):
    z[[4, 8], 1] = 500.0, -500.0
    assert leading_rows(torch.from_numpy(z)) == {4: 1, 8: 1}
