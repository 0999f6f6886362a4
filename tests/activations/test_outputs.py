"""Parts of what a module gives, and numbers that are no activations."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from unmix.activations.hooks import capture, splice
from unmix.activations.outputs import chosen, replaced, require_real, tensors
from unmix.core.errors import UsageError

Pair = namedtuple("Pair", ["states", "weights"])


@pytest.fixture(autouse=True)
def drawing() -> Iterator[None]:
    """Modules are made here; what they draw leaves the global state as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


@dataclasses.dataclass
class Told:
    loss: torch.Tensor | None
    states: torch.Tensor
    more: Any = None


ONE, TWO = torch.ones(2, 3), torch.zeros(2, 4)
CONTAINERS: dict[str, tuple[Any, dict[str, torch.Tensor]]] = {
    "tuple": ((ONE, "text", TWO), {"0": ONE, "2": TWO}),
    "nested": ((ONE, (TWO, [ONE])), {"0": ONE, "1.0": TWO, "1.1.0": ONE}),
    "named tuple": (Pair(ONE, TWO), {"states": ONE, "weights": TWO}),
    "dict": ({"a": ONE, 3: TWO, "none": None}, {"a": ONE, "3": TWO}),
    "dotted key": ({"a.b": ONE, "a": {"c": TWO}}, {"a.b": ONE, "a.c": TWO}),
    "dataclass": (Told(None, ONE, {"x": TWO}), {"states": ONE, "more.x": TWO}),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_tensor_has_a_path_and_is_replaced_by_it(name: str) -> None:
    output, wanted = CONTAINERS[name]
    found = tensors(output)
    assert list(found) == list(wanted) and all(found[path] is wanted[path] for path in wanted)
    for path, old in wanted.items():
        new = old + 7
        changed = replaced(output, path, new)
        assert type(changed) is type(output) and tensors(output)[path] is old, "the output itself stays"
        assert tensors(changed)[path] is new
        assert all(tensors(changed)[other] is wanted[other] for other in wanted if other != path)


def test_which_tensor_is_meant() -> None:
    plain, lstm, attention = nn.Module(), nn.LSTM(3, 4), nn.MultiheadAttention(4, 2)
    assert chosen(plain, ONE) == "" and chosen(plain, (None, "a", {"b": ONE})) == "2.b"
    assert chosen(plain, {"a": ONE, "b": ONE}) == "a", "the same tensor twice"
    assert chosen(plain, {"pooled": TWO, "last_hidden_state": ONE}) == "last_hidden_state"
    assert chosen(lstm, lstm(torch.ones(5, 2, 3))) == "0" and chosen(lstm, lstm(torch.ones(5, 2, 3)), "1.1") == "1.1"
    tokens = torch.ones(5, 2, 4)
    assert chosen(attention, attention(tokens, tokens, tokens)) == "0"
    with pytest.raises(
        UsageError, match=r"layer=f: gives several tensors; say which: output=0 \[2, 3\], output=1 \[2, 4\]"
    ):
        chosen(plain, (ONE, TWO), name="f")
    with pytest.raises(UsageError, match=r"output=2: layer f gives output=0"):
        chosen(plain, (ONE, TWO), "2", "f")
    with pytest.raises(UsageError, match="gives one tensor; leave output out"):
        chosen(plain, ONE, "0", "f")
    packed = nn.utils.rnn.pack_padded_sequence(torch.ones(5, 2, 3), torch.tensor([5, 2]))
    with pytest.raises(UsageError, match=r"is a packed sequence.*or output=1\.0"):
        chosen(lstm, lstm(packed))
    assert chosen(lstm, lstm(packed), "1.0") == "1.0"
    with pytest.raises(UsageError, match="is str without a tensor"):
        chosen(plain, "text")


def test_numbers_that_are_no_activations() -> None:
    refused = {
        "complex numbers": torch.ones(2, dtype=torch.complex64),
        "int64, no real": torch.ones(2, dtype=torch.int64),
        "bool, no real": torch.ones(2, dtype=torch.bool),
        "sparse": torch.eye(2).to_sparse(),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    }
    for words, value in refused.items():
        with pytest.raises(UsageError, match=f"layer=f: gives .*{words}"):
            require_real(value, "f")
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        require_real(torch.ones(2, dtype=dtype))


def test_what_was_captured_stays_though_a_later_layer_changes_it_in_place() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    with capture(net[0]) as got:
        net(x)
    torch.testing.assert_close(got.value, net[0](x).detach())
    assert float(got.value.min()) < 0 and not got.value.requires_grad


def test_one_run_of_a_shared_layer() -> None:
    shared = nn.Linear(3, 3)
    net = nn.Sequential(shared, nn.Tanh(), shared)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, last = shared(x), net(x)
        for call, wanted in ((0, first), (1, last)):
            for stop in (True, False):
                with capture(shared, stop=stop, call=call) as got:
                    net(x)
                torch.testing.assert_close(got.value, wanted)
        with capture(shared) as got:
            net(x)
        assert got.runs == 2
        torch.testing.assert_close(got.value, last)
        with splice(shared, torch.zeros_like, call=1):
            assert not net(x).any()
        with splice(shared, torch.zeros_like, call=0):
            torch.testing.assert_close(net(x), shared.bias.expand(4, 3))
