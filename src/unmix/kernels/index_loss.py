"""Cross-entropy with as many classes as data: exact, by chunks of classes, and fused with AdamW on the classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.kernels._compiled import array, check_matrix, compiled_wanted, own_threads, run_parts

KEEP = 1 << 26  # bytes of exponentials that are kept for the backward pass rather than made again
CELLS = 1 << 18  # rows times classes of a chunk, so that it stays in a core's cache
Sink = Callable[[int, int, Tensor], None]


class Shard(NamedTuple):
    """Which classes of a head are here, where several processes hold its rows: begin .. begin + c - 1 of `total`.

    stack: from a tensor [...] to those of all processes [processes, ...], the same everywhere.
    """

    begin: int
    total: int
    stack: Callable[[Tensor], Tensor]


class AdamWStep(NamedTuple):
    """One step of AdamW. step: its number, from 1. lr: learning rate. weight_decay: of every weight.

    m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, w <- (1 - lr wd) w - lr m^ / (sqrt(v^) + eps), m^ and v^ divided
    by 1 - b^step. Source: Loshchilov, Hutter 2017, arXiv 1711.05101.
    """

    step: int
    lr: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    @property
    def factors(self) -> tuple[float, float, float]:
        """keep, rate, root: w <- keep w - rate m / (sqrt(v) / root + eps)."""
        first, second = self.betas
        keep = 1 - self.lr * self.weight_decay
        return keep, self.lr / (1 - first**self.step), math.sqrt(1 - second**self.step)


def index_cross_entropy(
    h: Tensor,
    weights: Tensor,
    y: Tensor,
    smoothing: float = 0.0,
    shares: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Mean over rows of -sum_j t_j log softmax(W h)_j, t = (1 - eps) sum_k s_k e_(y_k) + eps / N, in nats.

    Exact in loss and both gradients for any chunk; the logits [n, N] are never whole in memory unless they take less
    than 64 MB. h: [n, d]. weights: [N, d]. y: [n] integers below N, or [n, k] with shares s [n, k] that sum to 1.
    smoothing: eps. chunk: classes at a time; None chooses. Differentiable once in h and weights.
    Raises `UsageError` for unlike shapes or dtypes, no rows, or labels out of range.
    """
    y, shares = _checked(h, weights, y, smoothing, shares, chunk)
    return _Exact.apply(h, weights, y, shares, smoothing, chunk, None, None)


def index_cross_entropy_step(
    h: Tensor,
    weights: Tensor,
    first: Tensor,
    second: Tensor,
    y: Tensor,
    step: AdamWStep,
    smoothing: float = 0.0,
    shares: Tensor | None = None,
    chunk: int | None = None,
    shard: Shard | None = None,
) -> Tensor:
    """`index_cross_entropy` whose backward pass moves the weights by AdamW as it goes: no gradient [N, d] is made.

    weights, and moments first and second: [N, d], contiguous, without gradients; the backward pass changes all three
    in place. The gradient of h is that at the old weights. shard: where [N, d] are a share of more rows; every
    process calls this with the same h and y, which counts through all shares, and gets the same loss and gradient of
    h. Raises as `index_cross_entropy`, and `UsageError` for moments of another shape or weights that ask for a
    gradient.
    """
    y, shares = _checked(h, weights, y, smoothing, shares, chunk, None if shard is None else shard.total)
    for name, tensor in (("weights", weights), ("first", first), ("second", second)):
        if tensor.shape != weights.shape or tensor.dtype != weights.dtype or not tensor.is_contiguous():
            raise UsageError(f"{name}: must be contiguous {list(weights.shape)} of {weights.dtype}")
        if tensor.requires_grad:
            raise UsageError(f"{name}: is moved by the backward pass itself and must not ask for a gradient")

    def move(begin: int, end: int, gradient: Tensor) -> None:
        adamw_(weights[begin:end], gradient, first[begin:end], second[begin:end], step)

    return _Exact.apply(h, weights, y, shares, smoothing, chunk, move, shard)


@torch.no_grad()
def adamw_(weights: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: AdamWStep) -> None:
    """One `AdamWStep` in place on weights and moments [c, d], given the gradient [c, d]."""
    (keep, rate, root), (b1, b2) = step.factors, step.betas
    if compiled_wanted("auto", weights, gradient) and weights.ndim == 2:
        from unmix.kernels._index_compiled import adamw

        tensors = [t.numpy() for t in (weights, gradient, first, second)]
        kind = tensors[0].dtype.type
        adamw(*tensors, *(kind(number) for number in (keep, b1, b2, rate, root, step.eps)))
        return
    first.mul_(b1).add_(gradient, alpha=1 - b1)
    second.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
    weights.mul_(keep).addcdiv_(first, (second.sqrt() / root).add_(step.eps), value=-rate)


def _checked(
    h: Tensor,
    weights: Tensor,
    y: Tensor,
    smoothing: float,
    shares: Tensor | None,
    chunk: int | None,
    total: int | None = None,
) -> tuple[Tensor, Tensor]:
    check_matrix("h", h)
    check_matrix("weights", weights, h.shape[1])
    if h.dtype != weights.dtype:
        raise UsageError(f"h, weights: must have one dtype, got {h.dtype} and {weights.dtype}")
    if not len(h):
        raise UsageError("h: has no rows; the mean over none is not defined")
    if not 0 <= smoothing < 1:
        raise UsageError(f"smoothing={smoothing}: must be at least 0 and below 1")
    if chunk is not None and chunk < 1:
        raise UsageError(f"chunk={chunk}: must be at least 1")
    if y.is_floating_point() or y.ndim not in (1, 2) or len(y) != len(h):
        raise UsageError(f"labels: must be {len(h)} integers [n] or [n, k], got {list(y.shape)} of {y.dtype}")
    low, high = (int(end) for end in torch.aminmax(y))
    classes = len(weights) if total is None else total
    if low < 0 or high >= classes:
        raise UsageError(f"labels: {low} to {high}, the head has {classes} classes; they count from 0")
    if shares is None:
        if y.ndim == 2 and y.shape[1] != 1:
            raise UsageError("shares: labels [n, k] need the share of each")
        return y.reshape(len(h), 1).long(), torch.ones(len(h), 1, dtype=h.dtype, device=h.device)
    if shares.shape != y.shape or y.ndim != 2:
        raise UsageError(f"shares: must be as the labels [n, k], got {list(shares.shape)} for {list(y.shape)}")
    return y.long(), shares.to(h.dtype)


@dataclass
class _Work:
    """What both passes share; chunk c goes to part c modulo parts, so that sums do not depend on who is first."""

    h: Tensor
    weights: Tensor
    y: Tensor
    shares: Tensor
    smoothing: float
    chunk: int
    shard: Shard | None = None
    kept: Tensor | None = None
    top: Tensor = field(init=False)
    lse: Tensor = field(init=False)

    @property
    def count(self) -> int:
        """Number of all classes."""
        return len(self.weights) if self.shard is None else self.shard.total

    @property
    def bounds(self) -> list[tuple[int, int]]:
        count = len(self.weights)
        return [(begin, min(begin + self.chunk, count)) for begin in range(0, count, self.chunk)]

    def spread(self, work: Callable[[int, int], None]) -> None:
        if self.h.device.type == "cpu":
            with own_threads() as threads:
                run_parts(work, max(1, min(threads, len(self.bounds))))
        else:
            work(0, 1)

    def room(self) -> Tensor:
        return self.h.new_empty(self.chunk, len(self.h))

    def forward(self) -> Tensor:
        h, bounds, n, here = self.h, self.bounds, len(self.h), len(self.weights)
        if n * here * h.element_size() <= KEEP:
            self.kept, self.top = h.new_empty(here, n), h.new_empty(len(bounds), n)
        found: dict[int, tuple[Tensor, Tensor]] = {}

        def work(part: int, parts: int) -> None:
            room = self.room() if self.kept is None else None
            top, sums, total = h.new_full((n,), -torch.inf), h.new_zeros(n), h.new_zeros(n)
            for number in range(part, len(bounds), parts):
                begin, end = bounds[number]
                z = room[: end - begin] if room is not None else self.kept[begin:end]  # type: ignore[index]
                torch.mm(self.weights[begin:end], h.T, out=z)
                if self.smoothing:
                    total += z.sum(0)
                peak = z.amax(0)
                z.sub_(peak).exp_()
                if self.kept is not None:
                    self.top[number] = peak
                higher = torch.maximum(top, peak)
                sums = sums * (top - higher).exp_() + z.sum(0) * (peak - higher).exp_()
                top = higher
            found[part] = top + sums.log(), total

        self.spread(work)
        self.lse = torch.logsumexp(torch.stack([found[part][0] for part in sorted(found)]), 0)
        total: Tensor = sum(found[part][1] for part in sorted(found))  # type: ignore[assignment]
        place = self.y if self.shard is None else self.y - self.shard.begin
        own = torch.einsum("nd,nkd->nk", h, self.weights[place.clamp(0, here - 1)])
        if self.shard is not None:
            stack = self.shard.stack
            own = stack(own * ((place >= 0) & (place < here))).sum(0)
            self.lse, total = torch.logsumexp(stack(self.lse), 0), stack(total).sum(0)
        loss = self.lse * ((1 - self.smoothing) * self.shares.sum(1) + self.smoothing)
        loss = loss - (1 - self.smoothing) * (self.shares * own).sum(1)
        if self.smoothing:
            loss = loss - self.smoothing / self.count * total
        return loss.mean()

    def backward(self, scale: Tensor, want_h: bool, sink: Sink | None) -> Tensor | None:
        """Gradient of h, where wanted; that of the weights goes to `sink` chunk by chunk."""
        h, bounds, n, here = self.h, self.bounds, len(self.h), len(self.weights)
        scale = scale / n
        mass = scale * ((1 - self.smoothing) * self.shares.sum(1) + self.smoothing)
        place = self.y if self.shard is None else self.y - self.shard.begin
        labels, order = place.flatten().sort(stable=True)
        rows = order // self.y.shape[1]
        minus = (-(1 - self.smoothing) * scale * self.shares).flatten()[order]
        edges = torch.searchsorted(labels, torch.tensor([b for b, _ in bounds] + [here], device=h.device)).tolist()
        kept, self.kept = self.kept, None
        sums: dict[int, Tensor] = {}

        def work(part: int, parts: int) -> None:
            room = self.room() if kept is None else None
            slope = h.new_empty(self.chunk, h.shape[1]) if sink is not None else None
            if want_h:
                sums[part] = h.new_zeros(h.shape)
            for number in range(part, len(bounds), parts):
                begin, end = bounds[number]
                if kept is None:
                    z = room[: end - begin]  # type: ignore[index]
                    torch.mm(self.weights[begin:end], h.T, out=z)
                    z.sub_(self.lse).exp_().mul_(mass)
                else:
                    z = kept[begin:end]
                    z.mul_((self.top[number] - self.lse).exp_().mul_(mass))
                if self.smoothing:
                    z.sub_(self.smoothing / self.count * scale)
                own = slice(edges[number], edges[number + 1])
                z.index_put_((labels[own] - begin, rows[own]), minus[own], accumulate=True)
                if want_h:
                    sums[part].addmm_(z.T, self.weights[begin:end])
                if sink is not None and slope is not None:
                    torch.mm(z, h, out=slope[: end - begin])
                    sink(begin, end, slope[: end - begin])

        self.spread(work)
        if not want_h:
            return None
        total: Tensor = sum(sums[part] for part in sorted(sums))  # type: ignore[assignment]
        return total if self.shard is None else self.shard.stack(total).sum(0)


class _Exact(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weights: Tensor,
        y: Tensor,
        shares: Tensor,
        smoothing: float,
        chunk: int | None,
        move: Sink | None,
        shard: Shard | None,
    ) -> Tensor:
        chunk = chunk or max(64, min(CELLS // len(h), 8192))
        ctx.work = _Work(h.detach(), weights.detach(), y, shares, smoothing, min(chunk, len(weights)), shard)
        ctx.move = move
        return ctx.work.forward()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        work: _Work = ctx.work
        sink, slope = ctx.move, None
        if sink is None and ctx.needs_input_grad[1]:
            slope = torch.empty_like(work.weights)
            sink = lambda begin, end, part: slope[begin:end].copy_(part)  # noqa: E731
        return work.backward(gradient, ctx.needs_input_grad[0], sink), slope, *[None] * 6


IDLE = 400  # steps after which moments no longer move a weight: their ratio falls by .9005 in each


class AdamWSteps:
    """Settings of all steps of an AdamW, as tables. lrs: [steps] learning rates. The rest is as in `AdamWStep`."""

    def __init__(
        self, lrs: Tensor, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        lrs = lrs.detach().double().cpu()
        number = torch.arange(1, len(lrs) + 1, dtype=torch.float64)
        self.lrs, self.weight_decay, self.betas, self.eps = lrs, weight_decay, betas, eps
        self.keeps = 1 - lrs * weight_decay
        self.rates = lrs / (1 - betas[0] ** number)
        self.roots = (1 - betas[1] ** number).sqrt()
        self.decays = torch.cat([torch.zeros(1, dtype=torch.float64), self.keeps.log().cumsum(0)])

    def __getitem__(self, number: int) -> AdamWStep:
        """Step `number`, from 0."""
        return AdamWStep(number + 1, float(self.lrs[number]), self.weight_decay, self.betas, self.eps)

    @torch.no_grad()
    def replay_(self, weights: Tensor, first: Tensor, second: Tensor, begins: Tensor, end: int) -> None:
        """Steps begins [n] .. end - 1 without gradient on rows [n, d], in place, as if each had been taken.

        After 400 idle steps weights only decay, which is one product.
        """
        begins = begins.cpu()
        stops = torch.minimum(begins + IDLE, torch.full_like(begins, end)).clamp_min(begins)
        if compiled_wanted("auto", weights, first, second):
            from unmix.kernels._index_compiled import replay

            kind = array(weights).dtype
            tables = [t.numpy().astype(kind) for t in (self.keeps, self.rates, self.roots)]
            numbers = [kind.type(number) for number in (*self.betas, self.eps)]
            own = [t.numpy() for t in (weights, first, second)]
            parts = max(1, min(torch.get_num_threads(), len(weights)))
            run_parts(replay, parts, *own, begins.numpy(), stops.numpy(), *tables, *numbers)
        else:
            self._replay_plain(weights, first, second, begins, stops)
        rest = end - stops
        if bool((rest > 0).any()):
            # What is left of the moments after so many steps does not move a weight any more.
            for tensor, logs in (
                (weights, self.decays[end] - self.decays[stops]),
                (first, rest.double() * math.log(self.betas[0])),
                (second, rest.double() * math.log(self.betas[1])),
            ):
                tensor.mul_(logs.exp().to(tensor)[:, None])

    def _replay_plain(self, weights: Tensor, first: Tensor, second: Tensor, begins: Tensor, stops: Tensor) -> None:
        for step in range(int(begins.min()), int(stops.max())):
            rows = ((begins <= step) & (step < stops)).nonzero()[:, 0].to(weights.device)
            m, v = first[rows] * self.betas[0], second[rows] * self.betas[1]
            size = (v.sqrt() / float(self.roots[step])).add_(self.eps)
            weights[rows] = weights[rows] * float(self.keeps[step]) - float(self.rates[step]) * m / size
            first[rows], second[rows] = m, v
