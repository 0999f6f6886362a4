from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from unmix.activations.hooks import capture, layer_of, quiet, splice
from unmix.core.errors import UsageError


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
        return x + 1, "kept"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList([nn.Linear(3, 3) for _ in range(6)])
        self.pair = Pair()
        self.dropout = nn.Dropout(0.5)
        self.ran = 0

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
        for layer in self.encoder.layer:
            x = layer(x)
        self.ran += 1
        return self.pair(self.dropout(x))


def net_() -> Net:
    with torch.random.fork_rng():
        return Net()


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_layer_of_finds_and_suggests() -> None:
    net = net_()
    assert layer_of(net, "encoder.layer.3") is net.encoder.layer[3]
    with pytest.raises(UsageError, match=r"layer=layer.3: Net has no such layer; did you mean encoder.layer.3"):
        layer_of(net, "layer.3")
    with pytest.raises(UsageError, match=r"encoder.layer.3"):
        layer_of(net, "bert.encoder.layer.3")
    with pytest.raises(UsageError, match=r"did you mean encoder\.layer\.") as caught:
        layer_of(net, "encoder.layr.9")
    near, _, listed = str(caught.value).partition("?")
    assert near.count(",") <= 4 and listed.endswith("dropout, encoder.layer.0 .. encoder.layer.5")
    with pytest.raises(UsageError, match="its layers: encoder, pair, dropout"):
        layer_of(net, "")


def test_capture_takes_the_output_and_leaves_no_hook() -> None:
    net, x = net_().eval(), torch.ones(2, 3)
    with capture(net.encoder.layer[0]) as got:
        net(x)
    assert torch.equal(got.value, net.encoder.layer[0](x)) and not got.value.requires_grad
    with capture(net.pair) as got:
        expected = net(x)[0]
    assert torch.equal(got.value, expected)
    before = net.ran
    with capture(net.encoder.layer[2], stop=True) as got:
        net(x)
        raise AssertionError("the pass went on")
    assert net.ran == before and got.value.shape == (2, 3)
    with pytest.raises(ZeroDivisionError), capture(net.pair):
        raise ZeroDivisionError
    assert hooks(net) == 0


def test_splice_replaces_the_first_tensor_and_keeps_the_rest() -> None:
    net, x = net_().eval(), torch.ones(2, 3)
    with splice(net.pair, lambda h: h * 0):
        out, note = net(x)
    assert bool((out == 0).all()) and note == "kept"
    with splice(net.encoder.layer[5], torch.zeros_like):
        assert bool((net(x)[0] == 1).all())
    with pytest.raises(UsageError, match="must keep the shape"), splice(net.pair, lambda h: h[:, :1]):
        net(x)
    assert hooks(net) == 0 and not bool((net(x)[0] == 0).any())


def test_splice_keeps_model_outputs() -> None:
    pytest.importorskip("transformers")
    from transformers.modeling_outputs import BaseModelOutput

    class Wrapped(nn.Module):
        def forward(self, x: torch.Tensor) -> BaseModelOutput:
            return BaseModelOutput(last_hidden_state=x, attentions=(x,))

    module = Wrapped()
    with splice(module, lambda h: h + 5), capture(module) as got:
        out = module(torch.zeros(1, 2))
    assert type(out) is BaseModelOutput and float(out.last_hidden_state[0, 0]) == 5
    assert float(out.attentions[0][0, 0]) == 0
    assert float(got.value[0, 0]) == 5


def test_output_without_a_tensor() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> OrderedDict:
            return OrderedDict(a="text")

    odd = Odd()
    with pytest.raises(UsageError, match="without a tensor"), capture(odd):
        odd(torch.ones(1))
    assert hooks(odd) == 0


def test_quiet_gives_back_every_training_flag() -> None:
    net = net_()
    net.dropout.eval()
    flags = [m.training for m in net.modules()]
    with pytest.raises(ZeroDivisionError), quiet(net):
        assert not any(m.training for m in net.modules())
        assert not net(torch.ones(1, 3))[0].requires_grad
        raise ZeroDivisionError
    assert [m.training for m in net.modules()] == flags
    assert torch.is_grad_enabled() and all(p.requires_grad for p in net.parameters())
