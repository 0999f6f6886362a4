"""Small folders in the exact formats of other libraries, and what those libraries compute, in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unmix.encoders import ENCODERS
from unmix.finders.features import Features, assemble

M, D, K = 14, 6, 3


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rows(n: int = 50) -> Tensor:
    return 1.5 * draw(99, n, D) + 0.4


def weights(names: str = "") -> dict[str, Tensor]:
    """Tensors by SAELens' names; atoms are not of unit norm."""
    found = {
        "W_enc": draw(1, D, M),
        "W_dec": draw(2, M, D) * draw(3, M, 1).abs().add(0.3),
        "b_dec": 0.5 * draw(4, D),
        "b_enc": 0.3 * draw(5, M),
        "threshold": draw(6, M).abs(),
        "b_gate": 0.3 * draw(7, M),
        "b_mag": 0.3 * draw(8, M),
        "r_mag": 0.2 * draw(9, M),
    }
    return {name: found[name] for name in ("W_enc", "W_dec", "b_dec", *names.split())}


NEEDS = {
    "standard": "b_enc",
    "topk": "b_enc",
    "abstopk": "b_enc",
    "jumprelu": "b_enc threshold",
    "gated": "b_gate b_mag r_mag",
}


def saelens(
    folder: Path,
    architecture: str,
    tensors: dict[str, Tensor] | None = None,
    remove: tuple[str, ...] = (),
    **changes: Any,
) -> Path:
    """A folder as version 6 saves it; `changes` go into cfg.json."""
    config: dict[str, Any] = {
        "d_in": D,
        "d_sae": M,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12", "sae_lens_training_version": "6.54.12", "model_name": "tiny"},
        "architecture": architecture,
    }
    if architecture.endswith("topk"):
        config |= {"k": K, "rescale_acts_by_decoder_norm": False}
    write(folder, config | changes, remove, "cfg.json")
    given = weights(NEEDS.get(architecture, "b_enc")) if tensors is None else tensors
    save_file({name: tensor.contiguous() for name, tensor in given.items()}, folder / "sae_weights.safetensors")
    return folder


def write(folder: Path, config: dict[str, Any], remove: tuple[str, ...], name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = {field: value for field, value in config.items() if field not in remove}
    (folder / name).write_text(json.dumps(kept))


def saelens_computes(config: dict[str, Any], tensors: dict[str, Tensor], h: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and reconstruction as SAELens defines them."""
    t = {name: tensor.double() for name, tensor in tensors.items()}
    x = h.double() - (t["b_dec"] if config["apply_b_dec_to_input"] else 0)
    read = x @ t["W_enc"]
    norms = t["W_dec"].norm(dim=1) if config.get("rescale_acts_by_decoder_norm") else torch.ones(M).double()
    if config["architecture"] == "gated":
        codes = (read + t["b_gate"] > 0) * (x @ (t["W_enc"] * t["r_mag"].exp()) + t["b_mag"]).relu()
    else:
        before = (read + t["b_enc"]) * norms
        kept = {
            "standard": lambda: before.relu(),
            "jumprelu": lambda: before.relu() * (before > t["threshold"].relu()),
            "topk": lambda: only(before, before.topk(config["k"]).indices).relu(),
            "abstopk": lambda: only(before, before.abs().topk(config["k"]).indices),
        }
        codes = kept[config["architecture"]]()
    return codes, (codes / norms) @ t["W_dec"] + t["b_dec"]


def only(values: Tensor, indices: Tensor) -> Tensor:
    return torch.zeros_like(values).scatter(-1, indices, values.gather(-1, indices))


def features(kind: str, **fields: Any) -> Features:
    """Features with an encoder of that kind and made-up weights."""
    t = weights("b_enc threshold b_gate b_mag r_mag")
    tensors = {"weight": t["W_enc"].T.contiguous(), "shift": t["b_enc"]}
    if kind == "Gated":
        tensors |= {"gate_shift": t["b_gate"], "log_scale": t["r_mag"]}
    if kind == "Linear":
        tensors["threshold"] = torch.zeros(())
    if kind == "BatchTopK":
        tensors["threshold"] = torch.tensor(0.7)
    if kind == "JumpReLU":
        tensors["threshold"] = t["threshold"]
    if kind in ("TopK", "AbsTopK", "BatchTopK", "Matryoshka"):
        fields = {"k": K, **fields}
    recipe = ENCODERS.make({"kind": kind, **fields})
    return assemble(t["W_dec"], t["b_dec"], recipe, tensors, finder={"kind": "SAE"}, seed=3)


def close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a.double(), b.double(), rtol=2e-6, atol=2e-6))
