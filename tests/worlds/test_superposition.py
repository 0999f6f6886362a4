"""Planted superposition: what the world says of itself holds in its samples."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.worlds.superposition import SuperpositionWorld


@pytest.mark.parametrize("patterns", ["noise", "gabor"])
def test_images_and_activations_are_the_sums_that_are_planted(patterns):
    world = SuperpositionWorld(patterns=patterns, grain=0.0, noise=0.0)
    sample = world.sample(2000, 3)
    assert sample.x.shape == (2000, 3, 16, 16) and sample.h.shape == (2000, 16)
    assert torch.allclose(sample.h, sample.z @ world.atoms, atol=1e-6)
    assert torch.allclose(sample.x, torch.einsum("nk,kcij->ncij", sample.z, world.images), atol=1e-5)
    active = sample.z[sample.z > 0]
    assert active.min() >= 0.5 and active.max() <= 1.5
    assert abs(float((sample.z > 0).float().mean()) - 0.06) < 0.005
    assert torch.allclose(world.images.square().mean((1, 2, 3)), torch.ones(32))


def test_noise_has_the_deviation_asked_for_and_identity_is_one_neuron_a_feature():
    world = SuperpositionWorld(latents=16, dictionary="identity")
    sample = world.sample(3000, 0)
    assert abs(float((sample.h - sample.z).std()) - 0.01) < 1e-3
    rest = sample.x - torch.einsum("nk,kcij->ncij", sample.z, world.images)
    assert abs(float(rest.std()) - 0.3) < 0.01
    with pytest.raises(UsageError, match="latents = width"):
        SuperpositionWorld(dictionary="identity")
