"""dictionary_learning checkpoints: the same codes, strict fields, and nothing in a file is run."""

from __future__ import annotations

import pickle

import pytest
import torch

from unmix.core.errors import Failure, UsageError
from unmix.interop.dictionary_learning import read_dictionary_learning

from . import made

KINDS = {
    "AutoEncoder": "Linear",
    "AutoEncoderNew": "Linear",
    "AutoEncoderTopK": "TopK",
    "BatchTopKSAE": "BatchTopK",
    "MatryoshkaBatchTopKSAE": "BatchTopK",
    "JumpReluAutoEncoder": "JumpReLU",
    "GatedAutoEncoder": "Gated",
}
COUNTED = ("AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")


def state(name):
    t = made.weights("b_enc threshold b_gate b_mag r_mag")
    k = {"k": torch.tensor(made.K, dtype=torch.int), "threshold": torch.tensor(0.7)}
    linear = {"encoder.weight": t["W_enc"].T, "decoder.weight": t["W_dec"].T}
    plain = {"W_enc": t["W_enc"], "b_enc": t["b_enc"], "W_dec": t["W_dec"], "b_dec": t["b_dec"]}
    found = {
        "AutoEncoder": {**linear, "encoder.bias": t["b_enc"], "bias": t["b_dec"]},
        "AutoEncoderNew": {**linear, "encoder.bias": t["b_enc"], "decoder.bias": t["b_dec"]},
        "AutoEncoderTopK": {**linear, "encoder.bias": t["b_enc"], "b_dec": t["b_dec"], **k},
        "BatchTopKSAE": {**linear, "encoder.bias": t["b_enc"], "b_dec": t["b_dec"], **k},
        "MatryoshkaBatchTopKSAE": {**plain, **k, "group_sizes": torch.tensor([4, 10])},
        "JumpReluAutoEncoder": {**plain, "threshold": t["threshold"]},
        "GatedAutoEncoder": {
            **linear,
            "decoder_bias": t["b_dec"],
            "r_mag": t["r_mag"],
            "gate_bias": t["b_gate"],
            "mag_bias": t["b_mag"],
        },
    }
    return {name: tensor.contiguous() for name, tensor in found[name].items()}


def folder_of(folder, name, tensors=None, **changes):
    trainer = {"trainer_class": "Trainer", "dict_class": name, "activation_dim": made.D, "dict_size": made.M}
    trainer |= {"lr": 1e-3, "steps": 10, "seed": 0, "layer": 8, "lm_name": "tiny", "wandb_name": "x"}
    if name in COUNTED:
        trainer["k"] = made.K
    config = {"trainer": trainer | changes, "buffer": {"d_submodule": made.D, "ctx_len": 128}}
    made.write(folder, config, (), "config.json")
    torch.save(state(name) if tensors is None else tensors, folder / "ae.pt")
    return folder


def computes(name, h, fold=True):
    """Codes and reconstruction as the library defines them."""
    t = {key: tensor.double() for key, tensor in made.weights("b_enc threshold b_gate b_mag r_mag").items()}
    h = h.double()
    x = h if name in ("AutoEncoderNew", "JumpReluAutoEncoder") else h - t["b_dec"]
    read = x @ t["W_enc"]
    before = read + t["b_enc"]
    if name == "GatedAutoEncoder":
        codes = (read + t["b_gate"] > 0) * (t["r_mag"].exp() * read + t["b_mag"]).relu()
    elif name == "JumpReluAutoEncoder":
        codes = (before * (before > t["threshold"])).relu()
    elif name == "AutoEncoderTopK":
        codes = made.only(before.relu(), before.relu().topk(made.K).indices)
    elif name in COUNTED:
        codes = before.relu() * (before.relu() > 0.7)
    else:
        codes = before.relu()
    rows = codes @ t["W_dec"] + t["b_dec"]
    return (codes * t["W_dec"].norm(dim=1) if name == "AutoEncoder" and fold else codes), rows


@pytest.mark.parametrize("name", list(KINDS))
def test_codes_and_reconstruction_are_those_of_the_library(name, tmp_path):
    found = read_dictionary_learning(folder_of(tmp_path / "ae", name))
    assert found.encoder.recipe.kind == KINDS[name]
    h = made.rows()
    codes, again = computes(name, h)
    assert 0 < (codes != 0).double().mean() < 1
    assert made.close(found.encode(h).dense(), codes)
    assert made.close(found.reconstruct(h), again)
    assert found.about["dictionary_learning"]["trainer"]["lm_name"] == "tiny"
    assert found.about["dictionary_learning"]["buffer"]["ctx_len"] == 128
    again = type(found).load(found.save(tmp_path / "features"))
    assert again.digest == found.digest


def test_p_anneal_keeps_its_norms_as_the_library_does(tmp_path):
    found = read_dictionary_learning(folder_of(tmp_path / "ae", "AutoEncoder", trainer_class="PAnnealTrainer"))
    assert torch.equal(found.atoms, made.weights()["W_dec"])
    codes, _ = computes("AutoEncoder", made.rows(), fold=False)
    assert made.close(found.encode(made.rows()).dense(), codes)


def test_early_topk_checkpoints_hold_k_in_the_configuration_alone(tmp_path):
    tensors = {n: t for n, t in state("AutoEncoderTopK").items() if n not in ("k", "threshold")}
    found = read_dictionary_learning(folder_of(tmp_path / "ae", "AutoEncoderTopK", tensors))
    assert found.encoder.recipe.k == made.K


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("AutoEncoder", {"tied": True}, "trainer: unknown field tied"),
        ("CrossCoder", {}, "dict_class=CrossCoder has no counterpart here; known: AutoEncoder"),
        ("AutoEncoder", {"dict_class": 3}, "dict_class=3 should be str"),
    ],
)
def test_unknown_fields_and_classes_are_named(name, changes, sentence, tmp_path):
    folder = folder_of(tmp_path / "ae", name, state("AutoEncoder"), **changes)
    with pytest.raises(UsageError) as caught:
        read_dictionary_learning(folder)
    assert sentence in str(caught.value), caught.value


def test_fields_to_pass_over(tmp_path):
    folder = folder_of(tmp_path / "ae", "AutoEncoder", note="mine")
    with pytest.raises(UsageError, match="unknown field note"):
        read_dictionary_learning(folder)
    assert read_dictionary_learning(folder, ignore=["note"]).shape == (made.M, made.D)


def test_sections_and_tensors_that_are_unknown_are_named(tmp_path):
    folder = folder_of(tmp_path / "ae", "GatedAutoEncoder", {**state("GatedAutoEncoder"), "b_extra": torch.ones(2)})
    with pytest.raises(UsageError, match=r"ae\.pt: unknown tensor b_extra"):
        read_dictionary_learning(folder)
    made.write(folder, {"trainer": {}, "optimiser": {}}, (), "config.json")
    with pytest.raises(UsageError, match="unknown field optimiser"):
        read_dictionary_learning(folder)
    made.write(folder, {"buffer": {}}, (), "config.json")
    with pytest.raises(UsageError, match="has no field trainer"):
        read_dictionary_learning(folder)


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("AutoEncoder", {"dict_size": 15}, "dict_size is 14, but .* says 15"),
        ("AutoEncoderTopK", {"k": 5}, "k is 3, but .* says 5"),
    ],
)
def test_files_that_contradict_each_other(name, changes, sentence, tmp_path):
    with pytest.raises(Failure, match=sentence):
        read_dictionary_learning(folder_of(tmp_path / "ae", name, **changes))


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"threshold": torch.tensor(-1.0)}, UsageError, "threshold is -1: it was never set"),
        ({"threshold": torch.ones(3)}, Failure, r"threshold is \[3\], expected \[\]"),
        ({"k": torch.tensor(3.0)}, Failure, "k should be one whole number"),
        ({"encoder.weight": torch.ones(4)}, Failure, "the encoder's weight is .4., expected a matrix"),
        ({"decoder.weight": torch.ones(4, 4)}, Failure, r"decoder.weight is \[4, 4\], expected \[6, 14\]"),
        ({"b_dec": [1.0, 2.0]}, UsageError, "b_dec is list, not a tensor"),
    ],
)
def test_tensors_that_are_not_right(change, error, sentence, tmp_path):
    tensors = {**state("BatchTopKSAE"), **change}
    with pytest.raises(error, match=sentence):
        read_dictionary_learning(folder_of(tmp_path / "ae", "BatchTopKSAE", tensors))


def test_group_sizes_must_cover_the_dictionary(tmp_path):
    tensors = {**state("MatryoshkaBatchTopKSAE"), "group_sizes": torch.tensor([4, 5])}
    with pytest.raises(Failure, match="sum to 14"):
        read_dictionary_learning(folder_of(tmp_path / "ae", "MatryoshkaBatchTopKSAE", tensors))


class Trap:
    def __reduce__(self):
        return (open, ("ran.txt", "w"))


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path / "ae", "AutoEncoder")
    torch.save({**state("AutoEncoder"), "trap": Trap()}, folder / "ae.pt")
    with pytest.raises(UsageError, match="holds more than tensors"):
        read_dictionary_learning(folder)
    (folder / "ae.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(Failure, match="not a whole file of tensors"):
        read_dictionary_learning(folder)
    assert not (tmp_path / "ran.txt").exists()
    torch.save(torch.ones(3), folder / "ae.pt")
    with pytest.raises(UsageError, match="holds Tensor, not a dictionary"):
        read_dictionary_learning(folder)


@pytest.mark.parametrize("bytes_left", [0, 10, 500, -30])
def test_missing_and_cut_off_files(bytes_left, tmp_path):
    folder = folder_of(tmp_path / "ae", "AutoEncoder")
    whole = (folder / "ae.pt").read_bytes()
    (folder / "ae.pt").write_bytes(whole[:bytes_left])
    with pytest.raises(Failure, match=r"ae\.pt: not a whole file of tensors"):
        read_dictionary_learning(folder)
    (folder / "ae.pt").unlink()
    with pytest.raises(UsageError, match=r"ae\.pt: no such file"):
        read_dictionary_learning(folder)
    (folder / "config.json").write_text('{"trainer": ')
    with pytest.raises(Failure, match=r"config\.json: not whole"):
        read_dictionary_learning(folder)
