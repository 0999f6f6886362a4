"""Homogeneous pairs of a torch model: two layers between which scale can move without changing the function."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from unmix.core.errors import UsageError, suggest

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
HOMOGENEOUS = (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity, nn.Flatten, nn.Dropout, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d,
    nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout2d,
)  # fmt: skip
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)
FUNCTIONS = {
    torch.relu, nn.functional.relu, nn.functional.leaky_relu, torch.flatten, nn.functional.max_pool2d,
    nn.functional.avg_pool2d, nn.functional.adaptive_avg_pool2d, nn.functional.dropout, 
}  # fmt: skip
ATTENTION = ("query-key", "value-output")
KINDS = ("units", "embedding", *ATTENTION)
METHODS = {"flatten", "view", "reshape", "relu", "contiguous", "size"}


@dataclass(frozen=True)
class Pair:
    """Two places between which a factor r > 0 moves: what `first` gives is divided by r, what `second` takes times r.

    kind: units (layers with homogeneous units between), embedding (of an embedding and a layer), query-key or
    value-output (of attention; first and second are the same where one layer holds both). legal: the function is
    kept; why: the reason where it is not. heads: units of attention written out in linear layers. first_rows,
    second_rows: (first, number) of the outputs of a layer that are meant, where it holds more than one projection.
    """

    first: str
    second: str
    kind: str = "units"
    legal: bool = True
    why: str = ""
    heads: int = 1
    first_rows: tuple[int, int] | None = None
    second_rows: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """FIRST -> SECOND, with the kind behind it for attention; MODULE kind where they are the same."""
        if self.first == self.second:
            return f"{self.first} {self.kind}"
        return f"{self.first} -> {self.second}" + (f" {self.kind}" if self.kind in ATTENTION else "")


@dataclass
class Sides:
    """The tensors of a pair: incoming ones are divided by r [h], outgoing ones times r [h]; each comes
    with its view [1 or rows, h, numbers].
    """

    incoming: list[tuple[Tensor, Any]] = field(default_factory=list)
    outgoing: list[tuple[Tensor, Any]] = field(default_factory=list)
    units: int = 0

    def squares(self, tensors: list[tuple[Tensor, Any]]) -> Tensor:
        """Sum of squares over each unit's numbers [h], float64."""
        total = torch.zeros(self.units, dtype=torch.float64)
        for tensor, view in tensors:
            total += view(tensor.detach()).double().square().sum((0, 2)).cpu()
        return total

    def scale(self, r: Tensor) -> None:
        """Divide the incoming numbers of each unit by r [h] and multiply the outgoing ones, in place."""
        with torch.no_grad():
            for tensors, factor in ((self.incoming, 1 / r), (self.outgoing, r)):
                for tensor, view in tensors:
                    view(tensor).mul_(factor.to(tensor)[:, None])


def find_pairs(model: nn.Module) -> list[Pair]:
    """Every pair of neighbouring layers of a model, with the reason where moving scale would change the function.

    Layers are followed by torch.fx through units that are homogeneous of degree one (ReLU, LeakyReLU, pooling,
    dropout, flattening); a model that fx cannot trace is read as far as its Sequential parts go. Attention gives its
    query-key and value-output pairs: nn.MultiheadAttention, and linear layers by their usual names (`attention`).
    """
    from unmix.regimes.attention import attention_pairs

    written = attention_pairs(model)
    ends = {(pair.first, pair.second) for pair in written}
    pairs = [pair for pair in _traced(model) if (pair.first, pair.second) not in ends] + written
    counts: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    made = [_untied(model, pair, counts) for pair in pairs]
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            packed = module.in_proj_weight is not None and module.bias_k is None
            why = "" if packed else "separate projections or added key biases"
            made.append(Pair(name, name, "query-key", packed, why))
            made.append(Pair(name, name, "value-output", packed, why))
    return made


def given_pairs(model: nn.Module, pairs: Iterable[Pair | str]) -> list[Pair]:
    """Pairs named by hand, as `Pair` or as text: "FIRST -> SECOND", then maybe a kind and its number of heads.

    Text: "encoder.0 -> encoder.2", "block.q -> block.k query-key 4". They are taken at their word: a probe tells
    whether the function is kept. Raises `UsageError` for a layer that is not there, sizes that do not fit, an unknown
    kind.
    """
    made = [pair if isinstance(pair, Pair) else _read(pair) for pair in pairs]
    parts = dict(model.named_modules())
    for pair in made:
        for name in (pair.first, pair.second):
            if name not in parts:
                raise UsageError(f"pair {pair.name}: no layer {name!r}; {suggest(name, parts)}")
            if not isinstance(parts[name], (*LAYERS, nn.Embedding, nn.MultiheadAttention)):
                raise UsageError(
                    f"pair {pair.name}: {name} is a {type(parts[name]).__name__}, not a layer of weights"
                )
        try:
            both = sides(model, pair)
            sizes = [{view(tensor).shape[1] for tensor, view in part} for part in (both.incoming, both.outgoing)]
        except RuntimeError:
            sizes = []
        if sizes != [{both.units}, {both.units}] or (pair.kind not in ATTENTION and not _fit(model, pair)):
            raise UsageError(f"pair {pair.name}: the outputs of {pair.first} are not the inputs of {pair.second}")
    return made


def _read(text: str) -> Pair:
    first, arrow, rest = (part.strip() for part in text.partition("->"))
    second, *more = rest.split() or [""]
    kind, heads = (*more, *("units", "1")[len(more) :])[:2]
    if not (first and second and arrow and kind in KINDS and heads.isdigit() and int(heads)) or len(more) > 2:
        raise UsageError(f"pair {text!r}: write FIRST -> SECOND, then maybe one of {', '.join(KINDS)} and heads")
    return Pair(first, second, kind, heads=int(heads))


def sides(model: nn.Module, pair: Pair) -> Sides:
    """The tensors of a pair and how each is seen unit by unit."""
    first: Any = model.get_submodule(pair.first)
    second: Any = model.get_submodule(pair.second)
    made = Sides()
    if isinstance(first, nn.MultiheadAttention):
        e, heads = first.embed_dim, first.num_heads
        made.units = heads
        query, key, value = (_Rows(k * e, (k + 1) * e, heads) for k in range(3))
        biased = first.in_proj_bias is not None
        if pair.kind == "query-key":
            made.incoming = [(first.in_proj_weight, query), *([(first.in_proj_bias, query)] if biased else [])]
            made.outgoing = [(first.in_proj_weight, key), *([(first.in_proj_bias, key)] if biased else [])]
        else:
            made.incoming = [(first.in_proj_weight, value), *([(first.in_proj_bias, value)] if biased else [])]
            made.outgoing = [(first.out_proj.weight, _Columns(heads))]
        return made
    if pair.kind in ATTENTION:
        made.units = pair.heads
        made.incoming = _parts(first, pair.first_rows, pair.heads)
        keys = pair.kind == "query-key"
        made.outgoing = (
            _parts(second, pair.second_rows, pair.heads) if keys else [(second.weight, _Columns(pair.heads))]
        )
        return made
    if isinstance(first, nn.Embedding):
        made.units = first.embedding_dim
        made.incoming = [(first.weight, _Columns(made.units))]
    else:
        made.units = first.weight.shape[0]
        made.incoming = [(first.weight, _Rows(0, made.units, made.units))]
        if first.bias is not None:
            made.incoming.append((first.bias, _Rows(0, made.units, made.units)))
    made.outgoing = [(second.weight, _Columns(made.units))]
    return made


def _parts(layer: Any, rows: tuple[int, int] | None, units: int) -> list[tuple[Tensor, Any]]:
    """Weight and bias of a linear layer, or of some of its outputs, head by head."""
    begin, count = rows or (0, layer.weight.shape[0])
    view = _Rows(begin, begin + count, units)
    return [(tensor, view) for tensor in (layer.weight, layer.bias) if tensor is not None]


@dataclass(frozen=True)
class _Rows:
    """Units along the first axis, from row `begin` to `end`."""

    begin: int
    end: int
    units: int

    def __call__(self, tensor: Tensor) -> Tensor:
        return tensor[self.begin : self.end].view(1, self.units, -1)


@dataclass(frozen=True)
class _Columns:
    """Units along the second axis, several columns wide each after a flattening."""

    units: int

    def __call__(self, tensor: Tensor) -> Tensor:
        return tensor.view(tensor.shape[0], self.units, -1)


def _untied(model: nn.Module, pair: Pair, counts: dict[int, int]) -> Pair:
    for name in dict.fromkeys((pair.first, pair.second)):
        if any(counts[id(p)] > 1 for p in model.get_submodule(name).parameters(recurse=False)):
            return replace(pair, legal=False, why=f"{name} shares its weights with another layer")
    if pair.kind in ATTENTION:
        return pair
    if pair.legal and getattr(model.get_submodule(pair.second), "groups", 1) > 1:
        return replace(pair, legal=False, why=f"{pair.second} is a grouped convolution")
    if pair.legal and not _fit(model, pair):
        return replace(pair, legal=False, why="the inputs of the second are not units of the first")
    return pair


def _fit(model: nn.Module, pair: Pair) -> bool:
    """Whether the inputs of the second layer are units of the first, several places of each after a flattening."""
    first: Any = model.get_submodule(pair.first)
    second: Any = model.get_submodule(pair.second)
    units = first.embedding_dim if isinstance(first, nn.Embedding) else first.weight.shape[0]
    spread = isinstance(first, (nn.Conv1d, nn.Conv2d)) and isinstance(second, nn.Linear)
    return bool(second.weight.shape[1] % units == 0 if spread else second.weight.shape[1] == units)


def _traced(model: nn.Module) -> list[Pair]:
    try:
        graph = fx.Tracer().trace(model)
    except Exception:
        found = []
        for name, module in model.named_modules():
            if isinstance(module, nn.Sequential) and _traceable(module):
                inner = _from_graph(module, fx.Tracer().trace(module))
                at = f"{name}." if name else ""
                found += [Pair(at + p.first, at + p.second, p.kind, p.legal, p.why) for p in inner]
        return list({pair.name: pair for pair in found}.values())
    return _from_graph(model, graph)


def _traceable(module: nn.Module) -> bool:
    try:
        fx.Tracer().trace(module)
    except Exception:
        return False
    return True


def _from_graph(model: nn.Module, graph: fx.Graph) -> list[Pair]:
    modules = dict(model.named_modules())
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    made = []
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(modules[str(node.target)], (*LAYERS, nn.Embedding)):
            made += _followed(node, modules, calls)
    return made


def _followed(start: fx.Node, modules: dict[str, nn.Module], calls: dict[str, int]) -> list[Pair]:
    """The pairs that a layer is the first of: down the graph to the next layers, noting what stands between."""
    first = str(start.target)
    kind = "embedding" if isinstance(modules[first], nn.Embedding) else "units"
    base = "" if calls[first] == 1 else f"{first} is used {calls[first]} times"
    made, todo, seen = [], [(start, base)], set()
    while todo:
        node, why = todo.pop()
        users = [user for user in node.users if not _only_shape(user)]
        if len(users) > 1:
            why = why or f"the output of {node.name} branches (a residual or shared path)"
        for user in users:
            if user in seen or user.op == "output":
                continue
            seen.add(user)
            if user.op == "call_module" and isinstance(modules[str(user.target)], LAYERS):
                second = str(user.target)
                reason = why or ("" if calls[second] == 1 else f"{second} is used {calls[second]} times")
                made.append(Pair(first, second, kind, not reason, reason))
            elif user.op == "call_module" and isinstance(modules[str(user.target)], nn.Embedding):
                continue
            else:
                todo.append((user, why or _obstacle(user, modules, first)))
    return made


def _obstacle(node: fx.Node, modules: dict[str, nn.Module], first: str) -> str:
    """Why scale cannot pass a node, or nothing."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        if isinstance(module, HOMOGENEOUS):
            return ""
        if isinstance(module, NORMS):
            return f"{node.target} normalises: what comes before it has no scale"
        return f"{node.target} ({type(module).__name__}) is not homogeneous"
    if node.op == "call_method" and str(node.target) in METHODS:
        return ""
    if node.op == "call_function":
        if node.target in FUNCTIONS:
            return ""
        if node.target in (operator.add, operator.iadd, torch.add):
            return "another path is added (a residual connection)"
    if node.target in ("mean", torch.mean) and _keeps_units(node, modules[first]):
        return ""
    return f"{node.name} is not known to be homogeneous"


def _keeps_units(node: fx.Node, first: nn.Module) -> bool:
    """Whether a mean is over places, not over the units of the first layer."""
    over = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    axes = set(over) if isinstance(over, (tuple, list)) else {over}
    allowed = {2, 3, -1} if isinstance(first, nn.Conv1d) else {2, 3, -1, -2}
    return axes <= (allowed if isinstance(first, (nn.Conv1d, nn.Conv2d)) else {1})


def _only_shape(node: fx.Node) -> bool:
    return (node.op == "call_method" and node.target == "size") or (
        node.op == "call_function" and node.target is getattr and node.args[1:2] == ("shape",)
    )
