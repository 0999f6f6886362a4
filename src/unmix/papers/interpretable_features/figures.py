"""Figures of the study: z of every basis beside its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unmix.report.page import Figure
from unmix.report.style import COLOURS, MUTED, drawing, nothing, panel, to_svg

LETTER = 0.073  # inches of a letter of a row's name
ACROSS = 1.35  # inches from the left to the right of the axes: three panels stand side by side
CONTROLS = ("random directions", "random pools", "untrained neurons")


def beside(
    results: Sequence[Mapping[str, Any]], reads: Mapping[str, str], title: str, caption: str = "", axis: str = "z"
) -> Figure:
    """A line for every basis: each result pale, the mean solid; controls grey, the finder on shuffled neurons open.

    results: tables of `runs`, such as one for each seed. reads: how each of neurons, controls and bases is read, by
    "neurons", "controls" and "bases".
    """
    rows: dict[str, list[float]] = {}
    apart: dict[str, list[float]] = {}
    for result in results:
        for row in result["table"]:
            name, role = row["basis"], row["role"]
            kind = "neurons" if "neurons" in (name, name.removeprefix("untrained ")) else "controls"
            kind = "bases" if kind == "controls" and (role == "basis" or " on shuffled neurons" in name) else kind
            if row["read"] != reads[kind] or name == "shuffled activations":
                continue
            if " on shuffled neurons" in name:
                apart.setdefault(name.removesuffix(" on shuffled neurons"), []).append(row["z"])
            else:
                rows.setdefault(name, []).append(row["z"])
    if not rows:
        return Figure(nothing(f"{title}: nothing was measured."), caption)
    names = sorted(rows, key=lambda name: (name != "neurons", name not in CONTROLS, list(rows).index(name)))
    with drawing():
        left = 0.25 + LETTER * max(len(name) for name in names)
        canvas, axes = panel(left + ACROSS + 0.35, 0.9 + 0.24 * len(names), left=left, right=0.35)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_yticks(range(len(names)), names)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set_xlabel(axis)
        axes.set_title(title, x=-left / ACROSS + 0.02)
        told = []
        for place, name in enumerate(names):
            values = rows[name]
            mean = sum(values) / len(values)
            colour = MUTED if name in CONTROLS else COLOURS[0]
            axes.plot(values, [place] * len(values), "o", color=colour, markersize=4, alpha=0.35, mew=0)
            axes.plot([mean], [place], "o", color=colour, markersize=6, mew=0, zorder=3)
            if name in apart:
                shuffled = sum(apart[name]) / len(apart[name])
                axes.plot([shuffled], [place], "D", color="none", mec=COLOURS[1], markersize=6, mew=1.3, zorder=4)
            told.append(f"{name} {mean:.2f}")
        return Figure(to_svg(canvas, f"{title}: {'; '.join(told)}."), caption)
