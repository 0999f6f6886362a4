"""How compiled kernels are made and run: lazily, cached on disk where that is possible, in parts by thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from unmix.core.errors import UsageError

Backend = Literal["auto", "torch", "numba"]

_lock = threading.Lock()
_depth, _count = 0, 1
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def compiled(*, fastmath: bool | set[str] = False) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: numba.njit without the interpreter's lock, compiled at the first call.

    The result is cached on disk unless no folder can be written. fastmath: as numba's.
    """
    # numba reads .numba_config.yaml of the current folder, which may be somebody else's: what is cached are pickles.
    for name in ("NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES"):
        os.environ.setdefault(name, "")
    import numba

    def decorate(function: Callable[..., Any]) -> Any:
        options: dict[str, Any] = {"fastmath": fastmath, "error_model": "numpy", "nogil": True}
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            # Neither NUMBA_CACHE_DIR, the package's folder nor the user's cache can be written (a read-only image).
            if "cannot cache" not in str(error):
                raise
            return numba.njit(**options)(function)

    return decorate


def parts_for(size: int, least: int = 16) -> int:
    """Number of parts to cut `size` items into: torch's number of threads, but at least `least` items each."""
    return max(1, min(_count if _depth else torch.get_num_threads(), size // least))


def run_parts(function: Any, parts: int, *arguments: Any) -> None:
    """Call function(part, parts, *arguments) for every part, each in a thread of its own.

    Plain threads rather than numba's: those bring a second OpenMP beside torch's, whose idle threads spin on the
    same cores, or abort when called from two threads at once. Parts must write to places of their own.
    """
    if parts == 1:
        function(0, 1, *arguments)
        return
    others = [_pool(parts - 1).submit(function, part, parts, *arguments) for part in range(1, parts)]
    try:
        function(0, parts, *arguments)
    finally:
        wait(others)
    for other in others:
        other.result()


def run_queue(work: Callable[[int, Any], None], tasks: Iterable[Any], count: int) -> None:
    """Call work(slot, task) for every task; `count` threads, slots 0..count-1, take the tasks one after the other."""
    waiting, lock = iter(tasks), threading.Lock()

    def serve(slot: int, count: int) -> None:
        while True:
            with lock:
                task = next(waiting, None)
            if task is None:
                return
            work(slot, task)

    run_parts(serve, count)


@contextmanager
def own_threads() -> Iterator[int]:
    """Let torch compute on the calling thread alone and threads of ours share the cores; yields how many may run.

    torch's own threads would meet at a barrier in each of many products, and spin on our cores in between.
    """
    global _depth, _count
    with _lock:
        if _depth == 0:
            _count = torch.get_num_threads()
            torch.set_num_threads(1)
        _depth += 1
    try:
        yield _count
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                torch.set_num_threads(_count)


def _pool(count: int) -> ThreadPoolExecutor:
    """One pool for each process (threads do not survive a fork) and number of threads."""
    key = (os.getpid(), count)
    with _lock:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(count, thread_name_prefix="unmix-kernel")
        return _pools[key]


def compiled_wanted(backend: str, *tensors: Tensor | None) -> bool:
    """Whether to run the numba version: "auto" takes it for float32 and float64 on the CPU.

    Raises `UsageError` for an unknown backend, or for "numba" with tensors it cannot take.
    """
    if backend not in ("auto", "torch", "numba"):
        raise UsageError(f"backend: {backend!r} is not one of 'auto', 'torch', 'numba'")
    given = [tensor for tensor in tensors if tensor is not None]
    possible = all(t.device.type == "cpu" and t.dtype in (torch.float32, torch.float64) for t in given)
    if backend == "numba" and not possible:
        found = ", ".join(sorted({f"{t.dtype} on {t.device.type}".removeprefix("torch.") for t in given}))
        raise UsageError(f"backend: 'numba' needs float32 or float64 on the CPU, got {found}; use 'torch'")
    return backend != "torch" and possible


def array(tensor: Tensor) -> Any:
    """The tensor as a C-contiguous numpy array; no copy where it is one already."""
    return tensor.detach().contiguous().numpy()


def check_matrix(name: str, tensor: Tensor, columns: int | None = None) -> None:
    """Raise `UsageError` unless `tensor` is a floating-point matrix with that many columns."""
    wanted = f"[rows, {'columns' if columns is None else columns}]"
    if tensor.ndim != 2 or (columns is not None and tensor.shape[1] != columns):
        raise UsageError(f"{name}: must be {wanted}, got {list(tensor.shape)}")
    if not tensor.is_floating_point():
        raise UsageError(f"{name}: must be floating point, got {tensor.dtype}")
