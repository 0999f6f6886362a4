"""Small networks as people write them, each with an input: what `balance` and the kernel are tried on."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune


class Net(nn.Module):
    """Parts by name, and what is done with them."""

    def __init__(self, how, **parts):
        super().__init__()
        self.how = how
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *x):
        return self.how(self, *x)


@dataclass
class Answer:
    logits: Any
    more: Any = None


class Standardised(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, (self.weight - self.weight.mean()) / self.weight.std(), self.bias)


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def words(*shape):
    return torch.randint(0, 11, shape, generator=torch.Generator().manual_seed(1))


def tied(second):
    """A chain whose first and last layers hold the same numbers."""
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[4].weight = second(model[0].weight)
    return model


def language(read):
    return Net(read, e=nn.Embedding(11, 6), a=nn.Linear(6, 12), b=nn.Linear(12, 6))


def masked():
    model = language(lambda m, x: m.b(torch.relu(m.a(m.e(x)))) @ m.e.weight.T + m.mask)
    model.register_buffer("mask", torch.tensor([-torch.inf] + [0.0] * 10))
    return model


def sharing_attention():
    blocks = {name: nn.MultiheadAttention(12, 3, batch_first=True) for name in ("a", "b")}
    blocks["b"].in_proj_weight = blocks["a"].in_proj_weight
    return Net(lambda m, x: m.b(*(m.a(x, x, x)[0],) * 3)[0], **blocks)


def pruned():
    model = chain(8)
    prune.l1_unstructured(model[0], "weight", 0.3)
    return model


def chain(width, first=None):
    return nn.Sequential(
        first or nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 7), nn.LeakyReLU(0.1), nn.Linear(7, 3)
    )


def dead():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2], model[2].weight[:, 3] = 0, 0, 0
    return model


def linear_pair(how, **parts):
    return Net(how, a=nn.Linear(6, 8), b=nn.Linear(8, 3), **parts)


def places(width):
    """A layer over tokens after one over channels; 16 places, so that 8 or 16 channels look as if they fitted."""
    return Net(
        lambda m, x: m.u(torch.relu(m.t(m.p(x).flatten(2)))),
        p=nn.Conv2d(3, width, 2, 2), t=nn.Linear(16, 32), u=nn.Linear(32, 16),
    )  # fmt: skip


def residual():
    def how(m, x):
        h = m.first(x)
        return m.head((h + m.second(torch.relu(m.widen(torch.relu(h))))).mean((2, 3)))

    return Net(
        how, first=nn.Conv2d(3, 4, 3, padding=1), widen=nn.Conv2d(4, 6, 3, padding=1),
        second=nn.Conv2d(6, 4, 3, padding=1), head=nn.Linear(4, 2),
    )  # fmt: skip


def autoencoder():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1, groups=2), nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 2, 2, groups=2), nn.ReLU(), nn.ConvTranspose2d(4, 1, 2, 2),
    )  # fmt: skip


def recurrent(kind):
    def how(m, x):
        return m.o(torch.relu(m.h(m.g(x)[0][:, -1])))

    return Net(how, g=kind(6, 4, batch_first=True), h=nn.Linear(4, 6), o=nn.Linear(6, 2))


def encoder(**options):
    return nn.TransformerEncoderLayer(12, 4, 20, dropout=0.1, batch_first=True, **options)


ROWS, MAPS, TOKENS, TEXT = numbers(4, 6), numbers(2, 3, 8, 8), numbers(2, 5, 12), words(3, 5)

# By name: how it is built, its input, the pairs that are moved ("" where balance is refused).
MODELS = {
    "plain": (lambda: chain(8), ROWS, "0 -> 2, 2 -> 4"),
    "in place, with dropout": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 3)),
        ROWS, "0 -> 3",
    ),
    "slopes that are learnt": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.PReLU(8), nn.Linear(8, 3)), ROWS, "0 -> 2"
    ),
    "a leaky unit by hand": (
        lambda: linear_pair(lambda m, x: m.b(torch.where(m.a(x) > 0, 1.0, 0.1) * m.a(x))), ROWS, "a -> b",
    ),
    "a limit": (lambda: linear_pair(lambda m, x: m.b(F.relu6(m.a(x)))), ROWS, ""),
    "a limit that no input meets": (lambda: linear_pair(lambda m, x: m.b(m.a(x).clamp(0, 50))), ROWS, ""),
    "a square": (lambda: linear_pair(lambda m, x: m.b(torch.relu(m.a(x)) ** 2)), ROWS, ""),
    "smooth units": (lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)), ROWS, ""),
    "units without weights": (dead, ROWS, "0 -> 2"),
    "a second read-out in training": (
        lambda: linear_pair(
            lambda m, x: (m.b(torch.relu(m.a(x))), m.c(m.a(x).tanh()) if m.training else None),
            c=nn.Linear(8, 3),
        ),
        ROWS, "",
    ),
    "dropout that shifts": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.AlphaDropout(0.3), nn.Linear(8, 3)), ROWS, ""
    ),
    "records of more than one output": (
        lambda: linear_pair(lambda m, x: Answer({"y": m.b(torch.relu(m.a(x)))}, [m.c(x)]), c=nn.Linear(6, 2)),
        ROWS, "a -> b",
    ),
    "a record with the hidden layer": (lambda: linear_pair(lambda m, x: Answer(m.b(m.a(x)), [m.a(x)])), ROWS, ""),
    "a read-out by the embedding": (
        lambda: language(lambda m, x: m.b(torch.relu(m.a(m.e(x)))) @ m.e.weight.T), TEXT, "a -> b",
    ),
    "logits that are masked": (masked, TEXT, "a -> b"),
    "one parameter twice": (lambda: tied(lambda w: w), ROWS, ""),
    "one storage twice": (lambda: tied(lambda w: nn.Parameter(w.data.T)), ROWS, ""),
    "embeddings of bounded size": (
        lambda: Net(lambda m, x: m.a(m.e(x)), e=nn.Embedding(11, 6, max_norm=1.0), a=nn.Linear(6, 3)), TEXT, "",
    ),
    "embeddings side by side": (
        lambda: Net(
            lambda m, x: m.b(torch.relu(m.a(m.e(x).flatten(1)))),
            e=nn.Embedding(11, 4, padding_idx=0), a=nn.Linear(20, 8), b=nn.Linear(8, 3),
        ),
        TEXT, "e -> a, a -> b",
    ),
    "weight norm": (lambda: chain(8, parametrizations.weight_norm(nn.Linear(6, 8))), ROWS, "2 -> 4"),
    "spectral norm": (lambda: chain(8, parametrizations.spectral_norm(nn.Linear(6, 8))), ROWS, "2 -> 4"),
    "weight norm by a hook": (lambda: chain(8, nn.utils.spectral_norm(nn.Linear(6, 8))), ROWS, "2 -> 4"),
    "pruned": (pruned, ROWS, "2 -> 4"),
    "standardised filters": (
        lambda: nn.Sequential(Standardised(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 1)),
        MAPS, "2 -> 4",
    ),
    "half as many channels as places": (lambda: places(8), MAPS, "t -> u"),
    "as many channels as places": (lambda: places(16), MAPS, "t -> u"),
    "over frequencies": (
        lambda: Net(lambda m, x: m.b(torch.relu(m.a(x))), a=nn.Conv2d(1, 8, 3, padding=1), b=nn.Linear(40, 5)),
        numbers(2, 1, 20, 40), "",
    ),
    "channels last": (
        lambda: Net(
            lambda m, x: m.b(torch.relu(m.a(x)).permute(0, 2, 3, 1).flatten(1)),
            a=nn.Conv2d(3, 4, 3), b=nn.Linear(144, 3),
        ),
        MAPS, "a -> b",
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(72, 3),
        ),
        MAPS, "0 -> 2, 2 -> 5",
    ),
    "transposed and grouped": (autoencoder, numbers(2, 1, 16, 16), "0 -> 2, 2 -> 4, 4 -> 6"),
    "residual": (residual, MAPS, "widen -> second"),
    "normalised": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4)
        ),
        MAPS, "",
    ),
    "a layer used twice": (
        lambda: Net(lambda m, x: m.b(torch.relu(m.a(torch.relu(m.a(x))))), a=nn.Linear(6, 6), b=nn.Linear(6, 3)),
        ROWS, "",
    ),
    "two arms of one network": (
        lambda: linear_pair(lambda m, x, y: m.b(torch.relu(m.a(x))) - m.b(torch.relu(m.a(y)))),
        (ROWS, ROWS.flip(0)), "a -> b",
    ),
    "gated": (
        lambda: Net(
            lambda m, x: m.d(F.silu(m.g(x)) * m.u(x)), g=nn.Linear(6, 8), u=nn.Linear(6, 8), d=nn.Linear(8, 6)
        ),
        ROWS, "u -> d",
    ),
    "LSTM": (lambda: recurrent(nn.LSTM), numbers(3, 4, 6), "h -> o"),
    "GRU": (lambda: recurrent(nn.GRU), numbers(3, 4, 6), "h -> o"),
    "RNN": (lambda: recurrent(nn.RNN), numbers(3, 4, 6), "h -> o"),
    "transformer block": (
        encoder, TOKENS, "linear1 -> linear2, self_attn query-key, self_attn value-output"
    ),
    "transformer block with smooth units": (
        lambda: encoder(activation="gelu", norm_first=True), TOKENS, "self_attn query-key, self_attn value-output"
    ),
    "attention of other widths": (
        lambda: nn.MultiheadAttention(12, 3, batch_first=True, kdim=6, vdim=7),
        (TOKENS, numbers(2, 4, 6), numbers(2, 4, 7)), "query-key, value-output",
    ),
    "attention that shares its weights": (sharing_attention, TOKENS, ""),
    "matrices of one's own": (
        lambda: Net(
            lambda m, x: torch.relu(x @ m.w[0]) @ m.w[1],
            w=nn.ParameterList([nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(8, 3))]),
        ),
        ROWS, "",
    ),
    "frozen": (lambda: chain(8).requires_grad_(False), ROWS, "0 -> 2, 2 -> 4"),
    "wrapped": (lambda: nn.DataParallel(chain(8)), ROWS, "0 -> 2, 2 -> 4"),
}  # fmt: skip


@contextmanager
def drawn(seed=0, dtype=torch.float64):
    """New weights in this precision from this seed; the random state is as it was afterwards."""
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


# What is moved in evaluation mode only.
STILL = {"a second read-out in training": "a -> b", "dropout that shifts": "0 -> 3"}


def built(name, seed=0):
    """A model of the table in double precision, and the tuple that it is called with."""
    make, x, _ = MODELS[name]
    with drawn(seed):
        model = make()
    given = x if isinstance(x, tuple) else (x,)
    return model, tuple(t.double() if t.is_floating_point() else t for t in given)
