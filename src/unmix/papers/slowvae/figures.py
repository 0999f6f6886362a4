"""Figures of the study: how real objects move, and what each method recovers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from unmix.papers.slowvae.runs import BINS
from unmix.report.page import Figure
from unmix.report.style import COLOURS, INK, MUTED, drawing, nothing, panel, short, to_svg

LETTER = 0.073  # inches of a letter of a row's name


def motion(rows: list[dict[str, Any]], title: str) -> Figure:
    """Density of standardised differences on a logarithmic axis, with the three fitted laws; a panel a latent.

    rows: records of `runs.motion` of one source.
    """
    panels = []
    for row in rows:
        with drawing():
            canvas, axes = panel(2.35, 2.3, left=0.5, right=0.1)
            middle, density = (BINS[1:] + BINS[:-1]) / 2, np.array(row["density"])
            seen = density > 0
            axes.plot(middle[seen], density[seen], "o", color=COLOURS[0], markersize=2.6, mew=0)
            grid = np.linspace(BINS[0], BINS[-1], 401)
            unit = row["deviation"]
            fitted = _density(grid, row["alpha"], row["centre"] / unit, row["scale"] / unit)
            axes.plot(grid, fitted, color=COLOURS[1], linewidth=1.2)
            normal = np.exp(-0.5 * grid**2) / math.sqrt(2 * math.pi)
            axes.plot(grid, normal, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(lambda *_: "")
            axes.set_ylim(density[seen].min() / 2, density.max() * 6)
            axes.set_xlim(BINS[0], BINS[-1])
            axes.set_title(f"{title}, {row['latent']}: alpha {row['alpha']:.2f}", fontsize=8)
            axes.set_xlabel("change / deviation")
            axes.set_ylabel("density")
            told = f"{title}, {row['latent']}: alpha {row['alpha']:.3f}, kurtosis {row['kurtosis']:.1f}."
            panels.append(to_svg(canvas, told))
    pairs = f"{rows[0]['pairs']:,}" if rows else "no"
    return Figure(tuple(panels), f"{title}: {pairs} pairs of consecutive frames.")


def recovery(frame: pd.DataFrame, title: str, caption: str = "") -> Figure:
    """A line for every method: seeds pale, their mean solid, the level of random projections as a bar.

    frame: method, spearman, chance; one row for every seed.
    """
    rows = frame.dropna(subset=["spearman"])
    if rows.empty:
        return Figure(nothing(f"{title}: nothing was measured."), caption)
    methods = list(dict.fromkeys(rows["method"]))
    with drawing():
        left = 0.25 + LETTER * max(len(short(method)) for method in methods)
        canvas, axes = panel(left + 2.5, 0.9 + 0.24 * len(methods), left=left, right=0.45)
        axes.set_ylim(len(methods) - 0.4, -0.6)
        axes.set_yticks(range(len(methods)), [short(method) for method in methods])
        axes.set_xlim(min(0.4, float(rows["spearman"].min()) - 0.03), 1.01)
        axes.set_xlabel("MCC, rank correlation")
        axes.set_title(title, x=-left / 2.05 + 0.02)
        told = []
        for place, method in enumerate(methods):
            mine = rows[rows["method"] == method]
            mean = float(mine["spearman"].mean())
            axes.plot(mine["spearman"], [place] * len(mine), "o", color=COLOURS[0], markersize=4, alpha=0.35, mew=0)
            axes.plot([mean], [place], "o", color=COLOURS[0], markersize=6, mew=0, zorder=3)
            axes.plot([mine["chance"].mean()] * 2, [place - 0.3, place + 0.3], color=MUTED, linewidth=1.4)
            axes.annotate(
                f"{mean:.2f}", (1, place), (4, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=8
            )
            told.append(f"{method} {mean:.3f}")
        return Figure(to_svg(canvas, f"{title}: {'; '.join(told)}."), caption)


def _density(d: np.ndarray, alpha: float, centre: float, scale: float) -> np.ndarray:
    return alpha / (2 * scale * math.gamma(1 / alpha)) * np.exp(-((np.abs(d - centre) / scale) ** alpha))
