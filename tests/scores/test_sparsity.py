"""FVU against its definition, L0 and dead features on codes written by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.scores.sparsity import explained_variance, fvu, hoyer, l0


def test_the_mean_explains_nothing_and_the_rows_themselves_everything():
    h = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) + 5
    assert fvu(h, h.mean(0).expand_as(h)).value == pytest.approx(1, abs=1e-9)
    assert fvu(h, h).value == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.floats(0.01, 100), st.floats(-50, 50))
def test_fvu_does_not_depend_on_scale_and_shift(seed, scale, shift):
    draw = torch.Generator().manual_seed(seed)
    h, error = torch.randn(2, 30, 5, generator=draw, dtype=torch.float64)
    value = fvu(h, h + 0.3 * error).value
    assert fvu(h * scale + shift, (h + 0.3 * error) * scale + shift).value == pytest.approx(value, rel=1e-6)


def test_equal_rows_are_refused():
    with pytest.raises(UsageError, match="no variance"):
        fvu(torch.ones(5, 3), torch.ones(5, 3))


def test_l0_and_dead_by_hand():
    codes = Codes(torch.tensor([[1.0, 0, 2, 0], [0, 0, 3, 0]]), None, 4)
    inputs = Inputs(codes=codes)
    assert SCORES["l0"]().measure(inputs).value == 1.5
    assert SCORES["l0"](threshold=1.5).measure(inputs).value == 1.0
    assert SCORES["dead"]().measure(inputs).value == 0.5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.floats(0.01, 100), st.floats(-50, 50), st.integers(1, 29))
def test_explained_variance_does_not_depend_on_batches_scale_and_mean(seed, scale, shift, cut):
    draw = torch.Generator().manual_seed(seed)
    h, error = torch.randn(2, 30, 5, generator=draw, dtype=torch.float64)
    value = explained_variance(h, h + 0.3 * error).value
    moved = explained_variance(h * scale + shift, (h + 0.3 * error) * scale + shift).value
    assert moved == pytest.approx(value, rel=1e-6)
    parts = torch.cat([(h + 0.3 * error)[:cut], (h + 0.3 * error)[cut:]])
    assert explained_variance(h, parts).value == value
    order = torch.randperm(30, generator=draw)
    assert explained_variance(h[order], (h + 0.3 * error)[order]).value == pytest.approx(value, rel=1e-6)


def test_explained_variance_is_nothing_for_the_mean_and_all_for_the_rows():
    h = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) + 5
    nothing = explained_variance(h, h.mean(0).expand_as(h))
    assert nothing.value == pytest.approx(0, abs=1e-6) == pytest.approx(nothing.chance, abs=1e-6)
    assert explained_variance(h, h).value == 1
    assert explained_variance(h, -h).value < 0
    low, high = explained_variance(h, 0.9 * h).interval
    assert low < explained_variance(h, 0.9 * h).value < high


def test_l0_at_several_thresholds_tells_small_codes_from_none():
    codes = torch.tensor([[1e-6, 5e-5, 5e-4, 0.5], [0.0, 0.0, 0.0, 2.0]])
    assert {level: counts.tolist() for level, counts in l0(codes, (0, 1e-5, 1e-4, 1e-3)).items()} == {
        0: [4, 1],
        1e-5: [3, 1],
        1e-4: [2, 1],
        1e-3: [1, 1],
    }
    outcome = SCORES["l0"]().measure(Inputs(codes=codes))
    assert outcome.value == 2.5 and outcome.detail["at"] == {0.0: 2.5, 1e-5: 2.0, 1e-4: 1.5, 1e-3: 1.0}


def test_hoyer_is_one_for_one_code_and_zero_for_equal_ones():
    codes = torch.tensor([[0, 3.0, 0, 0], [2, 2, -2, 2], [0, 0, 0, 0], [1, 1, 0, 0]])
    found = hoyer(codes)
    assert found[:2] == pytest.approx([1, 0], abs=1e-6) and np.isnan(found[2])
    assert found[3] == pytest.approx(2 - math.sqrt(2))
    assert hoyer(Codes(codes, None, 4).ragged())[3] == pytest.approx(found[3])
    assert hoyer(7 * codes)[3] == pytest.approx(found[3])
    assert SCORES["hoyer"]().measure(Inputs(codes=codes)).value == pytest.approx(np.nanmean(found))
    assert math.isnan(SCORES["hoyer"]().measure(Inputs(codes=0 * codes)).value)


def test_dense_features_fire_on_more_than_the_given_share():
    codes = torch.zeros(10, 4)
    codes[:5, 0], codes[:1, 1], codes[:, 3] = 1, 1, 1
    outcome = SCORES["dense"]().measure(Inputs(codes=codes))
    assert outcome.value == 0.5 and outcome.detail["features"].tolist() == [0, 3]
    assert SCORES["dense"](above=0.5).measure(Inputs(codes=codes)).value == 0.25
    assert SCORES["dead"]().measure(Inputs(codes=codes)).detail["features"].tolist() == [2]
