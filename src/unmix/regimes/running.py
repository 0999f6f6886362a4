"""Runs of a model that leave it, its mode and the random states alone, and how the outputs of two runs compare."""

from __future__ import annotations

import copy
import dataclasses
import functools
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from unmix.core.errors import UsageError

ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 0.2}
DEPTH = 6  # of outputs within outputs

Given = ParamSpec("Given")
Made = TypeVar("Made")


def unwrapped(model: nn.Module) -> nn.Module:
    """The module that torch.compile, DataParallel or DistributedDataParallel was given; it holds the weights."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def copied(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy without gradients, its real numbers in `dtype` (complex ones as wide); raises `UsageError` where none
    can be made.
    """
    with torch.inference_mode(False):
        # Weights that a hook computes before each call are no leaves of a graph, which deepcopy refuses.
        memo: dict[int, Any] = {id(t): t.detach().clone() for t in _computed(model)}
        try:
            twin = copy.deepcopy(model, memo)
        except Exception as error:
            raise UsageError(f"model: it cannot be copied ({first_line(error)})") from error
        for parameter in twin.parameters():
            parameter.grad = None
        if dtype is not None:
            twin._apply(lambda t: _as(t, dtype))
    return twin


def converted(value: Any, dtype: torch.dtype | None) -> Any:
    """A copy of a nested input, its real tensors in `dtype`, complex ones as wide; what is no tensor as it is."""
    if isinstance(value, Tensor):
        return (value if dtype is None else _as(value, dtype)).detach().clone()
    if isinstance(value, Mapping):
        return {key: converted(part, dtype) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(converted(part, dtype) for part in value)
    return value


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.is_complex():
        return tensor.to(dtype.to_complex())
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def precision(model: nn.Module) -> torch.dtype:
    """The real type of a model's first weights; float32 where it has none."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def take_mode(twin: nn.Module, model: nn.Module) -> None:
    """Give a copy the mode of its model, but for statistics of normalisation; dropout goes by the random state."""
    for own, other in zip(twin.modules(), model.modules(), strict=True):
        own.training = other.training and not isinstance(own, nn.modules.batchnorm._NormBase)


def undisturbed(function: Callable[Given, Made]) -> Callable[Given, Made]:
    """A function that the inference mode and the autocast of its caller do not reach."""

    @functools.wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            for kind in ("cpu", *(("cuda",) if torch.cuda.is_available() else ())):
                stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **kwargs)

    return call


def as_written(stack: ExitStack, model: nn.Module) -> None:
    """No autocast and compiled parts eager, until the stack is closed."""
    for kind in {"cpu", *(p.device.type for p in model.parameters() if p.device.type != "meta")}:
        stack.enter_context(torch.autocast(kind, enabled=False))
    if any(hasattr(module, "_orig_mod") for module in model.modules()):
        stack.enter_context(torch.compiler.set_stance("force_eager"))


@contextmanager
def quiet(model: nn.Module, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Every random state set to the same start and put back after, no autocast, no warnings, compiled parts eager;
    torch makes new tensors as `dtype` inside.
    """
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    default, python, legacy = torch.get_default_dtype(), random.getstate(), np.random.get_state()  # noqa: NPY002
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(torch.inference_mode(False))
        as_written(stack, model)
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(0)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        try:
            torch.set_default_dtype(dtype or default)
            yield
        finally:
            torch.set_default_dtype(default)
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


def tensors_in(made: Any, depth: int = 0) -> list[Tensor]:
    """Every tensor and number in an output: records, mappings, sequences and objects, in order."""
    if isinstance(made, Tensor):
        return [made.to_dense() if made.layout != torch.strided and not made.is_nested else _flat(made)]
    if isinstance(made, (bool, int, float, complex)):
        return [torch.as_tensor(made, dtype=torch.float64 if isinstance(made, float) else None)]
    if isinstance(made, np.ndarray):
        return [torch.from_numpy(made.copy())] if made.dtype.kind in "biufc" else []
    if made is None or isinstance(made, (str, bytes, type, nn.Module)) or depth >= DEPTH:
        return []
    if isinstance(made, Mapping):
        parts = list(made.values())
    elif isinstance(made, (list, tuple)):
        parts = list(made)
    elif dataclasses.is_dataclass(made):
        parts = [getattr(made, f.name, None) for f in dataclasses.fields(made)]
    else:
        parts = list(vars(made).values()) if hasattr(made, "__dict__") and not callable(made) else []
    return [tensor for part in parts for tensor in tensors_in(part, depth + 1)]


def real_numbers(made: list[Tensor]) -> list[Tensor]:
    """Those of some outputs that hold real or complex numbers; all of them where none does."""
    found = [t for t in made if t.is_floating_point() or t.is_complex()]
    return found or made


def usable(made: list[Tensor]) -> bool:
    """Whether there is a finite number to compare."""
    return any(bool(torch.isfinite(t).any()) for t in real_numbers(made))


def difference(before: list[Tensor], after: list[Tensor], typical: list[Tensor] | None = None) -> float:
    """The largest change of a finite output beside its own size; infinite where one is no longer finite, where others
    become something else, or where the outputs have another form.

    typical: outputs of the same form, such as those of like weights, which tell how large each is where it happens
    to vanish; what is smaller than three quarters of its tensor counts as these.
    """
    if [t.shape for t in before] != [t.shape for t in after]:
        return float("inf")
    alike = typical if typical is not None and [t.shape for t in typical] == [t.shape for t in before] else before
    worst = 0.0
    for one, two, usual in zip(before, after, alike, strict=True):
        wide = torch.complex128 if one.is_complex() or two.is_complex() else torch.float64
        a, b = one.detach().to(wide), two.detach().to(wide)
        finite = torch.isfinite(a)
        same = (a == b) | (torch.isnan(a) & torch.isnan(b))
        if not bool((torch.isfinite(b) == finite).all()) or not bool(same[~finite].all()):
            return float("inf")
        if bool(same.all()):
            continue
        size = torch.maximum(a.abs(), usual.detach().to(wide).abs().nan_to_num(0.0, 0.0, 0.0))[finite]
        some = size[size > 0]
        floor = float(some.kthvalue(1 + len(some) // 4).values) if len(some) else 0.0
        worst = max(worst, float(((a - b)[finite].abs() / size.clamp_min(floor)).max()))
    return worst


def _flat(made: Tensor) -> Tensor:
    return torch.cat([part.reshape(-1) for part in made.unbind()]) if made.is_nested else made


def first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:120]}" if text else type(error).__name__


def _computed(model: nn.Module) -> Iterator[Tensor]:
    """Tensors with a graph behind them that the parts of a model keep as plain attributes, alone or in containers."""
    todo: list[tuple[Any, int]] = [(value, 0) for module in model.modules() for value in list(vars(module).values())]
    while todo:
        value, depth = todo.pop()
        if isinstance(value, Tensor) and not value.is_leaf:
            yield value
        elif isinstance(value, (list, tuple, dict)) and depth < DEPTH:
            todo += [(part, depth + 1) for part in (value.values() if isinstance(value, dict) else value)]
