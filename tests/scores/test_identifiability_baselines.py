"""Every score of identifiability has baselines and an interval, or says why it can have none."""

from __future__ import annotations

import math

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.scores import SCORES
from unmix.scores.base import Inputs, Outcome
from unmix.scores.identifiability.duality import excess_loss
from unmix.scores.identifiability.spectrum import isotropy, singular_values
from unmix.study.scoring import score_arrays

TABLE = [name for name in SCORES if SCORES[name].__module__.startswith("unmix.scores.identifiability")]
NUMBERS = ("a", "b", "c", "d")


def inputs(shuffled: bool = False) -> Inputs:
    """A trained classifier as the theory makes it, its raw observations and its features before training."""
    draw = torch.Generator().manual_seed(0)
    v = torch.nn.functional.normalize(torch.randn(40, 4, generator=draw))
    y = torch.arange(900) % 40
    z = v[y] + 0.2 * torch.randn(900, 4, generator=draw)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=draw))[0]
    h = z @ turn + 0.02 * torch.randn(900, 4, generator=draw)
    weights = torch.cat([v, v]) @ turn + 0.01 * torch.randn(80, 4, generator=draw)
    best = torch.rand(900, generator=draw)
    order = torch.randperm(900, generator=draw) if shuffled else torch.arange(900)
    return Inputs(
        codes=h[order],
        z=z,
        h=h[order],
        x=torch.tanh(2 * z @ torch.randn(4, 4, generator=draw)).reshape(900, 2, 2),
        untrained=torch.tanh(z @ torch.randn(4, 4, generator=draw)) @ torch.randn(4, 4, generator=draw),
        weights=weights,
        weight_classes=torch.arange(80) % 40,
        class_vectors=v,
        beta=10.0,
        concentration=10.0,
        loss=best + 0.02 + 0.05 * torch.rand(900, generator=draw),
        bayes_loss=best,
    )


def measured(name: str, given: Inputs) -> Outcome:
    if name == "balanced_accuracy":
        kinds = (*map(Factor, NUMBERS[:3]), Factor("d", "categorical", 2))
        sides = torch.cat([given.z[:, :3], (given.z[:, 3:] > 0).float()], 1)
        given = Inputs(h=given.h, z=sides, factors=kinds, x=given.x, untrained=given.untrained)
    return SCORES[name]().measure(given, 1)


def test_the_table_is_the_whole_package():
    assert set(TABLE) >= {"r2", "procrustes", "isotropy", "duality", "excess_loss", "within_class", "mcc_spearman"}


@pytest.mark.parametrize("name", TABLE)
def test_every_score_has_an_interval_a_ceiling_and_a_chance_level(name):
    outcome = measured(name, inputs())
    low, high = outcome.interval
    assert low < high and low <= outcome.value <= high
    assert math.isfinite(outcome.chance)
    assert math.isfinite(outcome.ceiling) or name == "duality", "its ceiling is the world's concentration"


@pytest.mark.parametrize("name", TABLE)
def test_every_score_has_baselines_or_says_why_not(name):
    outcome = measured(name, inputs())
    beside = outcome.detail.get("baselines", {})
    told = " ".join((SCORES[name].__doc__ or "").split())
    if not beside:
        assert "No baselines: raw observations have no" in told
        return
    better = {"higher": 1, "lower": -1, "": 1}[SCORES[name].better]
    assert set(beside) == {"x", "untrained"} or (set(beside) == {"untrained"} and "Raw observations are none" in told)
    for key, numbers in beside.items():
        assert math.isfinite(numbers["value"]) and better * numbers["value"] < better * outcome.value, key
    alone = Inputs(**{field: getattr(inputs(), field) for field in SCORES[name].needs if field != "factors"})
    if name != "balanced_accuracy":
        assert measured(name, alone).value == outcome.value


@pytest.mark.parametrize("name", [name for name in TABLE if {"h", "z"} <= SCORES[name].needs])
def test_rows_that_do_not_belong_together_score_at_chance(name):
    outcome = measured(name, inputs(shuffled=True))
    low, high = outcome.chance_interval
    reach = high - low if math.isfinite(low) else 0.5 if name == "duality" else 0.12  # of a concentration of 10, of 1
    assert outcome.value == pytest.approx(outcome.chance, abs=reach)


def test_a_baseline_is_what_the_score_itself_says_of_it():
    given = inputs()
    flat = given.x.reshape(900, 4)
    told = isotropy(given.h, given.z, x=given.x.numpy(), untrained=given.untrained).detail["baselines"]
    assert told["x"]["value"] == pytest.approx(isotropy(flat, given.z).value)
    assert told["untrained"]["value"] == pytest.approx(isotropy(given.untrained, given.z).value)
    # At the constant that suits it best: the largest and the smallest singular value are as far off.
    values = singular_values(flat, given.z, 1.0).detail["values"]
    middle = (values.max() + values.min()) / 2
    beside = singular_values(given.h, given.z, 5.0, x=given.x).detail["baselines"]["x"]["value"]
    assert beside == pytest.approx(singular_values(flat, given.z, middle).value)
    assert (
        singular_values(flat, given.z, 1.1 * middle).value
        > beside
        < singular_values(flat, given.z, 0.9 * middle).value
    )


def test_chance_of_the_excess_loss_is_that_of_equal_logits():
    best = torch.full((10,), 0.5)
    assert excess_loss(torch.full((10,), math.log(7)), best, classes=7).value == pytest.approx(math.log(7) - 0.5)
    assert excess_loss(1.0, 0.5, classes=7).chance == pytest.approx(math.log(7) - 0.5)
    assert math.isnan(excess_loss(1.0, 0.5).chance)


def test_tensors_with_gradients_are_read_as_they_are():
    given = inputs()
    h = given.h.clone().requires_grad_()
    alike = Inputs(h=h, codes=h, z=given.z)
    for name in ("r2", "procrustes", "isotropy", "mcc_spearman"):
        assert SCORES[name]().measure(alike, 1).value == measured(name, given).value
    assert h.grad is None and h.requires_grad


def test_a_matrix_on_its_side_is_told_so():
    given = inputs()
    with pytest.raises(UsageError, match=r"codes: 4 rows, latents 900.*may have to be transposed"):
        score_arrays(given.z, given.h.T)
    with pytest.raises(UsageError, match=r"same datum in both$"):
        score_arrays(given.z, given.h[:100])
