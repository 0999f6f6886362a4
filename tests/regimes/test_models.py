"""One contract for every network of the table: the function is kept, or the weights are, and nothing goes unsaid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from tests.regimes.models import MODELS, STILL, Net, built, chain, drawn
from unmix.core.errors import Failure, UnmixError, UsageError
from unmix.regimes.balance import balance, scale_layers, unit_balance
from unmix.regimes.pairs import find_pairs
from unmix.regimes.running import copied, tensors_in

QUIET = (nn.Dropout, nn.modules.batchnorm._BatchNorm)


def given(model, x, training):
    """Every tensor that a copy gives; dropout and statistics stand still, in training too."""
    twin = copied(model).train(training)
    for part in twin.modules():
        if isinstance(part, QUIET):
            part.eval()
        elif isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return [t.clone() for t in tensors_in(twin(*x))]


def state(model):
    return {name: t.clone() for name, t in model.state_dict().items()}


def alike(one, two):
    return one.keys() == two.keys() and all(torch.equal(t, two[name]) for name, t in one.items())


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("training", [False, True])
def test_the_function_is_kept_or_the_weights_are(name, training):
    model, x = built(name)
    model.train(training)
    expected = {pair for pair in MODELS[name][2].split(", ") if pair}
    if name in STILL and not training:
        expected = {STILL[name]}
    before, start, random = given(model, x, training), state(model), torch.get_rng_state()
    for options in ({"alpha": 3.0}, {"delta": 0.5}):
        if not expected:
            with pytest.raises(UsageError, match="no pair of layers can be rescaled"):
                balance(model, **options, probe=x)
            assert alike(start, state(model))
            continue
        report = balance(model, **options, probe=x)
        assert report.preserved and set(report.moved) == expected and not alike(start, state(model))
        for a, b in zip(before, given(model, x, training), strict=True):
            there = torch.isfinite(a)
            assert torch.equal(there, torch.isfinite(b))
            assert (a - b)[there].abs().max() <= 1e-9 * a[there].abs().max()
        if "delta" in options and name != "units without weights":
            assert all(np.abs(report.after[pair] - 0.5).max() < 1e-4 for pair in expected)
        listed = set(" ".join([*report.moved, *report.left]).split())
        for part, parameter in getattr(model, "module", model).named_parameters():
            owner = part.rpartition(".")[0]
            assert parameter.ndim < 2 or listed & {part, owner, owner.removesuffix(".out_proj"), "query-key"}
        report.undo(model)
        assert alike(start, state(model))
    assert torch.equal(random, torch.get_rng_state()) and all(m.training == training for m in model.modules())
    assert not any(m._forward_hooks for m in model.modules()) and all(p.grad is None for p in model.parameters())


UNTOLD = {"attention of other widths", "two arms of one network"}  # layers do not tell of three widths, or of *x


@pytest.mark.parametrize("name", list(MODELS))
def test_an_input_is_made_where_none_is_given(name):
    model, x = built(name)
    told = {pair.name for pair in find_pairs(model, x) if pair.legal}
    if name in UNTOLD:
        with pytest.raises(UsageError, match="give an input as probe="):
            balance(model, alpha=2.0)
        return
    assert {pair.name for pair in find_pairs(model) if pair.legal} == told


class Counted(nn.Module):
    """Raises in the call of a given number, its copies counted with it."""

    def __init__(self, calls, error):
        super().__init__()
        self.calls, self.error = calls, error

    def forward(self, x):
        self.calls[0] -= 1
        if self.calls[0] == 0:
            raise self.error
        return x


class Count(list):
    """A list that copies share."""

    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_whenever_it_is_interrupted_the_weights_are_as_they_were(error):
    number, done = 0, False
    while not done:
        number += 1
        with drawn():
            model = nn.Sequential(*chain(8), Counted(Count([number]), error)).train()
        start = state(model)
        try:
            done = balance(model, alpha=3.0, probe=torch.ones(2, 6).double()).preserved
        except (KeyboardInterrupt, UnmixError):
            assert alike(start, state(model)) and all(m.training for m in model.modules())
    assert number > (8 if isinstance(error, KeyboardInterrupt) else 2) and not alike(start, state(model))


def test_numbers_that_leave_their_type_are_put_back():
    with drawn():
        model = chain(8).half()
    start = state(model)
    with pytest.raises(Failure, match="weights were put back"):
        balance(model, alpha=1e6, probe=torch.ones(2, 6).half())
    assert alike(start, state(model))


def test_what_cannot_be_run_or_compared_is_said():
    with drawn(dtype=torch.float32), torch.inference_mode():
        made = chain(8)
    with drawn(dtype=torch.float32):
        model = chain(8)
    for probe, why in (
        (torch.ones(2, 5), "cannot be run on it"),
        (torch.full((2, 6), torch.nan), "no finite number"),
        ({"y": torch.ones(2, 6)}, "cannot be run on it"),
    ):
        with pytest.raises(UsageError, match=why):
            balance(model, alpha=2.0, probe=probe)
    with pytest.raises(UsageError, match="run the model once first"):
        balance(nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2)), alpha=2.0)
    with pytest.raises(UsageError, match="cannot be written in place"):
        balance(made, alpha=2.0)
    wanting = Net(lambda m, x, y=None: m.a(x) if y is not None or not m.training else y.loss, a=model)
    with pytest.raises(UsageError, match=r"in training mode: AttributeError.*; call model\.eval\(\) first"):
        balance(wanting.train(), alpha=2.0, probe=torch.ones(2, 6))
    assert list(balance(wanting.eval(), alpha=2.0, probe=torch.ones(2, 6)).moved) == ["a.0 -> a.2", "a.2 -> a.4"]
    draws = iter(range(1000))
    model.register_forward_hook(lambda module, x, y: y + next(draws))
    with pytest.raises(UsageError, match="two runs on the same input differ"):
        balance(model, alpha=2.0)


def test_computed_weights_are_told_in_words_everywhere():
    model = built("weight norm")[0]
    with pytest.raises(UsageError, match="the weight of 0 is computed"):
        balance(model, alpha=2.0, pairs=["0 -> 2"])
    with pytest.raises(UsageError, match="the weight of 0 is computed"):
        scale_layers(model, 2.0, (nn.Linear,))
    assert set(unit_balance(model)) == {"2 -> 4"}
    model = built("spectral norm")[0].train()
    start = state(model)
    balance(model, alpha=2.0, probe=torch.ones(2, 6).double()).undo(model)
    assert alike(start, state(model))  # its buffers too, which move whenever the weight is looked at
    model, (x,) = built("transformer block")
    with drawn():
        parametrizations.spectral_norm(model.train().self_attn.out_proj)
    start = state(model)
    report = balance(model, alpha=2.0, probe=x)
    assert "the weight of self_attn.out_proj is computed" in report.left["self_attn value-output"]
    report.undo(model)
    assert alike(start, state(model)) and list(report.moved) == ["linear1 -> linear2"]


def test_the_callers_modes_do_not_reach_balance():
    right = built("plain")[0]
    balance(right, alpha=3.0)
    for mode in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16)):
        model = built("plain")[0]
        with mode:
            assert balance(model, alpha=3.0).preserved
        assert alike(state(right), state(model))
    model = built("plain")[0]
    compiled = torch.compile(model, backend="eager")
    report = balance(compiled, alpha=3.0)
    assert alike(state(right), state(model)) and list(report.moved) == ["0 -> 2", "2 -> 4"]
    report.undo(compiled)
    assert alike(state(model), state(built("plain")[0]))
