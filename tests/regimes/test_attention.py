"""Attention written out in linear layers: what is found by name, what is tried and refused, pairs given by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from unmix.core.errors import Failure, UsageError
from unmix.networks.transformer import Transformer
from unmix.networks.vit import ViT
from unmix.regimes.balance import balance, sgd_groups, unit_balance
from unmix.regimes.initialise import Balanced, Upstream
from unmix.regimes.monitors import RegimeWatch
from unmix.regimes.pairs import find_pairs, given_pairs


class Separate(nn.Module):
    """Four heads of queries, two of keys and values; `bend` acts on the queries."""

    def __init__(self, names=("q_proj", "k_proj", "v_proj", "o_proj"), bend=None):
        super().__init__()
        self.num_heads, self.names, self.bend = 4, names, bend
        for name, rows in zip(names, (8, 4, 4, 8), strict=True):
            setattr(self, name, nn.Linear(8, rows))

    def forward(self, x):
        q, k, v, o = (getattr(self, name) for name in self.names)
        query, key, value = (part(x).unflatten(-1, (-1, 2)).transpose(1, 2) for part in (q, k, v))
        query = query if self.bend is None else self.bend(query)
        seen = nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
        return o(seen.transpose(1, 2).flatten(2))


class Packed(nn.Module):
    def __init__(self, order=(2, 0, 3, 1, 4)):
        super().__init__()
        self.order, self.heads = order, 2
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        shape = (3, self.heads) if self.order[0] == 2 else (self.heads, 3)
        q, k, v = self.qkv(x).reshape(*x.shape[:2], *shape, 4).permute(self.order)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Masked(Separate):
    def forward(self, x, mask):
        return super().forward(x * mask)


class Net(nn.Module):
    def __init__(self, attend):
        super().__init__()
        self.attend, self.head = attend, nn.Linear(8, 3)

    def forward(self, x):
        made = self.attend(x, 1.0) if isinstance(self.attend, Masked) else self.attend(x)
        return self.head((x + made).mean(1))


def built(make):
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(0)
        return make().double().eval()


def rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


X = rows(6, 5, 8)


@pytest.mark.parametrize(
    ("attend", "units"),
    [(Masked, 2), (Separate, 2), (lambda: Separate(("query", "key", "value", "dense")), 2), (Packed, 2)],
)
def test_projections_are_found_by_name_and_the_function_is_kept(attend, units):
    model = built(lambda: Net(attend()))
    before = model(X)
    legal = {pair.kind: pair for pair in find_pairs(model) if pair.legal}
    assert set(legal) == {"query-key", "value-output"}
    for options in ({"alpha": 3.0}, {"delta": 0.5}):
        report = balance(model, **options, probe=X)
        assert {len(r) for r in report.moved.values()} == {units} and len(report.moved) == 2
        assert torch.allclose(model(X), before, atol=1e-10)
    balances = unit_balance(model)
    assert all(np.abs(balances[pair.name] - 0.5).max() < 1e-5 for pair in legal.values())
    report.undo(model)


@pytest.mark.parametrize(
    ("recipe", "x"),
    [
        (ViT(patch=4, tokens=12, depth=2, heads=3), rows(3, 1, 8, 8)),
        (Transformer(vocabulary=7, tokens=12, depth=2, heads=3), torch.arange(12).reshape(3, 4) % 7),
    ],
)
def test_the_transformers_here_have_both_pairs_in_every_block(recipe, x):
    model = recipe.build(tuple(x.shape[1:]), 4, 0).double().eval()
    before = model(x)
    report = balance(model, alpha=2.0, probe=x)
    kinds = [name.rpartition(" ")[2] for name in report.moved]
    assert kinds.count("query-key") == kinds.count("value-output") == 2
    assert torch.allclose(model(x), before, atol=1e-10)


@pytest.mark.parametrize(
    ("attend", "why"),
    [
        (lambda: Separate(bend=torch.tanh), "output changes"),
        (lambda: Packed((3, 0, 2, 1, 4)), "output changes"),
    ],
)
def test_names_prove_nothing(attend, why):
    model = built(lambda: Net(attend()))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = {pair.kind: pair for pair in find_pairs(model) if pair.kind != "units"}
    assert not found["query-key"].legal and why in found["query-key"].why
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_pairs_by_hand():
    model = built(lambda: Net(Masked()))
    before = model(X)
    texts = ["attend.q_proj -> attend.k_proj query-key 2", "attend.v_proj -> attend.o_proj value-output 2"]
    report = balance(model, alpha=2.0, probe=X, pairs=texts)
    assert list(report.moved) == [text[:-2] for text in texts] and report.preserved
    assert torch.allclose(model(X), before, atol=1e-10)
    assert set(unit_balance(model, pairs=texts)) == set(report.moved)
    report.undo(model)
    assert balance(model, alpha=2.0, pairs=texts).preserved
    with pytest.raises(Failure, match="a pair does not hold"):
        balance(model, alpha=2.0, probe=X, pairs=["attend.o_proj -> head"])
    for text, why in (
        ("attend.q_proj -> attend.keys", "did you mean"),
        ("attend.q_proj attend.k_proj", "write FIRST -> SECOND"),
        ("attend.q_proj -> attend.k_proj twice", "write FIRST -> SECOND"),
        ("attend.q_proj -> attend.k_proj query-key 3", "not the inputs"),
        ("head -> attend.q_proj", "not the inputs"),
        ("attend -> head", "not a layer of weights"),
    ):
        with pytest.raises(UsageError, match=why):
            given_pairs(model, [text])


def test_recipes_take_pairs_and_refuse_them_for_layers_alone():
    texts = ("attend.q_proj -> attend.k_proj query-key 2",)
    model = built(lambda: Net(Masked()))
    size = model.attend.q_proj.weight.detach().norm()
    Upstream(alpha=4, pairs=texts).apply(model)
    assert torch.allclose(model.attend.q_proj.weight.norm(), size / 4)
    Balanced(delta=0.2, pairs=texts).apply(model)
    assert "pairs" not in Upstream().as_dict() and Upstream(pairs=texts).as_dict()["pairs"] == list(texts)
    with pytest.raises(UsageError, match="layers=pairs"):
        Upstream(layers="first", pairs=texts).apply(model)


def test_separate_projections_have_rates_of_their_own_packed_ones_cannot():
    groups = sgd_groups(built(lambda: Net(Separate())), 3.0, 0.1)
    assert sorted(round(group["lr"] / 0.1, 6) for group in groups) == [round(1 / 9, 6), 1, 9]
    with pytest.raises(UsageError, match="shares one tensor"):
        sgd_groups(built(lambda: Net(Packed())), 3.0, 0.1)


def test_attention_keeps_the_law_of_gradient_descent():
    model = built(lambda: Net(Separate()))
    watch = RegimeWatch(X, every=10, kernel=False)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(1, 31):
        optimiser.zero_grad()
        (model(X) - 1).square().mean().backward()
        watch.before_step(step, model, optimiser)
        optimiser.step()
        watch.on_step(step, 30, {})
    assert watch.records[-1]["conservation"] == "applies" and watch.records[-1]["drift"] < 1e-13
    assert len(watch.records[-1]["balance"]) == 2
