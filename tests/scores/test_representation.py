"""Diagnostics without labels, where their values are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.scores.representation import alignment, effective_rank, lidar, uniformity


def _normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rank_is_that_of_the_data():
    h = _normal(4000, 8)
    assert effective_rank(h).value == pytest.approx(8, abs=0.05)
    assert effective_rank(h[:, :1] * torch.ones(8)).value == pytest.approx(1, abs=1e-6)
    shifted = h + 100
    assert effective_rank(shifted).value == pytest.approx(effective_rank(h).value, abs=1e-6)
    assert SCORES["rankme"]().measure(Inputs(h=shifted)).value < 2
    assert effective_rank(torch.ones(5, 3)).value == 0


def test_lidar_takes_views_by_their_datum_in_any_order():
    data, group = _normal(300, 6, 1), torch.arange(300).repeat(4)
    h = data.repeat(4, 1) + 0.1 * _normal(1200, 6, 2)
    assert lidar(h, group).value == pytest.approx(6, abs=0.2)
    order = torch.from_numpy(np.random.default_rng(0).permutation(1200))
    assert lidar(h[order], group[order]).value == pytest.approx(lidar(h, group).value, abs=1e-9)
    flat = data.clone()
    flat[:, 2:] = 0
    assert lidar(flat.repeat(4, 1) + 0.1 * _normal(1200, 6, 2), group).value < 3
    for score in ("lidar", "alignment"):
        assert SCORES[score]().measure(Inputs(h=h, group=group)).value >= 0
        with pytest.raises(UsageError, match="no datum has two views"):
            SCORES[score]().measure(Inputs(h=h, group=torch.arange(1200)))
        with pytest.raises(UsageError, match="row 1, column 2 is nan"):
            bad = h.clone()
            bad[1, 2] = float("nan")
            SCORES[score]().measure(Inputs(h=bad, group=group))


def test_alignment_and_uniformity_have_their_known_values():
    h, group = _normal(400, 5), torch.arange(200).repeat_interleave(2)
    unit = torch.nn.functional.normalize(h)
    pairs = (unit[::2] - unit[1::2]).square().sum(1).mean().item()
    assert alignment(h, group).value == pytest.approx(pairs, abs=1e-12)
    assert alignment(h[::2].repeat_interleave(2, 0), group).value == pytest.approx(0, abs=1e-12)
    assert alignment(h, group).value == pytest.approx(2, abs=0.2)
    two = torch.tensor([[1.0, 0], [-2, 0]])
    assert uniformity(two).value == pytest.approx(-8, abs=1e-9)
    assert uniformity(torch.ones(4, 3)).value == pytest.approx(0, abs=1e-9)
    large = _normal(5000, 5, 3)
    assert uniformity(large).value == pytest.approx(uniformity(large[:2000]).value, abs=0.05)
