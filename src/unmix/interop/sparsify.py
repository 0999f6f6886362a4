"""Checkpoints of sparsify: cfg.json and sae.safetensors, read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from unmix.core.errors import UsageError
from unmix.encoders import ENCODERS
from unmix.finders.features import Features, assemble
from unmix.interop.strict import Held, known_fields, read_config, value

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
_TRAINING = ("normalize_decoder", "multi_topk", "expansion_factor", "num_latents")
_REFUSED = {
    "transcode": "it predicts another place than it reads",
    "skip_connection": "a linear map of the row is added to the reconstruction",
    "embed_skip": "a map of the model's embedding is added to the reconstruction",
    "gram_lookup": "a table of n-gram means is taken off the rows",
}
# They belong to gram_lookup and are without effect where it is off.
_WITHOUT_EFFECT = ("lookup_max_order", "gram_table_hash")


def read_sparsify(folder: str | Path, ignore: Collection[str] = ()) -> Features:
    """Features from a sparsify checkpoint, with the codes of its own `SparseCoder.encode` in float32.

    activation topk -> TopK, with `signed` (of its early versions) AbsTopK. Tensors: encoder.weight [m, d],
    encoder.bias [m], W_dec [m, d], b_dec [d]. ignore: fields of cfg.json to pass over.
    Raises `UsageError` for an unknown field or tensor, a transcoder, a skip connection or groupmax, and `Failure`
    for a file that is cut off or has other shapes. Source: eai-sparsify 1.3.3.
    """
    folder = Path(folder)
    place = str(folder / CONFIG)
    config = read_config(folder / CONFIG)
    known = ("d_in", "k", "activation", "signed", *_TRAINING, *_REFUSED, *_WITHOUT_EFFECT)
    known_fields(config, known, place, ignore)
    for name, reason in _REFUSED.items():
        if value(config, name, bool, place, False):
            raise UsageError(f"{place}: {name}: {reason}, which features cannot say")
    activation = value(config, "activation", str, place, "topk")
    if activation != "topk":
        raise UsageError(f"{place}: activation={activation}: known: topk; the largest of each group is no top-k")
    d, k = value(config, "d_in", int, place), value(config, "k", int, place, 32)
    m = value(config, "num_latents", int, place, 0) or d * value(config, "expansion_factor", int, place, 32)
    held = Held.open(folder / WEIGHTS)
    tensors = {"weight": held.take("encoder.weight", m, d), "shift": held.take("encoder.bias", m)}
    atoms, bias = held.take("W_dec", m, d), held.take("b_dec", d)
    held.done()
    signed = value(config, "signed", bool, place, False)
    recipe = ENCODERS.make({"kind": "AbsTopK" if signed else "TopK", "k": k})
    recipe._check(m, d)
    return assemble(atoms, bias, recipe, tensors, sparsify=config)
