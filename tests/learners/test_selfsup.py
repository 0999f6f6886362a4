"""Two-view objectives against their definitions, and augmentations that leave global random state alone."""

from __future__ import annotations

import math

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.learners.augment import Augment, Noise
from unmix.learners.pretext import Reconstruction, Rotation, turned
from unmix.learners.selfsup import BYOL, BarlowTwins, SimCLR, SpectralContrastive, VICReg
from unmix.learners.view_losses import barlow_twins, byol, nt_xent, vicreg
from unmix.networks.conv import Conv
from unmix.networks.mlp import MLP
from unmix.networks.resnet import ResNet
from unmix.networks.vit import ViT
from unmix.worlds.images import Images

from .tiny import Clusters, Walks


def test_nt_xent_is_its_sum_over_pairs():
    draw = torch.Generator().manual_seed(0)
    first, second = (torch.randn(4, 3, generator=draw, dtype=torch.float64) for _ in "ab")
    z = torch.cat([first, second])
    total = 0.0
    for i in range(8):
        like = [math.exp(torch.cosine_similarity(z[i], z[j], 0).item() / 0.5) for j in range(8)]
        total -= math.log(like[(i + 4) % 8] / (sum(like) - like[i])) / 8
    assert nt_xent(first, second, 0.5).item() == pytest.approx(total, abs=1e-12)


def test_barlow_twins_is_zero_for_alike_and_white_views():
    q = torch.linalg.qr(torch.randn(50, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    white = q - q.mean(0)
    white = torch.linalg.qr(white)[0]
    assert barlow_twins(white, white, 0.1).item() == pytest.approx(0, abs=1e-8)
    same = white[:, :1].expand(50, 5)
    assert barlow_twins(same, same, 0.1).item() == pytest.approx(0.1 * 20, abs=1e-8)


def test_vicreg_is_zero_for_alike_white_views_and_counts_its_parts():
    draw = torch.randn(50, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    white = torch.linalg.qr(draw - draw.mean(0))[0] * math.sqrt(49)  # unit variance, no covariance
    assert vicreg(white, white).item() == pytest.approx(0, abs=1e-8)
    other = white + 2.0
    assert vicreg(white, other).item() == pytest.approx(25 * 4, abs=1e-8)
    flat = torch.ones_like(white)
    assert vicreg(flat, flat).item() == pytest.approx(2 * 25 * 0.99)
    twice = torch.cat([white[:, :1], white[:, :1]], 1)
    assert vicreg(twice, twice).item() == pytest.approx(2 * 2 / 2, abs=1e-8)


def test_byol_is_a_distance_on_the_sphere_and_leaves_the_target_alone():
    draw = torch.Generator().manual_seed(3)
    first, second = (torch.randn(6, 3, generator=draw, dtype=torch.float64).requires_grad_() for _ in "ab")
    apart = torch.nn.functional.normalize(first) - torch.nn.functional.normalize(second)
    loss = byol(first, second)
    assert loss.item() == pytest.approx(apart.square().sum(1).mean().item(), abs=1e-12)
    loss.backward()
    assert first.grad is not None and second.grad is None


@pytest.mark.parametrize("learner", [SimCLR, BarlowTwins, VICReg, SpectralContrastive, BYOL])
def test_they_learn_from_images_and_refuse_views_that_do_not_differ(learner):
    world = Images(path="digits")
    fields = {"network": ResNet(channels=4, blocks=(1,)), "width": 4, "steps": 3, "batch": 32}
    learnt = learner(**fields, augment=Augment(flip=0.0), online=True).fit(world, 0)
    assert learnt(world.sample(5, 0).x).shape == (5, 4) and learnt.parts["probe.weight"].shape == (10, 4)
    for augment, given in ((None, world), ("auto", Clusters())):
        with pytest.raises(UsageError, match="two views must differ"):
            learner(augment=augment).fit(given)


@pytest.mark.parametrize("learner", [SimCLR, BYOL])
def test_pairs_in_time_need_sequences_and_no_augmentation(learner):
    fields = {"network": MLP(hidden=(8,)), "width": 3, "steps": 4, "batch": 64, "pairs": "time"}
    learnt = learner(**fields).fit(Walks(), 0)
    assert len(learnt.trace) == 4
    assert "Clusters gives index, x, y, z, not group, time" in learner(**fields).refusal(Clusters())


def test_byols_copy_follows_slowly_and_stops():
    world = Clusters()
    fields = {"network": MLP(hidden=(8,), normalise="none"), "width": 3, "batch": 32, "steps": 5, "augment": "Noise"}
    learner = BYOL(**fields, tau=0.9)
    assert learner.kept(0) == pytest.approx(0.9) and learner.kept(5) == pytest.approx(1.0)
    assert all(learner.kept(step) < learner.kept(step + 1) for step in range(5))
    slow = learner.untrained(world, 0).parts["target.0.0.weight"].clone()
    trained = [learner.but(steps=1, tau=tau).fit(world, 0) for tau in (0.0, 0.9, 1.0)]
    own, copies = trained[1].module[0].weight, [learnt.parts["target.0.0.weight"] for learnt in trained]
    assert torch.equal(trained[0].module[0].weight, own)
    assert torch.allclose(copies[0], own) and torch.equal(copies[2], slow)
    assert torch.allclose(copies[1], 0.9 * slow + 0.1 * own, atol=1e-7)
    plain = SimCLR(**fields, hidden=(4,), projection=2).fit(world, 1)
    begun = learner.but(lr=1e-9, tau=1.0).fit(world, 0, start=plain)
    assert torch.equal(begun.parts["target.0.0.weight"], plain.module[0].weight)


def test_turns_are_told_and_need_square_images():
    x = torch.arange(2 * 9).float().view(2, 1, 3, 3)
    four, turns = turned(x)
    assert turns.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and torch.equal(four[:2], x)
    assert four[2, 0].tolist() == [[2, 5, 8], [1, 4, 7], [0, 3, 6]]
    assert torch.equal(four[6:], torch.rot90(x, -1, (2, 3)))
    world = Images(path="digits")
    learnt = Rotation(network=Conv(channels=(8,), hidden=32), width=16, steps=150, batch=64, augment=None).fit(world)
    assert learnt.trace[-1]["turns"] > 0.7  # 0.25 by chance
    assert "turns square images" in Rotation().refusal(Clusters())


@pytest.mark.parametrize("network", [ViT(tokens=12, depth=1), MLP(hidden=(32,)), Conv(channels=(32,), hidden=64)])
def test_pictures_are_given_back(network):
    world = Images(path="digits")
    fields = {"network": network, "width": 16, "batch": 64, "augment": None, "lr": 3e-3}
    learnt = Reconstruction(**fields, steps=150).fit(world)
    variance = float(world.rows().x.var(0).mean())
    assert learnt.trace[-1]["loss"] < 1.1 * variance < learnt.trace[0]["loss"]


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_seeded_and_stay_images(channels):
    x = torch.rand(6, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    before, augment = x.clone(), Augment(rotate=10, shift=0.1)
    one, two, other = (augment(x, Stream(seed)) for seed in (1, 1, 2))
    assert torch.equal(x, before) and one.shape == x.shape
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.isfinite(one).all()
    nothing = Augment(crop=1, flip=0, colour=0, gray=0, blur=0, erase=0)
    assert torch.equal(nothing(x, Stream(0)), x)
    with pytest.raises(UsageError, match="takes images"):
        augment(x[:, 0], Stream(0))
    assert Noise(scale=0.0)(x, Stream(0)).equal(x)


def test_a_missing_library_is_told(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    with pytest.raises(UsageError, match=r"needs kornia; pip install"):
        Augment()._steps((1, 8, 8))
