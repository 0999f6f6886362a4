"""The tensors on both sides of a pair of layers: which unit each number belongs to, and what forbids to move it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unmix.core.errors import UsageError

if TYPE_CHECKING:
    from unmix.regimes.pairs import Pair

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
ATTENTION = ("query-key", "value-output")
WEIGHTS = ("weight", "bias", "in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True)
class Part:
    """A tensor, and the unit [broadcasts to its shape] that each number belongs to; -1 for none."""

    tensor: Tensor
    unit: Tensor


@dataclass
class Sides:
    """The tensors of a pair with so many units: incoming ones are divided by r [units], outgoing ones times r."""

    units: int
    incoming: list[Part] = field(default_factory=list)
    outgoing: list[Part] = field(default_factory=list)

    def sums(self, parts: list[Part], values: list[Tensor] | None = None) -> Tensor:
        """Sum over each unit's numbers [units], float64, of the squares, or of values of the tensors' shapes."""
        total = torch.zeros(self.units + 1, dtype=torch.float64)
        for place, part in enumerate(parts):
            given = part.tensor.detach().double().square() if values is None else values[place]
            over = [d for d, size in enumerate(part.unit.shape) if size == 1]
            given = given.sum(over, keepdim=True) if over else given
            total.index_add_(0, (part.unit % (self.units + 1)).reshape(-1).cpu(), given.reshape(-1).cpu())
        return total[:-1]

    def scale(self, r: Tensor) -> None:
        """Divide the incoming numbers of each unit by r [units] and multiply the outgoing ones, in place."""
        with torch.no_grad():
            for parts, factor in ((self.incoming, 1 / r), (self.outgoing, r)):
                padded = torch.cat([factor.double(), torch.ones(1, dtype=torch.float64)])
                for part in parts:
                    part.tensor.copy_(part.tensor.double() * padded.to(part.tensor.device)[part.unit])

    def tensors(self) -> list[Tensor]:
        """Every tensor that is moved, incoming ones first."""
        return [part.tensor for part in (*self.incoming, *self.outgoing)]


def sides(model: nn.Module, pair: Pair) -> Sides:
    """The tensors of a pair and which unit each number belongs to; raises `UsageError` where sizes do not fit."""
    first: Any = model.get_submodule(pair.first)
    second: Any = model.get_submodule(pair.second)
    wrong = UsageError(f"pair {pair.name}: the outputs of {pair.first} are not the inputs of {pair.second}")
    if isinstance(first, nn.MultiheadAttention) and first is second and pair.kind in ATTENTION:
        return _fused(first, pair.kind)
    if not isinstance(first, (*LAYERS, *EMBEDDINGS)) or not isinstance(second, LAYERS):
        raise wrong
    if pair.kind in ATTENTION:
        if not isinstance(first, nn.Linear) or not isinstance(second, nn.Linear):
            raise wrong
        made, keys = Sides(pair.heads), pair.kind == "query-key"
        if keys:
            made.outgoing = _rows(second, pair.second_rows, pair.heads)
        elif second.in_features % pair.heads == 0:
            made.outgoing = [Part(second.weight, _columns(second, pair.heads, False))]
        made.incoming = _rows(first, pair.first_rows, pair.heads)
        if not made.incoming or not made.outgoing:
            raise wrong
        return made
    units = outputs_of(first)
    if isinstance(first, EMBEDDINGS):
        incoming = [Part(first.weight, torch.arange(units, device=first.weight.device)[None])]
    elif isinstance(first, TRANSPOSED):
        incoming = [Part(first.weight, _grouped(first.weight, first.groups, units))]
    else:
        incoming = [Part(first.weight, _along(torch.arange(units), first.weight, 0))]
    if (bias := getattr(first, "bias", None)) is not None:
        incoming.append(Part(bias, torch.arange(units, device=bias.device)))
    if inputs_of(second) % units:
        raise wrong
    return Sides(units, incoming, [Part(second.weight, _columns(second, units, pair.interleaved))])


def outputs_of(layer: Any) -> int:
    """How many units a layer gives."""
    if isinstance(layer, EMBEDDINGS):
        return int(layer.embedding_dim)
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def inputs_of(layer: Any) -> int:
    """How many numbers, or channels, a layer takes."""
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)


def obstacle(model: nn.Module, name: str) -> str:
    """Why a layer's weights cannot be rescaled whatever is beside it, or nothing."""
    layer: Any = model.get_submodule(name)
    name = name or "the model"
    if isinstance(layer, EMBEDDINGS) and layer.max_norm is not None:
        return f"{name} renormalises its rows (max_norm)"
    if isinstance(layer, nn.MultiheadAttention) and layer.bias_k is not None:
        return f"{name} has added key and value biases"
    if isinstance(layer, nn.MultiheadAttention) and (why := obstacle(layer, "out_proj")):
        return why.replace("out_proj", f"{name}.out_proj")
    for part in WEIGHTS:
        # The attribute of a parametrised weight computes it anew, which moves the buffers of spectral norm.
        held = layer._parameters.get(part)
        if part in getattr(layer, "parametrizations", ()) or isinstance(vars(layer).get(part), Tensor):
            return f"the {part} of {name} is computed from others (weight norm, pruning, a parametrisation)"
        if held is None:
            continue
        if not held.is_floating_point():
            return f"the {part} of {name} is not of real numbers ({held.dtype})"
        if held.layout != torch.strided or held.is_inference() or 0 in held.stride():
            return f"the {part} of {name} cannot be written in place"
    return ""


def shared(model: nn.Module) -> dict[int, set[str]]:
    """By the id of a tensor, the names of all that lie in the same memory, for those that are not alone in theirs."""
    spans = []
    for at, module in model.named_modules():
        for name, held in (*module._parameters.items(), *module._buffers.items()):
            if held is not None and held.layout == torch.strided and held.numel() and not held.is_meta:
                last = sum((size - 1) * step for size, step in zip(held.shape, held.stride(), strict=True))
                begin, end = held.data_ptr(), held.data_ptr() + (last + 1) * held.element_size()
                spans.append((str(held.device), begin, end, f"{at}.{name}".strip("."), id(held)))
    found: dict[int, set[str]] = {}
    near: list[tuple[str, int, int, str, int]] = []
    for span in sorted(spans):
        near = [other for other in near if other[0] == span[0] and other[2] > span[1]]
        for other in near:
            for one in (span, other):
                found.setdefault(one[4], set()).update((span[3], other[3]))
        near.append(span)
    return found


def _fused(layer: nn.MultiheadAttention, kind: str) -> Sides:
    """Both pairs of torch's attention, whose projections lie in one tensor or in three."""
    width, heads = layer.embed_dim, layer.num_heads
    made = Sides(heads)

    def projection(place: int) -> list[Part]:
        packed = layer.in_proj_weight is not None
        weight: Any = (
            layer.in_proj_weight if packed else (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)[place]
        )
        parts = [Part(weight, _heads(weight, place * width if packed else 0, width, heads))]
        if layer.in_proj_bias is not None:
            parts.append(Part(layer.in_proj_bias, _heads(layer.in_proj_bias, place * width, width, heads)))
        return parts

    if kind == "query-key":
        made.incoming, made.outgoing = projection(0), projection(1)
    else:
        made.incoming = projection(2)
        made.outgoing = [Part(layer.out_proj.weight, _columns(layer.out_proj, heads, False))]
    return made


def _rows(layer: Any, rows: tuple[int, int] | None, units: int) -> list[Part]:
    """Weight and bias of a linear layer, or of some of its outputs, head by head; none where heads do not fit."""
    begin, count = rows or (0, layer.weight.shape[0])
    if units < 1 or count % units or begin + count > layer.weight.shape[0]:
        return []
    tensors = [tensor for tensor in (layer.weight, layer.bias) if tensor is not None]
    return [Part(tensor, _heads(tensor, begin, count, units)) for tensor in tensors]


def _heads(tensor: Tensor, begin: int, count: int, units: int) -> Tensor:
    unit = torch.full((tensor.shape[0],), -1)
    unit[begin : begin + count] = torch.arange(count) // (count // units)
    return _along(unit, tensor, 0)


def _columns(layer: Any, units: int, interleaved: bool) -> Tensor:
    """The unit of each input of a layer: so many inputs in a row for each, or every unit in turn."""
    numbers = torch.arange(inputs_of(layer))
    unit = numbers % units if interleaved else numbers // (len(numbers) // units)
    if isinstance(layer, TRANSPOSED):
        return _along(unit, layer.weight, 0)
    groups = getattr(layer, "groups", 1)
    if groups == 1:
        return _along(unit, layer.weight, 1)
    of_group = unit.view(groups, -1).repeat_interleave(layer.weight.shape[0] // groups, 0)
    return of_group.view(*of_group.shape, *(1,) * (layer.weight.ndim - 2)).to(layer.weight.device)


def _grouped(weight: Tensor, groups: int, units: int) -> Tensor:
    """The unit of each output of a transposed convolution [inputs, outputs of the group]."""
    unit = torch.arange(units).view(groups, -1).repeat_interleave(weight.shape[0] // groups, 0)
    return unit.view(*unit.shape, *(1,) * (weight.ndim - 2)).to(weight.device)


def _along(unit: Tensor, tensor: Tensor, axis: int) -> Tensor:
    return unit.view(*(-1 if d == axis else 1 for d in range(tensor.ndim))).to(tensor.device)
