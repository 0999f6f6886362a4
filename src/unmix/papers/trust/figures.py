"""Figures of the study: what was promised beside what was recovered."""

from __future__ import annotations

import pandas as pd

from unmix.papers.trust.lessons import errors
from unmix.report.labels import Label, place
from unmix.report.page import Figure
from unmix.report.style import COLOURS, INK, MUTED, drawing, nothing, panel, to_svg

NAMED = 0.1  # worlds further than this from the diagonal are named


def beside_real(
    frame: pd.DataFrame, title: str, axis: str, promise: str = "promise", real: str = "real", caption: str = ""
) -> Figure:
    """Recovered against promised, a pale dot for every piece of work, a solid one for the mean of world and method.

    frame: world, method and the two columns. The diagonal is a promise kept; below it the promise was too high.
    """
    rows = frame.dropna(subset=[promise, real]) if {promise, real} <= set(frame) else frame.iloc[:0]
    if rows.empty:
        return Figure(nothing(f"{title}: nothing was measured."), caption)
    methods = list(dict.fromkeys(rows["method"]))
    with drawing():
        canvas, axes = panel(4.0, 4.0, left=0.6, right=0.15)
        low = min(0.0, float(rows[[promise, real]].min().min()))
        axes.set_xlim(low - 0.03, 1.03)
        axes.set_ylim(low - 0.03, 1.03)
        axes.set_title(title)
        axes.set_xlabel(f"{axis}, promised")
        axes.set_ylabel(f"{axis}, recovered")
        axes.plot([low, 1], [low, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
        labels, points = [], []
        for number, method in enumerate(methods):
            mine, colour = rows[rows["method"] == method], COLOURS[number % 7]
            axes.plot(mine[promise], mine[real], "o", color=colour, markersize=3, alpha=0.25, mew=0)
            means = mine.groupby("world", sort=False)[[promise, real]].mean()
            axes.plot(means[promise], means[real], "o", color=colour, markersize=5, mew=0, label=method, zorder=3)
            points += list(zip(means[promise], means[real], strict=True))
            far = means[(means[promise] - means[real]).abs() > NAMED]
            order = (far[promise] - far[real]).abs().sort_values(ascending=False).index
            labels += [Label(far.loc[w, promise], far.loc[w, real], str(w), colour) for w in order]
        if len(methods) > 1:
            for place_, method in enumerate(methods):
                axes.annotate(
                    method, (0.02, 0.97 - 0.055 * place_), xycoords="axes fraction", color=COLOURS[place_ % 7],
                    fontsize=8, va="top",
                )  # fmt: skip
        axes.tick_params(color=MUTED)
        place(axes, labels, points, [(low, low, 1, 1)])
        found = errors(rows, promise, real)
        told = f"{title}: mean error {found['error']:.2f}, bias {found['bias']:+.2f}, worst {found['worst']:+.2f}."
        return Figure(to_svg(canvas, told), caption or told)
