"""SpritesWorld: factors and values of dSprites, transitions in pairs, variants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.worlds.increments import Laplace
from unmix.worlds.sprites import SpritesWorld, contact_sheet
from unmix.worlds.transitions import LaplaceGrid, UniformChange


def test_the_grid_is_that_of_dsprites():
    world = SpritesWorld()
    assert world.factors == ("shape", "scale", "orientation", "x", "y")
    assert [f.size for f in world.factor_kinds] == [3, 6, 40, 32, 32]
    assert [f.kind for f in world.factor_kinds] == ["categorical", "ordinal", "circular", "ordinal", "ordinal"]
    assert np.allclose(world.grids[1], np.linspace(0.5, 1, 6))
    assert np.allclose(world.grids[2], 2 * np.pi * np.arange(40) / 39)
    assert np.allclose(world.grids[3], np.arange(32) / 31)
    sample = world.sample(500, 0)
    assert sample.x.shape == (500, 1, 64, 64) and sample.x.dtype == torch.float32 and sample.z.dtype == torch.float32
    assert set(sample.x.unique().tolist()) == {0.0, 1.0}
    for i, grid in enumerate(world.grids):
        assert np.abs(sample.z[:, i, None].numpy() - grid).min(1).max() < 1e-6
    assert torch.equal(sample.x, world.render(sample.z))


def test_the_last_orientation_is_the_first():
    world = SpritesWorld(free=("shape", "orientation"))
    one, two = (world.render(torch.tensor([[float(s), a] for s in range(3)])) for a in (0.0, 2 * math.pi))
    assert torch.equal(one, two)
    other = world.render(torch.tensor([[float(s), 2 * math.pi / 39] for s in range(3)]))
    assert (one != other).any(3).any(2).any(1).all()


def test_the_square_is_pixel_by_pixel_as_the_geometry_says():
    world = SpritesWorld(shapes=("square",), free=("scale", "orientation", "x", "y"))
    draw = np.random.default_rng(0)
    codes = [draw.integers(n, size=40) for n in (6, 40, 32, 32)]
    z = torch.from_numpy(np.stack([grid[c] for grid, c in zip(world.grids, codes, strict=True)], 1))
    pixel = np.arange(64)
    for image, (i, j, k, m) in zip(world.render(z)[:, 0], zip(*codes, strict=True), strict=True):
        theta, s = 2 * np.pi * j / 39, np.linspace(0.5, 1, 6)[i]
        across, down = pixel[None] - (15.5 + 32 * k / 31), pixel[:, None] - (15.5 + 32 * m / 31)
        u, v = np.cos(theta) * across - np.sin(theta) * down, np.sin(theta) * across + np.cos(theta) * down
        wanted = (np.abs(u) <= 9.6 * s) & (np.abs(v) <= 9.6 * s)
        assert (image.numpy().astype(bool) != wanted).sum() <= 1


def test_symmetry_is_that_of_the_shapes_together():
    def shared(*shapes, free=("shape", "orientation")):
        world = SpritesWorld(shapes=shapes, free=free)
        return world.factor_kinds[world.factors.index("orientation")].symmetry

    assert shared("square") == 4 and shared("square", "ellipse") == 2 and shared("square", "heart") == 1
    assert shared("square", "heart", free=("orientation", "x")) == 4
    assert SpritesWorld().symmetry == (4, 2, 1)
    world = SpritesWorld(shapes=("square",), free=("orientation",), grid=False, anti_alias=4)
    one, two = world.render(torch.tensor([[0.3], [0.3 + math.pi / 2]]))
    assert (one - two).abs().max() < 0.1


def test_pairs_follow_their_transition():
    world = SpritesWorld(transition=LaplaceGrid(rate=3), pixels=32)
    sample = world.sample(2000, 0)
    first, second = sample.z[::2], sample.z[1::2]
    assert torch.equal(sample.group[::2], sample.group[1::2]) and (sample.time[1::2] == 1).all()
    assert torch.equal(first[:, 0], second[:, 0]) and (first != second).any(1).all()
    steps = np.abs((first[:, 3] - second[:, 3]).numpy() * 31).round()
    assert (steps == 0).mean() == pytest.approx(np.diag(LaplaceGrid(rate=3).matrix(32)).mean(), abs=0.04)
    long = SpritesWorld(transition=UniformChange(changed=1), length=4, gap=2).sample(40, 0)
    assert long.time.reshape(10, 4).diff(dim=1).unique().tolist() == [1, 2]


def test_a_continuum_moves_on_a_continuum():
    world = SpritesWorld(
        shapes=("heart",), free=("scale", "x", "y"), grid=False, transition=Laplace(rate=6), pixels=32
    )
    sample = world.sample(4000, 0)
    assert sample.x.shape == (4000, 1, 32, 32)
    assert (sample.z[:, 0] >= 0.5).all() and (sample.z <= 1).all() and (sample.z[:, 1:] >= 0).all()
    assert len(sample.z[:, 1].unique()) > 3900
    step = (sample.z[1::2] - sample.z[::2]).abs().mean(0)
    places = np.linspace(0, 1, 401)
    away = np.abs(places[:, None] - places)
    law = np.exp(-6 * away)
    wanted = ((away * law).sum(1) / law.sum(1)).mean()  # of the law cut off at the ends of the range
    assert step[1] == pytest.approx(wanted, rel=0.06) and step[0] == pytest.approx(wanted / 2, rel=0.06)
    columns = torch.arange(32.0)
    centre = (sample.x[:, 0].sum(1) * columns).sum(1) / sample.x.sum((1, 2, 3))
    assert np.corrcoef(centre, sample.z[:, 1])[0, 1] > 0.999


def test_colour_and_smooth_edges():
    world = SpritesWorld(free=("shape", "x", "hue"), colour="hue", anti_alias=5, shapes=("star_4", "spoke_4"))
    z = torch.tensor([[0.0, 0.5, 0.0], [1.0, 0.5, 1 / 3], [0.0, 0.5, 0.5]])
    x = world.render(z)
    assert x.shape == (3, 3, 64, 64)
    middle = x[:, :, 31:33, 31:33].mean((2, 3))
    assert torch.allclose(middle, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 1]]), atol=1e-5)
    assert ((x[0, 0] > 0) & (x[0, 0] < 1)).sum() > 20
    assert world.sample(10, 0).x.max() <= 1


def test_fixed_factors_stay_where_they_are_put():
    world = SpritesWorld(free=("scale",), x=0.0, y=1.0, shapes=("ellipse",))
    x = world.sample(20, 0).x[:, 0]
    weight = x.sum((1, 2))
    assert torch.allclose((x.sum(1) @ torch.arange(64.0)) / weight, torch.tensor(15.5), atol=0.6)
    assert torch.allclose((x.sum(2) @ torch.arange(64.0)) / weight, torch.tensor(47.5), atol=0.6)


def test_impossible_worlds_are_refused():
    with pytest.raises(UsageError, match="shapes"):
        SpritesWorld(shapes=("circle",))
    with pytest.raises(UsageError, match="free"):
        SpritesWorld(free=("size",))
    with pytest.raises(UsageError, match="colour='hue'"):
        SpritesWorld(free=("hue",))
    with pytest.raises(UsageError, match="needs grid=False"):
        SpritesWorld(transition=Laplace())
    with pytest.raises(UsageError, match="needs grid=True"):
        SpritesWorld(transition=LaplaceGrid(), grid=False)
    with pytest.raises(UsageError, match="all factors are held"):
        SpritesWorld(transition=LaplaceGrid(), free=("shape",))
    with pytest.raises(UsageError, match="multiple of it"):
        SpritesWorld(transition=LaplaceGrid()).sample(3, 0)
    with pytest.raises(UsageError, match=r"shape: must be in 0\.\.2"):
        SpritesWorld(free=("shape", "x")).render(torch.tensor([[3.0, 0.5]]))
    with pytest.raises(UsageError, match=r"z: must be \[n, 5\]"):
        SpritesWorld().render(torch.zeros(2, 4))


def test_a_contact_sheet_holds_every_image():
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sheet = contact_sheet(images, columns=3)
    assert sheet.shape == (18, 27, 3)
    assert torch.equal(sheet[9:17, 9:17, 0], images[4, 0])
