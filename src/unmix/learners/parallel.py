"""Several processes that train one network: what losses and modules need beside `core.parallel`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from unmix.core.parallel import agree, join, mean, rank, ranks
from unmix.core.seeds import Stream

__all__ = ["agree", "average", "gathered", "join", "mean", "normal", "rank", "ranks"]


class _Gathered(torch.autograd.Function):
    """All slices one after another; the gradient of the own one is multiplied by the number of processes.

    Every process computes the same loss of the whole batch, and gradients are averaged over processes afterwards:
    the factor makes the average of the slices' gradients their sum.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(ranks())]
        dist.all_gather(parts, own.contiguous())
        ctx.rows = len(own)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        begin = rank() * ctx.rows
        return gradient[begin : begin + ctx.rows] * ranks()


def gathered(own: Tensor) -> Tensor:
    """The slices [n, ...] of all processes as one tensor, with gradients; for losses that pair rows."""
    return own if ranks() == 1 else _Gathered.apply(own)


def stacked(own: Tensor) -> Tensor:
    """The tensors [...] of all processes as [processes, ...]; without gradients."""
    if ranks() == 1:
        return own[None]
    parts = [torch.empty_like(own) for _ in range(ranks())]
    dist.all_gather(parts, own.contiguous())
    return torch.stack(parts)


def share(total: int) -> tuple[int, int]:
    """First row and end of this process's share of `total` rows."""
    return rank() * total // ranks(), (rank() + 1) * total // ranks()


def whole(own: Tensor, total: int) -> Tensor:
    """All rows [total, ...] of which each process has its `share`; every one of them must ask."""
    if ranks() == 1:
        return own
    made = own.new_empty(total, *own.shape[1:])
    for number in range(ranks()):
        rows = made[number * total // ranks() : (number + 1) * total // ranks()]
        if number == rank():
            rows.copy_(own)
        dist.broadcast(rows, number)
    return made


def tell(word: bool, device: str = "cpu") -> bool:
    """What the first process says, in all; every one of them must call."""
    said = torch.tensor([int(word)], device=device)
    if ranks() > 1:
        dist.broadcast(said, 0)
    return bool(said)


def normal(rows: int, width: int, rng: Stream, device: str | torch.device = "cpu") -> Tensor:
    """Standard normal noise [rows, width] for this process's slice: the same rows that one process would draw."""
    noise = torch.randn(rows * ranks(), width, generator=rng.torch())
    return noise[rank() * rows : (rank() + 1) * rows].to(device)


@torch.no_grad()
def average(modules: nn.Module) -> None:
    """Average gradients and running statistics over processes, in place and in one message.

    Batch norm is not synchronised: in training every process normalises by the rows of its own slice (torch's
    SyncBatchNorm is for GPUs alone), and the running variance misses what the slices' means differ by.
    Modules that are `sharded` hold other rows in each process and are left alone.
    """
    if ranks() == 1:
        return
    tensors = [p.grad for p in modules.parameters() if p.grad is not None]
    alike = [module for module in modules.modules() if not getattr(module, "sharded", False)]
    tensors += [b for module in alike for b in module.buffers(recurse=False) if b.is_floating_point()]
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat.div_(ranks())
    begin = 0
    for tensor in tensors:
        tensor.copy_(flat[begin : begin + tensor.numel()].view_as(tensor))
        begin += tensor.numel()
