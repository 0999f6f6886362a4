"""Several processes that train one network: what losses and modules need beside `core.parallel`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from unmix.core.errors import UsageError
from unmix.core.parallel import agree, join, mean, rank, ranks, total
from unmix.core.seeds import Stream

__all__ = ["agree", "average", "gathered", "join", "mean", "normal", "rank", "ranks", "synchronised"]


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


def share(count: int) -> tuple[int, int]:
    """First row and end of this process's share of `count` rows."""
    return rank() * count // ranks(), (rank() + 1) * count // ranks()


def whole(own: Tensor, count: int) -> Tensor:
    """All rows [count, ...] of which each process has its `share`; every one of them must ask."""
    if ranks() == 1:
        return own
    made = own.new_empty(count, *own.shape[1:])
    for number in range(ranks()):
        rows = made[number * count // ranks() : (number + 1) * count // ranks()]
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


class _Total(torch.autograd.Function):
    """The sum over processes; a gradient is summed likewise, for every process's loss depends on every slice."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return total(own.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient.clone())


class _Synchronised(TorchFunctionMode):
    """Batch norm, whatever module asks for it, takes the statistics of the rows of all processes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = _batch_norm if func is functional.batch_norm else func
        return made(*args, **(kwargs or {}))


def synchronised() -> AbstractContextManager[Any]:
    """In the block batch norm is that of one process with all rows (torch's SyncBatchNorm is for GPUs alone)."""
    return _Synchronised() if ranks() > 1 else nullcontext()


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` over the rows of all processes; statistics in float32 at least."""
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    x = input.double() if input.dtype == torch.float64 else input.float()
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    count = float(total(torch.tensor(float(x.numel() // x.shape[1]), dtype=torch.float64, device=x.device)))
    if count < 2:
        raise UsageError("batch norm: a batch of one row has no variance; give batch=2 or more")
    mean = _Total.apply(x.sum(axes)) / count
    centred = x - mean.view(shape)
    variance = _Total.apply(centred.square().sum(axes)) / count
    with torch.no_grad():
        for running, now in ((running_mean, mean), (running_var, variance * (count / (count - 1)))):
            if running is not None:
                running.lerp_(now.to(running.dtype), momentum)
    made = centred * torch.rsqrt(variance + eps).view(shape)
    made = made if weight is None else made * weight.view(shape)
    made = made if bias is None else made + bias.view(shape)
    return made.to(input.dtype)


@torch.no_grad()
def average(modules: nn.Module) -> None:
    """Average gradients and running statistics over processes, in place and in one message.

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
