"""Checkpoints of dictionary_learning: ae.pt and config.json, read."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmix.core.errors import Failure, UsageError, suggest
from unmix.encoders import ENCODERS
from unmix.encoders.base import Encoder
from unmix.finders.features import Features, assemble
from unmix.interop.maps import unit_atoms, with_offset
from unmix.interop.strict import AGAIN, Held, known_fields, read_config, value, words

CONFIG, WEIGHTS = "config.json", "ae.pt"
# Of every trainer; apart from dict_class, the sizes and k they say how it was trained.
_TRAINER = words(
    "trainer_class dict_class activation_dim dict_size k layer lm_name submodule_name wandb_name device seed lr "
    "steps warmup_steps decay_start l1_penalty resample_steps sparsity_warmup_steps sparsity_penalty "
    "sparsity_function sparsity_queue_length n_sparsity_updates p_start p_end anneal_start auxk_alpha top_k_aux "
    "threshold_beta threshold_start_step bandwidth target_l0 group_fractions group_weights group_sizes"
)
_CLASSES = (
    "AutoEncoder",
    "AutoEncoderNew",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
    "JumpReluAutoEncoder",
    "GatedAutoEncoder",
)


def read_dictionary_learning(folder: str | Path, ignore: Collection[str] = ()) -> Features:
    """Features from a dictionary_learning checkpoint, with the codes of its own `load_dictionary(...).encode`.

    AutoEncoder and AutoEncoderNew -> Linear (AutoEncoder with its decoder norms folded into unit atoms, unless it
    was trained by PAnnealTrainer, as its loader does), AutoEncoderTopK -> TopK, BatchTopKSAE and
    MatryoshkaBatchTopKSAE -> BatchTopK, JumpReluAutoEncoder -> JumpReLU (its encoder does not take the bias off, so
    W b goes into the shift), GatedAutoEncoder -> Gated. The section "buffer" of config.json is kept as facts.
    ae.pt is loaded as plain tensors; nothing in it is run. ignore: fields of the trainer's section to pass over.
    Raises `UsageError` for an unknown field, tensor or class, or a threshold that was never set, and `Failure` for
    a file that is cut off or has other shapes. Source: dictionary_learning 0.1.0.
    """
    folder = Path(folder)
    place = str(folder / CONFIG)
    config = read_config(folder / CONFIG)
    known_fields(config, ["trainer", "buffer"], place, ignore)
    trainer = value(config, "trainer", dict, place)
    place += ", trainer"
    known_fields(trainer, _TRAINER, place, ignore)
    name = value(trainer, "dict_class", str, place)
    if name not in _CLASSES:
        raise UsageError(f"{place}: dict_class={name} has no counterpart here; {suggest('', list(_CLASSES))}")
    held = Held(_load(folder / WEIGHTS), folder / WEIGHTS)
    transposed = name in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE")
    sizes = held.shape("W_enc" if transposed else "encoder.weight")
    if len(sizes) != 2:
        raise Failure(f"{held.place}: the encoder's weight is {list(sizes)}, expected a matrix")
    d, m = sizes if transposed else sizes[::-1]
    for field, size in (("activation_dim", d), ("dict_size", m)):
        if field in trainer and trainer[field] != size:
            raise Failure(f"{held.place}: {field} is {size}, but {place} says {trainer[field]}")
    atoms, bias, tensors = _parts(name, held, m, d)
    recipe, tensors = _encoder(name, held, tensors, trainer, m, place)
    if name in ("AutoEncoderNew", "JumpReluAutoEncoder"):
        tensors = with_offset(tensors, tensors["weight"].double() @ bias.double())
    if name == "AutoEncoder" and trainer.get("trainer_class") != "PAnnealTrainer":
        atoms, tensors = unit_atoms(atoms, tensors)
    held.done()
    recipe._check(m, d)
    return assemble(atoms, bias, recipe, tensors, dictionary_learning=config)


def _load(path: Path) -> dict[str, Any]:
    """A state dictionary, loaded as plain tensors only."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if zipfile.is_zipfile(path):
            raise UsageError(f"{path}: holds more than tensors; save its state_dict instead") from None
        raise Failure(f"{path}: not a whole file of tensors; {AGAIN}") from None
    except Exception as error:  # what a damaged file makes the reader stumble over may be anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Failure(f"{path}: not a whole file of tensors ({reason}); {AGAIN}") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path}: holds {type(found).__name__}, not a dictionary of tensors")
    return found


def _parts(name: str, held: Held, m: int, d: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Atoms, bias, and the encoder's weight and shift."""
    if name in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        tensors = {"weight": held.take("W_enc", d, m).T.contiguous(), "shift": held.take("b_enc", m)}
        return held.take("W_dec", m, d), held.take("b_dec", d), tensors
    atoms = held.take("decoder.weight", d, m).T.contiguous()
    biases = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias", "GatedAutoEncoder": "decoder_bias"}
    tensors = {"weight": held.take("encoder.weight", m, d)}
    tensors["shift"] = held.take("mag_bias" if name == "GatedAutoEncoder" else "encoder.bias", m)
    return atoms, held.take(biases.get(name, "b_dec"), d), tensors


def _encoder(
    name: str, held: Held, tensors: dict[str, Tensor], trainer: dict[str, Any], m: int, place: str
) -> tuple[Encoder, dict[str, Tensor]]:
    if name in ("AutoEncoder", "AutoEncoderNew"):
        return ENCODERS.make("Linear"), {**tensors, "threshold": tensors["shift"].new_zeros(())}
    if name == "GatedAutoEncoder":
        gate = {"gate_shift": held.take("gate_bias", m), "log_scale": held.take("r_mag", m)}
        return ENCODERS.make("Gated"), {**tensors, **gate}
    if name == "JumpReluAutoEncoder":
        return ENCODERS.make("JumpReLU"), {**tensors, "threshold": held.take("threshold", m).clamp_min(0)}
    k = held.count("k") if "k" in held else value(trainer, "k", int, place)
    if trainer.get("k", k) != k:
        raise Failure(f"{held.place}: k is {k}, but {place} says {trainer['k']}")
    if name == "AutoEncoderTopK":
        # Its threshold serves another way of reading, which its encode takes only when asked to.
        if "threshold" in held:
            held.take("threshold")
        return ENCODERS.make({"kind": "TopK", "k": k}), tensors
    if name == "MatryoshkaBatchTopKSAE":
        sizes = held.tensors.pop("group_sizes", None)
        if sizes is None or sizes.ndim != 1 or int(sizes.sum()) != m:
            raise Failure(f"{held.place}: group_sizes should be whole numbers that sum to {m}")
    threshold = held.take("threshold")
    if bool(threshold < 0):
        raise UsageError(
            f"{held.place}: threshold is {threshold.item():g}: it was never set, so that every positive code would "
            "stay; train past threshold_start_step"
        )
    return ENCODERS.make({"kind": "BatchTopK", "k": k}), {**tensors, "threshold": threshold}
