"""Cross-entropy over as many classes as data: exact for any chunk, with soft labels; fused and lazy AdamW."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unmix.core.errors import UsageError
from unmix.kernels import index_loss
from unmix.kernels.index_loss import (
    AdamWStep,
    AdamWSteps,
    Shard,
    adamw_,
    index_cross_entropy,
    index_cross_entropy_step,
)


def problem(n=7, classes=53, width=5, dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    h = 2 * torch.randn(n, width, generator=draw, dtype=dtype)
    weights = torch.randn(classes, width, generator=draw, dtype=dtype)
    y = torch.randint(classes, (n,), generator=draw)
    y[-1] = y[0]  # a label that comes twice
    return h.requires_grad_(), weights.requires_grad_(), y


@pytest.mark.parametrize("keep", [0, 1 << 26])
@pytest.mark.parametrize("smoothing", [0.0, 0.8])
@pytest.mark.parametrize("chunk", [1, 7, 53, 500, None])
def test_loss_and_both_gradients_are_dense_ones_for_any_chunk(chunk, smoothing, keep, monkeypatch):
    monkeypatch.setattr(index_loss, "KEEP", keep)
    h, weights, y = problem()
    dense = functional.cross_entropy(h @ weights.T, y, label_smoothing=smoothing)
    wanted = torch.autograd.grad(3 * dense, (h, weights))
    loss = index_cross_entropy(h, weights, y, smoothing, chunk=chunk)
    found = torch.autograd.grad(3 * loss, (h, weights))
    assert loss.item() == pytest.approx(dense.item(), abs=1e-13)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-14, rtol=1e-12)


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest storage that any operation gives."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.most = max(self.most, leaf.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("fused", [False, True])
def test_no_tensor_is_as_large_as_the_logits(fused, monkeypatch):
    monkeypatch.setattr(index_loss, "KEEP", 0)
    monkeypatch.setattr(index_loss, "CELLS", 1 << 12)
    monkeypatch.setattr(index_loss, "run_parts", lambda work, parts: work(0, 1))  # other threads are not seen
    h, weights, y = problem(n=64, classes=4000, dtype=torch.float32)
    with Largest() as seen:
        if fused:
            tables = [weights.detach(), torch.zeros(4000, 5), torch.zeros(4000, 5)]
            index_cross_entropy_step(h, *tables, y, AdamWStep(1, 0.1), 0.8).backward()
        else:
            index_cross_entropy(h, weights, y, 0.8).backward()
    assert 4 * 64 * 64 <= seen.most <= 4 * 4000 * 5 < 4 * 64 * 4000 / 10


def test_large_logits_do_not_overflow():
    h, weights, y = problem(dtype=torch.float32)
    h = (300 * h).detach()
    dense = functional.cross_entropy(h.double() @ weights.double().T, y, label_smoothing=0.3)
    assert index_cross_entropy(h, weights, y, 0.3, chunk=5).item() == pytest.approx(dense.item(), rel=1e-5)


@pytest.mark.parametrize("chunk", [4, None])
def test_soft_labels_are_mixed_targets(chunk):
    h, weights, y = problem()
    both = torch.stack([y, y.roll(1)], 1)
    draw = torch.rand(len(y), 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shares = torch.cat([draw, 1 - draw], 1)
    target = (functional.one_hot(both, len(weights)) * shares[:, :, None]).sum(1)
    dense = functional.cross_entropy(h @ weights.T, target, label_smoothing=0.8)
    loss = index_cross_entropy(h, weights, both, 0.8, shares, chunk)
    assert loss.item() == pytest.approx(dense.item(), abs=1e-13)
    for ours, theirs in zip(
        torch.autograd.grad(loss, (h, weights)), torch.autograd.grad(dense, (h, weights)), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-14, rtol=1e-12)


def test_the_smoothed_loss_is_the_plain_one_and_a_mean_row():
    h, weights, y = problem()
    plain, smoothed = (index_cross_entropy(h, weights, y, eps).item() for eps in (0.0, 0.8))
    gap = (h * weights[y]).sum(1) - h @ weights.mean(0)
    assert smoothed == pytest.approx(plain + 0.8 * gap.mean().item(), abs=1e-12)
    uniform = index_cross_entropy(torch.zeros_like(h), weights, y, 0.8)
    assert uniform.item() == pytest.approx(math.log(len(weights)), abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.8])
def test_the_fused_step_is_adamw_on_the_dense_loss(smoothing):
    h, weights, y = problem(n=20, classes=101)
    reference = weights.detach().clone().requires_grad_()
    optimiser = torch.optim.AdamW([reference], weight_decay=0.05)
    own = weights.detach().clone()
    moments = torch.zeros_like(own), torch.zeros_like(own)
    for step in range(6):
        optimiser.param_groups[0]["lr"] = lr = 1e-2 * (6 - step)
        dense = functional.cross_entropy(h @ reference.T, y.roll(step), label_smoothing=smoothing)
        optimiser.zero_grad()
        (wanted,) = torch.autograd.grad(dense, h, retain_graph=True)
        dense.backward()
        optimiser.step()
        settings = AdamWStep(step + 1, lr, 0.05)
        loss = index_cross_entropy_step(h, own, *moments, y.roll(step), settings, smoothing, chunk=17)
        (found,) = torch.autograd.grad(loss, h)
        assert loss.item() == pytest.approx(dense.item(), abs=1e-12)
        assert torch.allclose(found, wanted, atol=1e-13)
        assert torch.allclose(own, reference, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.8])
def test_a_head_in_shares_moves_as_the_whole_does(smoothing):
    h, weights, y = problem(n=9, classes=50)
    both = torch.stack([y, y.roll(1)], 1)
    shares = torch.tensor([0.3, 0.7], dtype=torch.float64).expand(9, 2)
    whole = [weights.detach().clone(), torch.zeros_like(weights), torch.zeros_like(weights)]
    whole = [table.detach() for table in whole]
    settings = AdamWStep(1, 1e-2, 0.05)
    loss = index_cross_entropy_step(h, *whole, both, settings, smoothing, shares)
    (gradient,) = torch.autograd.grad(loss, h)
    edges, meeting, seats = (0, 7, 31, 50), threading.Barrier(3, timeout=20), {}

    def process(number):
        begin, end = edges[number], edges[number + 1]

        def stack(tensor):
            seats[number] = tensor
            meeting.wait()
            made = torch.stack([seats[i] for i in range(3)])
            meeting.wait()
            return made

        rows = weights.detach()[begin:end].clone()
        own = [rows, torch.zeros_like(rows), torch.zeros_like(rows)]
        features = h.detach().clone().requires_grad_()
        shard = Shard(begin, 50, stack)
        found = index_cross_entropy_step(features, *own, both, settings, smoothing, shares, chunk=5, shard=shard)
        return found.item(), torch.autograd.grad(found, features)[0], own

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(process, range(3)))
    for found, slope, _ in results:
        assert found == pytest.approx(loss.item(), abs=1e-13)
        assert torch.allclose(slope, gradient, atol=1e-14, rtol=1e-12)
    for place, table in enumerate(whole):
        assert torch.allclose(torch.cat([own[place] for _, _, own in results]), table, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adamw_of_a_chunk_is_torchs(dtype):
    draw = torch.Generator().manual_seed(3)
    weights = torch.randn(9, 4, generator=draw, dtype=dtype)
    reference = weights.clone().requires_grad_()
    optimiser = torch.optim.AdamW([reference], lr=0.03, weight_decay=0.1)
    moments = torch.zeros_like(weights), torch.zeros_like(weights)
    for step in range(5):
        gradient = torch.randn(9, 4, generator=draw, dtype=dtype)
        reference.grad = gradient.clone()
        optimiser.step()
        adamw_(weights, gradient, *moments, AdamWStep(step + 1, 0.03, 0.1))
    assert torch.allclose(weights, reference, atol=1e-6 if dtype == torch.float32 else 1e-14)


def _lazy(lrs, touched, decay, backend, monkeypatch):
    """Rows moved only when touched, everything else replayed; and torch's dense AdamW on the same gradients."""
    if backend == "plain":
        monkeypatch.setattr(index_loss, "compiled_wanted", lambda *_: False)
    draw = torch.Generator().manual_seed(4)
    weights = torch.randn(6, 3, generator=draw, dtype=torch.float64)
    reference = weights.clone().requires_grad_()
    optimiser = torch.optim.AdamW([reference], weight_decay=decay)
    steps = AdamWSteps(lrs, decay)
    first, second, done = torch.zeros_like(weights), torch.zeros_like(weights), torch.zeros(6, dtype=torch.long)
    for step in range(len(lrs)):
        rows = torch.tensor(touched(step), dtype=torch.long)
        gradient = torch.randn(len(rows), 3, generator=draw, dtype=torch.float64)
        reference.grad = torch.zeros_like(reference).index_copy(0, rows, gradient)
        optimiser.param_groups[0]["lr"] = float(lrs[step])
        optimiser.step()
        own = [tensor[rows] for tensor in (weights, first, second)]
        steps.replay_(*own, done[rows], step)
        adamw_(own[0], gradient, own[1], own[2], steps[step])
        for tensor, moved in zip((weights, first, second), own, strict=True):
            tensor[rows] = moved
        done[rows] = step + 1
    steps.replay_(weights, first, second, done, len(lrs))
    return weights, reference.detach()


@pytest.mark.parametrize("backend", ["compiled", "plain"])
def test_lazy_rows_are_dense_adamw_with_decay_and_a_schedule(backend, monkeypatch):
    lrs = 0.02 * torch.linspace(1, 0.1, 60)
    own, dense = _lazy(lrs, lambda step: sorted({step % 5, (7 * step + 2) % 4}), 0.1, backend, monkeypatch)
    assert torch.allclose(own, dense, atol=1e-14, rtol=1e-13)


def test_long_gaps_are_closed_in_one_product(monkeypatch):
    lrs = 0.02 * torch.linspace(1, 0.1, 1500)
    own, dense = _lazy(lrs, lambda step: [0] if step in (3, 1400) else [1], 0.1, "compiled", monkeypatch)
    assert torch.allclose(own, dense, atol=1e-13, rtol=1e-12)


def test_bad_input_is_refused_with_a_sentence():
    h, weights, y = problem()
    for match, arguments in (
        ("no rows", (h[:0], weights, y[:0])),
        ("53 classes", (h, weights, y + 53)),
        ("one dtype", (h.float(), weights, y)),
        ("shares", (h, weights, torch.stack([y, y], 1))),
        ("integers", (h, weights, y.double())),
        ("smoothing", (h, weights, y, 1.0)),
    ):
        with pytest.raises(UsageError, match=match):
            index_cross_entropy(*arguments)
    with pytest.raises(UsageError, match="must not ask for a gradient"):
        index_cross_entropy_step(
            h, weights, torch.zeros_like(weights), torch.zeros_like(weights), y, AdamWStep(1, 0.1)
        )
