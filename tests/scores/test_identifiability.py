"""Identifiability scores: what no admissible map moves, what moves them, and answers for bad columns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.seeds import Stream
from unmix.core.statistics import bootstrap_sums
from unmix.scores.identifiability.kinds import balanced_accuracy
from unmix.scores.identifiability.linear import LeastSquares, r2
from unmix.scores.identifiability.procrustes import procrustes
from unmix.scores.identifiability.spectrum import isotropy, singular_values
from unmix.scores.identifiability.warp import mcc_spearman
from unmix.scores.identifiability.weights import weights_r2
from unmix.scores.matching import mcc

SEEDS = st.integers(0, 10_000)
FEW = settings(max_examples=12, deadline=None)


def rotation(draw: np.random.Generator, d: int) -> np.ndarray:
    return np.linalg.qr(draw.standard_normal((d, d)))[0]


def noisy(seed: int, n: int = 120, d: int = 4) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    z = draw.standard_normal((n, d))
    return draw, z, np.tanh(z @ draw.standard_normal((d, d))) + 0.3 * draw.standard_normal((n, d))


@FEW
@given(SEEDS)
def test_r2_is_the_same_after_an_affine_map(seed):
    draw, z, h = noisy(seed)
    mixed = h @ (rotation(draw, 4) * draw.uniform(0.1, 10, 4)) @ rotation(draw, 4) + draw.uniform(-5, 5, 4)
    one, two = r2(h, z), r2(mixed, z)
    assert two.value == pytest.approx(one.value, abs=1e-8)
    assert two.detail["per_dimension"] == pytest.approx(one.detail["per_dimension"], abs=1e-8)
    assert r2(mixed, mixed[:, :2]).value == pytest.approx(1, abs=1e-9)
    linear = r2(h @ rotation(draw, 4), z, intercept=False)
    assert linear.value == pytest.approx(r2(h, z, intercept=False).value, abs=1e-8)


@FEW
@given(SEEDS, st.floats(0.1, 10))
def test_procrustes_is_the_same_after_a_rotation_and_scaled_after_a_scale(seed, scale):
    draw, z, h = noisy(seed)
    turned = h @ rotation(draw, 4)
    assert procrustes(turned, z).value == pytest.approx(procrustes(h, z).value, abs=1e-8)
    one, two = procrustes(h, z, scaled=True), procrustes(scale * turned, z, scaled=True)
    assert two.value == pytest.approx(one.value, abs=1e-8)
    assert two.detail["scale"] == pytest.approx(one.detail["scale"] / scale)
    moved = procrustes(turned + 3, z, centred=True)
    assert moved.value == pytest.approx(procrustes(h, z, centred=True).value, abs=1e-8)
    exact = procrustes(z @ rotation(draw, 4), z)
    assert exact.value == pytest.approx(1, abs=1e-9) and exact.detail["minimum"] == pytest.approx(1, abs=1e-9)
    assert procrustes(3 * z, z).value < 0 < procrustes(3 * z, z, scaled=True).value


@FEW
@given(SEEDS)
def test_rank_mcc_is_the_same_after_monotone_warps(seed):
    draw, z, h = noisy(seed)
    warped = np.stack([h[:, 2] ** 3, -np.exp(h[:, 0]), np.arctan(h[:, 3]), 5 * h[:, 1] - 1], 1)
    assert mcc_spearman(warped, z).value == pytest.approx(mcc_spearman(h, z).value, abs=1e-12)
    again = mcc_spearman(np.exp(3 * z[:, draw.permutation(4)]), z)
    assert again.value == pytest.approx(1) and mcc(np.exp(3 * z), z).value < 0.9


@FEW
@given(SEEDS)
def test_numpy_and_torch_single_and_double_agree_and_inputs_stay(seed):
    _, z, h = noisy(seed)
    h, z = h.astype(np.float32), z.astype(np.float32)
    kept = h.copy(), z.copy()
    for score in (r2, procrustes, isotropy, mcc_spearman):
        value = score(h, z).value
        for other in (torch.from_numpy, lambda a: a.astype(np.float64), lambda a: torch.from_numpy(a).double()):
            assert score(other(h), other(z)).value == pytest.approx(value, abs=1e-9)
    assert (h == kept[0]).all() and (z == kept[1]).all()


def test_the_minimum_is_printed_with_the_mean():
    _, z, _ = noisy(0, 400)
    h = z.copy()
    h[:, 2] = 0
    outcome = r2(h, z)
    assert outcome.value == pytest.approx(0.75, abs=0.03) and abs(outcome.detail["minimum"]) < 0.05
    assert outcome.detail["worst"] == 2 and "minimum" in str(outcome) and "chance" in str(outcome)
    assert outcome.detail["per_dimension"].shape == (4,) and outcome.detail["back"]["value"] == pytest.approx(0.75)
    low, high = outcome.interval
    assert low <= outcome.value <= high and high - low < 0.05
    assert "minimum" in str(procrustes(h, z))


def test_baselines_are_measured_on_the_same_rows():
    draw, z, h = noisy(1, 2000)
    x = np.tanh(2 * z).reshape(2000, 2, 2)
    outcome = r2(z @ draw.standard_normal((4, 4)), z, x=x, untrained=h[:, :2])
    assert outcome.value == pytest.approx(1)
    assert outcome.detail["baselines"]["x"]["value"] == pytest.approx(r2(x.reshape(2000, 4), z).value)
    assert outcome.detail["baselines"]["untrained"]["value"] < 0.6
    wide = procrustes(z, z, x=np.tile(z, 2), untrained=h)
    assert list(wide.detail["baselines"]) == ["untrained"]


def test_unrelated_rows_are_at_chance_and_few_rows_do_not_look_perfect():
    draw = np.random.default_rng(2)
    z = draw.standard_normal((60, 3))
    unrelated = r2(draw.standard_normal((60, 5)), z)
    assert unrelated.at_chance and unrelated.value < 0.2
    wide = r2(draw.standard_normal((60, 200)), z)
    assert wide.value < 0.3 and math.isfinite(wide.value) and wide.detail["rank"] <= 30
    inside = r2(z @ draw.standard_normal((3, 200)), z)
    assert inside.value == pytest.approx(1, abs=1e-6) and inside.detail["rank"] == 3
    assert math.isfinite(r2(draw.standard_normal((5, 8)), z[:5]).value)


def test_constant_and_duplicated_columns_have_defined_answers():
    _, z, h = noisy(3)
    doubled = np.concatenate([h, h[:, :2], np.full((120, 1), 7.0)], 1)
    assert r2(doubled, z).value == pytest.approx(r2(h, z).value, abs=1e-8)
    constant = z.copy()
    constant[:, 1] = 3.0
    outcome = r2(z, constant)
    assert outcome.detail["per_dimension"] == pytest.approx([1, 0, 1, 1]) and outcome.value == pytest.approx(0.75)
    assert r2(np.ones((120, 2)), z).value == pytest.approx(0, abs=0.1)
    assert math.isfinite(procrustes(np.zeros((120, 2)), z).value)
    assert mcc_spearman(np.ones((120, 2)), z).value == 0
    assert isotropy(np.ones((120, 4)), z).value == pytest.approx(0)
    with pytest.raises(UsageError, match="span 3 dimensions"):
        isotropy(h, constant)


@pytest.mark.parametrize("score", [r2, procrustes, isotropy, mcc_spearman])
def test_what_cannot_be_scored_is_said(score):
    _, z, h = noisy(4)
    h[7, 2] = np.nan
    with pytest.raises(UsageError, match="row 7, column 2 is nan"):
        score(h, z)
    h[7, 2] = 0
    with pytest.raises(UsageError, match="120 rows"):
        score(h, z[:50])
    with pytest.raises(UsageError, match="rows"):
        score(h[:1], z[:1])
    with pytest.raises(UsageError, match="expected"):
        score(h[:, 0], z)


def test_a_wide_representation_has_no_rotation():
    _, z, h = noisy(5)
    with pytest.raises(UsageError, match="r2 takes any number"):
        procrustes(np.concatenate([h, h], 1), z)
    narrow = procrustes(z[:, :2], z)
    assert narrow.detail["per_dimension"][:2] == pytest.approx([1, 1], abs=0.2)
    assert narrow.detail["rotation"].shape == (2, 4)


def test_singular_values_are_errors_relative_to_the_constant():
    draw = np.random.default_rng(6)
    z = draw.standard_normal((4000, 3))
    h = z @ (0.1 * rotation(draw, 3) * [1, 1, 1.1]) + 0.01 * draw.standard_normal((4000, 3))
    stretched = singular_values(z @ np.diag([0.1, 0.1, 0.11]) @ rotation(draw, 3), z, 0.1)
    assert stretched.value == pytest.approx(0.1, abs=1e-9) and stretched.detail["mean"] == pytest.approx(0.1 / 3)
    assert isotropy(z @ np.diag([2, 2, 1.0]) + 5, z).value == pytest.approx(0.5)
    noisy_value = singular_values(h, z, 0.1)
    assert noisy_value.interval[0] <= noisy_value.value <= noisy_value.interval[1]
    assert noisy_value.interval[1] < 0.2
    assert singular_values(z[:, :2], z, 1.0).value == pytest.approx(1)
    with pytest.raises(UsageError, match="must be positive"):
        singular_values(h, z, 0.0)


def test_interval_of_singular_values_covers_as_it_says():
    covered = 0
    for seed in range(40):
        draw = np.random.default_rng(seed)
        z = draw.standard_normal((200, 1))
        outcome = singular_values(z + 0.5 * draw.standard_normal((200, 1)), z, 1.0, seed)
        covered += bool(outcome.detail["low"][0] <= 1 <= outcome.detail["high"][0])
    assert 32 <= covered <= 40


def test_angles_count_by_cosine_and_sine_and_categories_by_accuracy():
    draw = np.random.default_rng(7)
    angle, shape = draw.uniform(-np.pi, np.pi, 600), draw.integers(0, 3, 600)
    z = np.stack([draw.standard_normal(600), angle, shape], 1)
    factors = (Factor("x"), Factor("angle", "circular", None, 0, 2 * np.pi), Factor("shape", "categorical", 3))
    h = np.stack([z[:, 0], np.cos(angle), np.sin(angle), shape == 1, shape == 2], 1) @ rotation(draw, 5)
    outcome = r2(h, z, factors=factors)
    assert outcome.detail["per_dimension"] == pytest.approx([1, 1]) and outcome.detail["worst"] in ("x", "angle")
    assert r2(h, z).value < 0.95
    told = balanced_accuracy(h, z, factors)
    assert told.value == 1 and told.chance == pytest.approx(1 / 3) and told.detail["worst"] == "shape"
    assert balanced_accuracy(draw.standard_normal((600, 5)), z, factors).value == pytest.approx(1 / 3, abs=0.1)
    half = (Factor("x"), Factor("angle", "circular", None, 0, np.pi), Factor("shape", "categorical", 3))
    with pytest.raises(UsageError, match="factor angle: its values span"):
        r2(h, z, factors=half)
    with pytest.raises(UsageError, match="angle is circular"):
        procrustes(h[:, :3], z, factors=factors)
    with pytest.raises(UsageError, match="balanced_accuracy is for those"):
        r2(h, z[:, 2:], factors=factors[2:])
    with pytest.raises(UsageError, match="no factor is categorical"):
        balanced_accuracy(h, z[:, :1], factors[:1])
    with pytest.raises(UsageError, match="2 given for 3 latents"):
        r2(h, z, factors=factors[:2])


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_units_do_not_matter_however_large_or_small(size):
    _, z, h = noisy(11)
    huge, units = h * [size, 1, 1, 1], np.array([1, size, 1, 1])
    assert r2(huge, z * units).value == pytest.approx(r2(h, z).value, abs=1e-12)
    one, two = r2(h, z, x=h[:, :2]), r2(huge, z, x=huge[:, :2])
    assert two.detail["baselines"]["x"] == pytest.approx(one.detail["baselines"]["x"], abs=1e-12)
    assert two.detail["back"]["value"] == pytest.approx(one.detail["back"]["value"], abs=1e-12)
    assert mcc(huge, z * units).value == pytest.approx(mcc(h, z).value, abs=1e-12)
    assert weights_r2(huge, z * units).value == pytest.approx(weights_r2(h, z).value, abs=1e-12)
    # An angle's cosine and sine keep their common scale.
    factors = (Factor("angle", "circular", None, 0, 2 * np.pi), Factor("x"))
    angle = np.stack([np.linspace(0, 6, 120), z[:, 0]], 1)
    wanted = r2(h, angle, factors=factors).detail["per_dimension"]
    assert r2(h, angle * [1, size], factors=factors).detail["per_dimension"] == pytest.approx(wanted, abs=1e-12)


def test_scores_in_which_units_matter_name_the_column_that_is_too_large():
    _, z, h = noisy(11)
    for score in (procrustes, isotropy):
        with pytest.raises(UsageError, match=r"column 2 of h reaches .*e\+200; give smaller units"):
            score(h * [1, 1, 1e200, 1], z)


def test_groups_stay_on_one_side_and_widen_the_interval():
    draw = np.random.default_rng(8)
    z = np.repeat(draw.standard_normal((40, 2)), 25, axis=0)
    leak = np.repeat(np.eye(40), 25, axis=0)  # tells the sequence, nothing that holds for another one
    group = np.repeat(np.arange(40), 25)
    assert r2(leak, z).value > 0.9 and r2(leak, z, group=group).value < 0.1
    h = z + np.repeat(draw.standard_normal((40, 2)), 25, axis=0)
    rows, whole = (r2(h, z, group=g).interval for g in (None, group))
    assert whole[1] - whole[0] > 2 * (rows[1] - rows[0])
    with pytest.raises(UsageError, match="no half can be held out"):
        r2(h, z, group=np.zeros(1000))


@pytest.mark.parametrize("condition", [10.0, 1e5])
def test_least_squares_is_as_accurate_as_numpy(condition):
    draw = np.random.default_rng(9)
    a = draw.standard_normal((300, 6)) @ (rotation(draw, 6) * np.geomspace(1, 1 / condition, 6)) @ rotation(draw, 6)
    y = draw.standard_normal((300, 2))
    slope, offset = LeastSquares(torch.from_numpy(a)).coefficients(torch.from_numpy(y))
    want = np.linalg.lstsq(np.column_stack([a, np.ones(300)]), y, rcond=None)[0]
    assert np.allclose(a @ slope.numpy() + offset.numpy(), a @ want[:6] + want[6], atol=1e-8)


def test_bootstrap_of_joined_rows_has_the_variance_of_rows():
    rows = np.random.default_rng(10).standard_normal((5000, 1))
    spread = [bootstrap_sums(rows, Stream(0), None, 1500, blocks).std() for blocks in (300, 5000)]
    assert spread[0] == pytest.approx(np.sqrt(5000), rel=0.15) and spread[1] == pytest.approx(np.sqrt(5000), rel=0.1)
    group = np.repeat(np.arange(50), 100)
    whole = bootstrap_sums(np.repeat(rows[:50], 100, axis=0), Stream(0), group, 1500)
    assert whole.std() == pytest.approx(100 * np.sqrt(50) * rows[:50].std(), rel=0.15)
