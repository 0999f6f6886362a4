"""What the synthetic worlds promise: exact sparsity, frequencies, spectra and noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.finders.features import assemble
from unmix.finders.topk_sae import TopKSAE
from unmix.worlds.matched import MatchedWorld
from unmix.worlds.sparse import SparseWorld


@pytest.mark.parametrize("amplitudes", ["halfnormal", "uniform", "exponential", "one"])
def test_exactly_active_latents_fire_and_x_is_their_sum(amplitudes):
    world = SparseWorld(latents=20, width=10, active=4, amplitudes=amplitudes)
    sample = world.sample(500, 0)
    assert ((sample.z > 0).sum(1) == 4).all()
    assert torch.allclose(sample.x, sample.z @ world.atoms, atol=1e-6)
    means = {"halfnormal": 0.798, "uniform": 0.5, "exponential": 1.0, "one": 1.0}
    assert sample.z[sample.z > 0].mean().item() == pytest.approx(means[amplitudes], abs=0.06)


def test_zipf_makes_the_first_latents_frequent_and_noise_has_its_size():
    world = SparseWorld(latents=50, width=10, active=3, zipf=1.0, noise=0.5)
    sample = world.sample(20_000, 0)
    rates = (sample.z > 0).float().mean(0)
    assert rates[0] > 3 * rates[10] > 3 * rates[49]
    residual = sample.x - sample.z @ world.atoms
    assert residual.std().item() == pytest.approx(0.5, rel=0.02)
    uniform = (SparseWorld(latents=50, width=10, active=3).sample(20_000, 0).z > 0).float().mean(0)
    assert uniform.min() > 0.05 and uniform.max() < 0.07


def test_impossible_worlds_are_refused():
    with pytest.raises(UsageError, match="at most latents=4"):
        SparseWorld(latents=4, active=5)
    with pytest.raises(UsageError, match="latents <= width"):
        SparseWorld(latents=9, width=8, dictionary="orthogonal")
    atoms = SparseWorld(latents=8, width=8, dictionary="orthogonal").atoms
    assert torch.allclose(atoms @ atoms.T, torch.eye(8), atol=1e-5)


def test_matched_world_has_the_spectrum_sparsity_mean_and_noise_of_what_it_matches():
    source = SparseWorld(latents=60, width=16, active=4, zipf=0.5, noise=0.1)
    x = source.sample(8000, 0).x + 3.0
    features = TopKSAE(width=60, k=4, steps=600, batch=256).fit(x)
    world = MatchedWorld.of(features, x)
    sample = world.sample(40_000, 1)

    def spectrum(rows):
        return torch.linalg.eigvalsh(torch.cov(rows.double().T)).flip(0)

    assert torch.allclose(spectrum(sample.h), spectrum(x), rtol=0.08)
    assert sample.h.mean(0).norm().item() == pytest.approx(x.mean(0).norm().item(), rel=0.05)
    codes = features.encode(x)
    assert (sample.z > 0).sum(1).float().mean().item() == pytest.approx(codes.l0().float().mean().item(), rel=0.1)
    assert world.latents == int((codes.firing() > 0).sum())
    truth = assemble(world.atoms, torch.zeros(16), features.encoder.recipe, features.encoder.tensors)
    clean = sample.z @ truth.atoms
    noise = (sample.h - clean) - (sample.h - clean).mean(0)
    unexplained = noise.square().sum() / (sample.h - sample.h.mean(0)).square().sum()
    from unmix.scores.sparsity import fvu

    assert unexplained.item() == pytest.approx(fvu(x, features.reconstruct(x)).value, rel=0.15)
    assert np.allclose(world.atoms.norm(dim=1), 1, atol=1e-5)


def test_matched_world_survives_json_and_a_representation_with_constant_columns():
    x = SparseWorld(latents=10, width=6, active=2).sample(500, 0).x
    x = torch.cat([x, torch.ones(500, 2)], 1)
    world = MatchedWorld.of(TopKSAE(width=10, k=2, steps=50).fit(x), x)
    again = MatchedWorld(**{k: v for k, v in world.as_dict().items() if k != "kind"})
    assert again == world and again.digest == world.digest
    assert torch.isfinite(world.sample(200, 0).h).all()
    assert torch.equal(again.sample(20, 3).h, world.sample(20, 3).h)


def test_a_matched_world_follows_units_and_offsets():
    x = SparseWorld(latents=16, width=8, active=2, noise=0.1).sample(1000, 0).x.double()
    recipe = TopKSAE(width=16, k=2, steps=60, batch=200)
    plain = MatchedWorld.of(recipe.fit(x), x)
    for unit, offset in ((2.0**-43, 0.0), (2.0**27, 0.0), (1.0, 1e9)):
        rows = x * unit + offset
        world = MatchedWorld.of(recipe.fit(rows), rows)
        assert np.allclose(np.array(world.spectrum) / unit**2, plain.spectrum, rtol=1e-4)
        assert np.allclose(world.rates, plain.rates, atol=5e-3)
        h = world.sample(500, 1).h
        assert float((h.double() - h.double().mean(0)).square().mean()) / unit**2 == pytest.approx(
            float(np.mean(plain.spectrum)), rel=0.2
        )
        assert np.allclose(world.atoms.norm(dim=1), 1, atol=1e-5)
