"""How compiled kernels are made and run: lazily, cached on disk where that is possible, one call at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from unmix.core.errors import UsageError

Backend = Literal["auto", "torch", "numba"]

# The layers of numba are not all safe for calls from several threads at once (workqueue aborts the process), and
# two calls at once would only fight over the same cores.
_lock = threading.RLock()


def compiled(*, parallel: bool = False, fastmath: bool | set[str] = False) -> Callable[[Callable], Any]:
    """Decorator: numba.njit, compiled at the first call; cached on disk unless no folder can be written.

    parallel: prange runs on the threads that `threads` allows. fastmath: as numba's.
    """
    import numba

    def decorate(function: Callable) -> Any:
        options = {"parallel": parallel, "fastmath": fastmath, "error_model": "numpy", "nogil": True}
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            # Neither NUMBA_CACHE_DIR, the package's folder nor the user's cache can be written (a read-only image).
            if "cannot cache" not in str(error):
                raise
            return numba.njit(**options)(function)

    return decorate


@contextmanager
def threads() -> Iterator[int]:
    """Let compiled kernels use as many threads as torch does; yields that number. One caller at a time."""
    import numba

    with _lock:
        before = numba.get_num_threads()
        count = max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        numba.set_num_threads(count)
        try:
            yield count
        finally:
            numba.set_num_threads(before)


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
