"""Query-key and value-output pairs of attention: torch's own, and what is written out under the usual names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from unmix.regimes.pairs import Pair
from unmix.regimes.sides import ATTENTION

OUTPUTS = (
    "o_proj", "out_proj", "output.dense", "to_out", "to_out.0", "out", "wo", "o", "proj", "c_proj", "join", "dense",
    "W_o", "w_o", "W_O", "Wo", "linear_out", "out_linear", "fc_out", "output", "fc",
)  # fmt: skip
SEPARATE = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("self.query", "self.key", "self.value"),
    ("attention.query", "attention.key", "attention.value"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
    ("q", "k", "v"),
    ("W_q", "W_k", "W_v"),
    ("w_q", "w_k", "w_v"),
    ("W_Q", "W_K", "W_V"),
    ("Wq", "Wk", "Wv"),
    ("linear_q", "linear_k", "linear_v"),
    ("q_linear", "k_linear", "v_linear"),
    ("query_proj", "key_proj", "value_proj"),
    ("queries", "keys", "values"),
)
PACKED = ("qkv", "qkv_proj", "in_proj", "c_attn", "attend", "to_qkv", "Wqkv", "query_key_value")
QUERY_AND_REST = (("query", "keys"), ("q", "kv"), ("to_q", "to_kv"))
HEADS = ("num_heads", "n_heads", "heads", "num_attention_heads", "n_head", "nhead")


@dataclass(frozen=True)
class _Form:
    """Where a module's projections lie: names of the layers, and from which row of each on, in their outputs."""

    query: tuple[str, int]
    key: tuple[str, int]
    value: tuple[str, int]
    out: str


def attention_pairs(model: nn.Module) -> list[Pair]:
    """The pairs of every attention that is found: nn.MultiheadAttention, and modules whose projections have usual
    names, such as q_proj, k_proj, v_proj, o_proj. Names prove nothing: whether they hold is for a trial to say.
    """
    found: dict[tuple[str, str, str], Pair] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            for kind in ATTENTION:
                found[name, name, kind] = Pair(name, name, kind)
        elif (form := _form(module)) is not None:
            for pair in (_placed(pair, f"{name}." if name else "") for pair in _pairs(module, form)):
                # A block that holds an attention module names the same layers, and may not know of its heads.
                key = (pair.first, pair.second, pair.kind)
                if key not in found or found[key].heads < pair.heads:
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
