"""Hooks: find a layer by name, grab its output, or replace it; the model is left as it was."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from unmix.activations.outputs import chosen, replaced, require_real, tensors
from unmix.core.errors import UsageError


class _Enough(BaseException):
    """Ends a forward pass once the layer has run; no `except Exception` inside a model may swallow it."""


class Captured:
    """What a layer gave: `value` is a tensor of its output at `path`, or None before it has run; `runs` counts.

    given: the same tensor as the layer gave it, which layers behind it may have changed since.
    """

    value: Tensor | None = None
    given: Tensor | None = None
    path: str = ""
    runs: int = 0


def layer_of(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that dotted name, such as "encoder.layer.3".

    Raises `UsageError` with up to five near matches where there is none, and the layers that there are.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if name and name in modules:
        return modules[name]
    names = [known for known in modules if known]
    ends = [known for known in names if name and (known.endswith("." + name) or name.endswith("." + known))]
    ends.sort(key=lambda known: (abs(len(known) - len(name)), known))
    near = list(dict.fromkeys(ends + difflib.get_close_matches(name, names, n=5, cutoff=0.4)))[:5]
    raise UsageError(
        f"layer={name}: {type(model).__name__} has no such layer; "
        + (f"did you mean {', '.join(near)}? " if near else "")
        + f"its layers: {outline(model, 6 if near else 24)}"
    )


def outline(model: nn.Module, most: int = 12) -> str:
    """Names of a model's layers, outer ones first; those that differ in a number together: "layer.0 .. layer.5"."""
    groups: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if name and not isinstance(module, (nn.ModuleList, nn.ModuleDict)):  # these never run
            groups.setdefault(re.sub(r"\b\d+\b", "#", name), []).append(name)
    ordered = sorted(groups.values(), key=lambda names: names[0].count("."))
    shown = [names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}" for names in ordered[:most]]
    return ", ".join(shown) + (f" ({sum(map(len, ordered))} in all)" if len(ordered) > most else "") or "none"


@contextlib.contextmanager
def capture(
    module: nn.Module, stop: bool = False, output: str | None = None, call: int | None = None, name: str = ""
) -> Iterator[Captured]:
    """While inside, `captured.value` is a tensor of the module's output, detached.

    output: the path of the tensor, as `outputs.chosen` finds it. call: which of the module's runs in a pass counts,
    from 0; None is the latest, or with `stop` the first. stop: end the forward pass as soon as that has run (and the
    block with it). name: of the layer, for messages. The hook is always removed.
    Raises `UsageError` for an output without the tensor, and one that does not hold real numbers.
    """
    captured, enough = Captured(), _Enough()

    def hook(_module: nn.Module, _inputs: Any, given: Any) -> None:
        captured.runs += 1
        if call is not None and captured.runs - 1 != call:
            return
        captured.path = chosen(module, given, output, name)
        captured.given = require_real(tensors(given)[captured.path], name)
        captured.value = captured.given.detach()
        if stop:
            raise enough
        captured.value = captured.value.clone()  # a layer behind it may change it in place

    handle = module.register_forward_hook(hook)
    try:
        yield captured
    except _Enough as end:
        if end is not enough:
            raise
    finally:
        handle.remove()


@contextlib.contextmanager
def splice(
    module: nn.Module,
    transform: Callable[[Tensor], Tensor],
    output: str | None = None,
    call: int | None = None,
) -> Iterator[None]:
    """While inside, a tensor h of the module's output is replaced by transform(h), of the same shape.

    output: the path of the tensor, as `outputs.chosen` finds it; the rest is kept. call: which run of the module
    after entering, from 0; None is every one. Gradients flow. The hook is always removed.
    Raises `UsageError` where the shape changes.
    """
    runs = 0

    def hook(_module: nn.Module, _inputs: Any, given: Any) -> Any:
        nonlocal runs
        runs += 1
        if call is not None and runs - 1 != call:
            return None
        path = chosen(module, given, output)
        old = tensors(given)[path]
        new = transform(old)
        if new.shape != old.shape:
            raise UsageError(f"transform: gives {list(new.shape)} for {list(old.shape)}; it must keep the shape")
        return replaced(given, path, new)

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
