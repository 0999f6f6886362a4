"""Sprites: filled shapes on a grid of pixels, computed from their geometry; no file is read."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.kernels._compiled import array, compiled_wanted, own_threads, parts_for, run_parts

SHAPES = ("square", "ellipse", "heart", "triangle", "star_4", "spoke_4")
SYMMETRY = {"square": 4, "ellipse": 2, "heart": 1, "triangle": 3, "star_4": 4, "spoke_4": 4}
FRAME = 64.0
SQUARE, ELLIPSE = 0.5, (2 / 3, 0.375)
CHUNK = 256


@functools.cache
def outline(name: str) -> np.ndarray:
    """Corners (u, v) of a shape of size 1 in its own frame, v down: [corners, 2] float64; not for the ellipse.

    heart: the curve u = 16 sin^3 t, v = -(13 cos t - 5 cos 2t - 2 cos 3t - cos 4t) - 2 at 60 points, .60 / 19.2 and
    .67 / 19.2 of the size a unit. triangle, star_4, spoke_4: the outlines of Spriteworld, area 1. square: area 1.
    """
    turn = np.arange(4) * np.pi / 2
    if name == "square":
        corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    elif name == "heart":
        t = np.arange(60) * 2 * np.pi / 60
        up = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        corners = np.stack([0.60 * 16 * np.sin(t) ** 3, 0.67 * (-up - 2)], 1) / 19.2
    elif name == "triangle":
        corners = _polar(1.0, np.arange(3) * 2 * np.pi / 3)
    elif name == "star_4":
        corners = np.stack([_polar(1.0, turn), _polar(2.0, turn + np.pi / 4)], 1).reshape(-1, 2)
    elif name == "spoke_4":
        middle = _polar(1.0, turn)
        before, after = middle + _polar(1.0, turn - np.pi / 4), middle + _polar(1.0, turn + np.pi / 4)
        corners = np.stack([before, middle, after], 1).reshape(-1, 2)
    else:
        raise UsageError(f"shape={name}: has no corners; one of {', '.join(s for s in SHAPES if s != 'ellipse')}")
    return corners / np.sqrt(_area(corners)) if name in ("triangle", "star_4", "spoke_4") else corners


def render(
    shape: Tensor,
    size: Tensor,
    angle: Tensor,
    x: Tensor,
    y: Tensor,
    pixels: int = 64,
    anti_alias: int = 1,
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """White shapes on black: [n, pixels, pixels], 1 where the middle of a pixel is inside the shape, else 0.

        u = cos(a) X - sin(a) Y,  v = sin(a) X + cos(a) Y,   (X, Y) = pixel - (x, y)
        square: |u|, |v| <= size / 2.  ellipse: (3u / 2 size)^2 + (8v / 3 size)^2 <= 1.  others: even-odd rule

    shape: [n] numbers in `SHAPES`. size: [n], side of a square of the same area where the shape has area 1.
    angle: [n] radians. x, y: [n] centre. Lengths are in pixels of a frame 64 wide whose pixels have their middles at
    0 .. 63, whatever `pixels` is. anti_alias: k x k points in each pixel, whose mean is given (float32 only).
    dtype: float32 or uint8. out: written to in place of a new tensor. backend: numba (CPU), torch (any device) or
    auto; both give the same pixels. Raises `UsageError` for shapes that do not fit or numbers that are not finite.
    """
    given = {"size": size, "angle": angle, "x": x, "y": y}
    _check(shape, given, pixels, anti_alias, dtype)
    device, count = shape.device, len(shape)
    if out is None:
        out = torch.empty(count, pixels, pixels, dtype=dtype, device=device)
    elif out.shape != (count, pixels, pixels) or out.dtype != dtype or out.device != device:
        raise UsageError(f"out: must be {dtype} [{count}, {pixels}, {pixels}] on {device}, got {list(out.shape)}")
    size, angle, x, y = (value.detach().to(device, torch.float64) for value in (size, angle, x, y))
    points = pixels * anti_alias
    grid = (torch.arange(points, dtype=torch.float64, device=device) + 0.5) * (FRAME / points) - 0.5
    if compiled_wanted(backend, size) and out.is_contiguous():
        from unmix.kernels._sprites_compiled import fill, fill_smooth

        corners, starts = _outlines()
        with own_threads():
            turned = (size, angle.cos(), angle.sin(), x, y, grid)
            numbers = (array(shape.long()), *map(array, turned), corners, starts)
            if anti_alias == 1:
                run_parts(fill, parts_for(count, 64), *numbers, out.numpy())
            else:
                run_parts(fill_smooth, parts_for(count, 16), *numbers, anti_alias, out.numpy())
        return out
    cos, sin = angle.cos(), angle.sin()
    for code, name in enumerate(SHAPES):
        for rows in (shape == code).nonzero().flatten().split(CHUNK):
            inside = _inside(name, size[rows], cos[rows], sin[rows], x[rows], y[rows], grid)
            if anti_alias > 1:
                blocks = inside.reshape(len(rows), pixels, anti_alias, pixels, anti_alias)
                out[rows] = blocks.sum((2, 4)).to(dtype) / anti_alias**2
            else:
                out[rows] = inside.to(dtype)
    return out


def _inside(name: str, size: Tensor, cos: Tensor, sin: Tensor, x: Tensor, y: Tensor, grid: Tensor) -> Tensor:
    """Whether the points of the grid lie in each shape: [n, rows, columns] bool."""
    if name not in ("square", "ellipse"):
        return _even_odd(*_corners(name, size, cos, sin, x, y), grid)
    right, down = (grid - x[:, None])[:, None, :], (grid - y[:, None])[:, :, None]
    size, cos, sin = size[:, None, None], cos[:, None, None], sin[:, None, None]
    u, v = cos * right - sin * down, sin * right + cos * down
    if name == "square":
        return (u.abs() <= SQUARE * size) & (v.abs() <= SQUARE * size)
    return (u / (ELLIPSE[0] * size)).square() + (v / (ELLIPSE[1] * size)).square() <= 1


def _corners(name: str, size: Tensor, cos: Tensor, sin: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Corners of each shape in the image: columns [n, corners], rows [n, corners]."""
    own = torch.from_numpy(outline(name)).to(size.device)
    u, v = own[:, 0], own[:, 1]
    size, cos, sin = size[:, None], cos[:, None], sin[:, None]
    return x[:, None] + size * (cos * u + sin * v), y[:, None] + size * (cos * v - sin * u)


def _even_odd(across: Tensor, down: Tensor, grid: Tensor) -> Tensor:
    """Points of the grid that an odd number of edges lies to the right of: [n, rows, columns] bool."""
    count, points = len(across), len(grid)
    ax, ay = across[:, :, None], down[:, :, None]
    bx, by = across.roll(-1, 1)[:, :, None], down.roll(-1, 1)[:, :, None]
    crosses = (ay > grid) != (by > grid)
    where = (bx - ax) * (grid - ay) / torch.where(crosses, by - ay, torch.ones_like(by)) + ax
    first = torch.searchsorted(grid, where.contiguous())
    number = torch.arange(count, device=grid.device)[:, None, None] * points
    row = torch.arange(points, device=grid.device)
    place = ((number + row) * (points + 1) + first)[crosses]
    toggles = torch.bincount(place, minlength=count * points * (points + 1))
    return toggles.reshape(count, points, points + 1).cumsum(2)[:, :, :-1] % 2 == 1


@functools.cache
def _outlines() -> tuple[np.ndarray, np.ndarray]:
    """Corners of all shapes one after the other [c, 2], and where each begins [shapes + 1]; none for the ellipse."""
    parts = [np.zeros((0, 2)) if name == "ellipse" else outline(name) for name in SHAPES]
    return np.concatenate(parts), np.cumsum([0, *map(len, parts)])


def _check(shape: Tensor, given: dict[str, Tensor], pixels: int, anti_alias: int, dtype: torch.dtype) -> None:
    if pixels < 1 or anti_alias < 1:
        raise UsageError(f"pixels={pixels}, anti_alias={anti_alias}: must be at least 1")
    if dtype not in (torch.float32, torch.uint8) or (dtype == torch.uint8 and anti_alias > 1):
        raise UsageError(f"dtype={dtype}: float32, or uint8 without anti_alias")
    if shape.ndim != 1 or shape.is_floating_point():
        raise UsageError(f"shape: must be whole numbers [n], got {shape.dtype} {list(shape.shape)}")
    for name, value in given.items():
        if value.shape != shape.shape:
            raise UsageError(f"{name}: must be [{len(shape)}] like shape, got {list(value.shape)}")
        if not torch.isfinite(value).all():
            raise UsageError(f"{name}: has values that are not finite")
    if len(shape) and not (int(shape.min()) >= 0 and int(shape.max()) < len(SHAPES)):
        raise UsageError(f"shape: must be in 0..{len(SHAPES) - 1}, got {int(shape.min())}..{int(shape.max())}")
    if len(shape) and not float(given["size"].min()) > 0:
        raise UsageError(f"size: must be positive, got {float(given['size'].min()):g}")


def _polar(radius: float, angle: np.ndarray) -> np.ndarray:
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _area(corners: np.ndarray) -> float:
    u, v = corners.T
    return abs(float(u @ np.roll(v, -1) - v @ np.roll(u, -1))) / 2
