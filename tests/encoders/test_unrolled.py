"""LISTA: ISTA before it is trained, better than as many steps of it afterwards."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.encoders import ENCODERS
from unmix.encoders.unrolled import Lista
from unmix.finders.features import assemble


@pytest.fixture(scope="module")
def truth(world):
    return assemble(world.atoms, torch.full((world.width,), 0.1), ENCODERS.make("Nearest"))


def ista(x, atoms, penalty, steps, positive=True):
    size = torch.linalg.matrix_norm(atoms, 2) ** 2
    codes = torch.zeros(len(x), len(atoms), dtype=x.dtype)
    for _ in range(steps):
        codes = codes - (codes @ atoms - x) @ atoms.T / size
        shrunk = (codes.abs() - penalty / size).clamp_min(0) * codes.sign()
        codes = shrunk.clamp_min(0) if positive else shrunk
    return codes


def objective(x, atoms, codes, penalty):
    return ((x - codes @ atoms).square().sum(1) / 2 + penalty * codes.abs().sum(1)).mean().item()


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("layers", [1, 3, 20])
def test_untrained_it_is_ista(positive, layers, truth, world):
    h = world.sample(50, 1).x + 0.1
    encoder = Lista(init="tied", layers=layers, penalty=0.05, positive=positive).bind(truth)
    expected = ista(h - 0.1, world.atoms, 0.05, layers, positive)
    assert torch.allclose(encoder(h).dense(), expected, atol=1e-5)
    assert (expected < 0).any() != positive


def test_three_trained_layers_beat_three_steps_of_ista(truth, world):
    h, fresh = world.sample(2000, 1).x + 0.1, world.sample(500, 2).x
    trained = Lista(layers=3, penalty=0.05, steps=400).bind(truth, h)
    ours = objective(fresh, world.atoms, trained(fresh + 0.1).dense(), 0.05)
    three, least = (objective(fresh, world.atoms, ista(fresh, world.atoms, 0.05, n), 0.05) for n in (3, 3000))
    assert least < ours < 0.5 * (three + least)


def test_it_starts_tied_or_on_rows_and_costs_what_its_products_cost(truth):
    with pytest.raises(UsageError, match="pinv"):
        Lista(init="pinv").bind(truth)
    m, d = truth.shape
    one, three = (Lista(init="tied", layers=n).bind(truth).flops for n in (1, 3))
    assert one == pytest.approx(2 * m * d, rel=0.15)
    assert three == pytest.approx(5 * 2 * m * d, rel=0.15)
