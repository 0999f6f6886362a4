"""sparsify checkpoints: the same codes, strict fields."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from unmix.core.errors import Failure, UsageError
from unmix.finders.features import Features
from unmix.interop.sparsify import read_sparsify

from . import made


def folder_of(folder, tensors=None, remove=(), **changes):
    config = {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": made.M,
        "k": made.K,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": made.D,
    }
    made.write(folder, config | changes, remove, "cfg.json")
    save_file(state() if tensors is None else tensors, folder / "sae.safetensors")
    return folder


def state():
    t = made.weights("b_enc")
    weight = t["W_enc"].T.contiguous()
    return {"encoder.weight": weight, "encoder.bias": t["b_enc"], "W_dec": t["W_dec"], "b_dec": t["b_dec"]}


@pytest.mark.parametrize("signed", [False, True])
def test_codes_and_reconstruction_are_those_of_sparsify(signed, tmp_path):
    found = read_sparsify(folder_of(tmp_path / "sae", **({"signed": True} if signed else {})))
    assert found.encoder.recipe.kind == ("AbsTopK" if signed else "TopK")
    t = {name: tensor.double() for name, tensor in state().items()}
    h = made.rows()
    before = (h.double() - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]
    before = before if signed else before.relu()
    codes = made.only(before, before.abs().topk(made.K).indices)
    assert made.close(found.encode(h).dense(), codes)
    assert made.close(found.reconstruct(h), codes @ t["W_dec"] + t["b_dec"])
    assert Features.load(found.save(tmp_path / "features")).digest == found.digest


def test_the_width_may_follow_from_the_expansion(tmp_path):
    draws = {name: made.draw(place, *shape) for place, (name, shape) in enumerate(
        {"encoder.weight": (12, 6), "encoder.bias": (12,), "W_dec": (12, 6), "b_dec": (6,)}.items()
    )}  # fmt: skip
    found = read_sparsify(folder_of(tmp_path / "sae", draws, num_latents=0, expansion_factor=2))
    assert found.shape == (12, 6)


def test_defaults_of_the_library_hold_where_fields_are_missing(tmp_path):
    folder = folder_of(tmp_path / "sae", remove=("activation", "multi_topk", "skip_connection", "transcode", "k"))
    with pytest.raises(UsageError, match="k=32: must be at most the number of atoms, 14"):
        read_sparsify(folder)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"transcode": True}, "transcode: it predicts another place"),
        ({"skip_connection": True}, "skip_connection: a linear map of the row"),
        ({"embed_skip": True}, "embed_skip: a map of the model's embedding"),
        ({"gram_lookup": True}, "gram_lookup: a table of n-gram means"),
        ({"activation": "groupmax"}, "activation=groupmax: known: topk"),
        ({"jump": 1}, "unknown field jump"),
        ({"k": "3"}, "k='3' should be int"),
        ({"multi_topk": "no", "transcode": 1}, "transcode=1 should be bool"),
    ],
)
def test_what_does_not_map_is_refused_with_a_sentence(changes, sentence, tmp_path):
    with pytest.raises(UsageError) as caught:
        read_sparsify(folder_of(tmp_path / "sae", **changes))
    assert sentence in str(caught.value), caught.value


def test_fields_to_pass_over(tmp_path):
    assert read_sparsify(folder_of(tmp_path / "sae", jump=1), ignore=["jump"]).shape == (made.M, made.D)


def test_tensors_are_whole_known_and_of_the_right_shape(tmp_path):
    with pytest.raises(UsageError, match="unknown tensor W_skip"):
        read_sparsify(folder_of(tmp_path / "a", {**state(), "W_skip": torch.ones(6, 6)}))
    with pytest.raises(Failure, match="has no tensor b_dec; it holds"):
        read_sparsify(folder_of(tmp_path / "b", {n: t for n, t in state().items() if n != "b_dec"}))
    with pytest.raises(Failure, match=r"encoder.weight is \[14, 6\], expected \[20, 6\]"):
        read_sparsify(folder_of(tmp_path / "c", num_latents=20))


def test_missing_and_cut_off_files(tmp_path):
    folder = folder_of(tmp_path / "sae")
    for name in ("cfg.json", "sae.safetensors"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:60])
        with pytest.raises(Failure, match=rf"{name}: not (a )?whole"):
            read_sparsify(folder)
        (folder / name).unlink()
        with pytest.raises(UsageError, match=f"{name}: no such file"):
            read_sparsify(folder)
        (folder / name).write_bytes(whole)
