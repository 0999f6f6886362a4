"""Sprites: both backends agree, and both agree with the geometry written down plainly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.kernels.sprites import SHAPES, SYMMETRY, outline, render


def some(n, seed, shapes=SHAPES, spread=1.0):
    draw = np.random.default_rng(seed)
    kinds = torch.from_numpy(draw.integers(len(shapes), size=n))
    kinds = torch.tensor([SHAPES.index(s) for s in shapes])[kinds]
    size = torch.from_numpy(draw.uniform(9.6, 19.2, n))
    angle = torch.from_numpy(draw.uniform(0, 2 * math.pi, n))
    x, y = (torch.from_numpy(31.5 + spread * draw.uniform(-16, 16, n)) for _ in range(2))
    return kinds, size, angle, x, y


def inside_by_hand(shape, size, angle, x, y, column, row):
    """One point at a time, as the geometry is written."""
    u = math.cos(angle) * (column - x) - math.sin(angle) * (row - y)
    v = math.sin(angle) * (column - x) + math.cos(angle) * (row - y)
    if shape == "square":
        return abs(u) <= size / 2 and abs(v) <= size / 2
    if shape == "ellipse":
        return (u / (size * 12.8 / 19.2)) ** 2 + (v / (size * 7.2 / 19.2)) ** 2 <= 1
    corners = outline(shape) * size
    odd = False
    for (au, av), (bu, bv) in zip(corners, np.roll(corners, -1, 0), strict=True):
        if (av > v) != (bv > v) and u < (bu - au) * (v - av) / (bv - av) + au:
            odd = not odd
    return odd


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_those_of_the_written_geometry(shape):
    given = some(3, 5, (shape,))
    image = render(*given, pixels=64)
    for i in range(3):
        numbers = [float(value[i]) for value in given[1:]]
        wanted = [[inside_by_hand(shape, *numbers, c, r) for c in range(64)] for r in range(64)]
        # A point that a rounding error could put on either side may differ.
        assert (image[i].bool() != torch.tensor(wanted)).sum() <= 1
        assert 20 < image[i].sum() < 700


@pytest.mark.parametrize("pixels", [64, 32, 17])
@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_compiled_and_plain_are_equal(pixels, spread):
    given = some(300, 1, spread=spread)
    for options in ({}, {"anti_alias": 3}, {"dtype": torch.uint8}):
        one = render(*given, pixels=pixels, backend="numba", **options)
        two = render(*given, pixels=pixels, backend="torch", **options)
        assert one.shape == (300, pixels, pixels)
        assert torch.equal(one, two)
        assert one.max() == 1 and one.min() == 0


def test_the_square_of_dsprites_is_an_exact_count():
    # At angle 0 and centre 31.5 a square of half side 9.6 holds the pixels 22 .. 41 both ways.
    image = render(torch.tensor([0]), *(torch.tensor([v]) for v in (19.2, 0.0, 31.5, 31.5)))[0]
    assert image.sum() == 400 and image[22:42, 22:42].all()


@pytest.mark.parametrize("shape", SHAPES)
def test_symmetries(shape):
    kinds, size, angle, x, y = some(40, 2, (shape,))
    turned = angle + 2 * math.pi / SYMMETRY[shape]
    one, two = (render(kinds, size, a, x, y, anti_alias=4) for a in (angle, turned))
    assert (one - two).abs().sum((1, 2)).max() < 1
    half = render(kinds, size, angle + math.pi / SYMMETRY[shape], x, y, anti_alias=4)
    assert (one - half).abs().sum((1, 2)).min() > 20


@pytest.mark.parametrize("shape", ["square", "triangle", "star_4", "spoke_4"])
def test_size_is_the_root_of_the_area(shape):
    kinds, size, angle, x, y = some(20, 3, (shape,), spread=0.3)
    area = render(kinds, size, angle, x, y, anti_alias=8).sum((1, 2))
    assert torch.allclose(area.double(), size**2, rtol=0.01)


def test_half_the_pixels_are_the_mean_of_twice_as_many():
    given = some(30, 4)
    fine = render(*given, pixels=64, anti_alias=2)
    coarse = render(*given, pixels=32, anti_alias=4)
    assert torch.allclose(torch.nn.functional.avg_pool2d(fine[:, None], 2)[:, 0], coarse, atol=1e-6)


def test_a_position_moves_the_picture():
    at = [torch.tensor([v]) for v in (15.0, 0.4, 30.0, 28.0)]
    one = render(torch.tensor([2]), *at)
    two = render(torch.tensor([2]), at[0], at[1], at[2] + 3, at[3] - 5)
    assert torch.equal(one.roll((-5, 3), (1, 2)), two)


def test_an_out_tensor_is_filled_and_nothing_is_left_of_before():
    given = some(10, 6)
    out = torch.full((10, 64, 64), 7.0)
    assert render(*given, out=out) is out
    assert torch.equal(out, render(*given))
    assert render(*some(0, 0)).shape == (0, 64, 64)


def test_bad_numbers_are_refused():
    kinds, size, angle, x, y = some(3, 0)
    with pytest.raises(UsageError, match="size: must be positive"):
        render(kinds, size * 0, angle, x, y)
    with pytest.raises(UsageError, match="not finite"):
        render(kinds, size, angle, x * torch.nan, y)
    with pytest.raises(UsageError, match=r"shape: must be in 0\.\.5"):
        render(kinds + 6, size, angle, x, y)
    with pytest.raises(UsageError, match=r"y: must be \[3\]"):
        render(kinds, size, angle, x, y[:2])
    with pytest.raises(UsageError, match="uint8"):
        render(kinds, size, angle, x, y, anti_alias=2, dtype=torch.uint8)
    with pytest.raises(UsageError, match="out"):
        render(kinds, size, angle, x, y, out=torch.zeros(2, 64, 64))
    with pytest.raises(UsageError, match="has no corners"):
        outline("ellipse")
