"""Pictures of learning regimes: what they say, censored medians, and refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unmix.core.errors import UsageError
from unmix.report import regimes


def test_each_picture_is_one_call_and_the_same_bytes_twice():
    for draw in (regimes.hyperboloids, regimes.beta_plane):
        one, two = draw(), draw()
        assert one.panels == two.panels and len(one.panels) == 3 and one.caption


def test_the_separatrix_parts_the_starts_that_cross_zero():
    down, balanced, up = regimes.beta_plane().panels
    assert "0 of 14" in balanced and "0 of 14" in up and "0 of 14" not in down


def test_maps_show_means_over_seeds():
    rows = [{"scale": s, "balance": b, "test": s + b + seed} for s in (1, 2) for b in (3, 5) for seed in (0, 2)]
    (svg,) = regimes.phase_portrait(pd.DataFrame(rows), {"test": "Test"}).panels
    assert "Test: from 5 to 8." in svg
    with pytest.raises(UsageError, match="columns other are missing"):
        regimes.phase_portrait(pd.DataFrame(rows), {"other": "x"})


def test_medians_of_censored_times():
    assert regimes.censored_median([10, np.nan, 30], [50, 50, 50]) == 30
    assert regimes.censored_median([10, np.nan, np.nan], [50, 50, 50]) is None
    assert regimes.censored_median([10, 20], [50, 50]) == 15
    assert regimes.censored_median([10, 30, np.nan], [50, 50, 20]) is None
    table = pd.DataFrame({"group": ["a", "b"], "steps": [10, np.nan], "budget": [50, 50]})
    (svg,) = regimes.times_to_threshold(table, "Steps").panels
    assert "a 10; b &gt; 50" in svg


def test_filters_are_tiles():
    (svg,) = regimes.filter_sheet({"a": np.random.default_rng(0).standard_normal((5, 3, 3))}).panels
    assert "5 filters, a." in svg and "<image" in svg
    with pytest.raises(UsageError, match="expected"):
        regimes.filter_sheet({"a": np.zeros((3, 3))})
