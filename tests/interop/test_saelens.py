"""SAELens folders: what is read computes what SAELens computes, what is written comes back, all else is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from unmix.core.errors import Failure, UsageError
from unmix.encoders import ENCODERS
from unmix.finders.features import Features, assemble, replace
from unmix.interop.saelens import read_saelens, write_saelens

from . import made

KINDS = {"standard": "Linear", "topk": "TopK", "abstopk": "AbsTopK", "jumprelu": "JumpReLU", "gated": "Gated"}


def config_of(folder):
    return json.loads((folder / "cfg.json").read_text())


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("architecture", list(KINDS))
def test_codes_and_reconstruction_are_those_of_saelens(architecture, subtract, tmp_path):
    folder = made.saelens(tmp_path / "sae", architecture, apply_b_dec_to_input=subtract)
    found = read_saelens(folder)
    assert found.encoder.recipe.kind == KINDS[architecture]
    h = made.rows()
    codes, again = made.saelens_computes(config_of(folder), load_file(folder / "sae_weights.safetensors"), h)
    assert 0 < (codes != 0).double().mean() < 1
    assert made.close(found.encode(h).dense(), codes)
    assert made.close(found.reconstruct(h), again)
    assert torch.equal(found.atoms, made.weights()["W_dec"])


@pytest.mark.parametrize("architecture", ["topk", "abstopk"])
def test_rescaling_by_decoder_norms_is_folded_into_unit_atoms(architecture, tmp_path):
    folder = made.saelens(tmp_path / "sae", architecture, rescale_acts_by_decoder_norm=True)
    found = read_saelens(folder)
    h = made.rows()
    codes, again = made.saelens_computes(config_of(folder), made.weights("b_enc"), h)
    assert made.close(found.encode(h).dense(), codes)
    assert made.close(found.reconstruct(h), again)
    assert torch.allclose(found.atoms.norm(dim=1), torch.ones(made.M), atol=1e-6)


def test_a_zero_atom_with_rescaling_never_fires(tmp_path):
    tensors = made.weights("b_enc")
    tensors["W_dec"][4] = 0
    folder = made.saelens(tmp_path / "sae", "topk", tensors, rescale_acts_by_decoder_norm=True)
    codes = read_saelens(folder).encode(made.rows()).dense()
    assert (codes[:, 4] == 0).all() and (codes > 0).any()


def test_a_negative_threshold_is_zero_as_in_saelens(tmp_path):
    tensors = made.weights("b_enc threshold")
    tensors["threshold"] -= 1
    folder = made.saelens(tmp_path / "sae", "jumprelu", tensors)
    codes, _ = made.saelens_computes(config_of(folder), tensors, made.rows())
    assert made.close(read_saelens(folder).encode(made.rows()).dense(), codes)
    jump = made.features("JumpReLU")
    given = assemble(
        jump.atoms, jump.bias, jump.encoder.recipe, {**jump.encoder.tensors, "threshold": tensors["threshold"]}
    )
    again = read_saelens(write_saelens(given, tmp_path / "again"))
    assert torch.equal(again.encode(made.rows()).dense(), given.encode(made.rows()).dense())


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
@pytest.mark.parametrize(("rescale", "k"), [(True, 2.5), (False, 2.0)])
def test_a_batchtopk_checkpoint_reads_as_the_jumprelu_that_saelens_would_save(architecture, rescale, k, tmp_path):
    tensors = made.weights("b_enc")
    held = {**tensors, "topk_threshold": torch.tensor(0.8, dtype=torch.float64)}
    changes = {"k": k, "topk_threshold_lr": 0.01, "decoder_init_norm": 0.1}
    folder = made.saelens(tmp_path / "sae", architecture, held, **changes, rescale_acts_by_decoder_norm=rescale)
    found = read_saelens(folder)
    assert found.encoder.recipe.kind == ("BatchTopK" if k == 2 else "JumpReLU")
    norms = tensors["W_dec"].norm(dim=1) if rescale else torch.ones(made.M)
    saved = {
        "W_enc": tensors["W_enc"] * norms,
        "b_enc": tensors["b_enc"] * norms,
        "W_dec": tensors["W_dec"] / norms[:, None],
        "b_dec": tensors["b_dec"],
        "threshold": torch.full((made.M,), 0.8),
    }
    like = made.saelens(tmp_path / "like", "jumprelu", saved)
    h = made.rows()
    codes, again = made.saelens_computes(config_of(like), saved, h)
    assert made.close(found.encode(h).dense(), codes)
    assert made.close(found.reconstruct(h), again)


@pytest.mark.parametrize("kind", ["Linear", "TopK", "AbsTopK", "BatchTopK", "JumpReLU", "Gated", "Matryoshka"])
def test_what_is_written_comes_back(kind, tmp_path):
    given = made.features(kind)
    folder = write_saelens(given, tmp_path / "sae", model_name="tiny", hook_name="blocks.1.hook_resid_post")
    again = read_saelens(folder)
    h = made.rows()
    assert torch.equal(again.encode(h).dense(), given.encode(h).dense())
    assert torch.equal(again.reconstruct(h), given.reconstruct(h))
    assert {"finder": {"kind": "SAE"}, "seed": 3}.items() <= dict(again.about).items()
    config, tensors = config_of(folder), load_file(folder / "sae_weights.safetensors")
    codes, rows = made.saelens_computes(config, tensors, h)
    assert made.close(again.encode(h).dense(), codes) and made.close(again.reconstruct(h), rows)
    assert config["metadata"]["model_name"] == "tiny"
    assert config["metadata"]["hook_name"] == "blocks.1.hook_resid_post"
    assert int(config["metadata"]["sae_lens_version"].split(".")[0]) >= 6
    assert tensors["W_enc"].shape == (made.D, made.M) and tensors["W_dec"].shape == (made.M, made.D)
    if kind not in ("BatchTopK", "Matryoshka"):
        assert again.encoder.recipe.kind == kind
        assert again.digest == given.digest
    # A second trip changes nothing, and keeps the names where they are not given again.
    twice = write_saelens(again, tmp_path / "twice")
    assert config_of(twice) == config
    assert (twice / "sae_weights.safetensors").read_bytes() == (folder / "sae_weights.safetensors").read_bytes()


def test_a_linear_read_out_with_a_threshold_is_written_as_jumprelu(tmp_path):
    given = made.features("Linear")
    tensors = {**given.encoder.tensors, "threshold": torch.tensor(0.6)}
    given = assemble(given.atoms, given.bias, given.encoder.recipe, tensors)
    folder = write_saelens(given, tmp_path / "sae")
    assert config_of(folder)["architecture"] == "jumprelu"
    h = made.rows()
    assert torch.equal(read_saelens(folder).encode(h).dense(), given.encode(h).dense())


def test_float64_stays_and_lower_precisions_round_first(tmp_path):
    double = made.features("Linear").to(torch.float64)
    folder = write_saelens(double, tmp_path / "double")
    assert config_of(folder)["dtype"] == "float64"
    assert read_saelens(folder).atoms.dtype == torch.float64
    low = write_saelens(made.features("Linear").to(torch.bfloat16), tmp_path / "low")
    assert config_of(low)["dtype"] == "bfloat16"
    half = read_saelens(made.saelens(tmp_path / "half", "standard", dtype="bfloat16"))
    assert torch.equal(half.atoms, made.weights()["W_dec"].bfloat16().float())
    old = read_saelens(made.saelens(tmp_path / "old", "standard", dtype="torch.float32"))
    assert torch.equal(old.atoms, made.weights()["W_dec"])


FLAT = {
    "model_name": "tiny",
    "hook_point": "blocks.0.hook_resid_pre",
    "hook_point_layer": 0,
    "hook_point_head_index": None,
    "d_in": made.D,
    "d_sae": made.M,
    "dtype": "torch.float32",
    "device": "cpu",
    "context_size": 128,
    "dataset_path": "texts",
    "activation_fn_str": "relu",
    "finetuning_scaling_factor": False,
    "normalize_activations": False,
    "sae_lens_training_version": "3.5.0",
    "prepend_bos": True,
}


@pytest.mark.parametrize(
    ("changes", "architecture"),
    [
        ({}, "standard"),
        ({"architecture": "jumprelu", "apply_b_dec_to_input": False}, "jumprelu"),
        ({"architecture": "gated", "normalize_activations": None}, "gated"),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": made.K}}, "topk"),
    ],
)
def test_folders_from_before_version_6(changes, architecture, tmp_path):
    tensors = made.weights(made.NEEDS[architecture])
    held = {**tensors, "scaling_factor": torch.ones(made.M)} if architecture == "standard" else tensors
    folder = made.saelens(tmp_path / "sae", architecture, held)
    made.write(folder, FLAT | changes, (), "cfg.json")
    found = read_saelens(folder)
    config = {"architecture": architecture, "k": made.K, "apply_b_dec_to_input": True, **changes}
    config["architecture"] = architecture
    codes, again = made.saelens_computes(config, tensors, made.rows())
    assert made.close(found.encode(made.rows()).dense(), codes)
    assert made.close(found.reconstruct(made.rows()), again)
    assert found.about["saelens"]["metadata"]["hook_name"] == "blocks.0.hook_resid_pre"
    # It is written in the present form, with what it was trained on.
    config = config_of(write_saelens(found, tmp_path / "new"))
    assert config["metadata"]["hook_name"] == "blocks.0.hook_resid_pre"
    assert config["metadata"]["context_size"] == 128


def test_heads_side_by_side_stay_so(tmp_path):
    metadata = {"sae_lens_version": "6.1.0", "hook_name": "blocks.0.attn.hook_z"}
    folder = made.saelens(tmp_path / "sae", "standard", reshape_activations="hook_z", metadata=metadata)
    found = read_saelens(folder)
    assert config_of(write_saelens(found, tmp_path / "a"))["reshape_activations"] == "hook_z"
    other = write_saelens(found, tmp_path / "b", hook_name="blocks.0.hook_resid_post")
    assert config_of(other)["reshape_activations"] == "none"


@pytest.mark.parametrize(
    ("architecture", "changes", "sentence"),
    [
        ("standard", {"tied": True, "noise": 0}, "unknown fields noise, tied; name in ignore"),
        ("standard", {"k": 3}, "unknown field k"),
        ("transcoder", {}, "architecture transcoder has no counterpart here"),
        ("matching_pursuit", {}, "architecture matching_pursuit has no counterpart"),
        ("standard", {"normalize_activations": "layer_norm"}, "every row is normalised by its own mean"),
        ("standard", {"normalize_activations": "constant_norm_rescale"}, "divided by its own norm"),
        ("standard", {"normalize_activations": "expected_average_only_in"}, "fold_activation_norm_scaling_factor"),
        ("standard", {"normalize_activations": "covariance_whitening"}, "fold_activation_whitening"),
        ("standard", {"normalize_activations": "new"}, "no such normalisation"),
        ("standard", {"reshape_activations": "spiral"}, "known: none, hook_z"),
        ("standard", {"dtype": "int8"}, "dtype=int8"),
        ("standard", {"d_in": "six"}, "d_in='six' should be int"),
        ("standard", {"apply_b_dec_to_input": 1}, "apply_b_dec_to_input=1 should be bool"),
        ("topk", {"k": 2.5}, "k=2.5 should be int"),
        ("topk", {"k": True}, "k=True should be int"),
        ("topk", {"k": 0}, "TopK.k=0"),
        ("topk", {"k": 15}, "k=15: must be at most the number of atoms, 14"),
    ],
)
def test_what_does_not_map_is_refused_with_a_sentence(architecture, changes, sentence, tmp_path):
    folder = made.saelens(tmp_path / "sae", architecture, **changes)
    with pytest.raises(UsageError) as caught:
        read_saelens(folder)
    assert sentence in str(caught.value), caught.value


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lr": 4e-4}, "unknown field lr"),
        ({"activation_fn_str": "tanh-relu"}, "activation_fn tanh-relu has no counterpart"),
        ({"normalize_activations": True}, "fold_activation_norm_scaling_factor"),
        ({"activation_fn_str": "topk"}, "k=None should be int"),
        ({"activation_fn_kwargs": {"p": 1}}, "unknown field p"),
        ({"activation_fn_str": "topk", "architecture": "gated"}, "activation_fn topk with architecture gated"),
    ],
)
def test_flat_configurations_are_read_as_strictly(changes, sentence, tmp_path):
    folder = made.saelens(tmp_path / "sae", "standard")
    made.write(folder, FLAT | changes, (), "cfg.json")
    with pytest.raises(UsageError) as caught:
        read_saelens(folder)
    assert sentence in str(caught.value), caught.value


def test_fields_to_pass_over_are_named_one_by_one(tmp_path):
    folder = made.saelens(tmp_path / "sae", "standard")
    made.write(folder, FLAT | {"lr": 4e-4, "seed": 42}, (), "cfg.json")
    with pytest.raises(UsageError, match="unknown field seed"):
        read_saelens(folder, ignore=["lr"])
    found = read_saelens(folder, ignore=["lr", "seed"])
    assert "lr" not in found.about["saelens"]


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_dec", "b_enc", "threshold"])
def test_missing_misshapen_and_broken_tensors_are_named(name, tmp_path):
    whole = made.weights("b_enc threshold")
    for change, sentence in (
        (None, f"has no tensor {name}; it holds"),
        (whole[name][:-1], rf"{name} is \[.*\], expected"),
        (whole[name] * float("nan"), f"{name} has entries that are NaN"),
        (whole[name].long(), f"{name} holds torch.int64"),
    ):
        tensors = {n: t for n, t in {**whole, name: change}.items() if t is not None}
        with pytest.raises(Failure, match=sentence):
            read_saelens(made.saelens(tmp_path / "sae", "jumprelu", tensors))


def test_unknown_tensors_and_a_scaling_factor_are_refused(tmp_path):
    extra = {**made.weights("b_enc"), "W_skip": made.draw(0, made.D, made.D), "sink": made.draw(0, 2)}
    with pytest.raises(UsageError, match="unknown tensors W_skip, sink"):
        read_saelens(made.saelens(tmp_path / "a", "standard", extra))
    scaled = {**made.weights("b_enc"), "scaling_factor": torch.full((made.M,), 1.1)}
    with pytest.raises(UsageError, match="scaling_factor is not 1 everywhere"):
        read_saelens(made.saelens(tmp_path / "b", "standard", scaled))


def test_missing_and_cut_off_files(tmp_path):
    folder = made.saelens(tmp_path / "sae", "standard")
    for name in ("cfg.json", "sae_weights.safetensors"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:100])
        with pytest.raises(Failure, match=rf"{name}: not (a )?whole"):
            read_saelens(folder)
        (folder / name).unlink()
        with pytest.raises(UsageError, match=f"{name}: no such file"):
            read_saelens(folder)
        (folder / name).write_bytes(whole)
    (folder / "cfg.json").write_text("[1, 2]")
    with pytest.raises(Failure, match="expected a JSON object, got list"):
        read_saelens(folder)
    made.write(folder, {"architecture": "standard", "metadata": {"sae_lens_version": "6.0.0"}}, (), "cfg.json")
    with pytest.raises(UsageError, match="has no field d_in"):
        read_saelens(folder)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("Fista", "Fista: SAELens holds read-outs only"),
        ("Omp", "Omp: SAELens holds read-outs only"),
        ("MLP", "MLP: SAELens holds read-outs only"),
        ("signed", r"Linear\(rectify=False\): its codes are signed"),
        ("prefix", "Matryoshka: with a prefix"),
    ],
)
def test_codes_that_saelens_cannot_compute_are_not_written(kind, sentence, tmp_path):
    base = made.features("TopK")
    if kind == "signed":
        given = made.features("Linear", rectify=False)
    elif kind == "prefix":
        given = made.features("Matryoshka", prefix=4)
    elif kind == "MLP":
        given = replace(base, encoder=ENCODERS.make({"kind": "MLP", "steps": 2}), rows=made.rows())
    else:
        given = replace(base, encoder=ENCODERS.make({"kind": kind, **({"k": 2} if kind == "Omp" else {})}))
    with pytest.raises(UsageError, match=sentence):
        write_saelens(given, tmp_path / "sae")
    assert not (tmp_path / "sae").exists()


def test_a_class_of_the_same_name_elsewhere_is_not_taken_for_ours(tmp_path):
    class TopK(ENCODERS["TopK"]):
        pass

    base = made.features("TopK")
    given = assemble(base.atoms, base.bias, TopK(k=made.K), base.encoder.tensors)
    with pytest.raises(UsageError, match="TopK: SAELens holds read-outs only"):
        write_saelens(given, tmp_path / "sae")


def test_facts_of_any_name_and_value_come_through(tmp_path):
    odd = {"atoms": 3, "encoder": "x", "loss": float("nan")}
    metadata = {"sae_lens_version": "6.0.0", "unmix": odd, "training": {"best": float("inf")}}
    found = read_saelens(made.saelens(tmp_path / "sae", "standard", metadata=metadata))
    assert found.about["atoms"] == 3 and found.about["loss"] == "NaN"
    assert Features.load(found.save(tmp_path / "features")).about == found.about
    with pytest.raises(UsageError, match=r"metadata: unmix=\[\] should be dict"):
        read_saelens(made.saelens(tmp_path / "sae", "standard", metadata={"sae_lens_version": "6.0.0", "unmix": []}))


def test_other_files_are_never_lost(tmp_path):
    given = made.features("TopK")
    folder = write_saelens(given, tmp_path / "sae")
    write_saelens(given, folder)  # its own files may be written again
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other files \(notes.txt\)"):
        write_saelens(given, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="is a file"):
        write_saelens(given, folder / "notes.txt")


def test_features_that_were_read_save_and_load(tmp_path):
    folder = made.saelens(tmp_path / "sae", "gated")
    found = read_saelens(folder)
    again = Features.load(found.save(tmp_path / "features"))
    assert again.digest == found.digest
    assert again.about["saelens"]["metadata"]["model_name"] == "tiny"


def test_reading_leaves_the_folder_alone(tmp_path):
    folder = made.saelens(tmp_path / "sae", "topk")
    save_file({"x": torch.ones(2)}, folder / "sparsity.safetensors")  # SAELens writes one beside, it is not needed
    before = {part.name: part.read_bytes() for part in folder.iterdir()}
    read_saelens(folder)
    assert {part.name: part.read_bytes() for part in folder.iterdir()} == before
