"""Compiled sprites: only the bounding box of a shape is looked at, polygons are filled row by row."""

from __future__ import annotations

import math

import numpy as np

from unmix.kernels._compiled import compiled


@compiled()
def _first(grid: np.ndarray, value: float) -> int:
    """Number of points of the even grid that are smaller than value."""
    points = len(grid)
    guess = math.ceil((value - grid[0]) / (64.0 / points))
    place = min(max(int(guess), 0), points)
    while place > 0 and grid[place - 1] >= value:
        place -= 1
    while place < points and grid[place] < value:
        place += 1
    return place


@compiled()
def _convex(
    kind: int, size: float, cos: float, sin: float, x: float, y: float, grid: np.ndarray, inside: np.ndarray
) -> tuple[int, int, int, int]:
    """Mark the points of a square (kind 0) or an ellipse (1) in `inside`; its box: top, bottom, left, right."""
    if kind == 0:
        wide, high = 0.5 * size, 0.5 * size
        reach_x, reach_y = wide * (abs(cos) + abs(sin)), wide * (abs(cos) + abs(sin))
    else:
        wide, high = (2 / 3) * size, 0.375 * size
        reach_x = math.sqrt((wide * cos) ** 2 + (high * sin) ** 2)
        reach_y = math.sqrt((wide * sin) ** 2 + (high * cos) ** 2)
    left, right = _first(grid, x - reach_x - 1e-6), _first(grid, x + reach_x + 1e-6)
    top, bottom = _first(grid, y - reach_y - 1e-6), _first(grid, y + reach_y + 1e-6)
    for row in range(top, bottom):
        down = grid[row] - y
        shift, rise = sin * down, cos * down
        for column in range(left, right):
            across = grid[column] - x
            u, v = cos * across - shift, sin * across + rise
            if kind == 0:
                inside[row, column] = (abs(u) <= wide) & (abs(v) <= high)
            else:
                u, v = u / wide, v / high
                inside[row, column] = u * u + v * v <= 1
    return top, bottom, left, right


@compiled()
def _polygon(
    corners: np.ndarray, size: float, cos: float, sin: float, x: float, y: float, grid: np.ndarray, inside: np.ndarray
) -> tuple[int, int, int, int]:
    """Mark the points of a polygon by the even-odd rule in `inside`, all zero before; its box as above."""
    points, count = len(grid), len(corners)
    u, v = corners[count - 1, 0], corners[count - 1, 1]
    ax, ay = x + size * (cos * u + sin * v), y + size * (cos * v - sin * u)
    left, right, top, bottom = points, 0, points, 0
    for corner in range(count):
        u, v = corners[corner, 0], corners[corner, 1]
        bx, by = x + size * (cos * u + sin * v), y + size * (cos * v - sin * u)
        low, high = _first(grid, min(ay, by)), _first(grid, max(ay, by))
        for row in range(low, high):
            place = _first(grid, (bx - ax) * (grid[row] - ay) / (by - ay) + ax)
            left, right = min(left, place), max(right, place)
            if place < points:
                inside[row, place] ^= 1
        if low < high:
            top, bottom = min(top, low), max(bottom, high)
        ax, ay = bx, by
    for row in range(top, bottom):
        odd = np.uint8(0)
        for column in range(left, min(right + 1, points)):
            odd ^= inside[row, column]
            inside[row, column] = odd
    return top, bottom, left, min(right + 1, points)


@compiled()
def _mark(
    kind: int,
    size: float,
    cos: float,
    sin: float,
    x: float,
    y: float,
    grid: np.ndarray,
    corners: np.ndarray,
    starts: np.ndarray,
    inside: np.ndarray,
) -> tuple[int, int, int, int]:
    if kind < 2:
        return _convex(kind, size, cos, sin, x, y, grid, inside)
    return _polygon(corners[starts[kind] : starts[kind + 1]], size, cos, sin, x, y, grid, inside)


@compiled()
def fill(
    part: int,
    parts: int,
    kinds: np.ndarray,
    sizes: np.ndarray,
    cosines: np.ndarray,
    sines: np.ndarray,
    xs: np.ndarray,
    ys: np.ndarray,
    grid: np.ndarray,
    corners: np.ndarray,
    starts: np.ndarray,
    out: np.ndarray,
) -> None:
    """out [n, points, points]: 1 inside, 0 outside."""
    points, count = len(grid), len(kinds)
    inside = np.zeros((points, points), np.uint8)
    for i in range(count * part // parts, count * (part + 1) // parts):
        top, bottom, left, right = _mark(
            kinds[i], sizes[i], cosines[i], sines[i], xs[i], ys[i], grid, corners, starts, inside
        )
        image = out[i]
        image[:] = 0
        for row in range(top, bottom):
            for column in range(left, right):
                image[row, column] = inside[row, column]
                inside[row, column] = 0


@compiled()
def fill_smooth(
    part: int,
    parts: int,
    kinds: np.ndarray,
    sizes: np.ndarray,
    cosines: np.ndarray,
    sines: np.ndarray,
    xs: np.ndarray,
    ys: np.ndarray,
    grid: np.ndarray,
    corners: np.ndarray,
    starts: np.ndarray,
    fine: int,
    out: np.ndarray,
) -> None:
    """out [n, points / fine, points / fine]: the mean of fine x fine points in each pixel."""
    points, count = len(grid), len(kinds)
    inside = np.zeros((points, points), np.uint8)
    total = np.float32(fine * fine)
    for i in range(count * part // parts, count * (part + 1) // parts):
        top, bottom, left, right = _mark(
            kinds[i], sizes[i], cosines[i], sines[i], xs[i], ys[i], grid, corners, starts, inside
        )
        image = out[i]
        image[:] = 0
        for row in range(top, bottom):
            for column in range(left, right):
                image[row // fine, column // fine] += np.float32(inside[row, column])
                inside[row, column] = 0
        if top < bottom and left < right:
            for row in range(top // fine, (bottom - 1) // fine + 1):
                for column in range(left // fine, (right - 1) // fine + 1):
                    image[row, column] /= total
