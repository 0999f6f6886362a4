"""SAELens folders: cfg.json and sae_weights.safetensors, read and written."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmix.core.errors import UsageError, suggest
from unmix.core.store import replacing, write_json, write_tensors
from unmix.encoders import ENCODERS
from unmix.encoders.base import Encoder
from unmix.finders.features import Features, assemble
from unmix.interop.maps import READ_OUTS, kind_of, unit_atoms, with_offset
from unmix.interop.strict import Held, known_fields, must_be_new, read_config, value, words

VERSION = "6.54.12"  # of the SAELens that this format was checked against
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "float16", "bfloat16")}
_COMMON = words(
    "architecture d_in d_sae dtype device apply_b_dec_to_input normalize_activations reshape_activations metadata"
)
_COUNTED = ("k", "rescale_acts_by_decoder_norm")
_FIELDS: dict[str, tuple[str, ...]] = {
    "standard": (),
    "jumprelu": (),
    "gated": (),
    "topk": _COUNTED,
    "abstopk": _COUNTED,
    "batchtopk": _COUNTED,
    "matryoshka_batchtopk": _COUNTED,
}
# Of training configurations: they say how it was trained and do not change what it computes.
_TRAINING = words(
    "decoder_init_norm l1_coefficient lp_norm l1_warm_up_steps jumprelu_init_threshold jumprelu_bandwidth "
    "jumprelu_sparsity_loss_mode l0_coefficient l0_warm_up_steps pre_act_loss_coefficient jumprelu_tanh_scale "
    "jumprelu_ste_to_input target_l0 use_sparse_activations aux_loss_coefficient topk_threshold_lr "
    "matryoshka_widths use_matryoshka_aux_loss"
)
# Before version 6 the configuration was flat; these say what it was trained on.
_FLAT = words(
    "model_name hook_name hook_layer hook_head_index hook_name_out hook_head_index_out model_class_name "
    "model_from_pretrained_kwargs prepend_bos exclude_special_tokens neuronpedia_id context_size seqpos_slice "
    "dataset_path dataset_trust_remote_code sae_lens_version sae_lens_training_version"
)
_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_layer": "hook_layer",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
_NORMALISED = {
    "expected_average_only_in": "the factor it was trained with is not in the folder: fold it in with SAELens' "
    "fold_activation_norm_scaling_factor and save again",
    "layer_norm": "every row is normalised by its own mean and deviation, which no affine map can do",
    "constant_norm_rescale": "every row is divided by its own norm, which no affine map can do",
    "covariance_whitening": "the whitening is not in the folder: fold it in with SAELens' fold_activation_whitening "
    "and save again",
}


def read_saelens(folder: str | Path, ignore: Collection[str] = ()) -> Features:
    """Features from a SAELens folder (versions 3 to 6), with the codes that SAELens computes in float32.

    standard -> Linear, topk -> TopK, abstopk -> AbsTopK, jumprelu -> JumpReLU, gated -> Gated, and training
    checkpoints of batchtopk and matryoshka_batchtopk -> BatchTopK (JumpReLU where k is a fraction, which computes
    the same). W_enc [d, m] is transposed; without apply_b_dec_to_input W b_dec goes into the shift;
    rescale_acts_by_decoder_norm is folded into unit atoms; negative thresholds are 0, as SAELens has them. Weights
    are rounded to the dtype that the folder names. With reshape_activations="hook_z" a row is the heads side by
    side. ignore: fields of cfg.json to pass over.
    Raises `UsageError` for an unknown field or tensor, another architecture, or a normalisation of rows, and
    `Failure` for a file that is cut off or has other shapes. Source: SAELens 6.54.12.
    """
    folder = Path(folder)
    place = str(folder / CONFIG)
    config = _present(read_config(folder / CONFIG), place, ignore)
    architecture = config["architecture"]
    d, m = (value(config, name, int, place) for name in ("d_in", "d_sae"))
    held = Held.open(folder / WEIGHTS, _dtype(config, place))
    _refuse_normalised(config, place)
    if "scaling_factor" in held and not bool((held.take("scaling_factor", m) == 1).all()):
        raise UsageError(f"{folder / WEIGHTS}: scaling_factor is not 1 everywhere; codes and atoms disagree by it")
    atoms, bias = held.take("W_dec", m, d), held.take("b_dec", d)
    tensors = {"weight": held.take("W_enc", d, m).T.contiguous()}
    if architecture == "gated":
        names = {"gate_shift": "b_gate", "shift": "b_mag", "log_scale": "r_mag"}
        tensors |= {ours: held.take(theirs, m) for ours, theirs in names.items()}
    else:
        tensors["shift"] = held.take("b_enc", m)
    if value(config, "rescale_acts_by_decoder_norm", bool, place, False):
        atoms, tensors = unit_atoms(atoms, tensors)
    if not value(config, "apply_b_dec_to_input", bool, place, True):
        tensors = with_offset(tensors, tensors["weight"].double() @ bias.double())
    recipe, threshold = _encoder(architecture, config, held, atoms, place)
    held.done()
    recipe._check(m, d)
    if threshold is not None:
        tensors["threshold"] = threshold
    metadata = dict(value(config, "metadata", dict, place, {}))
    about = value(metadata, "unmix", dict, f"{place}, metadata", {})
    metadata.pop("unmix", None)
    about = {**about, "saelens": {**config, "metadata": metadata}}
    return dataclasses.replace(assemble(atoms, bias, recipe, tensors), about=about)


def write_saelens(
    features: Features, folder: str | Path, model_name: str | None = None, hook_name: str | None = None
) -> Path:
    """Write features as a folder that SAELens' `SAE.load_from_disk` loads, whole or not at all.

    Linear -> standard (jumprelu where it has a threshold), TopK and Matryoshka -> topk, AbsTopK -> abstopk,
    BatchTopK and JumpReLU -> jumprelu, Gated -> gated. model_name, hook_name: for SAELens' metadata, where the rows
    came from; by default what the features were read with. The features' own facts go along under "unmix"; names
    of features have no place there.
    Raises `UsageError` for codes that SAELens cannot compute (signed read-outs, iterative encoders), and for a
    folder that holds other files. Source: SAELens 6.54.12.
    """
    folder = Path(folder)
    must_be_new(folder, {CONFIG, WEIGHTS})
    architecture, fields, own = _theirs(features)
    m, d = features.shape
    about = dict(features.about)
    kept = about.pop("saelens", {})
    metadata = {"model_name": None, "hook_name": None, "sae_lens_training_version": None, **kept.get("metadata", {})}
    names = {"model_name": model_name, "hook_name": hook_name}
    metadata |= {name: given for name, given in names.items() if given is not None}
    metadata |= {"sae_lens_version": VERSION, "unmix": about}
    heads = kept.get("reshape_activations") == "hook_z" and str(metadata["hook_name"]).endswith("_z")
    config = {
        "d_in": d,
        "d_sae": m,
        "dtype": str(features.atoms.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if heads else "none",
        **fields,
        "metadata": metadata,
        "architecture": architecture,
    }
    weight = features.encoder.tensors["weight"]
    tensors = {"W_enc": weight.T, "W_dec": features.atoms, "b_dec": features.bias, **own}
    with replacing(folder) as part:
        part.mkdir(parents=True)
        write_tensors(part / WEIGHTS, {name: tensor.to(features.atoms) for name, tensor in tensors.items()})
        write_json(part / CONFIG, config)
    return folder


def _present(config: dict[str, Any], place: str, ignore: Collection[str]) -> dict[str, Any]:
    """A configuration in the fields of version 6; raises `UsageError` for fields that are in no version."""
    metadata = value(config, "metadata", dict, place, {})
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version")).partition(".")[0]
    if not version.isdigit() or int(version) < 6:
        config = _from_flat(config, place, ignore)
    architecture = value(config, "architecture", str, place)
    if architecture not in _FIELDS:
        raise UsageError(f"{place}: architecture {architecture} has no counterpart here; {suggest('', _FIELDS)}")
    known_fields(config, [*_COMMON, *_FIELDS[architecture], *_TRAINING], place, ignore)
    return {name: found for name, found in config.items() if name not in ignore}


def _from_flat(config: dict[str, Any], place: str, ignore: Collection[str]) -> dict[str, Any]:
    given = {_RENAMED.get(name, name): found for name, found in config.items()}
    old = ("activation_fn", "activation_fn_kwargs", "finetuning_scaling_factor")
    known_fields(given, [*_COMMON, *_FLAT, *old, "k"], place, ignore)
    activation = value(given, "activation_fn", str, place, "relu")
    arguments = value(given, "activation_fn_kwargs", (dict, type(None)), place, {}) or {}
    known_fields(arguments, ["k"] if activation == "topk" else [], f"{place}, activation_fn_kwargs")
    if activation not in ("relu", "topk"):
        raise UsageError(f"{place}: activation_fn {activation} has no counterpart here; known: relu, topk")
    new = {name: found for name, found in given.items() if name in _COMMON and name != "metadata"}
    new.setdefault("architecture", "standard")
    if activation == "topk":
        if new["architecture"] not in ("standard", "topk"):
            raise UsageError(f"{place}: activation_fn topk with architecture {new['architecture']} is not known here")
        new |= {"architecture": "topk", "k": given.get("k", arguments.get("k"))}
    normalised = new.get("normalize_activations")
    if normalised is None or isinstance(normalised, bool):
        new["normalize_activations"] = "expected_average_only_in" if normalised else "none"
    if "hook_z" in str(given.get("hook_name", "")):
        new.setdefault("reshape_activations", "hook_z")
    new["metadata"] = {name: found for name, found in given.items() if name in _FLAT}
    return new


def _dtype(config: Mapping[str, Any], place: str) -> torch.dtype:
    name = value(config, "dtype", str, place, "float32").removeprefix("torch.")
    if name not in DTYPES:
        raise UsageError(f"{place}: dtype={name}: {suggest(name, DTYPES)}")
    return DTYPES[name]


def _refuse_normalised(config: Mapping[str, Any], place: str) -> None:
    normalised = value(config, "normalize_activations", str, place, "none")
    if normalised != "none":
        reason = _NORMALISED.get(normalised, "no such normalisation is known here")
        raise UsageError(f"{place}: normalize_activations={normalised}: {reason}")
    reshaped = value(config, "reshape_activations", str, place, "none")
    if reshaped not in ("none", "hook_z"):
        raise UsageError(f"{place}: reshape_activations={reshaped}: known: none, hook_z")


def _encoder(
    architecture: str, config: Mapping[str, Any], held: Held, atoms: Tensor, place: str
) -> tuple[Encoder, Tensor | None]:
    if architecture == "standard":
        return ENCODERS.make("Linear"), atoms.new_zeros(())
    if architecture == "gated":
        return ENCODERS.make("Gated"), None
    if architecture == "jumprelu":
        return ENCODERS.make("JumpReLU"), held.take("threshold", len(atoms)).clamp_min(0)
    if architecture in ("topk", "abstopk"):
        name = "TopK" if architecture == "topk" else "AbsTopK"
        return ENCODERS.make({"kind": name, "k": value(config, "k", int, place)}), None
    k, level = value(config, "k", (int, float), place), held.take("topk_threshold").to(atoms).clamp_min(0)
    if k == int(k):
        return ENCODERS.make({"kind": "BatchTopK", "k": int(k)}), level
    return ENCODERS.make("JumpReLU"), level.repeat(len(atoms))


def _theirs(features: Features) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Architecture, its own fields and its own tensors."""
    recipe, tensors = features.encoder.recipe, features.encoder.tensors
    kind = kind_of(recipe, READ_OUTS)
    if kind is None:
        raise UsageError(
            f"{recipe.kind}: SAELens holds read-outs only ({', '.join(READ_OUTS)}); "
            "fit one on the same atoms first: replace(features, encoder='TopK', rows=h)"
        )
    if kind == "Gated":
        names = {"b_gate": "gate_shift", "b_mag": "shift", "r_mag": "log_scale"}
        return "gated", {}, {theirs: tensors[ours] for theirs, ours in names.items()}
    own = {"b_enc": tensors["shift"]}
    if kind == "Linear" and not getattr(recipe, "rectify", True):
        raise UsageError("Linear(rectify=False): its codes are signed and dense; SAELens has no such architecture")
    if kind == "Matryoshka" and getattr(recipe, "prefix", None) is not None:
        raise UsageError("Matryoshka: with a prefix, codes beyond it are dropped after the choice; write all of them")
    if kind in ("TopK", "AbsTopK", "Matryoshka"):
        fields = {"k": recipe.k, "rescale_acts_by_decoder_norm": False}  # type: ignore[attr-defined]
        return "abstopk" if kind == "AbsTopK" else "topk", fields, own
    threshold = tensors["threshold"]
    if kind == "Linear" and not bool(threshold > 0):
        return "standard", {}, own
    return "jumprelu", {}, {**own, "threshold": threshold.clamp_min(0).expand(len(features.atoms))}
