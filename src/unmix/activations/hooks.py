"""Hooks: find a layer by name, grab its output, or replace it; the model is left as it was."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unmix.core.errors import UsageError


class _Enough(BaseException):
    """Ends a forward pass once the layer has run; no `except Exception` inside a model may swallow it."""


class Captured:
    """What a layer gave: `value` is the first tensor of its output, or None before the layer has run."""

    value: Tensor | None = None


def layer_of(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that dotted name, such as "encoder.layer.3".

    Raises `UsageError` with up to five near matches where there is none.
    """
    modules = dict(model.named_modules())
    if name and name in modules:
        return modules[name]
    names = [known for known in modules if known]
    ends = [known for known in names if name and (known.endswith("." + name) or name.endswith("." + known))]
    ends.sort(key=lambda known: (abs(len(known) - len(name)), known))
    near = list(dict.fromkeys(ends + difflib.get_close_matches(name, names, n=5, cutoff=0.4)))[:5]
    shown = near or [known for known, _ in model.named_children()][:5]
    raise UsageError(
        f"layer={name}: {type(model).__name__} has no such layer; "
        + ("did you mean " if near else "its parts are ")
        + ", ".join(shown)
        + ("?" if near else "")
    )


def first_tensor(output: Any) -> Tensor:
    """A tensor itself, or the first tensor of a tuple, list, mapping or transformers ModelOutput."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    for value in values:
        if isinstance(value, Tensor):
            return value
    raise UsageError(f"layer: its output is {type(output).__name__} without a tensor; name a layer that gives one")


@contextlib.contextmanager
def capture(module: nn.Module, stop: bool = False) -> Iterator[Captured]:
    """While inside, `captured.value` is the first tensor of the module's latest output, detached.

    stop: end the forward pass as soon as the module has run (and the block with it); its first run then counts.
    The hook is always removed. Raises `UsageError` for an output without a tensor.
    """
    captured, enough = Captured(), _Enough()

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        captured.value = first_tensor(output).detach()
        if stop:
            raise enough

    handle = module.register_forward_hook(hook)
    try:
        yield captured
    except _Enough as end:
        if end is not enough:
            raise
    finally:
        handle.remove()


@contextlib.contextmanager
def splice(module: nn.Module, transform: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While inside, the module's output h is replaced by transform(h), of the same shape.

    Of a tuple, list or ModelOutput the first tensor is replaced and the rest kept. Gradients flow. The hook is
    always removed. Raises `UsageError` where the shape changes.
    """

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        old = first_tensor(output)
        new = transform(old)
        if new.shape != old.shape:
            raise UsageError(f"transform: gives {list(new.shape)} for {list(old.shape)}; it must keep the shape")
        if isinstance(output, Tensor):
            return new
        if isinstance(output, Mapping):
            return type(output)(**{key: new if value is old else value for key, value in output.items()})
        parts = [new if value is old else value for value in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """While inside, the model is in evaluation mode and no gradients are kept; every training flag comes back."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        # Not inference_mode: tensors a model caches on the way would be refused in training afterwards.
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags:
            module.training = flag
