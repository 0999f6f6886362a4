"""Figures of a paper's study: measured beside published, curves over a setting, values at their ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from unmix.core.statistics import seed_interval
from unmix.report.labels import name_ends
from unmix.report.page import Figure
from unmix.report.style import (
    COLOURS,
    INK,
    MUTED,
    NARROW,
    WIDE,
    checked,
    drawing,
    log_x,
    nothing,
    panel,
    short,
    to_svg,
)

LABEL_INCHES = 0.073  # width of a letter of the row names


def beside_published(frame: pd.DataFrame, title: str, axis: str, caption: str = "", command: str = "") -> Figure:
    """A line for every method: single seeds pale, their mean solid, the published value as an open diamond.

    frame, one row for every method and seed: method, seed, value, published (NaN where there is none), and chance
    (NaN where there is none), drawn as a short bar. Raises `UsageError` for missing columns.
    """
    rows = checked(frame, title, ["method"], ["value", "published", "chance"])
    rows = rows.dropna(subset=["value"])
    if rows.empty:
        return Figure(nothing(f"{title}: nothing was measured."), caption, command)
    methods = list(dict.fromkeys(rows["method"]))
    with drawing():
        left = 0.25 + LABEL_INCHES * max(len(short(method)) for method in methods)
        canvas, axes = panel(max(NARROW, left + 2.3), 0.9 + 0.27 * len(methods), left=left, right=0.45)
        axes.set_ylim(len(methods) - 0.4, -0.6)
        axes.set_yticks(range(len(methods)), [short(method) for method in methods])
        low = min(0.0, float(rows["value"].min()))
        axes.set_xlim(low, max(1.02, float(rows["value"].max()) * 1.02))
        axes.set_xlabel(axis)
        axes.set_title(title, x=-left / (canvas.get_figwidth() - left - 0.45) + 0.02)
        told = []
        for place, method in enumerate(methods):
            mine = rows[rows["method"] == method]
            mean = float(mine["value"].mean())
            axes.plot(mine["value"], [place] * len(mine), "o", color=COLOURS[0], markersize=4, alpha=0.3, mew=0)
            axes.plot([mean], [place], "o", color=COLOURS[0], markersize=6, mew=0, zorder=3)
            published, chance = mine["published"].mean(), mine["chance"].mean()
            if not np.isnan(published):
                axes.plot([published], [place], "D", color="none", mec=COLOURS[1], markersize=6, mew=1.3, zorder=4)
            if not np.isnan(chance):
                axes.plot([chance] * 2, [place - 0.32, place + 0.32], color=MUTED, linewidth=1.4)
            axes.annotate(
                f"{mean:.2f}", (1, place), (4, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=8
            )
            told.append(f"{method} {mean:.3f}" + ("" if np.isnan(published) else f" (published {published:.3f})"))
        return Figure(to_svg(canvas, f"{title}: {'; '.join(told)}."), caption, command)


def curves(
    frame: pd.DataFrame,
    title: str,
    axes_names: tuple[str, str],
    caption: str = "",
    command: str = "",
    log: bool = False,
) -> Figure:
    """A line for every group through the means of its seeds, single seeds pale, names at the right end.

    frame, one row for every group, x and seed: group, x, y. axes_names: of x and y. log: of the x axis.
    """
    rows = checked(frame, title, ["group"], ["x", "y"]).dropna(subset=["x", "y"])
    if rows.empty:
        return Figure(nothing(f"{title}: nothing was measured."), caption, command)
    groups = list(dict.fromkeys(rows["group"]))
    with drawing():
        right = 0.3 + LABEL_INCHES * max(len(short(group)) + 5 for group in groups)
        canvas, axes = panel(WIDE, left=0.55, right=right)
        if log:
            log_x(axes, rows["x"], 0.05)
        axes.set_title(title)
        axes.set_xlabel(axes_names[0])
        axes.set_ylabel(axes_names[1])
        axes.set_ylim(min(0.0, float(rows["y"].min())), max(1.03, float(rows["y"].max()) * 1.03))
        ends = []
        for number, group in enumerate(groups):
            colour = COLOURS[number % 7]
            mine = rows[rows["group"] == group]
            means = mine.groupby("x")["y"].mean()
            axes.plot(mine["x"], mine["y"], "o", color=colour, markersize=3.5, alpha=0.3, mew=0)
            axes.plot(means.index, means, "-o", color=colour, linewidth=1.4, markersize=4, zorder=3)
            ends.append((short(group), float(means.iloc[-1]), colour))
        name_ends(axes, ends)
        told = "; ".join(f"{name} ends at {value:.2f}" for name, value, _ in ends)
        return Figure(to_svg(canvas, f"{title}: {told}."), caption, command)


def ranked(values: Mapping[str, Sequence[float]], title: str, axis: str, mark: int, caption: str = "") -> Figure:
    """Values at their ranks for every name, on a linear axis, with a line behind rank `mark`."""
    with drawing():
        canvas, axes = panel(WIDE, left=0.55, right=0.2)
        axes.set_title(title)
        axes.set_xlabel("rank")
        axes.set_ylabel(axis)
        axes.axvline(mark + 0.5, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
        for number, found in enumerate(values.values()):
            axes.plot(range(1, len(found) + 1), found, "-o", color=COLOURS[number % 7], markersize=4, linewidth=1.1)
        axes.set_ylim(bottom=0)
        axes.annotate(
            f"width of the data: {mark}", (mark + 0.5, 0.96), (4, 0), ("data", "axes fraction"), "offset points",
            fontsize=8, va="top",
        )  # fmt: skip
        longest = max((len(found) for found in values.values()), default=0)
        return Figure(to_svg(canvas, f"{title}: {longest} values, {mark} of them above zero."), caption)


def summarised(frame: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Means over the rows of each group of `keys`, with NAME_half, half of the 95 % t interval, and their number."""
    rows = []
    for key, group in frame.groupby(list(keys), sort=False, dropna=False):
        row = dict(zip(keys, key if isinstance(key, tuple) else (key,), strict=True))
        row["seeds"] = len(group)
        for name in values:
            if name in group and group[name].notna().any():
                mean, low, _ = seed_interval(group[name].dropna().tolist())
                row[name], row[f"{name}_half"] = mean, mean - low
        rows.append(row)
    return pd.DataFrame(rows)
