"""Figures of agreement, recovery, costs and the match of the matched world, from plain tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

from unmix.core.errors import UsageError
from unmix.report.labels import name_ends
from unmix.report.page import Figure
from unmix.report.pareto import gaps, pareto
from unmix.report.style import (
    INK,
    MUTED,
    NARROW,
    WIDE,
    Look,
    checked,
    drawing,
    log_x,
    nothing,
    panel,
    short,
    to_svg,
)
from unmix.report.tables import si

__all__ = ["SHARED", "agreement", "costs", "firing_rates", "gaps", "pareto", "recovery", "spectrum"]
SHARED = 0.9


def agreement(frame: pd.DataFrame, look: Look | None = None, command: str = "") -> Figure:
    """How alike the atoms of two seeds are: the distribution of matched cosines of every finder, and chance.

    frame, one row for every finder and pair of seeds: finder, pair, agreement (mean cosine of matched atoms), chance
    (the same for random atoms), cosines (array [m]); chance_cosines (array [m]) where there is one, drawn as a
    distribution instead of a line. Raises `UsageError` for missing columns.
    """
    rows = checked(frame, "agreement", ["finder", "pair"], ["agreement", "chance"])
    if "cosines" not in rows:
        raise UsageError(f"agreement: column cosines is missing; got {', '.join(map(str, frame.columns))}")
    rows["cosines"] = rows["cosines"].map(_finite)
    rows = rows[rows["cosines"].map(len) > 0]
    if rows.empty:
        return Figure(nothing("No two seeds to compare."), "Agreement between seeds.", command)
    look = look or Look(rows["finder"])
    finders = list(dict.fromkeys(rows["finder"]))
    values = np.concatenate(rows["cosines"].tolist())
    bins = np.linspace(-1 if values.min() < 0 else 0, 1, 41)
    with drawing():
        names = [short(finder, 24) for finder in finders]
        canvas, axes = panel(WIDE, 0.62 + 0.62 * len(finders), left=0.3 + 0.085 * max(13, *map(len, names)), top=0.12)
        axes.axvspan(SHARED, 1, color=MUTED, alpha=0.1, linewidth=0)
        for level, finder in enumerate(reversed(finders)):
            mine = rows[rows["finder"] == finder]
            cosines = np.concatenate(mine["cosines"].tolist())
            random = [_finite(c) for c in mine["chance_cosines"]] if "chance_cosines" in mine else []
            chance = np.concatenate(random) if random else np.empty(0)
            _ridge(axes, level, cosines, bins, look.colour(finder), 0.45)
            if len(chance):
                _ridge(axes, level, chance, bins, MUTED, 0.18)
            elif mine["chance"].notna().any():
                axes.plot([mine["chance"].mean()] * 2, [level, level + 0.5], color=MUTED, linewidth=1, linestyle=":")
            beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
            axes.text(-0.03, level + 0.5, short(finder, 24), color=look.colour(finder), weight="bold", **beside)
            share = f"{(cosines > SHARED).mean():.0%} above {SHARED}"
            axes.text(-0.03, level + 0.24, share, color=MUTED, fontsize=8, **beside)
        axes.set_xlim(bins[0], 1)
        axes.set_ylim(-0.06, len(finders) + 0.05)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("cosine of matched atoms of two seeds")
        pairs = rows.groupby("finder", sort=False)["pair"].nunique()
        told = "; ".join(f"{f}: {rows.loc[rows['finder'] == f, 'agreement'].mean():.2f}" for f in finders)
        svg = to_svg(canvas, f"Distribution of matched cosines between seeds. Mean agreement: {told}.")
    grey = "grey" if "chance_cosines" in rows else "the dotted line"
    caption = (
        f"What two seeds of a finder have in common ({_count(int(pairs.max()), 'pair')} of seeds): how many atoms "
        f"match how well, each curve to its own height; {grey} is chance, random atoms matched the same way. Atoms "
        "in the shaded band count as shared."
    )
    return Figure(svg, caption, command)


def recovery(frame: pd.DataFrame, look: Look | None = None, command: str = "") -> Figure:
    """How much of a known dictionary comes back, against the number of samples, with chance and the data's own size.

    frame, one row for every finder, size and seed: finder, samples, seed, dictionary_mcc, dictionary_mcc_chance,
    found (share of true atoms with cosine above .9), at (True at the size of the real data).
    Raises `UsageError` for missing columns.
    """
    numbers = ["samples", "seed", "dictionary_mcc", "dictionary_mcc_chance", "found"]
    rows = checked(frame, "recovery", ["finder"], numbers)
    rows = rows[rows["samples"] > 0].dropna(subset=["dictionary_mcc", "found"], how="all")
    if rows.empty:
        return Figure(nothing("No row with a known truth."), "Recovery on the matched world.", command)
    look = look or Look(rows["finder"])
    here = rows.loc[rows["at"].fillna(False).astype(bool), "samples"] if "at" in rows else rows["samples"][:0]
    size = float(here.iloc[0]) if len(here) else float("nan")
    svgs = []
    titles = {"dictionary_mcc": "Mean cosine with the true atoms", "found": "True atoms found (cosine above .9)"}
    for score, title in titles.items():
        with drawing():
            canvas, axes = panel(WIDE, left=0.5, right=1.25)
            log_x(axes, rows["samples"], 0.06)
            axes.set_ylim(0, 1.03)
            axes.set_title(title)
            axes.set_xlabel("samples")
            if not np.isnan(size):
                axes.axvline(size, color=INK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
                if score == "dictionary_mcc":
                    far = size > np.sqrt(np.prod(axes.get_xlim()))
                    words, side = f"the data: {si(size)}", "right" if far else "left"
                    shift = (-4 if far else 4, 3)
                    axes.annotate(words, (size, 0), shift, textcoords="offset points", ha=side, fontsize=8)
            ends = _curves(axes, rows, score, look)
            chance = rows.groupby("samples")["dictionary_mcc_chance"].mean().dropna()
            if score == "dictionary_mcc" and len(chance):
                axes.plot(
                    chance.index, chance, ":", color=MUTED, linewidth=1.1, marker="." if len(chance) < 2 else ""
                )
                ends.append(("chance", float(chance.iloc[-1]), MUTED))
            name_ends(axes, ends)
            told = "; ".join(f"{name} {value:.2f}" for name, value, _ in ends)
            svgs.append(to_svg(canvas, f"{title} against samples. At the largest size: {told}."))
    seeds = rows["seed"].nunique()
    caption = (
        f"The same finders where the truth is known: the matched world, {_count(seeds, 'seed')}. Lines join means "
        "over seeds, pale marks are single seeds, the dotted line is chance (random atoms)."
    ) + ("" if np.isnan(size) else " The dashed line marks the number of rows in the data.")
    return Figure(tuple(svgs), caption, command)


def costs(frame: pd.DataFrame, look: Look | None = None, command: str = "") -> Figure:
    """What fitting and encoding cost: seconds and FLOPs of every fit, FLOPs to encode a row with every encoder.

    frame: the columns of `pareto` with fit_seconds and fit_flops. Rows of the world 'data' (or the first there is) at
    its largest sample; what is not known is left out. Raises `UsageError` for missing columns.
    """
    wanted = ["samples", "fit_seconds", "fit_flops", "encode_flops"]
    rows = checked(frame, "costs", ["world", "finder", "encoder"], wanted, ["amortised"])
    worlds = list(dict.fromkeys(rows["world"]))
    rows = rows[rows["world"] == ("data" if "data" in worlds or not worlds else worlds[0])]
    if rows["samples"].notna().any():
        rows = rows[rows["samples"] == rows["samples"].max()]
    look = look or Look.of(rows)
    fits = rows.drop_duplicates(["finder", "seed"]) if "seed" in rows else rows
    parts = [
        ("Fit, seconds", fits, "fit_seconds", "finder"),
        ("Fit, FLOPs", fits, "fit_flops", "finder"),
        ("Encode a row, FLOPs", rows, "encode_flops", "encoder"),
    ]
    svgs = [_dots(title, part, value, key, look) for title, part, value, key in parts if (part[value] > 0).any()]
    if not svgs:
        return Figure(nothing("No cost was measured."), "What it costs.", command)
    size = rows["samples"].max()
    caption = (
        f"What it costs ({rows['world'].iloc[0]}{'' if pd.isna(size) else f', {size:,.0f} rows'}). Solid marks are "
        "means over seeds, pale ones single measurements; colours are finders."
    )
    return Figure(tuple(svgs), caption, command)


def spectrum(data: ArrayLike, matched: ArrayLike, command: str = "") -> Figure:
    """Eigenvalues of the covariance of the data and of the matched world over each other, largest first.

    data, matched: eigenvalues [d] in any order; those that are not positive are left out.
    """
    one, two = (np.sort(v[v > 0])[::-1] for v in (_finite(data), _finite(matched)))
    if not len(one) and not len(two):
        return Figure(nothing("No positive eigenvalue."), "Eigenvalues of data and matched world.", command)
    with drawing():
        canvas, axes = panel(WIDE, top=0.12)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: si(value))
        axes.yaxis.set_minor_locator(NullLocator())
        _overlay(axes, (np.arange(1, len(one) + 1), one), (np.arange(1, len(two) + 1), two))
        log_x(axes, [1.0, max(len(one), len(two))], 0.02)
        axes.set_xlim(0.9)
        axes.set_xlabel("rank")
        axes.set_ylabel("eigenvalue")
        svg = to_svg(canvas, "Eigenvalues against rank, data and matched world, both logarithmic.")
    caption = f"Eigenvalues of the covariance: {len(one)} of the data and {len(two)} of the matched world."
    if len(one) and len(one) == len(two):
        apart = float(np.median(np.abs(np.log(two / one))))
        caption += f" Half of them differ by at most {np.expm1(apart):.1%}."
    return Figure(svg, caption, command)


def firing_rates(data: ArrayLike, matched: ArrayLike, command: str = "") -> Figure:
    """How often atoms fire on the data and on the matched world: the share of atoms at every rate.

    data, matched: share of rows in which each atom is active, [m]; atoms that never fire are told in the caption.
    """
    one, two = _finite(data), _finite(matched)
    alive = np.concatenate([one[one > 0], two[two > 0]])
    if not len(alive):
        return Figure(nothing("No atom fires."), "Firing rates on data and matched world.", command)
    low, high = np.log10(alive.min()), np.log10(alive.max())
    edges = np.logspace(low - 0.05, high + 0.05, 31)
    steps = [np.histogram(rates[rates > 0], edges)[0] / max(1, len(rates)) for rates in (one, two)]
    with drawing():
        canvas, axes = panel(WIDE, top=0.12)
        x = np.repeat(edges, 2)[1:-1]
        _overlay(axes, (x, np.repeat(steps[0], 2)), (x, np.repeat(steps[1], 2)))
        log_x(axes, alive, 0.05)
        axes.set_ylim(0, min(1.05, 1.25 * float(max(s.max() for s in steps))))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel("firing rate (share of rows)")
        axes.set_ylabel("share of atoms")
        svg = to_svg(canvas, "Histogram of firing rates on data and matched world.")
    never = ", ".join(
        f"{(rates <= 0).mean():.1%} of {len(rates):,} on {name}"
        for rates, name in ((one, "the data"), (two, "the matched world"))
        if len(rates)
    )
    return Figure(svg, f"How often atoms fire. Never active, and not drawn: {never}.", command)


def _curves(axes: Axes, rows: pd.DataFrame, score: str, look: Look) -> list[tuple[str, float, str]]:
    """Seeds and means of every finder; name, last mean and colour of each."""
    ends = []
    for finder, group in rows.dropna(subset=[score]).groupby("finder", sort=False):
        colour, means = look.colour(str(finder)), group.groupby("samples")[score].mean()
        axes.plot(group["samples"], group[score], "o", color=colour, markersize=3.5, alpha=0.3, markeredgewidth=0)
        axes.plot(means.index, means, "-o", color=colour, linewidth=1.5, markersize=4.5, zorder=3)
        ends.append((short(str(finder), 18), float(means.iloc[-1]), colour))
    return ends


def _ridge(axes: Axes, level: int, values: np.ndarray, bins: np.ndarray, colour: str, alpha: float) -> None:
    counts = np.histogram(np.clip(values, bins[0], bins[-1]), bins)[0]
    heights = level + 0.92 * counts / max(1, counts.max())
    axes.stairs(heights, bins, baseline=level, fill=True, color=colour, alpha=alpha, linewidth=0)
    axes.stairs(heights, bins, baseline=level, color=colour, linewidth=0.9)


def _dots(title: str, rows: pd.DataFrame, value: str, key: str, look: Look) -> str:
    """A line for every finder or encoder on a logarithmic axis: a dot for every finder, the amounts beside them."""
    rows = rows[rows[value] > 0]
    groups = [(str(name), group) for name, group in rows.groupby(key, sort=False)]
    with drawing():
        height = 0.86 + 0.27 * max(2, len(groups))
        canvas, axes = panel(NARROW, height)
        axes.set_ylim(max(2, len(groups)) - 0.4, -0.6)
        ticks = axes.set_yticks(range(len(groups)), [short(name, 20) for name, _ in groups], fontsize=8)
        if key == "finder":
            for tick, (name, _) in zip(ticks, groups, strict=True):
                tick.label1.set_color(look.colour(name))
        renderer = canvas.canvas.get_renderer()  # type: ignore[attr-defined]
        widest = max(label.get_window_extent(renderer).width for label in axes.get_yticklabels())
        left, right = (widest + 12) / 72 / NARROW, 1 - 0.85 / NARROW
        axes.set_position((left, 0.5 / height, right - left, 1 - 0.86 / height))
        log_x(axes, rows[value], 0.1)
        told = []
        for i, (name, group) in enumerate(groups):
            means = group.groupby("finder", sort=False)[value].mean()
            for finder, mean in means.items():
                amortised = bool(group["amortised"].iloc[0])
                colour, marker = look.colour(str(finder)), look.marker(name, amortised) if key == "encoder" else "o"
                seeds = group.loc[group["finder"] == finder, value]
                axes.plot(seeds, [i] * len(seeds), marker, color=colour, markersize=4, alpha=0.3, markeredgewidth=0)
                axes.plot([mean], [i], marker, color=colour, markersize=6, markeredgewidth=0, zorder=3)
            low, high = si(float(means.min())), si(float(means.max()))
            words = low if means.max() < 1.1 * means.min() else f"{low} to {high}"
            place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "annotation_clip": False}
            axes.annotate(
                words, (1, i), (4, 0), textcoords="offset points", color=MUTED, va="center", fontsize=8, **place
            )
            told.append(f"{name} {words}")
        axes.set_title(title, x=-left / (right - left) + 0.02)
        axes.grid(axis="y", alpha=0.6)
        return to_svg(canvas, f"{title}: {'; '.join(told)}.")


def _overlay(axes: Axes, data: tuple[Any, Any], matched: tuple[Any, Any]) -> None:
    """The data as a broad pale line, the matched world as a thin dark one on it, named in the corner."""
    axes.plot(*data, color=MUTED, alpha=0.45, linewidth=4, solid_capstyle="round", marker="o", markersize=0)
    axes.plot(*matched, color=INK, linewidth=1.1)
    if len(data[0]) == 1 or len(matched[0]) == 1:
        axes.plot(*data, "o", color=MUTED, alpha=0.45, markersize=9)
        axes.plot(*matched, "o", color=INK, markersize=3)
    for row, (name, colour, alpha, width) in enumerate(
        [("data", MUTED, 0.45, 4.0), ("matched world", INK, 1.0, 1.1)]
    ):
        y = 0.95 - 0.075 * row
        axes.plot([0.68, 0.74], [y, y], color=colour, alpha=alpha, linewidth=width, transform=axes.transAxes)
        axes.text(0.76, y, name, transform=axes.transAxes, va="center", fontsize=8)


def _finite(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
