"""Scores of a classifier's head, on heads that the theory makes exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unmix.core.errors import UsageError
from unmix.scores.identifiability.duality import duality, excess_loss
from unmix.scores.identifiability.weights import weights_r2, within_class


def head(kappa: float = 10.0, beta: float = 2.0, classes: int = 40, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Latents, features, weights and class vectors with beta A_w' A_h = kappa I and an A_h that is no rotation."""
    draw = np.random.default_rng(seed)
    v = draw.standard_normal((classes, 4))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    z = v[draw.integers(0, classes, 900)] + 0.2 * draw.standard_normal((900, 4))
    to_h = draw.standard_normal((4, 4))
    to_w = kappa / beta * np.linalg.inv(to_h).T
    return z, z @ to_h.T, v @ to_w.T + draw.standard_normal(4), v


@pytest.mark.parametrize(("kappa", "beta"), [(10.0, 2.0), (3.0, 1.0), (50.0, 7.0)])
def test_duality_reads_off_the_concentration(kappa, beta):
    z, h, w, v = head(kappa, beta)
    outcome = duality(h, z, w, v, beta, concentration=kappa)
    assert outcome.value == pytest.approx(kappa) and outcome.detail["anisotropy"] < 1e-8
    assert abs(outcome.detail["error"]) < 1e-8 and outcome.detail["matrix"].shape == (4, 4)
    assert duality(h, z, np.flip(w, 1).copy(), v, beta).detail["anisotropy"] > 0.3
    repeated = duality(h, z, np.tile(w, (3, 1)), v, beta, np.tile(np.arange(40), 3))
    assert repeated.value == pytest.approx(kappa)


def test_logits_of_that_head_are_the_worlds():
    z, h, w, v = head()
    logits, truth = 2.0 * h @ w.T, 10.0 * z @ v.T
    difference = logits - truth
    assert np.allclose(difference, difference[:, :1] + (difference[:1] - difference[0, 0]))


def test_duality_refuses_what_it_cannot_tell():
    z, h, w, v = head()
    flat = v.copy()
    flat[:, 3] = 0.5
    with pytest.raises(UsageError, match="span 3 of 4 dimensions"):
        duality(h, z, w, flat)
    tilted = (flat @ np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0]).astype(np.float32)
    with pytest.raises(UsageError, match="span 3 of 4 dimensions"):
        duality(h, z, w, tilted)
    with pytest.raises(UsageError, match="each two must be equal"):
        duality(h[:, :3], z, w, v)
    with pytest.raises(UsageError, match="give weight_classes"):
        duality(h, z, w[:30], v)
    with pytest.raises(UsageError, match="beta=0: must be positive"):
        duality(h, z, w, v, 0.0)


def test_weights_are_read_out_on_classes_held_out():
    _, _, w, v = head()
    outcome = weights_r2(w, v)
    assert outcome.value == pytest.approx(1) and outcome.detail["back"]["minimum"] == pytest.approx(1)
    assert outcome.chance < 0.1 and "minimum" in str(outcome)
    draw = np.random.default_rng(1)
    classes = np.arange(400) % 40
    unrelated = draw.standard_normal((40, 4))[
        classes
    ]  # ten equal weights a class: only whole classes may be held out
    assert weights_r2(unrelated, v, classes).value < 0.15
    few = weights_r2(w[:8], v[:8])
    assert few.value == pytest.approx(1)
    with pytest.raises(UsageError, match="at least 6 classes for width 4, got 5"):
        weights_r2(w[:5], v[:5])
    with pytest.raises(UsageError, match="weight_classes: from 0 to 39, but 8 class vectors"):
        weights_r2(w, v[:8], np.arange(40))


def test_scatter_of_weights_within_classes():
    draw = np.random.default_rng(2)
    classes = np.repeat(np.arange(20), 5)
    centres = draw.standard_normal((20, 3))[classes]
    assert within_class(centres, classes).value == pytest.approx(0, abs=1e-12)
    noise = draw.standard_normal((100, 3))
    one = within_class(centres + 0.1 * noise, classes)
    means = np.stack([(centres + 0.1 * noise)[classes == c].mean(0) for c in range(20)])[classes]
    total = centres + 0.1 * noise
    want = ((total - means) ** 2).sum() / ((total - total.mean(0)) ** 2).sum()
    assert one.value == pytest.approx(want) and one.interval[0] <= want <= one.interval[1] and not one.at_chance
    assert within_class(noise, classes).at_chance and math.isnan(one.corrected)
    assert within_class(noise, classes).chance == pytest.approx(80 / 99, abs=0.05)
    with pytest.raises(UsageError, match="every class has one weight"):
        within_class(noise, np.arange(100))
    with pytest.raises(UsageError, match="all weights are equal"):
        within_class(np.ones((100, 3)), classes)
    with pytest.raises(UsageError, match="whole numbers"):
        within_class(noise, classes / 2)


def test_excess_loss_is_paired_by_row():
    draw = np.random.default_rng(3)
    best = draw.exponential(1, 2000)
    outcome = excess_loss(best + 0.02 + 0.01 * draw.standard_normal(2000), best)
    assert outcome.value == pytest.approx(0.02, abs=0.001)
    assert outcome.interval[0] > 0.018 and outcome.interval[1] < 0.022
    assert excess_loss(1.5, 1.0).value == 0.5 and math.isnan(excess_loss(1.5, best).interval[0])
    with pytest.raises(UsageError, match="2000 rows, bayes_loss 10"):
        excess_loss(best, best[:10])
    with pytest.raises(UsageError, match="loss: expected finite"):
        excess_loss(math.nan, 1.0)
