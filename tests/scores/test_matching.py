"""Invariances and golden numbers of the matching scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.errors import UsageError
from unmix.scores.matching import dictionary_chance, dictionary_mcc, mcc


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_mcc_is_one_for_permuted_scaled_flipped_latents(seed, count):
    draw = np.random.default_rng(seed)
    z = draw.standard_normal((40, count))
    factors = draw.uniform(0.5, 3, count) * draw.choice([-1, 1], count)
    order = draw.permutation(count)
    outcome = mcc((z * factors)[:, order], z)
    assert outcome.value == pytest.approx(1, abs=1e-6)
    assert (np.sign(outcome.detail["correlations"]) == np.sign(factors)).all()
    assert (order[outcome.detail["pairs"]] == np.arange(count)).all()


def test_constant_column_counts_zero_and_is_not_nan():
    z = np.random.default_rng(0).standard_normal((50, 3))
    codes = z.copy()
    codes[:, 1] = 7.0
    outcome = mcc(codes, z)
    assert np.isfinite(outcome.value)
    assert outcome.detail["correlations"][1] == pytest.approx(0, abs=0.5)
    only = mcc(np.full((50, 1), 3.0), z[:, :1])
    assert only.value == 0


def test_fewer_codes_than_latents_cannot_raise_the_score():
    z = np.random.default_rng(0).standard_normal((60, 4))
    assert mcc(z[:, :2], z).value == pytest.approx(0.5, abs=1e-6)
    atoms = torch.eye(6)
    assert dictionary_mcc(atoms[:3], atoms).value == pytest.approx(0.5, abs=1e-9)


def test_mcc_chance_is_what_unrelated_codes_get():
    draw = np.random.default_rng(0)
    z, codes = draw.standard_normal((100, 10)), draw.standard_normal((100, 10))
    outcome = mcc(codes, z, draws=8)
    assert abs(outcome.value - outcome.chance) < 0.05


@pytest.mark.parametrize(
    ("width", "atoms", "chance"),
    [(8, 16, 0.62), (8, 64, 0.76), (8, 128, 0.80), (16, 128, 0.62), (32, 64, 0.42), (32, 128, 0.46)],
)
def test_dictionary_chance_golden(width, atoms, chance):
    assert dictionary_chance(atoms, atoms, width, 0, draws=6) == pytest.approx(chance, abs=0.02)


def test_signed_mode_sees_a_flipped_atom():
    truth = torch.eye(5)
    flipped = truth.clone()
    flipped[2] *= -1
    assert dictionary_mcc(flipped, truth).value == pytest.approx(1)
    assert dictionary_mcc(flipped, truth, signed=True).value == pytest.approx(0.6)


def test_assignment_is_never_worse_than_greedy():
    draw = np.random.default_rng(1)
    for _ in range(20):
        a, b = draw.standard_normal((7, 4)), draw.standard_normal((7, 4))
        cosines = np.abs((a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T)
        left, greedy = cosines.copy(), 0.0
        for _ in range(7):
            i, j = np.unravel_index(left.argmax(), left.shape)
            greedy += left[i, j] / 7
            left[i, :], left[:, j] = -1, -1
        assert dictionary_mcc(a, b).value >= greedy - 1e-9


def test_unlike_shapes_are_refused():
    with pytest.raises(UsageError, match="40 rows, latents 30"):
        mcc(np.zeros((40, 2)), np.zeros((30, 2)))
    with pytest.raises(UsageError, match="width 3, truth 4"):
        dictionary_mcc(torch.eye(3), torch.eye(4))
    with pytest.raises(UsageError, match="row 2, column 0"):
        bad = np.zeros((5, 1))
        bad[2] = np.nan
        mcc(bad, np.zeros((5, 1)))
