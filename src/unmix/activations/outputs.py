"""Outputs: the tensors in what a module gives, by their paths; one of them is read or replaced."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from unmix.core.errors import UsageError

# As the command line gives it, a number or a text.
OutputPath = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, (int, float)) else value)]
# Of these the first part is the output proper, and the others are states or weights of attention.
FIRST = (nn.RNNBase, nn.LSTMCell, nn.MultiheadAttention)


def tensors(output: Any) -> dict[str, Tensor]:
    """Every tensor in nested tuples, lists, mappings and dataclasses, by its path.

    Paths are the keys, fields and numbers on the way, "1.0" or "last_hidden_state"; "" is the output itself. What is
    no tensor is left out, and so are the data of packed sequences, which have no axis of data.
    """
    if isinstance(output, Tensor):
        return {"": output}
    return {
        f"{name}.{path}" if path else name: tensor
        for name, part in _parts(output).items()
        for path, tensor in tensors(part).items()
    }


def chosen(module: nn.Module, output: Any, path: str | None = None, name: str = "") -> str:
    """The path of the tensor that is meant: the one named, the only one, or the one that the module's type implies.

    name: of the layer, for messages. Implied are the first part of torch's recurrent and attention layers, and of
    transformers its `last_hidden_state`, or the first part of a layer's tuple.
    Raises `UsageError` where there is no tensor, no such path, or several and nothing says which.
    """
    found, where = tensors(output), f"layer={name}" if name else "layer"
    sizes = {part: "nested" if tensor.is_nested else list(tensor.shape) for part, tensor in found.items()}
    shown = ", ".join(f"output={part} {size}" for part, size in sizes.items())
    packed = isinstance(output, tuple) and bool(output) and isinstance(output[0], PackedSequence)
    if not found or (packed and path is None):
        kind = (
            "a packed sequence" if "PackedSequence" in _kinds(output) else f"{type(output).__name__} without a tensor"
        )
        raise UsageError(
            f"{where}: its output is {kind}; name a layer that gives one tensor" + f", or {shown}" * bool(found)
        )
    if path is not None:
        if path not in found:
            has = "gives one tensor; leave output out" if "" in found else f"gives {shown}"
            raise UsageError(f"output={path}: layer {name or type(module).__name__} {has}")
        return path
    first = next(iter(found))
    if all(tensor is found[first] for tensor in found.values()):
        return first
    if "last_hidden_state" in found:
        return "last_hidden_state"
    hidden = type(module).__module__.startswith("transformers.") and isinstance(output, tuple)
    if first == "0" and (hidden or isinstance(module, FIRST)):
        return first
    raise UsageError(f"{where}: gives several tensors; say which: {shown}")


def replaced(output: Any, path: str, new: Tensor) -> Any:
    """The output with the tensor at a path replaced; everything else, its type too, stays."""
    if not path:
        return new
    parts = _parts(output)
    name = next(key for key in parts if path == key or path.startswith(f"{key}."))
    part = replaced(parts[name], path[len(name) + 1 :], new)
    if isinstance(output, Mapping):
        key = next(key for key in output if str(key) == name)
        changed: Any = copy.copy(output)
        changed[key] = part
        return changed
    if dataclasses.is_dataclass(output):
        return dataclasses.replace(output, **{name: part})  # type: ignore[type-var]
    if hasattr(output, "_replace"):
        return output._replace(**{name: part})
    return type(output)(part if str(number) == name else old for number, old in enumerate(output))


def require_real(tensor: Tensor, name: str = "") -> Tensor:
    """The tensor itself; raises `UsageError` where it does not hold real numbers on a plain grid."""
    where = f"layer={name}" if name else "layer"
    if tensor.is_nested:
        what, instead = "a nested tensor, whose rows are of unlike lengths", "leave masks out or name another layer"
    elif tensor.layout != torch.strided:
        what, instead = "a sparse tensor", "name a layer that gives a dense one"
    elif tensor.is_quantized:
        what, instead = "quantised numbers", "name the layer that makes them real numbers again"
    elif tensor.is_complex():
        what, instead = "complex numbers", "name a layer behind it, or wrap it with torch.view_as_real or abs"
    elif not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        what, instead = f"{kind}, no real numbers", "name the layer before, or another part by output="
    else:
        return tensor
    raise UsageError(f"{where}: gives {what}; {instead}")


def _parts(output: Any) -> dict[str, Any]:
    """The parts of a container by name; {} for anything else."""
    if isinstance(output, PackedSequence):
        return {}
    if isinstance(output, Mapping):
        return {str(key): part for key, part in output.items()}
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    if hasattr(output, "_asdict"):
        return output._asdict()
    if isinstance(output, (tuple, list)):
        return {str(number): part for number, part in enumerate(output)}
    return {}


def _kinds(output: Any) -> set[str]:
    return {type(output).__name__, *(kind for part in _parts(output).values() for kind in _kinds(part))}
