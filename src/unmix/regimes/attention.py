"""Query-key and value-output pairs of attention that is written out: found by the usual names, and tried."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unmix.core.seeds import Stream
from unmix.regimes.jacobian import frozen_copy
from unmix.regimes.pairs import Pair, sides

OUTPUTS = ("o_proj", "out_proj", "output.dense", "to_out", "to_out.0", "out", "wo", "o", "proj", "join", "dense")
SEPARATE = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("self.query", "self.key", "self.value"),
    ("attention.query", "attention.key", "attention.value"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
    ("q", "k", "v"),
)
PACKED = ("qkv", "qkv_proj", "in_proj", "c_attn", "attend")
QUERY_AND_REST = (("query", "keys"), ("q", "kv"), ("to_q", "to_kv"))
HEADS = ("num_heads", "n_heads", "heads", "num_attention_heads", "n_head", "nhead")
TRIED = 1e-8  # relative change of the outputs in float64


@dataclass(frozen=True)
class _Form:
    """Where a module's projections lie: names of the layers, and from which row of each on, in their outputs."""

    query: tuple[str, int]
    key: tuple[str, int]
    value: tuple[str, int]
    out: str


def attention_pairs(model: nn.Module) -> list[Pair]:
    """The pairs of every module whose projections have usual names, such as q_proj, k_proj, v_proj, o_proj.

    Names prove nothing, so each pair is tried: a copy of the module in float64 sees random rows before and after its
    heads are rescaled at random. A pair that changes the output, or a module that wants more than one input, is not
    legal and says why.
    """
    made = []
    for name, module in model.named_modules():
        form = None if isinstance(module, nn.MultiheadAttention) else _form(module)
        if form is not None:
            at = f"{name}." if name else ""
            made += [_placed(_tried(module, pair), at) for pair in _pairs(module, form)]
    # A block that holds an attention module names the same layers: the outer one, which runs by itself, may be legal.
    found: dict[tuple[str, str, str], Pair] = {}
    for pair in made:
        key = (pair.first, pair.second, pair.kind)
        if key not in found or (pair.legal and not found[key].legal):
            found[key] = pair
    return list(found.values())


def _placed(pair: Pair, at: str) -> Pair:
    return replace(pair, first=at + pair.first, second=at + pair.second)


def _form(module: nn.Module) -> _Form | None:
    """How a module's attention is laid out, or None where it has none of the known names."""
    parts = dict(module.named_modules())

    def linear(name: str) -> Any:
        found = parts.get(name)
        return found if isinstance(found, nn.Linear) else None

    for names in SEPARATE:
        layers = [linear(name) for name in names]
        if all(layer is not None for layer in layers):
            query, key, value = ((name, 0) for name in names)
            return _closed(_Form(query, key, value, ""), linear, layers[0].out_features)
    for name in PACKED:
        layer = linear(name)
        if layer is not None and layer.out_features % 3 == 0:
            width = layer.out_features // 3
            return _closed(_Form((name, 0), (name, width), (name, 2 * width), ""), linear, width)
    for first, rest in QUERY_AND_REST:
        one, two = linear(first), linear(rest)
        if one is not None and two is not None and two.out_features == 2 * one.out_features:
            form = _Form((first, 0), (rest, 0), (rest, one.out_features), "")
            return _closed(form, linear, one.out_features)
    return None


def _closed(form: _Form, linear: Any, width: int) -> _Form | None:
    """The form with its output layer, the first usual name that takes `width` numbers."""
    for name in OUTPUTS:
        layer = linear(name)
        if layer is not None and layer.in_features == width:
            return replace(form, out=name)
    return None


def _pairs(module: nn.Module, form: _Form) -> list[Pair]:
    out: Any = module.get_submodule(form.out)
    keys: Any = module.get_submodule(form.key[0])
    heads, width = _heads(module), int(out.in_features)
    key_width = width if form.key[0] in (form.query[0], form.value[0]) else int(keys.out_features)
    # Several query heads may share one head of keys and values: the shared ones are the units.
    shared = heads * key_width // width
    if heads < 1 or width % heads or shared < 1 or heads % shared:
        shared = 1
    query, key, value = (
        _rows(module, *part, size)
        for part, size in ((form.query, width), (form.key, key_width), (form.value, key_width))
    )
    return [
        Pair(form.query[0], form.key[0], "query-key", heads=shared, first_rows=query, second_rows=key),
        Pair(form.value[0], form.out, "value-output", heads=shared, first_rows=value),
    ]


def _rows(module: nn.Module, layer: str, begin: int, count: int) -> tuple[int, int] | None:
    """The outputs of a layer that are meant; None for all of them."""
    return None if module.get_submodule(layer).out_features == count else (begin, count)


def _heads(module: nn.Module) -> int:
    """Number of heads as the module, a part of it or their configuration says; 1 where none does."""
    for part in module.modules():
        for holder in (part, getattr(part, "config", None)):
            for name in HEADS:
                count = getattr(holder, name, None)
                if isinstance(count, int) and count > 0:
                    return count
    return 1


def _tried(module: nn.Module, pair: Pair) -> Pair:
    """The pair, or why rescaling it would change what the module gives."""
    twin = frozen_copy(module, torch.float64)
    draw = Stream(0).child("attention").torch()
    first: Any = twin.get_submodule(pair.first)
    x = torch.randn(2, 5, first.in_features, generator=draw, dtype=torch.float64).to(first.weight.device)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            before = _tensor(twin(x))
            both = sides(twin, pair)
            both.scale(torch.rand(both.units, generator=draw, dtype=torch.float64) + 0.5)
            after = _tensor(twin(x))
    except Exception as error:  # whatever a foreign module raises on one input alone
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        return replace(pair, legal=False, why=f"could not be tried on random rows ({told[:80]}); give it by hand")
    change = float((after - before).abs().max())
    if not change <= TRIED * float(before.abs().max()):
        return replace(
            pair, legal=False, why="the module's output changes: its heads lie otherwise than by their names"
        )
    return pair


def _tensor(made: Any) -> Tensor:
    while not isinstance(made, Tensor):
        made = made[0]
    return made
