"""Mixings: exact inverses, Jacobians, condition numbers, and a map that is not injective."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.worlds import MIXINGS
from unmix.worlds.assumptions import linear_baseline
from unmix.worlds.cluster import ClusterWorld
from unmix.worlds.mixing import InvertibleMLP, Map, Orthogonal


def latents(n=400, d=5, sphere=True):
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.nn.functional.normalize(z) if sphere else z


@pytest.mark.parametrize("name", list(MIXINGS))
@pytest.mark.parametrize(("d", "width"), [(5, None), (5, 12), (2, 2), (3, 7)])
def test_every_mixing_has_an_exact_inverse_and_full_rank(name, d, width):
    mixing = MIXINGS[name]().build(d, width, Stream(1))
    z = latents(d=d, sphere=False)
    x = mixing(z)
    assert x.shape == (len(z), width or d) and x.dtype == torch.float64
    assert torch.allclose(mixing.inverse(x), z, atol=1e-9)
    assert torch.allclose(mixing(z.float()).double(), x, atol=1e-4) and mixing(z.float()).dtype == torch.float32
    assert torch.equal(MIXINGS[name]().build(d, width, Stream(1))(z), x)
    assert mixing.singular_values(z)[:, -1].min() > 1e-3
    assert mixing.collisions(z) == 0


@pytest.mark.parametrize("name", list(MIXINGS))
def test_jacobian_is_the_slope_of_the_map(name):
    mixing, z = MIXINGS[name]().build(4, 6, Stream(2)), latents(20, 4)
    step = 1e-6 * latents(20, 4, sphere=False).flip(0)
    predicted = (mixing.jacobian(z) @ step[:, :, None])[:, :, 0]
    assert torch.allclose(mixing(z + step) - mixing(z), predicted, atol=1e-9)


def test_rotations_and_chosen_conditions_have_that_condition_number():
    z = latents()
    assert torch.allclose(
        Orthogonal().build(5, 9, Stream(0)).condition_number(z), torch.ones(400).double(), atol=1e-6
    )
    linear = InvertibleMLP(layers=1, condition=7.0).build(5, 9, Stream(0))
    assert torch.allclose(linear.condition_number(z), torch.full((400,), 7.0).double(), rtol=1e-6)
    for layer in InvertibleMLP(condition=3.0).weights(4, 6, Stream(0)):
        values = torch.linalg.svdvals(layer)
        assert values[0] / values[-1] == pytest.approx(3.0)
    best, some = (
        torch.linalg.cond(InvertibleMLP(layers=1, draws=draws).weights(5, 5, Stream(0))[0]) for draws in (1000, 1)
    )
    assert best < some


def test_on_the_sphere_only_directions_along_it_count():
    flat = Map(3, 3, lambda z: z / z.norm(dim=-1, keepdim=True), lambda x: x, sphere=True)
    z = latents(d=3)
    assert torch.allclose(flat.singular_values(z), torch.ones(400, 2).double())
    assert Map(3, 3, flat.forward, flat.backward).singular_values(z)[:, -1].max() < 1e-12


@pytest.mark.parametrize("sphere", [True, False])
def test_a_folding_map_is_found_out(sphere):
    def fold(z):
        return torch.cat([z[..., :1] ** 2, z[..., 1:]], -1)

    assert Map(3, 3, fold, fold, sphere).collisions(latents(800, 3, sphere)) > 10


def test_linear_baseline_is_one_for_a_rotation_and_below_for_layers():
    rotation = ClusterWorld(mixing=Orthogonal()).sample(2000)
    assert linear_baseline(rotation.x, rotation.z) == pytest.approx(1, abs=1e-6)
    bent = [ClusterWorld(seed=seed).sample(4000) for seed in range(3)]
    assert all(0.6 < linear_baseline(sample.x, sample.z) < 0.9 for sample in bent)


def test_wrong_widths_are_named():
    with pytest.raises(UsageError, match="width=3: must be at least latents=5"):
        Orthogonal().build(5, 3, Stream(0))
    with pytest.raises(UsageError, match=r"expected \[n, 5\]"):
        Orthogonal().build(5, 6, Stream(0))(torch.zeros(2, 6))
    for name in ("Spiral", "CouplingFlow"):
        with pytest.raises(UsageError, match="needs at least 2"):
            MIXINGS[name]().build(1, 3, Stream(0))
