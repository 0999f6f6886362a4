"""FVU against its definition, L0 and dead features on codes written by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.scores.sparsity import fvu


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


@pytest.mark.parametrize("name", list(SCORES))
def test_every_score_names_what_it_lacks(name):
    score = SCORES[name]()
    with pytest.raises(UsageError, match=f"{name}: needs"):
        score.measure(Inputs())
    assert score.better in ("higher", "lower", "")
    assert score.reference and score.equation
