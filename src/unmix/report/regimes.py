"""Pictures of learning regimes: trajectories of one neuron, scale and balance, times to a threshold, filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import FuncFormatter, NullFormatter

from unmix.core.errors import UsageError
from unmix.regimes.exact import neuron
from unmix.report.labels import name_ends
from unmix.report.page import Figure
from unmix.report.published import LABEL_INCHES
from unmix.report.style import (
    COLOURS,
    INK,
    MUTED,
    NARROW,
    RULE,
    WIDE,
    checked,
    drawing,
    log_x,
    nothing,
    panel,
    short,
    to_svg,
)

UP, DOWN = COLOURS[0], COLOURS[1]  # ends with a > 0, ends with a < 0
VIEW = (np.deg2rad(-62), np.deg2rad(16))  # azimuth and height from which hyperboloids are seen
Array = np.ndarray


def hyperboloids(
    deltas: Sequence[float] = (-1.0, 0.0, 1.0), target: Sequence[float] = (0.0, 1.0), starts: int = 16,
    radius: float = 1.5, until: float = 12.0, command: str = "",
) -> Figure:  # fmt: skip
    """Trajectories (w_1, w_2, a) of the one-neuron flow on the surface a^2 - |w|^2 = delta, a panel for each delta.

    starts: number of them on each sheet, spread over angles at |w| = radius. Colours tell the end: a > 0 or a < 0.
    """
    goal, svgs = np.asarray(target, float), []
    for delta in deltas:
        with drawing():
            canvas, axes = panel(NARROW, 3.3, left=0.1, right=0.1, top=0.3)
            axes.set_title(f"delta = {delta:g}: {_regime(delta)}")
            axes.set_axis_off()
            for line in _wires(delta, 1.15 * radius):
                axes.plot(*_seen(line), color=RULE, linewidth=0.6, zorder=1)
            a, w = _ring(delta, starts, radius)
            times = until * np.linspace(0, 1, 240) ** 2
            path = neuron.flow(times[:, None], a, w, goal)
            for k, sign in enumerate(neuron.basin(a, w, goal)):
                points = np.column_stack([path.w[:, k], path.a[:, k]])
                x, y = _seen(points)
                axes.plot(x, y, color=UP if sign > 0 else DOWN, linewidth=1.1, zorder=3)
                axes.plot(x[:1], y[:1], "o", color=MUTED, markersize=2.6, mew=0, zorder=4)
            for sign in (1, -1):
                size = np.linalg.norm(goal)
                root = np.sqrt(delta**2 + 4 * size**2)
                a_end, w_end = sign * np.sqrt((root + delta) / 2), sign * goal / size * np.sqrt((root - delta) / 2)
                x, y = _seen(np.array([[*w_end, a_end]]))
                axes.plot(x, y, "*", color=INK, markersize=9, mew=0, zorder=5)
            _arrows(axes, radius, delta)
            axes.set_aspect("equal", adjustable="datalim")
            svgs.append(to_svg(canvas, f"Trajectories on the surface of balance {delta:g}."))
    caption = (
        "One neuron f(x) = a w.x under gradient flow, by the closed form. The balance a^2 - |w|^2 = delta is "
        "conserved, so that each path stays on its surface. Blue ends at a > 0, orange at a < 0; stars are the "
        "solutions."
    )
    return Figure(tuple(svgs), caption, command)


def beta_plane(
    deltas: Sequence[float] = (-2.0, 0.0, 2.0), target: Sequence[float] = (1.0, 0.25), starts: int = 14,
    radius: float = 1.3, until: float = 30.0, command: str = "",
) -> Figure:  # fmt: skip
    """Paths of the function beta = a w from a ring of starts with a > 0, a panel for each delta.

    For delta < 0 the dashed line parts the starts whose read-out changes its sign (orange) from the others.
    """
    goal, svgs = np.asarray(target, float), []
    angles = 2 * np.pi * (np.arange(starts) + 0.5) / starts
    ring = radius * np.column_stack([np.cos(angles), np.sin(angles)])
    reach = 1.25 * max(radius, float(np.linalg.norm(goal)))
    for delta in deltas:
        with drawing():
            canvas, axes = panel(NARROW, 3.2, left=0.5, right=0.1)
            axes.set_title(f"delta = {delta:g}: {_regime(delta)}")
            axes.set_xlabel("beta 1")
            axes.set_ylabel("beta 2")
            a, w = neuron.initial(ring, np.full(starts, float(delta)))
            times = until * np.linspace(0, 1, 300) ** 3
            path = neuron.flow(times[:, None], a, w, goal).beta
            signs = neuron.basin(a, w, goal)
            for k in range(starts):
                colour = UP if signs[k] > 0 else DOWN
                axes.plot(path[:, k, 0], path[:, k, 1], color=colour, linewidth=1.1, zorder=3)
            axes.plot(ring[:, 0], ring[:, 1], "o", color=MUTED, markersize=3, mew=0, zorder=4)
            if delta < 0:
                _separatrix(axes, delta, goal, reach)
            axes.plot(*goal, "*", color=INK, markersize=10, mew=0, zorder=5)
            axes.plot(0, 0, "+", color=INK, markersize=6, zorder=5)
            axes.set_xlim(-reach, reach)
            axes.set_ylim(-reach, reach)
            crossed = int((signs < 0).sum())
            svgs.append(to_svg(canvas, f"Paths of the function at balance {delta:g}: {crossed} of {starts} cross 0."))
    caption = (
        "The function beta = a w on its way to the target (star), from starts of one size and a > 0. Upstream goes "
        "straight; balanced turns and fits together; downstream first fits along its own direction, then turns. "
        "Beyond the dashed line the read-out changes its sign (orange) and the path passes through zero."
    )
    return Figure(tuple(svgs), caption, command)


def over_time(
    lines: Mapping[str, tuple[Any, Any]],
    title: str,
    axes_names: tuple[str, str],
    caption: str = "",
    log: bool = False,
) -> Figure:
    """A line for every name through its times [T] and values [T], named at its right end; log: of the time axis."""
    found = {name: (np.asarray(x, float), np.asarray(y, float)) for name, (x, y) in lines.items() if len(x)}
    if not found:
        return Figure(nothing(f"{title}: nothing was measured."), caption)
    ends = [(short(name), float(y[-1]), COLOURS[k % 7]) for k, (name, (_, y)) in enumerate(found.items())]
    with drawing():
        canvas, axes = panel(WIDE, left=0.55, right=0.3 + LABEL_INCHES * max(len(name) + 5 for name, _, _ in ends))
        if log:
            log_x(axes, np.concatenate([x[x > 0] for x, _ in found.values()]), 0.03)
        axes.set_title(title)
        axes.set_xlabel(axes_names[0])
        axes.set_ylabel(axes_names[1])
        for k, (x, y) in enumerate(found.values()):
            axes.plot(x, y, color=COLOURS[k % 7], linewidth=1.5)
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), max(1.03, axes.get_ylim()[1]))
        name_ends(axes, ends)
        told = "; ".join(f"{name} ends at {value:.2f}" for name, value, _ in ends)
        return Figure(to_svg(canvas, f"{title}: {told}."), caption)


def phase_portrait(frame: pd.DataFrame, values: Mapping[str, str], caption: str = "", command: str = "") -> Figure:
    """Maps over scale (across, logarithmic) and balance (up), a panel for every value: column -> title.

    frame, one row for every scale, balance and seed: scale, balance and the columns; means over seeds are shown, on
    a logarithmic scale of colours where they span more than a decade. Raises `UsageError` for missing columns.
    """
    rows = checked(frame, "phase_portrait", [], ["scale", "balance", *values])
    if rows.empty:
        return Figure(nothing("No scale and balance was run."), caption, command)
    return Figure(tuple(_map(rows, column, title) for column, title in values.items()), caption, command)


def times_to_threshold(
    frame: pd.DataFrame, title: str, axis: str = "steps", caption: str = "", command: str = ""
) -> Figure:
    """A line for every group: a dot for each seed that reached the threshold, a mark > for each that did not.

    frame, one row for every group and seed: group, steps (NaN: not reached), budget. The bar is the median with
    censored runs counted as longer than all others; it is left out where more than half are censored.
    """
    rows = checked(frame, title, ["group"], ["steps", "budget"])
    if rows.empty:
        return Figure(nothing(f"{title}: nothing was run."), caption, command)
    groups = list(dict.fromkeys(rows["group"]))
    with drawing():
        left = 0.25 + LABEL_INCHES * max(len(short(group)) for group in groups)
        canvas, axes = panel(max(WIDE, left + 2.6), 0.95 + 0.3 * len(groups), left=left, right=0.85)
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_yticks(range(len(groups)), [short(group) for group in groups])
        log_x(axes, rows["steps"].fillna(rows["budget"]).clip(lower=1), 0.06)
        axes.set_xlabel(axis)
        axes.set_title(title)
        told = []
        for place, group in enumerate(groups):
            mine = rows[rows["group"] == group]
            done, late = mine.dropna(subset=["steps"]), mine[mine["steps"].isna()]
            axes.plot(
                done["steps"].clip(lower=1), [place] * len(done), "o", color=COLOURS[0], alpha=0.5, markersize=5
            )
            axes.plot(late["budget"], [place] * len(late), ">", color=COLOURS[1], markersize=6, mew=0)
            middle = censored_median(mine["steps"], mine["budget"])
            if middle is not None:
                axes.plot([max(1, middle)] * 2, [place - 0.28, place + 0.28], color=INK, linewidth=1.4)
            words = f"{middle:,.0f}" if middle is not None else f"> {mine['budget'].median():,.0f}"
            axes.annotate(
                words, (1, place), (4, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=8
            )
            told.append(f"{group} {words}")
        return Figure(to_svg(canvas, f"{title}: {'; '.join(told)}."), caption, command)


def censored_median(steps: Any, budgets: Any) -> float | None:
    """Median of times of which some were not reached (NaN); None where it lies beyond a budget."""
    steps, budgets = np.asarray(steps, float), np.asarray(budgets, float)
    filled = np.sort(np.where(np.isnan(steps), np.inf, steps))
    if not len(filled) or not np.isfinite(filled[len(filled) // 2]):
        return None
    middle = float(np.median(filled))
    # A run that stopped earlier than the median says nothing about it.
    return middle if middle <= np.min(budgets[np.isnan(steps)], initial=np.inf) else None


def filter_sheet(filters: Mapping[str, Any], across: int = 6, caption: str = "", command: str = "") -> Figure:
    """Filters [k, side, side] of each name as grey tiles on one sheet each; zero is the middle grey of each tile."""
    svgs = []
    for name, given in filters.items():
        tiles = np.asarray(given, float)
        if tiles.ndim != 3 or not tiles.size:
            raise UsageError(f"filter_sheet: filters of {name} have shape {tiles.shape}, expected [k, side, side]")
        down, side = -(-len(tiles) // across), tiles.shape[1]
        sheet = np.full((down * (side + 1) - 1, across * (side + 1) - 1), np.nan)
        for k, tile in enumerate(tiles):
            y, x = (side + 1) * (k // across), (side + 1) * (k % across)
            sheet[y : y + side, x : x + side] = tile / (np.abs(tile).max() or 1.0)
        with drawing():
            canvas, axes = panel(NARROW, 0.5 + 0.36 + 2.9 * sheet.shape[0] / sheet.shape[1], left=0.15, right=0.15)
            axes.set_title(name)
            axes.set_axis_off()
            axes.imshow(sheet, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            svgs.append(to_svg(canvas, f"{len(tiles)} filters, {name}."))
    return Figure(tuple(svgs), caption, command) if svgs else Figure(nothing("No filters."), caption, command)


def _regime(delta: float) -> str:
    return "upstream" if delta > 0 else "downstream" if delta < 0 else "balanced"


def _seen(points: Array) -> tuple[Array, Array]:
    """Points [n, 3] as they look from the side: across, up."""
    turn, height = VIEW
    x, y, z = points.T
    depth = np.cos(turn) * x + np.sin(turn) * y
    return -np.sin(turn) * x + np.cos(turn) * y, np.cos(height) * z - np.sin(height) * depth


def _wires(delta: float, reach: float) -> list[Array]:
    """Circles and profiles of the surface a^2 - |w|^2 = delta up to |w| = reach, as lines [n, 3]."""
    least = np.sqrt(max(0.0, -delta))
    radii, turn = np.linspace(least, max(reach, 1.3 * least), 6), np.linspace(0, 2 * np.pi, 61)
    lines = []
    for sign in (1, -1):
        for r in radii:
            a = sign * np.sqrt(max(0.0, delta + r**2))
            lines.append(np.column_stack([r * np.cos(turn), r * np.sin(turn), np.full(61, a)]))
        fine = least + (radii[-1] - least) * np.linspace(0, 1, 25) ** 2
        for angle in turn[:-1:5]:
            a = sign * np.sqrt(np.maximum(0.0, delta + fine**2))
            lines.append(np.column_stack([fine * np.cos(angle), fine * np.sin(angle), a]))
    return lines


def _ring(delta: float, starts: int, radius: float) -> tuple[Array, Array]:
    """Starts on the surface: half of them with a > 0, half with a < 0."""
    r = max(radius, 1.1 * np.sqrt(max(0.0, -delta)))
    angles = 2 * np.pi * (np.arange(starts) + 0.5) / max(1, starts // 2)
    w = r * np.column_stack([np.cos(angles), np.sin(angles)])
    return np.where(np.arange(starts) < starts // 2, 1, -1) * np.sqrt(delta + r**2), w


def _arrows(axes: Axes, radius: float, delta: float) -> None:
    """Three short axes, named, beside the surface."""
    base = np.array([-1.5 * radius, -1.1 * radius, -1.2 * np.sqrt(max(0.0, delta) + radius**2)])
    for name, way in (("w1", (1, 0, 0)), ("w2", (0, 1, 0)), ("a", (0, 0, 1))):
        ends = np.array([base, base + 0.55 * radius * np.array(way)])
        x, y = _seen(ends)
        axes.annotate("", (x[1], y[1]), (x[0], y[0]), arrowprops={"arrowstyle": "->", "color": MUTED, "lw": 0.8})
        away = 1.25 * np.array([x[1] - x[0], y[1] - y[0]])
        axes.text(x[0] + away[0], y[0] + away[1], name, color=MUTED, fontsize=8, ha="center", va="center")


def _separatrix(axes: Axes, delta: float, goal: Array, reach: float) -> None:
    """The functions whose start with a > 0 lies on the stable manifold of the saddle."""
    side = np.linspace(-reach, reach, 201)
    beta = np.stack(np.meshgrid(side, side), axis=-1)
    square = np.square(beta).sum(-1)
    kappa, s = np.sqrt(delta**2 + 4 * square), np.linalg.norm(goal)
    a2 = 2 * square / (kappa - delta)
    height = beta @ goal / s + a2 * (np.sqrt(delta**2 + 4 * s**2) + delta) / (2 * s)
    axes.contour(side, side, height, [0.0], colors=[INK], linestyles="dashed", linewidths=1.0)


def _map(rows: pd.DataFrame, column: str, title: str) -> str:
    table = rows.pivot_table(index="balance", columns="scale", values=column, aggfunc="mean").sort_index()
    grid = table.to_numpy(dtype=float)
    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    log = low > 0 and high / low > 10
    with drawing():
        canvas, axes = panel(NARROW, 3.0, left=0.6, right=0.75)
        axes.grid(False)
        axes.set_title(title)
        axes.set_xlabel("scale")
        axes.set_ylabel("balance")
        norm = LogNorm(low, high) if log else Normalize(low, high if high > low else low + 1)
        drawn = axes.pcolormesh(_edges(np.log(table.columns)), _edges(table.index), grid, norm=norm, cmap="viridis")
        axes.set_xticks(np.log(table.columns)[:: max(1, len(table.columns) // 4)])
        axes.set_xticklabels([f"{s:.2g}" for s in table.columns[:: max(1, len(table.columns) // 4)]])
        if grid.size <= 36:
            for i, level in enumerate(table.index):
                for j, scale in enumerate(np.log(table.columns)):
                    value = grid[i, j]
                    told = f"{value:.2g}" if value >= 0.01 or value == 0 else f"{value:.0e}"
                    axes.text(scale, level, told, color=INK, fontsize=6.5, ha="center", va="center")
        box = axes.get_position()
        side = canvas.add_axes((box.x1 + 0.03, box.y0, 0.03, box.height))
        canvas.colorbar(drawn, cax=side, format=FuncFormatter(lambda value, _: f"{value:.2g}"))
        side.yaxis.set_minor_formatter(NullFormatter())
        side.tick_params(labelsize=7)
        return to_svg(canvas, f"{title}: from {low:.3g} to {high:.3g}.")


def _edges(middles: Any) -> Array:
    """Borders of cells around their middles."""
    m = np.asarray(middles, float)
    if len(m) == 1:
        return np.array([m[0] - 0.5, m[0] + 0.5])
    half = np.diff(m) / 2
    return np.concatenate([[m[0] - half[0]], m[:-1] + half, [m[-1] + half[-1]]])
