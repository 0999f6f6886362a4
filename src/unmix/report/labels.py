"""Labels: words beside points, none over another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from unmix.report.style import MUTED

Box = tuple[float, float, float, float]
RADII = (7, 12, 18, 26, 36, 48, 62, 78)
ANGLES = (0, 180, 45, 315, 135, 225, 90, 270, 22, 338, 158, 202)


@dataclass(frozen=True)
class Label:
    """A point in the units of the data, the words that belong to it and their colour."""

    x: float
    y: float
    text: str
    colour: str


def place(
    axes: Axes, labels: Sequence[Label], points: Iterable[tuple[float, float]], lines: Iterable[Sequence[float]] = ()
) -> list[Label]:
    """Draw labels near their points, first come first served; gives back those that found no free place.

    points (x, y) are never covered, lines (x0, y0, x1, y1) only where nothing else is free. The limits of the axes
    must be set before. A label that had to move away gets a thin line to its point.
    """
    renderer = cast(FigureCanvasAgg, axes.figure.canvas).get_renderer()
    inside = axes.get_window_extent(renderer).extents
    to_pixels = axes.transData.transform
    taken: list[Box] = [_around(x, y, 3.6) for x, y in map(to_pixels, points)]
    soft: list[Box] = []
    for x0, y0, x1, y1 in lines:
        (a, b), (c, d) = to_pixels([(x0, y0), (x1, y1)])
        soft += _along(a, b, c, d)
    left_out = []
    for label in labels:
        x, y = to_pixels((label.x, label.y))
        text = axes.annotate(
            label.text, (label.x, label.y), (0, 0), textcoords="offset points", color=label.colour, fontsize=8
        )
        extent = text.get_window_extent(renderer)
        best: tuple[float, Box, float, float] | None = None
        for radius in RADII:
            for angle in ANGLES:
                dx, dy = radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))
                box = _box(x + dx, y + dy, dx, extent.width, extent.height)
                used = [box, *(_along(x, y, x + dx, y + dy) if radius > 13 else [])]
                if not _within(box, inside) or any(_overlap(part, other) for part in used for other in taken):
                    continue
                cost = radius + ANGLES.index(angle) * 0.3 + 14 * sum(_overlap(box, other) for other in soft)
                if best is None or cost < best[0]:
                    best = cost, box, dx, dy
        if best is None:
            text.remove()
            left_out.append(label)
            continue
        _, box, dx, dy = best
        taken.append(box)
        text.set_horizontalalignment(_side(dx))
        text.set_verticalalignment("center")
        text.set_position((dx, dy))
        if math.hypot(dx, dy) > 13:
            line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
            axes.annotate("", (label.x, label.y), (dx, dy), textcoords="offset points", arrowprops=line)
    return left_out


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart and within the bounds, near to `values`: one sweep up, then one down."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    placed = [values[i] for i in order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    ceiling = high
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    if placed and placed[0] < low:
        placed = [low + i * gap for i in range(len(placed))]
    result = [0.0] * len(values)
    for position, i in zip(placed, order, strict=True):
        result[i] = position
    return result


def name_ends(axes: Axes, ends: list[tuple[str, float, str]]) -> None:
    """Names to the right of the axes, each at its last value or as near as there is room."""
    bottom, top = axes.get_ylim()
    inches = axes.figure.get_figheight() * axes.get_position().height  # type: ignore[union-attr]
    gap = (top - bottom) * 11 / (72 * inches)
    places = spread([value for _, value, _ in ends], gap, bottom, top)
    for (name, value, colour), y in zip(ends, places, strict=True):
        fraction = (y - bottom) / (top - bottom)
        words = f"{name} {value:.2f}"
        axes.annotate(
            words, (1, fraction), (5, 0), "axes fraction", "offset points", color=colour, va="center", fontsize=8
        )


def _side(dx: float) -> Literal["left", "center", "right"]:
    return "center" if abs(dx) < 1 else "left" if dx > 0 else "right"


def _box(x: float, y: float, dx: float, width: float, height: float) -> Box:
    left = {"center": x - width / 2, "left": x, "right": x - width}[_side(dx)]
    return left - 1, y - height / 2, left + width + 1, y + height / 2


def _around(x: float, y: float, radius: float) -> Box:
    return x - radius, y - radius, x + radius, y + radius


def _along(x0: float, y0: float, x1: float, y1: float) -> list[Box]:
    """Small boxes along a line, from seven pixels after its beginning."""
    length = math.hypot(x1 - x0, y1 - y0)
    steps = [step / length for step in range(7, int(length) + 1, 3)]
    return [_around(x0 + (x1 - x0) * step, y0 + (y1 - y0) * step, 1.2) for step in steps]


def _overlap(one: Box, two: Box) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def _within(box: Box, outer: Sequence[float]) -> bool:
    return box[0] >= outer[0] and box[1] >= outer[1] and box[2] <= outer[2] + 12 and box[3] <= outer[3] + 2
