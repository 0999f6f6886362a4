"""Several processes that train one thing: torchrun starts them, and they tell each other numbers and tensors."""

from __future__ import annotations

import atexit
import itertools
import os

import torch
from torch import Tensor
from torch import distributed as dist

from unmix.core.errors import UsageError


def join(device: str = "cpu") -> None:
    """Join the processes that torchrun started (its environment says so); nothing happens where there is one."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and dist.is_available() and not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def ranks() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them, from 0."""
    return dist.get_rank() if ranks() > 1 else 0


def agree(number: int, device: str = "cpu") -> bool:
    """Whether all processes give the same number; every one of them must ask."""
    if ranks() == 1:
        return True
    ends = torch.tensor([number, -number], device=device)
    dist.all_reduce(ends, dist.ReduceOp.MAX)
    return int(ends[0]) == -int(ends[1]) == number


def mean(number: Tensor) -> Tensor:
    """The mean of a number over processes."""
    if ranks() > 1:
        dist.all_reduce(number)
        number /= ranks()
    return number


def total(tensor: Tensor) -> Tensor:
    """The sum over processes, in place."""
    if ranks() > 1:
        dist.all_reduce(tensor)
    return tensor


def either(mask: Tensor) -> Tensor:
    """Where any process has True, [..] bool."""
    if ranks() == 1:
        return mask
    seen = mask.to(torch.uint8)
    dist.all_reduce(seen, dist.ReduceOp.MAX)
    return seen.bool()


def count(number: int, device: torch.device) -> int:
    """The sum of a whole number over processes."""
    return number if ranks() == 1 else int(total(torch.tensor(number, device=device)))


def collected(own: Tensor) -> Tensor:
    """The rows of all processes one after another; each may have another number of them."""
    if ranks() == 1:
        return own
    sizes = [torch.zeros((), dtype=torch.int64, device=own.device) for _ in range(ranks())]
    dist.all_gather(sizes, torch.tensor(len(own), device=own.device))
    rows = int(max(sizes))
    padded = own.new_zeros(rows, *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in range(ranks())]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])


def assembled(own: Tensor, shares: list[slice]) -> Tensor:
    """The rows of all processes in the memory of the CPU, one process after the other: a device may not hold them."""
    parts = []
    for number, share in enumerate(shares):
        part = own.contiguous() if number == rank() else own.new_empty(share.stop - share.start, *own.shape[1:])
        if ranks() > 1:
            dist.broadcast(part, number)
        parts.append(part.cpu())
    return torch.cat(parts)


def shares(n: int) -> list[slice]:
    """What each process has of n things that are divided among them, about equally."""
    bounds = [number * n // ranks() for number in range(ranks() + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(bounds)]


def slices(batch: int, accumulate: int = 1) -> list[slice]:
    """The rows of a batch that this process works on, in `accumulate` equal slices.

    Raises `UsageError` where the batch cannot be cut so.
    """
    parts = ranks() * accumulate
    if batch % parts:
        raise UsageError(f"batch={batch}: not to be cut into {parts} equal slices; give a multiple of {parts}")
    size = batch // parts
    first = rank() * accumulate
    return [slice(part * size, (part + 1) * size) for part in range(first, first + accumulate)]
