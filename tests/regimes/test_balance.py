"""Balance of torch models: what is found, what keeps the function, what is refused, undo, rates for SGD."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from unmix.core.errors import Failure, UsageError
from unmix.regimes import INITIALISATIONS
from unmix.regimes.balance import balance, histogram, scale_layers, sgd_groups, symmetrise, unit_balance
from unmix.regimes.initialise import Balanced, Downstream, Upstream
from unmix.regimes.pairs import find_pairs


def built(make, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        return make()


def mlp(bias=True, unit=nn.ReLU):
    return built(
        lambda: nn.Sequential(
            nn.Linear(4, 6, bias), unit(), nn.Linear(6, 8, bias), nn.Dropout(0.1), unit(), nn.Linear(8, 3, bias)
        )
    )


def conv():
    return built(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.2), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(6 * 9, 3),
        )
    )  # fmt: skip


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        h = self.embed(x)
        return self.head((h + self.attend(h, h, h)[0]).mean(1))


class Branched(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        self.norm = nn.LayerNorm(5)

    def forward(self, x):
        h = torch.relu(self.first(x))
        h = torch.relu(self.second(h) + h)
        return self.third(self.norm(h))


def draws(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


INPUTS = {"mlp": (mlp, draws(7, 4)), "conv": (conv, draws(7, 2, 8, 8))}


@pytest.mark.parametrize("name", list(INPUTS))
def test_rescaling_keeps_the_function_and_moves_the_balance(name):
    make, x = INPUTS[name]
    model = make().eval()
    before = model(x)
    first, last = model[0].weight.clone(), list(model.modules())[-1].weight.clone()
    report = balance(model, alpha=4.0, probe=x)
    assert report.preserved and len(report.moved) == 2 and not report.left
    assert torch.allclose(model(x), before, atol=1e-5)
    assert torch.allclose(model[0].weight, first / 4) and torch.allclose(list(model.modules())[-1].weight, last * 4)
    assert all((report.after[n] > report.before[n]).all() for n in [next(iter(report.before))])
    report.undo(model)
    assert torch.equal(model(x), before)
    for delta in (-2.0, 0.0, 1.5):
        report = balance(model, delta=delta, probe=x)
        assert torch.allclose(model(x), before, atol=1e-4)
        for values in unit_balance(model).values():
            assert np.abs(values - delta).max() < 1e-4
        report.undo(model)
    assert torch.equal(model(x), before)


def test_embeddings_and_attention_heads():
    model = built(lambda: nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)))
    assert [(p.kind, p.legal) for p in find_pairs(model)] == [("embedding", True), ("units", True)]
    x = torch.arange(9)
    before = model(x)
    balance(model, delta=0.7, probe=x)
    assert torch.allclose(model(x), before, atol=1e-5)
    model, x = built(Attention).eval(), torch.arange(8).reshape(2, 4)
    pairs = {p.kind: p for p in find_pairs(model)}
    assert pairs["query-key"].legal and pairs["value-output"].legal
    assert not pairs["embedding"].legal
    before = model(x)
    for options in ({"alpha": 3.0}, {"delta": 0.5}):
        report = balance(model, **options, probe=x)
        assert set(report.moved) == {"attend query-key", "attend value-output"}
        assert torch.allclose(model(x), before, atol=1e-5)
    assert np.abs(unit_balance(model)["attend query-key"] - 0.5).max() < 1e-5


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: mlp(unit=nn.GELU), "GELU"),
        (lambda: built(lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))), "normalises"),
        (lambda: built(Branched), "branches"),
        (lambda: built(Branched), "added|normalises"),
    ],
)  # fmt: skip
def test_what_would_change_the_function_is_refused_with_the_reason(make, why):
    model = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UsageError, match=why):
        balance(model, alpha=2.0)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_tied_and_repeated_layers_are_left():
    model = mlp(bias=False)
    model[2].weight = nn.Parameter(model[2].weight[:, :6].clone())
    tied = built(lambda: nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2)))
    tied[2].weight = tied[0].weight
    pairs = find_pairs(tied)
    assert [p.legal for p in pairs] == [False, False] and "shares its weights" in pairs[0].why
    layer = built(lambda: nn.Linear(4, 4))
    twice = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), built(lambda: nn.Linear(4, 2)))
    assert not any(p.legal for p in find_pairs(twice))


def test_a_hook_that_adds_to_a_layer_is_part_of_the_function():
    model, x = mlp(), draws(5, 4)
    model[0].register_forward_hook(lambda module, given, end: end + 1)
    first, before = model[0].weight.clone(), model.eval()(x)
    report = balance(model, alpha=3.0)
    assert list(report.moved) == ["2 -> 5"] and "the outputs change" in report.left["0 -> 2"]
    assert torch.equal(first, model[0].weight) and torch.allclose(model(x), before, atol=1e-5)


def test_weights_that_a_model_reads_behind_its_layers_are_seen_in_the_outputs():
    model = mlp()
    weight = model[0].weight
    model.register_forward_hook(lambda module, given, end: end + weight.norm())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(Failure, match="a second time outside the model's layers"):
        balance(model, alpha=3.0)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rates_for_sgd_learn_what_the_rescaled_network_learns_and_adam_warns(momentum):
    x, y, alpha = draws(20, 4), draws(20, 3), 1.7
    rated, scaled = mlp().double().eval(), mlp().double().eval()
    groups = sgd_groups(rated, alpha, 0.01, weight_decay=0.1)
    assert sum(len(g["params"]) for g in groups) == 6
    balance(scaled, alpha=alpha)
    one = torch.optim.SGD(groups, lr=0.01, momentum=momentum)
    two = torch.optim.SGD(scaled.parameters(), lr=0.01, momentum=momentum, weight_decay=0.1)
    x, y = x.double(), y.double()
    for _ in range(30):
        for model, optimiser in ((rated, one), (scaled, two)):
            optimiser.zero_grad()
            (model(x) - y).square().mean().backward()
            optimiser.step()
    assert torch.allclose(rated(x), scaled(x), atol=1e-10)
    with pytest.warns(UserWarning, match="SGD only"):
        sgd_groups(rated, alpha, 0.01, optimiser="adam")


def test_symmetric_starts_give_zero_and_histograms_count_every_unit():
    for make, x in INPUTS.values():
        model = make().eval()
        before = model(x)
        report = symmetrise(model)
        assert model(x).abs().max() < 1e-6 < before.abs().max() and not report.preserved
        (model(x) - 1).square().sum().backward()
        assert model[0].weight.grad.abs().max() > 0
        report.undo(model)
        assert torch.equal(model(x), before)
    counted = histogram(unit_balance(mlp()), bins=7)
    assert sum(int(pair["counts"].sum()) for pair in counted["pairs"].values()) == 14
    assert len(counted["edges"]) == 8


def test_undo_refuses_a_trained_model():
    model = mlp()
    report = balance(model, alpha=2.0)
    with torch.no_grad():
        model[0].weight.add_(1)
    with pytest.raises(UsageError, match="has changed since"):
        report.undo(model)


def test_recipes_say_upstream_for_a_small_first_layer():
    size = mlp()[0].weight.detach().norm()
    for recipe, factor in (
        (Upstream(alpha=4), 1 / 4),
        (Downstream(alpha=4), 4),
        (Upstream(alpha=4, layers="first"), 1 / 4),
    ):
        model = mlp()
        report = recipe.apply(model)
        assert float(model[0].weight.detach().norm()) == pytest.approx(float(size) * factor, rel=1e-5)
        assert report.preserved == (getattr(recipe, "layers", "") == "pairs")
    assert set(INITIALISATIONS) == {"Upstream", "Downstream", "Balanced"}
    model, x = mlp().eval(), draws(5, 4)
    before = model(x)
    report = Balanced(delta=0.3, symmetric=True).apply(model)
    assert model(x).abs().max() < 1e-6
    report.undo(model)
    assert torch.equal(model(x), before)
    attention = built(Attention)
    assert "embed.weight" in Upstream(alpha=10, layers="embeddings").apply(attention).factors
    with pytest.raises(UsageError, match="no Embedding"):
        scale_layers(mlp(), 2.0, (nn.Embedding,))
    with pytest.raises(UsageError, match="greater than 1"):
        Upstream(alpha=0.5)
    with pytest.raises(UsageError, match="one of them"):
        balance(mlp())
