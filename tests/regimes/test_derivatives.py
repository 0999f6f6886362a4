"""The kernel and derivatives along directions for every network of the table, beside autograd row by row."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.regimes.models import MODELS, Net, built, drawn, numbers, words
from unmix.core.errors import UsageError
from unmix.regimes.kernel import kernel_times, sketched_kernel, tangent_kernel
from unmix.regimes.linearised import Linearised
from unmix.regimes.monitors import RegimeWatch
from unmix.regimes.running import copied, tensors_in


def reading(embedding):
    """A language model whose read-out is its embedding."""
    return Net(lambda m, x: m.a(m.e(x).mean(1)) @ m.e.weight.T, e=embedding, a=nn.Linear(6, 6))


MORE = {
    "dilated, with reflected edges": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, dilation=2, padding=2, padding_mode="reflect"), nn.Tanh(), nn.Conv2d(4, 1, 4),
            nn.InstanceNorm2d(1, affine=True), nn.Flatten(), nn.Linear(25, 2),
        ),
        numbers(3, 3, 8, 8), "",
    ),
    "around a circle": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 6, 3, padding=1, padding_mode="circular", groups=3), nn.ELU(), nn.Conv1d(6, 1, 6),
            nn.Flatten(),
        ),
        numbers(3, 3, 8), "",
    ),
    "padding, and a read-out by the embedding": (
        lambda: reading(nn.Embedding(11, 6, padding_idx=0)),
        words(3, 5) % 3, "",
    ),
    "bounded, and a read-out by the embedding": (
        lambda: reading(nn.Embedding(11, 6, max_norm=1.0)),
        words(3, 5) % 3, "",
    ),
    "sparse gradients": (
        lambda: Net(
            lambda m, x: m.a(m.e(x).mean(1) + m.f(x)),
            e=nn.Embedding(11, 6, sparse=True), f=nn.EmbeddingBag(11, 6, padding_idx=1, max_norm=1.0),
            a=nn.Linear(6, 3),
        ),
        words(3, 5), "",
    ),
    "a look-up by hand": (
        lambda: Net(
            lambda m, x: m.a(nn.functional.embedding(x, m.a.weight, padding_idx=2)).mean(1), a=nn.Linear(6, 11)
        ),
        words(3, 5), "",
    ),
    "both directions, two layers": (
        lambda: Net(
            lambda m, x: m.o(m.g(x)[0][:, -1]),
            g=nn.LSTM(6, 3, 2, batch_first=True, bidirectional=True), o=nn.Linear(6, 2),
        ),
        numbers(3, 4, 6), "",
    ),
    "a layer with two names": (
        lambda: (lambda a: Net(lambda m, x: torch.tanh(m.a(x)), a=a, all=nn.ModuleList([a])))(nn.Linear(6, 3)),
        numbers(3, 6), "",
    ),
    "attention, summed": (
        lambda: Net(lambda m, x: m.t(x).mean(1), t=nn.TransformerEncoderLayer(12, 4, 20, batch_first=True)),
        numbers(3, 5, 12), "",
    ),
}  # fmt: skip
ONE = [name for name, (_, x, _) in MODELS.items() if not isinstance(x, tuple)]


def first(model, x):
    """The first tensor that a network gives, a few numbers of it."""
    return tensors_in(model(x))[0].flatten(1)[:, :12]


def taken(name):
    if name not in MORE:
        model, (x,) = built(name)
        return model.requires_grad_(True), x
    with drawn():
        model = MORE[name][0]()
    x = MORE[name][1]
    return model, x.double() if x.is_floating_point() else x


def jacobian(model, x):
    """[n, c, parameters], by one backward pass for each output of the whole batch."""
    twin = copied(model).eval()
    made = first(twin, x)
    held = list(twin.parameters())
    rows = []
    for value in made.reshape(-1):
        found = torch.autograd.grad(value, held, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g.to_dense()).reshape(-1)
                    for p, g in zip(held, found, strict=True)
                ]
            )
        )
    return torch.stack(rows).view(*made.shape, -1)


@pytest.mark.parametrize("name", [*ONE, *MORE])
def test_the_kernel_and_its_parts_are_those_of_autograd(name):
    model, x = taken(name)
    before = {key: t.clone() for key, t in model.state_dict().items()}
    J = jacobian(model, x)
    expected = torch.einsum("iap,jbp->ijab", J, J)
    scale = expected.abs().max()
    found = tangent_kernel(model, x, forward=first)
    assert (found - expected).abs().max() < 1e-9 * scale
    lazy = Linearised(model, forward=first)
    draw = torch.Generator().manual_seed(2)
    moves = [lazy.moves[key.replace(".", "/")] for key, _ in model.named_parameters()]
    with torch.no_grad():
        start = lazy(x)
        assert torch.allclose(start, first(copied(model).eval(), x), rtol=1e-9, atol=1e-9, equal_nan=True)
        step = [torch.randn(p.shape, generator=draw, dtype=p.dtype) for p in moves]
        for move, by in zip(moves, step, strict=True):
            move.copy_(by)
        moved = torch.einsum("nap,p->na", J, torch.cat([by.reshape(-1) for by in step]))
        there = torch.isfinite(start)
        assert ((lazy(x) - start) - moved)[there].abs().max() < 1e-9 * moved.abs().max()
    v = torch.randn(start.shape, generator=draw, dtype=torch.float64)
    along = torch.einsum("ijab,jb->ia", expected, v)
    assert (kernel_times(model, x, v, forward=first) - along)[there].abs().max() < 1e-9 * along.abs().max()
    (lazy(x) * torch.where(there, v, 0)).nan_to_num(0, 0, 0).sum().backward()
    gradient = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in moves])
    pulled = torch.einsum("nap,na->p", J, torch.where(there, v, 0))
    assert (gradient - pulled).abs().max() < 1e-9 * pulled.abs().max()
    assert all(torch.equal(before[key], t) for key, t in model.state_dict().items())


@pytest.mark.parametrize("name", [name for name in MORE if "read-out" in name])
def test_sketches_are_unbiased_where_an_embedding_is_padded_bounded_or_read_twice(name):
    model, x = taken(name)
    exact = tangent_kernel(model, x, reduce="trace", forward=first)
    sketch = sketched_kernel(model, x, draws=250, forward=first)
    assert float(((sketch.kernel - exact) / sketch.error).abs().max()) < 5


def test_single_precision_and_the_other_methods_agree():
    model, x = taken("LSTM")
    exact, model, x = tangent_kernel(model, x), model.float(), x.float()
    for method in ("auto", "rows", "products"):
        assert torch.allclose(tangent_kernel(model, x, method=method).double(), exact, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match=r"method='layers': g\.weight_ih_l0 belongs to no known layer"):
        tangent_kernel(model, x, method="layers")


def test_what_has_no_kernel_is_said():
    x = numbers(4, 6)
    with drawn(dtype=torch.float32):
        coupled = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, track_running_stats=False))
        noisy = Net(lambda m, x: nn.functional.dropout(m.a(x)), a=nn.Linear(6, 5))
        other = Net(lambda m, x: m.g(x)[0], g=nn.GRU(6, 3))
        two = Net(lambda m, x: (m.a(x), x), a=nn.Linear(6, 5))
        kinds = Net(lambda m, x: m.a(x).argmax(1), a=nn.Linear(6, 5))
        cut = Net(lambda m, x: m.a(x).detach(), a=nn.Linear(6, 5))
        whole = Net(lambda m, x: m.a(x).mean(0), a=nn.Linear(6, 5))
    for model, given, why in (
        (coupled, x, "depends on the others or on chance"),
        (noisy, x, "depends on the others or on chance"),
        (other, numbers(4, 2, 6), "depends on the others or on chance"),
        (two, x, "it gives a tuple; say which"),
        (kinds, x, "outputs are torch.int64"),
        (cut, x, "do not depend on parameters"),
        (whole, x, "no row for each of the 4"),
        (cut, numbers(4, 5), "cannot be run on x"),
    ):
        with pytest.raises(UsageError, match=why):
            tangent_kernel(model, given)


def test_a_recurrent_network_can_be_watched():
    model, x = taken("GRU")
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = RegimeWatch(x, every=1)
    for step in (1, 2):
        optimiser.zero_grad()
        model(x).square().sum().backward()
        watch.before_step(step, model, optimiser)
        optimiser.step()
        watch.on_step(step, 2, {})
    last = watch.records[-1]
    assert last["kernel distance"] > 0 and sum(last["layer shares"].values()) == pytest.approx(1)
    assert set(last["balance"]) == {"h -> o"} and last["drift"] < 1e-12


def test_the_callers_modes_do_not_reach_the_kernel():
    model, x = taken("transformer block")
    right = tangent_kernel(model, x, forward=first)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(right, tangent_kernel(model, x, forward=first))
        sketch = sketched_kernel(model, x, draws=2, forward=first)
    assert torch.equal(sketch.kernel, sketched_kernel(model, x, draws=2, forward=first).kernel)
