"""Every network and decoder: shapes, the same weights for the same rng, refusals."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.learners.diet import Diet
from unmix.learners.representation import Representation
from unmix.networks import DECODERS, NETWORKS
from unmix.networks.built import Built
from unmix.networks.conv import Conv, ConvDecoder
from unmix.networks.mlp import MLP
from unmix.networks.posterior import PosteriorMean
from unmix.networks.resnet import ResNet
from unmix.networks.transformer import Transformer
from unmix.networks.vit import ViT
from unmix.networks.wrapped import OnSphere
from unmix.worlds.images import Images

HERE = "tests.networks.test_networks"


def convolution(channels):
    """A network as another library would make it."""
    layers = [torch.nn.Conv2d(3, channels, 3), torch.nn.BatchNorm2d(channels), torch.nn.AdaptiveAvgPool2d(1)]
    return torch.nn.Sequential(*layers, torch.nn.Flatten())


def nothing():
    return 3


def whole(sides=2):
    return torch.nn.Conv2d(3, 1, sides)


SMALL = {
    "MLP": [(MLP(hidden=(8,)), (7,)), (MLP(hidden=(8,), normalise="layer", activation="gelu"), (1, 4, 4))],
    "Conv": [(Conv(), (1, 64, 64)), (Conv(), (3, 32, 32)), (Conv(channels=(4, 8), hidden=16), (2, 8, 8))],
    "ResNet": [
        (ResNet(channels=4), (3, 32, 32)),
        (ResNet(channels=4, stem="standard", blocks=(1, 1)), (1, 40, 64)),
        (ResNet(channels=3, blocks=(1, 1), linear=False), (3, 8, 8)),
    ],
    "ViT": [(ViT(tokens=12, depth=2), (3, 16, 8)), (ViT(patch=8, tokens=8, heads=2, depth=1), (1, 32, 32))],
    "Transformer": [(Transformer(vocabulary=9, tokens=8), (4,)), (Transformer(tokens=8, depth=2), (5,))],
    "Built": [
        (Built(path=f"{HERE}:convolution", arguments={"channels": 4}), (3, 8, 8)),
        (Built(path=f"{HERE}:convolution", arguments={"channels": 6}, linear=False), (3, 8, 8)),
    ],
    "OnSphere": [(OnSphere(network=MLP(hidden=(8,))), (5,))],
    "PosteriorMean": [(PosteriorMean(network=MLP(hidden=(8,))), (5,))],
}


def test_every_network_is_covered():
    assert set(SMALL) == set(NETWORKS)


@pytest.mark.parametrize(("network", "shape"), [case for cases in SMALL.values() for case in cases], ids=str)
def test_a_network_takes_observations_to_rows_of_the_width_asked_for(network, shape):
    one, two, other = (network.build(shape, 6, rng) for rng in (1, 1, 2))
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    x = x.abs().round() if isinstance(network, Transformer) else x
    kept = x.clone()
    h = one(x)
    assert h.shape == (5, 6) and torch.isfinite(h).all()
    assert torch.equal(x, kept)
    assert torch.equal(two(x), h)
    assert not torch.allclose(other(x), h)
    h.square().sum().backward()
    assert all(parameter.grad is not None for parameter in one.parameters())


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 32, 32), (2, 16, 16)])
def test_decoders_make_the_shape_that_the_encoder_takes(shape):
    h = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert set(DECODERS) == {"MLPDecoder", "ConvDecoder"}
    for name in DECODERS:
        one, two, other = (DECODERS[name]().build(5, shape, rng) for rng in (1, 1, 2))
        assert one(h).shape == (4, *shape)
        assert torch.equal(one(h), two(h))
        assert not torch.allclose(one(h), other(h))


def test_the_convolutions_are_those_of_the_literature():
    sizes = [tuple(p.shape) for p in Conv().build((1, 64, 64), 10).parameters() if p.ndim > 1]
    assert sizes == [(32, 1, 4, 4), (32, 32, 4, 4), (64, 32, 4, 4), (64, 64, 4, 4), (256, 64, 4, 4), (10, 256)]
    mirrored = [tuple(p.shape) for p in ConvDecoder().build(10, (1, 64, 64)).parameters() if p.ndim > 1]
    assert mirrored == [(256, 10), (256, 64, 4, 4), (64, 64, 4, 4), (64, 32, 4, 4), (32, 32, 4, 4), (32, 1, 4, 4)]


def test_resnet_18_has_its_number_of_weights():
    count = sum(p.numel() for p in ResNet(stem="standard").build((3, 64, 64), 1000).parameters())
    assert count == 11_689_512


def test_rows_on_the_sphere_have_unit_norm():
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    h = OnSphere(network=MLP(hidden=(8,))).build((5,), 3)(x)
    assert torch.allclose(h.norm(dim=1), torch.ones(9))


@pytest.mark.parametrize(
    ("network", "shape", "width", "match"),
    [
        (Conv(), (1, 28, 28), 4, "side of 8, 16, 32, 64"),
        (Conv(), (12,), 4, "takes images"),
        (ResNet(), (12,), 4, "takes images"),
        (ResNet(linear=False), (3, 32, 32), 4, "512 columns, asked for 4"),
        (ViT(patch=5), (3, 32, 32), 4, "sides it divides"),
        (ViT(tokens=10, heads=3), (3, 32, 32), 4, "must divide"),
        (Transformer(), (6,), 4, "T at most that"),
        (Transformer(tokens=10), (4,), 4, "must divide"),
        (OnSphere(), (12,), 1, "at least 2 columns"),
        (Built(path="no.such.module:build"), (3, 8, 8), 4, "cannot import"),
        (Built(path=f"{HERE}:convolutions"), (3, 8, 8), 4, "did you mean convolution"),
        (Built(path=f"{HERE}:SMALL"), (3, 8, 8), 4, "no class or function that tests.networks.test_networks itself"),
        (Built(path=f"{HERE}:convolution"), (3, 8, 8), 4, "does not take"),
        (Built(path=f"{HERE}:nothing"), (3, 8, 8), 4, "gave int, not a torch module"),
        (Built(path=f"{HERE}:whole"), (3, 8, 8), 4, r"must give rows \[n, columns\], gave \[2, 1, 7, 7\]"),
        (Built(path=f"{HERE}:whole"), (1, 8, 8), 4, "does not take observations"),
        (SMALL["Built"][1][0], (3, 8, 8), 4, "6 columns, asked for 4"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(network, shape, width, match):
    with pytest.raises(UsageError, match=match):
        network.build(shape, width)


def test_the_last_token_alone_gives_what_all_tokens_would():
    net = Transformer(vocabulary=9, tokens=8).build((4,), 3)
    x = torch.randint(9, (6, 4), generator=torch.Generator().manual_seed(0)).float()
    short = net(x)
    net[1].last = False
    whole = net[:2](x)
    assert torch.allclose(net[3:](whole[:, -1:].flatten(1)), short, atol=1e-5)
    assert sum(p.numel() for p in Transformer().build((4,), 99).parameters()) == 224611


def test_a_network_from_outside_is_trained_kept_and_loaded_where_it_is_trusted(tmp_path):
    world = Images(path="digits")
    network = OnSphere(network=Built(path=f"{HERE}:gray", arguments={"channels": 5}))
    learnt = Diet(network=network, width=4, steps=3, batch=32, augment=None).fit(world, 0)
    folder = learnt.save(tmp_path / "learnt")
    x = world.sample(6, 0).x
    again = Representation.load(folder, trust=frozenset({"tests.networks"}))
    assert torch.equal(again(x), learnt(x)) and again.network == network
    with pytest.raises(UsageError, match=r"Built runs tests\.networks\.test_networks:gray.*set UNMIX_TRUST=tests$"):
        Representation.load(folder)


def gray(channels):
    return torch.nn.Sequential(torch.nn.Conv2d(1, channels, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


@pytest.mark.parametrize(
    ("path", "arguments", "columns"),
    [
        ("timm:create_model", {"model_name": "resnet18", "num_classes": 0}, 512),
        ("torchvision.models:resnet18", {"num_classes": 20}, 20),
    ],
)
def test_networks_of_other_libraries(path, arguments, columns):
    try:  # torchvision's operators are missing beside a torch without CUDA: an import error of another kind
        __import__(path.partition(":")[0])
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{path.partition(':')[0]} does not import: {error}")
    net = Built(path=path, arguments=arguments, linear=False).build((3, 32, 32), columns)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, columns)
