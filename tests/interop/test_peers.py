"""The libraries themselves, where they are installed: what they load of ours and we of theirs computes the same."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from unmix.interop.dictionary_learning import read_dictionary_learning
from unmix.interop.saelens import read_saelens, write_saelens
from unmix.interop.sparsify import read_sparsify

from . import made
from .test_dictionary_learning import COUNTED
from .test_dictionary_learning import KINDS as CLASSES
from .test_dictionary_learning import folder_of as dictionary_learning_folder
from .test_saelens import KINDS

OPERATORS = ("nms", "qnms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")


def package(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed (bash benchmarks/setup_peers.sh makes an environment that has it)")
    if importlib.util.find_spec("torchvision") and not hasattr(torch.ops.torchvision, "nms"):
        # torchvision beside CPU-only torch lacks operators that its import asks for; none of them is used here.
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in OPERATORS:
            library.define(f"{operator}(Tensor x) -> Tensor")
            library.define(f"_{operator}_backward(Tensor x) -> Tensor")
        package.library = library  # type: ignore[attr-defined]
    return pytest.importorskip(name)


@pytest.fixture(autouse=True)
def their_draws_stay_theirs() -> Iterator[None]:
    """They start their weights from global random numbers."""
    state, other = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(state)
    np.random.set_state(other)  # noqa: NPY002


@pytest.fixture(scope="module")
def sae_lens():
    return package("sae_lens")


def same(features, encode, decode) -> None:
    h = made.rows(200)
    with torch.no_grad():
        codes = encode(h)
        rows = decode(codes)
    assert 0 < (codes != 0).double().mean() < 1
    scale = codes.abs().max()
    assert (features.encode(h).dense() - codes).abs().max() <= 1e-6 * scale
    assert (features.reconstruct(h) - rows).abs().max() <= 1e-6 * rows.abs().max()


@pytest.mark.parametrize("kind", ["Linear", "TopK", "AbsTopK", "BatchTopK", "JumpReLU", "Gated", "Matryoshka"])
def test_saelens_loads_what_we_write(kind, sae_lens, tmp_path):
    given = made.features(kind)
    folder = write_saelens(given, tmp_path / "sae", model_name="tiny", hook_name="blocks.1.hook_resid_post")
    theirs = sae_lens.SAE.load_from_disk(folder)
    same(given, theirs.encode, theirs.decode)
    assert theirs.cfg.metadata.model_name == "tiny"
    assert theirs.cfg.metadata.hook_name == "blocks.1.hook_resid_post"


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("architecture", list(KINDS))
def test_we_read_what_saelens_writes(architecture, subtract, sae_lens, tmp_path):
    fields = {"k": made.K, "rescale_acts_by_decoder_norm": subtract} if architecture.endswith("topk") else {}
    cls, config = sae_lens.registry.get_sae_class(architecture)
    sae = cls(config(d_in=made.D, d_sae=made.M, apply_b_dec_to_input=subtract, **fields))
    state = made.weights(made.NEEDS[architecture])
    sae.load_state_dict(state)
    sae.save_model(tmp_path / "sae")
    found = read_saelens(tmp_path / "sae")
    assert found.encoder.recipe.kind == KINDS[architecture]
    same(found, sae.encode, sae.decode)


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_a_batchtopk_checkpoint_is_the_jumprelu_that_saelens_saves(architecture, sae_lens, tmp_path):
    cls, config = sae_lens.registry.get_sae_training_class(architecture)
    fields = {"matryoshka_widths": [4, made.M]} if architecture.startswith("matryoshka") else {}
    sae = cls(config(d_in=made.D, d_sae=made.M, k=2.0, **fields))
    held = {**made.weights("b_enc"), "topk_threshold": torch.tensor(0.8, dtype=torch.float64)}
    sae.load_state_dict(held)
    sae.save_model(tmp_path / "checkpoint")
    sae.save_inference_model(tmp_path / "final")
    final = sae_lens.SAE.load_from_disk(tmp_path / "final")
    for folder, kind in (("checkpoint", "BatchTopK"), ("final", "JumpReLU")):
        found = read_saelens(tmp_path / folder)
        assert found.encoder.recipe.kind == kind
        same(found, final.encode, final.decode)


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
def test_training_checkpoints_of_saelens(architecture, sae_lens, tmp_path):
    cls, config = sae_lens.registry.get_sae_training_class(architecture)
    fields = {"k": made.K} if architecture == "topk" else {}
    sae = cls(config(d_in=made.D, d_sae=made.M, **fields))
    sae.load_state_dict(made.weights(made.NEEDS[architecture]))
    sae.save_model(tmp_path / "sae")
    same(read_saelens(tmp_path / "sae"), sae.encode, sae.decode)


@pytest.mark.parametrize("name", list(CLASSES))
def test_dictionary_learning_checkpoints(name, tmp_path):
    package("dictionary_learning")
    from dictionary_learning.utils import load_dictionary

    folder = dictionary_learning_folder(tmp_path / "ae", name)
    theirs, _ = load_dictionary(str(folder), "cpu")
    assert name not in COUNTED or int(theirs.k) == made.K
    same(read_dictionary_learning(folder), theirs.encode, theirs.decode)


def test_sparsify_checkpoints(tmp_path):
    coders = package("sparsify")
    theirs = coders.SparseCoder(made.D, coders.SparseCoderConfig(num_latents=made.M, k=made.K))
    given = made.weights("b_enc")
    state = {"encoder.weight": given["W_enc"].T, "encoder.bias": given["b_enc"], "W_dec": given["W_dec"]}
    theirs.load_state_dict({**state, "b_dec": given["b_dec"]})
    theirs.save_to_disk(tmp_path / "sae")
    found = read_sparsify(tmp_path / "sae")
    h = made.rows(100)
    with torch.no_grad():
        out = theirs.encode(h)
        rows = theirs.decode(out.top_acts, out.top_indices)
    codes = torch.zeros(100, made.M).scatter(1, out.top_indices, out.top_acts)
    assert (found.encode(h).dense() - codes).abs().max() <= 1e-6 * codes.abs().max()
    assert (found.reconstruct(h) - rows).abs().max() <= 1e-6 * rows.abs().max()
