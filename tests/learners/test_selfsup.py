"""Two-view objectives against their definitions, and augmentations that leave global random state alone."""

from __future__ import annotations

import math

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.learners.augment import Augment, Noise
from unmix.learners.selfsup import BarlowTwins, SimCLR, barlow_twins, nt_xent
from unmix.networks.resnet import ResNet
from unmix.worlds.images import Images

from .tiny import Clusters


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


@pytest.mark.parametrize("learner", [SimCLR, BarlowTwins])
def test_they_learn_from_images_and_refuse_views_that_do_not_differ(learner):
    world = Images(path="digits")
    fields = {"network": ResNet(channels=4, blocks=(1,)), "width": 4, "steps": 3, "batch": 32}
    learnt = learner(**fields, augment=Augment(flip=0.0)).fit(world, 0)
    assert learnt(world.sample(5, 0).x).shape == (5, 4)
    for augment, given in ((None, world), ("auto", Clusters())):
        with pytest.raises(UsageError, match="two views must differ"):
            learner(augment=augment).fit(given)


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
