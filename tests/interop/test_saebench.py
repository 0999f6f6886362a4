"""The module that SAEBench asks for, from the identity, from PCA and from an autoencoder."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.encoders import ENCODERS
from unmix.finders.features import assemble, replace
from unmix.finders.linear import PCA
from unmix.interop.saebench import BenchSAE

from . import made


def identity(d):
    eye = torch.eye(d)
    tensors = {"weight": eye.clone(), "shift": torch.zeros(d), "threshold": torch.zeros(())}
    return assemble(eye, torch.zeros(d), ENCODERS.make({"kind": "Linear", "rectify": False}), tensors)


def bench(features):
    return BenchSAE(features, "tiny", "blocks.3.hook_resid_post", 3)


@pytest.mark.parametrize("shape", [(made.D,), (5, made.D), (2, 4, made.D)])
def test_the_identity_gives_back_its_input(shape):
    sae = bench(identity(made.D))
    x = made.draw(1, *shape)
    assert torch.equal(sae.encode(x), x)
    assert torch.equal(sae(x), x)
    assert torch.equal(sae.W_enc, torch.eye(made.D)) and torch.equal(sae.W_dec, torch.eye(made.D))
    assert sae.check_decoder_norms()


def test_all_components_of_pca_are_the_identity_and_some_are_the_projection():
    h = made.rows(200) @ made.draw(7, made.D, made.D)
    whole, some = (bench(PCA(width=width).fit(h)) for width in (made.D, 2))
    assert torch.allclose(whole(h), h, atol=1e-4)
    centred = h - h.mean(0)
    u, s, v = torch.linalg.svd(centred, full_matrices=False)
    assert torch.allclose(some(h), (u[:, :2] * s[:2]) @ v[:2] + h.mean(0), atol=1e-4)
    assert torch.allclose(some.encode(h) @ some.W_dec + some.b_dec, some(h), atol=1e-5)
    assert torch.allclose((h - some.b_dec) @ some.W_enc + some.b_enc, some.encode(h), atol=1e-4)
    assert some.W_dec.shape == (2, made.D) and some.W_enc.shape == (made.D, 2)


def test_attributes_are_those_of_the_features():
    features = made.features("TopK")
    sae = bench(features)
    h = made.rows(12)
    assert torch.equal(sae.encode(h), features.encode(h).dense())
    assert torch.equal(sae.decode(sae.encode(h)), features.decode(features.encode(h).ragged())) or torch.allclose(
        sae.decode(sae.encode(h)), features.reconstruct(h), atol=1e-6
    )
    assert torch.equal(sae.W_dec, features.atoms) and torch.equal(sae.b_dec, features.bias)
    assert torch.equal(sae.b_enc, features.encoder.tensors["shift"])
    assert not sae.check_decoder_norms()
    assert (sae.cfg.d_in, sae.cfg.d_sae, sae.cfg.hook_layer) == (made.D, made.M, 3)
    assert sae.cfg.hook_name == "blocks.3.hook_resid_post" and sae.cfg.model_name == "tiny"
    assert sae.cfg.dtype == "float32"


def test_an_encoder_without_a_read_out_shows_its_atoms():
    sae = bench(replace(made.features("TopK"), encoder="Fista"))
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert torch.equal(sae.b_enc, torch.zeros(made.M))
    assert (sae.encode(made.rows(3)) != 0).any()


def test_moving_moves_the_features():
    sae = bench(made.features("TopK")).to(torch.float64)
    assert sae.dtype == sae.W_enc.dtype == torch.float64 and sae.cfg.dtype == "float64"
    assert sae.encode(made.rows(3)).dtype == torch.float64
    assert bench(made.features("TopK")).to(device="cpu", dtype=torch.float64).dtype == torch.float64
    assert not list(sae.parameters())


def test_other_widths_are_refused():
    sae = bench(made.features("TopK"))
    with pytest.raises(UsageError, match=r"expected \[..., 6\], got \[2, 5\]"):
        sae.encode(torch.ones(2, 5))
    with pytest.raises(UsageError, match=r"expected \[..., 14\], got \[2, 6\]"):
        sae.decode(torch.ones(2, 6))
