"""RegimeWatch and its measures: the exact discrete law, decay, verdicts, and where the law does not apply."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.regimes.models import drawn
from unmix.core.errors import Notice, UsageError
from unmix.regimes import measures
from unmix.regimes.balance import balance, symmetrise, unit_balance
from unmix.regimes.monitors import RegimeWatch
from unmix.worlds.parity import Parity


def network(inputs=6, hidden=8, outputs=2, unit=nn.ReLU, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        return nn.Sequential(nn.Linear(inputs, hidden), unit(), nn.Linear(hidden, outputs, bias=False))


def train(model, watch, optimiser, x, y, steps):
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        loss = (model(x) - y).square().sum() / 2
        loss.backward()
        watch.before_step(step, model, optimiser)
        optimiser.step()
        watch.on_step(step, steps, {"loss": loss})
    return watch.records


def data(n=20, d=6, c=2):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, d, generator=draw, dtype=torch.float64), torch.randn(
        n, c, generator=draw, dtype=torch.float64
    )


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_balance_obeys_the_exact_law_of_gradient_descent(decay):
    x, y = data()
    model = network().double()
    watch = RegimeWatch(x, every=10)
    records = train(model, watch, torch.optim.SGD(model.parameters(), lr=5e-3, weight_decay=decay), x, y, 40)
    assert [r["step"] for r in records] == [0, 10, 20, 30, 40]
    assert all(r["conservation"] == "applies" and r["drift"] < 1e-12 for r in records)
    first, last = (r["balance"]["0 -> 2"]["mean"] for r in (records[0], records[-1]))
    assert abs(last - first) > 1e-6  # the balance itself does move; only the law is exact


def test_the_law_does_not_apply_to_momentum_adam_and_smooth_units():
    x, y = data()
    for make, word in (
        (lambda p: torch.optim.Adam(p, lr=1e-2), "Adam"),
        (lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9), "momentum"),
    ):
        model = network().double()
        before = unit_balance(model)["0 -> 2"]
        last = train(model, RegimeWatch(x, every=5, kernel=False), make(model.parameters()), x, y, 20)[-1]
        assert last["drift"] is None and word in last["conservation"]
        assert np.abs(unit_balance(model)["0 -> 2"] - before).max() > 1e-3
    model = network(unit=nn.GELU).double()
    last = train(model, RegimeWatch(x, every=5), torch.optim.SGD(model.parameters(), lr=1e-3), x, y, 5)[-1]
    assert "no pair" in last["conservation"] and last["hamming"] is None and last["verdict"] is not None


def test_decay_takes_the_balance_with_it():
    x, y = data()
    model = network().double()
    start = unit_balance(model)["0 -> 2"]
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, weight_decay=0.5)
    for _ in range(2000):
        optimiser.zero_grad()
        (1e-2 * (model(x) - y).square().sum()).backward()
        optimiser.step()
    ratio = unit_balance(model)["0 -> 2"].sum() / start.sum()
    assert ratio == pytest.approx(math.exp(-2), abs=1e-3)


def test_verdicts_of_parity_in_four_regimes():
    world = Parity(rows=200, seed=0)
    sample = world.sample(200)
    x, y = sample.x.double(), (2.0 * sample.y - 1)[:, None].double()
    found = {}
    for name, delta, scale in (("up", 1.0, 0.1), ("balanced", 0.0, 0.1), ("down", -1.0, 0.1), ("large", 0.0, 2.0)):
        model = network(40, 100, 1).double()
        with torch.no_grad():
            model[0].bias.zero_()
            model[0].bias.requires_grad_(False)
            model[0].weight.div_(model[0].weight.norm(dim=1, keepdim=True) / scale)
            model[2].weight.copy_(scale * model[2].weight.sign())
        symmetrise(model)
        balance(model, delta=delta)
        watch = RegimeWatch(x[:40], targets=sample.y[:40], every=1000)
        top = np.linalg.eigvalsh(_kernel(model, x))[-1]
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1 / top)
        found[name] = train(model, watch, optimiser, x, y, 500 if name == "down" else 40)[-1]
    verdicts = {name: record["verdict"] for name, record in found.items()}
    assert verdicts == {"up": "rich with little motion", "balanced": "rich", "down": "downstream", "large": "lazy"}
    up = found["up"]
    assert up["alignment"] > found["large"]["alignment"] and sum(up["layer shares"].values()) == pytest.approx(1)
    assert 1 <= up["effective rank"] <= 40


def _kernel(model, x):
    from unmix.regimes.kernel import tangent_kernel

    return tangent_kernel(model, x, reduce="trace").detach().numpy()


def test_a_learners_modules_are_looked_at_through_encoder_and_head():
    modules = nn.ModuleDict({"encoder": network(outputs=3), "head": nn.Sequential(nn.Identity())})
    x, y = data(c=3)
    watch = RegimeWatch(x.float(), every=1)
    optimiser = torch.optim.SGD(modules.parameters(), lr=1e-3)
    (modules["head"](modules["encoder"](x.float())) - y.float()).square().sum().backward()
    modules.train()
    watch.before_step(1, modules, optimiser)
    optimiser.step()
    watch.on_step(1, 1, {})
    assert watch.records[-1]["cka"] < 1 and watch.records[0]["cka"] == pytest.approx(1)
    assert "encoder.0 -> encoder.2" in watch.records[0]["balance"] and modules.training
    with pytest.raises(UsageError, match="have no encoder"):
        RegimeWatch(x.float()).before_step(1, nn.ModuleDict({"other": network()}), optimiser)
    with pytest.raises(UsageError, match="probe rows"):
        RegimeWatch(x[:1])


class Hidden(nn.Module):
    """Two layers with ReLUs between that no trace can follow."""

    def __init__(self):
        super().__init__()
        self.first, self.second = network()[0], network()[2]

    def forward(self, x):
        h = self.first(x)
        return self.second(torch.relu(h) if float(h.detach().sum()) < math.inf else h)


def test_pairs_given_by_hand_are_followed_and_found_out():
    x, y = data()
    for pairs in (None, ["first -> second"]):
        model = Hidden().double()
        watch = RegimeWatch(x, every=10, kernel=False, pairs=pairs)
        last = train(model, watch, torch.optim.SGD(model.parameters(), lr=5e-3), x, y, 20)[-1]
        assert set(last["balance"]) == {"first -> second"}
        assert last["conservation"] == "applies" and last["drift"] < 1e-12
    # Pairs are taken at their word: smooth units have no such law, which shows in training.
    smooth = network(unit=nn.GELU).double()
    watch = RegimeWatch(x, every=10, kernel=False, pairs=["0 -> 2"])
    last = train(smooth, watch, torch.optim.SGD(smooth.parameters(), lr=5e-3), x, y, 20)[-1]
    assert last["conservation"].startswith("does not hold: 0 -> 2") and last["drift"] > 1e-4
    with pytest.raises(UsageError, match="no layer 'third'"):
        RegimeWatch(x, pairs=["first -> third"]).before_step(1, model, None)


def frozen(model, how):
    """An optimiser that leaves the read-out where it is, in one of the ways that people write it."""
    first, last = list(model[0].parameters()), list(model[2].parameters())
    if how == "no gradient":
        model[2].requires_grad_(False)
    if how == "rate zero":
        return torch.optim.SGD([{"params": first}, {"params": last, "lr": 0.0}], lr=5e-3)
    return torch.optim.SGD(first if how == "left out" else model.parameters(), lr=5e-3)


@pytest.mark.parametrize("how", ["no gradient", "left out", "rate zero"])
def test_a_frozen_layer_has_no_law_whichever_way_it_is_frozen(how):
    x, y = data()
    model = network().double()
    last = train(model, RegimeWatch(x, every=5, kernel=False), frozen(model, how), x, y, 10)[-1]
    assert last["conservation"] == "does not apply: not all of 0 -> 2 is moved (a frozen layer)"
    assert last["drift"] is None


def test_a_pair_that_stands_still_does_not_hide_the_law_of_the_others():
    x, y = data()
    model = nn.Sequential(network(6, 8, 5), nn.Tanh(), network(5, 7, 2)).double()
    model[0].requires_grad_(False)
    optimiser = torch.optim.SGD(model.parameters(), lr=5e-3, weight_decay=0.2)
    last = train(model, RegimeWatch(x, every=5, kernel=False), optimiser, x, y, 10)[-1]
    assert set(last["balance"]) == {"0.0 -> 0.2", "2.0 -> 2.2"}
    assert last["conservation"] == "applies" and last["drift"] < 1e-12


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        (lambda p: nn.utils.clip_grad_norm_(p, 0.5), True),
        (lambda p: nn.utils.clip_grad_value_(p, 0.01), False),
        (lambda p: [q.grad.add_(0.5 * q.detach().sign()) for q in p], False),
    ],
)
def test_gradients_that_are_no_gradients_of_the_function_are_told(change, holds):
    x, y = data()
    model = network().double()
    watch, optimiser = RegimeWatch(x, every=10, kernel=False), torch.optim.SGD(model.parameters(), lr=5e-3)
    for step in range(1, 31):
        optimiser.zero_grad()
        ((model(x) - y).square().sum() / 2).backward()
        change(list(model.parameters()))
        watch.before_step(step, model, optimiser)
        optimiser.step()
        watch.on_step(step, 30, {})
    last = watch.records[-1]
    assert (last["conservation"] == "applies" and last["drift"] < 1e-12) == holds
    assert holds or "clipped number by number" in last["conservation"]


def test_an_optimiser_of_ones_own_is_not_taken_for_plain_descent():
    class Signs(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad.sign_()
            return super().step(closure)

    x, y = data()
    model = network().double()
    last = train(model, RegimeWatch(x, every=5, kernel=False), Signs(model.parameters(), lr=1e-3), x, y, 5)[-1]
    assert last["conservation"] == "does not apply: Signs is no plain descent"


def test_a_model_without_a_kernel_is_watched_without_it():
    x, y = data()
    model = nn.Sequential(network(), nn.BatchNorm1d(2, track_running_stats=False)).double()
    with pytest.warns(Notice, match="the kernel is not followed: .* depends on the others"):
        last = train(model, RegimeWatch(x, every=1), torch.optim.SGD(model.parameters(), lr=1e-3), x, y, 3)[-1]
    assert last["kernel distance"] is None and last["conservation"] == "applies" and last["drift"] < 1e-12


def test_sparse_gradients_keep_the_law_and_what_cannot_be_run_is_said():
    with drawn():
        model = nn.Sequential(nn.Embedding(9, 5, sparse=True, padding_idx=0), nn.Linear(5, 2))
        parts = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(6, 3), nn.Tanh()), "other": nn.Bilinear(3, 4, 2)})
    x, y = torch.arange(8).view(4, 2), torch.ones(4, 2, 2, dtype=torch.float64)
    last = train(model, RegimeWatch(x, kernel=False), torch.optim.SGD(model.parameters(), lr=1e-2), x, y, 5)[-1]
    assert last["conservation"] == "applies" and last["drift"] < 1e-12
    watch = RegimeWatch(data()[0], kernel=False)
    watch.before_step(1, parts, torch.optim.SGD(parts.parameters(), lr=1e-2))
    assert "give an input as probe=" in watch.records[0]["conservation"]


def test_roughness_of_known_filters():
    impulse = torch.zeros(5, 5)
    impulse[2, 2] = 1.0
    assert float(measures.roughness(impulse, "full")) == pytest.approx(5.25)
    assert float(measures.roughness(3 * impulse)) == pytest.approx(5.25)
    noise = torch.randn(4000, 15, 15, generator=torch.Generator().manual_seed(0))
    assert float(measures.roughness(noise).mean()) == pytest.approx(5.15, abs=0.1)
    v = torch.arange(15.0) - 7
    gabor = torch.exp(-(v[:, None] ** 2 + v**2) / 18) * torch.cos(2 * math.pi * v / 7)
    assert float(measures.roughness(gabor)) == pytest.approx(0.157, abs=0.005)
    assert float(measures.roughness(torch.zeros(3, 3))) == 0


def test_measures_of_simple_cases():
    draw = torch.Generator().manual_seed(0)
    h = torch.randn(30, 4, generator=draw)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=draw))[0]
    assert measures.cka(h, 3 * h @ turn + 1) == pytest.approx(1)
    assert measures.cka(h, torch.ones(30, 2)) == 0
    assert measures.kernel_distance(torch.eye(3), 2 * torch.eye(3)) == pytest.approx(0)
    y = torch.tensor([0, 0, 1, 1])
    sign = torch.tensor([1.0, 1, -1, -1])
    assert measures.alignment(sign[:, None] * sign, y) == pytest.approx(1)
    assert measures.effective_rank(torch.eye(5)) == pytest.approx(5)
    with pytest.raises(UsageError, match="not all zero"):
        measures.kernel_distance(torch.zeros(2, 2), torch.eye(2))
