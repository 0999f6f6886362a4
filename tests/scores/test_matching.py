"""Invariances and golden numbers of the matching scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.errors import UsageError
from unmix.scores.base import Outcome
from unmix.scores.matching import beside_chance, dictionary_chance, dictionary_mcc, mcc
from unmix.scores.pairing import greedy, pair


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


TABLE = [  # M, N, |cos|, |Pearson|, signed cos of two random dictionaries
    (8, 16, 0.62, 0.66, 0.54),
    (8, 64, 0.76, 0.79, 0.69),
    (8, 128, 0.80, 0.83, 0.75),
    (16, 128, 0.62, 0.64, 0.57),
    (32, 64, 0.42, 0.42, 0.38),
    (32, 128, 0.46, 0.46, 0.42),
]


@pytest.mark.parametrize(("width", "atoms", "cosine", "pearson", "signed"), TABLE)
def test_dictionary_chance_golden(width, atoms, cosine, pearson, signed):
    sizes, draws = (atoms, atoms, width), 2048 // atoms
    assert dictionary_chance(*sizes, draws=draws) == pytest.approx(cosine, abs=0.02)
    assert dictionary_chance(*sizes, draws=draws, compat="greedy-pearson") == pytest.approx(pearson, abs=0.02)
    assert dictionary_chance(*sizes, draws=draws, signed=True) == pytest.approx(signed, abs=0.02)


def test_a_published_value_at_chance_is_called_so():
    published = beside_chance(0.836, 128, 128, 8, compat="greedy-pearson")
    assert published.at_chance is True and "at chance" in str(published)
    recovered = beside_chance(0.945, 128, 128, 32, compat="greedy-pearson")
    assert recovered.at_chance is False and "at chance" not in str(recovered)
    assert recovered.corrected == pytest.approx((0.945 - recovered.chance) / (1 - recovered.chance))


def test_random_dictionaries_are_at_chance_and_recovered_ones_are_not():
    draw = torch.Generator().manual_seed(0)
    truth, other = torch.randn(2, 64, 8, generator=draw)
    unrelated = dictionary_mcc(other, truth)
    assert unrelated.at_chance is True and abs(unrelated.corrected) < 0.1
    close = dictionary_mcc(truth + 0.05 * other, truth)
    assert close.at_chance is False and close.corrected > 0.9
    assert f"corrected {close.corrected:.4g}" in str(close)
    overfitted = Outcome(-1.4, chance=-80.0, ceiling=1.0)
    assert overfitted.corrected == -1.4 and "corrected" not in str(overfitted), "no better because chance is worse"
    codes, z = torch.randn(2, 200, 5, generator=draw)
    assert mcc(codes, z).at_chance is True and mcc(z, z).at_chance is False


def test_an_outcome_that_is_lower_when_better_is_at_chance_from_above():
    assert Outcome(0.95, 1.0, 0.0, chance_interval=(0.9, 1.1)).at_chance is True
    assert Outcome(0.5, 1.0, 0.0, chance_interval=(0.9, 1.1)).at_chance is False
    assert Outcome(0.5).at_chance is None


def paper_greedy(z, z_):
    """The procedure in steps: take the largest correlation again and again, then assign what was taken."""
    correlation = np.abs(np.corrcoef(z.T, z_.T)[: z.shape[1], z.shape[1] :])
    left, taken = correlation.copy(), []
    for _ in range(min(left.shape)):
        taken.append(np.unravel_index(left.argmax(), left.shape))
        left[taken[-1][0]], left[:, taken[-1][1]] = 0, 0
    rows, columns = zip(*taken, strict=True)
    return pair(torch.from_numpy(correlation[np.ix_(rows, columns)])).strength.mean()


@pytest.mark.parametrize(("codes", "latents"), [(6, 6), (9, 5), (4, 7)])
def test_compatibility_mode_is_the_papers_procedure(codes, latents):
    draw = np.random.default_rng(codes)
    z = draw.standard_normal((60, latents))
    found = draw.standard_normal((60, codes)) + z[:, [0]]
    assert mcc(found, z, compat="greedy-pearson").value == pytest.approx(paper_greedy(z, found))
    atoms, truth = draw.standard_normal((codes, 10)), draw.standard_normal((latents, 10))
    value = dictionary_mcc(atoms, truth, compat="greedy-pearson").value
    assert value == pytest.approx(paper_greedy(truth.T, atoms.T))


def test_compatibility_mode_has_no_sign_and_is_told_to_be_wrong_by_name():
    with pytest.raises(UsageError, match="compat='greedy-pearson'"):
        mcc(np.eye(4), np.eye(4), signed=True, compat="greedy-pearson")


def test_signed_mode_sees_a_flipped_atom():
    truth = torch.eye(5)
    flipped = truth.clone()
    flipped[2] *= -1
    assert dictionary_mcc(flipped, truth).value == pytest.approx(1)
    outcome = dictionary_mcc(flipped, truth, signed=True)
    assert outcome.value == pytest.approx(0.6)
    assert dictionary_mcc(-truth[:1], truth[:1], signed=True).detail["cosines"] == pytest.approx([-1])
    z = np.random.default_rng(0).standard_normal((80, 2))
    turned = mcc(z * [1, -1], z, signed=True)
    assert turned.value < 0.6 and mcc(z * [1, -1], z).value == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_assignment_is_never_worse_than_greedy(seed, m, f):
    score = np.random.default_rng(seed).random((m, f))
    rows, columns = greedy(score)
    assert len(set(rows)) == len(rows) == len(set(columns)) == min(m, f)
    left, taken = score.copy(), []
    for _ in rows:
        taken.append(left.max())
        row, column = np.unravel_index(left.argmax(), left.shape)
        left[row], left[:, column] = -1, -1
    assert score[rows, columns] == pytest.approx(taken)
    assert pair(torch.from_numpy(score)).strength.sum() >= sum(taken) - 1e-9


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_half_a_dictionary_never_scores_higher(seed):
    draw = np.random.default_rng(seed)
    atoms, truth = draw.standard_normal((2, 12, 6))
    atoms[:4] += 3 * truth[:4]
    half = atoms[draw.permutation(12)[:6]]
    assert dictionary_mcc(half, truth, draws=1).value <= dictionary_mcc(atoms, truth, draws=1).value + 1e-12
    codes, z = draw.standard_normal((2, 30, 12))
    assert mcc(codes[:, :6], z, draws=1).value <= mcc(codes, z, draws=1).value + 1e-12


def test_unlike_shapes_are_refused():
    with pytest.raises(UsageError, match="40 rows, latents 30"):
        mcc(np.zeros((40, 2)), np.zeros((30, 2)))
    with pytest.raises(UsageError, match="width 3, truth 4"):
        dictionary_mcc(torch.eye(3), torch.eye(4))
    with pytest.raises(UsageError, match="row 2, column 0"):
        bad = np.zeros((5, 1))
        bad[2] = np.nan
        mcc(bad, np.zeros((5, 1)))
