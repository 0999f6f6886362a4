"""The tangent kernel against the dense product of Jacobians, formulas, sketches, and what must be left alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from unmix.core.errors import UsageError
from unmix.regimes.exact.piecewise import two_layer_kernel
from unmix.regimes.kernel import kernel_times, sketched_distance, sketched_kernel, tangent_kernel
from unmix.regimes.linearised import Linearised, lazy_outputs

METHODS = ("layers", "contract", "products")


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2)
        self.down = nn.Conv2d(4, 4, 1, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        h = self.act(self.norm(self.first(x)))
        h = self.second(h) + self.down(h)
        return self.head(self.drop(h.mean((2, 3))))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.norm = nn.LayerNorm(5)
        self.mix = nn.Linear(5, 5)
        self.out = nn.Linear(5, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x):
        return self.out(torch.tanh(self.mix(self.norm(self.embed(x.long())))).mean(1))


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.3, -1.2, 0.7]))
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return nn.functional.linear(torch.tanh(self.layer(x * self.scale)), self.layer.weight.T)


def built(cls, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        return cls()


def inputs(name, n=6):
    draw = torch.Generator().manual_seed(1)
    if name is Tied:
        return torch.randint(0, 7, (n, 4), generator=draw)
    return torch.randn(n, *((2, 6, 6) if name is Residual else (3,)), generator=draw)


def dense(model, x):
    twin = copy.deepcopy(model).double().eval()
    x = x.double() if x.is_floating_point() else x
    made = twin(x)
    rows = []
    for value in made.reshape(-1):
        grads = torch.autograd.grad(value, [p for p in twin.parameters() if p.requires_grad], retain_graph=True)
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    J = torch.stack(rows)
    n, c = made.shape
    return (J @ J.T).reshape(n, c, n, c).permute(0, 2, 1, 3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cls", [Residual, Tied])
def test_every_method_is_the_dense_product_of_jacobians(cls, method):
    model, x = built(cls), inputs(cls)
    expected = dense(model, x)
    scale = expected.abs().max()
    for memory in (2**29, 80_000):
        if method == "products" and memory < 2**20:
            continue
        found = tangent_kernel(model, x, method=method, memory=memory, dtype=torch.float64)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-10 * scale
    trace = tangent_kernel(model, x, method=method, reduce="trace", dtype=torch.float64)
    assert (trace - expected.diagonal(dim1=2, dim2=3).sum(-1)).abs().max() < 1e-10 * scale
    total = tangent_kernel(model, x, method=method, reduce="sum", dtype=torch.float64)
    assert (total - expected.sum((2, 3))).abs().max() < 1e-10 * scale
    cross = tangent_kernel(model, x[:2], x[2:], method=method, dtype=torch.float64)
    assert (cross - expected[:2, 2:]).abs().max() < 1e-10 * scale


def test_a_model_that_uses_its_weights_in_other_ways_is_found_out():
    model, x = built(Own), inputs(Own)
    with pytest.raises(UsageError, match="scale belongs to no known layer"):
        tangent_kernel(model, x, method="layers")
    model.scale.requires_grad_(False)
    with pytest.raises(UsageError, match=r"layer\.weight is used otherwise"):
        tangent_kernel(model, x, method="layers")
    found = tangent_kernel(model, x, dtype=torch.float64)
    assert (found - dense(model, x)).abs().max() < 1e-10


def test_two_layer_formula_frozen_parameters_and_rates():
    draw = np.random.default_rng(0)
    w, a, x = draw.standard_normal((8, 5)), draw.standard_normal(8), draw.standard_normal((7, 5))
    model = built(lambda: nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 1, bias=False))).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(w))
        model[2].weight.copy_(torch.from_numpy(a)[None])
    rates = {"0.weight": 1.7, "2.weight": 0.4}
    for method in METHODS:
        found = tangent_kernel(model, torch.from_numpy(x), method=method, rates=rates)[:, :, 0, 0]
        assert np.abs(found.numpy() - two_layer_kernel(a, w, x, (0.4, 1.7))).max() < 1e-13
    model[0].weight.requires_grad_(False)
    only = tangent_kernel(model, torch.from_numpy(x), reduce="trace")
    assert np.abs(only.numpy() - two_layer_kernel(a, w, x, (1.0, 0.0))).max() < 1e-13
    with pytest.raises(UsageError, match="no parameter 'first'"):
        tangent_kernel(model, torch.from_numpy(x), rates={"first": 1.0})


@pytest.mark.parametrize("method", METHODS)
def test_the_model_and_the_random_state_are_left_alone(method):
    model, x = built(Residual).train(), inputs(Residual)
    with torch.random.fork_rng(devices=[]):  # dropout draws
        model(x).sum().backward()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    grads = [p.grad.clone() for p in model.parameters()]
    random = torch.get_rng_state()
    tangent_kernel(model, x, method=method)
    sketched_kernel(model, x, draws=2)
    assert model.training and model.act.inplace and not model._forward_hooks
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, model.parameters(), strict=True))
    assert torch.equal(random, torch.get_rng_state())


def test_sketches_are_unbiased_with_honest_errors():
    model, x = built(Residual), inputs(Residual)
    exact = tangent_kernel(model, x, reduce="trace")
    sketch = sketched_kernel(model, x, draws=400, rng=3)
    z = ((sketch.kernel - exact) / sketch.error).abs()
    assert float((z < 2).float().mean()) > 0.8 and float(z.max()) < 5
    other = built(Residual, seed=5)
    true = tangent_kernel(other, x, reduce="trace")
    S = 1 - float((exact * true).sum() / exact.norm() / true.norm())
    found = sketched_distance(sketch, sketched_kernel(other, x, draws=400, rng=4))
    assert found == pytest.approx(S, abs=0.1)
    with pytest.raises(UsageError, match="at least 2"):
        sketched_kernel(model, x, draws=1)


def test_products_with_vectors_and_bad_input():
    model, x = built(Residual), inputs(Residual)
    K = tangent_kernel(model, x)
    v = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(kernel_times(model, x, v), torch.einsum("ijop,jp->io", K, v), rtol=1e-3, atol=1e-3)
    with pytest.raises(UsageError, match="no rows"):
        tangent_kernel(model, x[:0])
    with pytest.raises(UsageError, match="finite"):
        tangent_kernel(model, x * float("nan"))
    with pytest.raises(UsageError, match="bytes at least"):
        tangent_kernel(model, x, memory=100)
    for p in model.parameters():
        p.requires_grad_(False)
    with pytest.raises(UsageError, match="no parameter takes gradients"):
        tangent_kernel(model, x)


def test_linearised_network_trains_as_its_kernel_says():
    model, x = built(Residual), inputs(Residual)
    lazy = Linearised(model)
    with torch.no_grad():
        assert torch.allclose(lazy(x), model.eval()(x), atol=1e-6)
    assert len(list(lazy.parameters())) == len(list(model.parameters()))
    y = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    K = tangent_kernel(model, x).permute(0, 2, 1, 3).reshape(18, 18)
    rate, steps = 1e-3, 200
    optimiser = torch.optim.SGD(lazy.parameters(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        (0.5 * (lazy(x) - y).square().sum()).backward()
        optimiser.step()
    with torch.no_grad():
        start, end = model(x).reshape(-1), lazy(x).reshape(-1)
    flow = lazy_outputs(rate * steps, K, start, y.reshape(-1))
    decay = np.linalg.matrix_power(np.eye(18) - rate * K.double().numpy(), steps)
    exact = y.reshape(-1).numpy() + decay @ (start - y.reshape(-1)).double().numpy()
    assert np.abs(end.numpy() - exact).max() < 1e-4
    assert np.abs(flow - exact).max() < 0.05
