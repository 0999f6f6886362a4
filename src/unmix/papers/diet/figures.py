"""Figures of the study: probes of every objective, loss beside probe, one setting at a time, and pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from unmix.papers.diet.grids import BASE, RAW
from unmix.report.page import Figure
from unmix.report.style import COLOURS, INK, MUTED, NARROW, WIDE, drawing, nothing, panel, short, to_svg

LETTER = 0.073  # inches of a letter of a row's name
PROBES = {"linear": "linear", "knn": "neighbours"}


def probes(frame: pd.DataFrame, title: str, caption: str = "") -> Figure:
    """A line for every method: seeds pale, their mean solid; the linear probe filled, nearest neighbours open.

    frame: method, linear, knn; one row for every seed. A dashed line stands at the linear probe of raw pixels.
    """
    rows = frame.dropna(subset=["linear"]) if "linear" in frame else frame.iloc[:0]
    if rows.empty:
        return Figure(nothing(f"{title}: nothing was measured."), caption)
    methods = sorted(dict.fromkeys(rows["method"]), key=lambda m: -rows[rows["method"] == m]["linear"].mean())
    with drawing():
        left = 0.25 + LETTER * max(len(short(method)) for method in methods)
        canvas, axes = panel(left + 3.1, 0.95 + 0.27 * len(methods), left=left, right=0.95)
        axes.set_ylim(len(methods) - 0.4, -0.6)
        axes.set_yticks(range(len(methods)), [short(method) for method in methods])
        values = rows[list(PROBES)]
        span = float(values.max().max() - values.min().min()) or 0.1
        axes.set_xlim(float(values.min().min()) - 0.05 * span, min(1.005, float(values.max().max()) + 0.05 * span))
        axes.set_xlabel("accuracy on held-out pictures")
        axes.set_title(title, x=-left / 2.05 + 0.02)
        raw = rows[rows["method"] == RAW]["linear"]
        if len(raw):
            axes.axvline(float(raw.mean()), color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
        told = []
        for place, method in enumerate(methods):
            mine = rows[rows["method"] == method]
            for number, probe in enumerate(PROBES):
                at = place + 0.22 * (number - 0.5)
                face = COLOURS[number] if number == 0 else "none"
                axes.plot(mine[probe], [at] * len(mine), "o", color=COLOURS[number], markersize=3.5, alpha=0.3, mew=0)
                axes.plot([mine[probe].mean()], [at], "o", color=face, mec=COLOURS[number], markersize=5.5, mew=1.2)
            both = [float(mine[probe].mean()) for probe in PROBES]
            axes.annotate(
                f"{both[0]:.3f}  {both[1]:.3f}", (1, place), (4, 0), ("axes fraction", "data"), "offset points",
                va="center", fontsize=8,
            )  # fmt: skip
            told.append(f"{method} {both[0]:.3f} and {both[1]:.3f}")
        axes.annotate(
            "linear  kNN", (1, 1), (4, 3), "axes fraction", "offset points", fontsize=7.5, color=MUTED, va="bottom"
        )
        return Figure(to_svg(canvas, f"{title}, linear and nearest neighbours: {'; '.join(told)}."), caption)


def tracks(looks: pd.DataFrame, title: str, caption: str = "") -> Figure:
    """Excess loss and validation accuracy on the way, a line for every seed. looks: seed, step, excess, accuracy."""
    with drawing():
        canvas, axes = panel(NARROW, left=0.6)
        axes.set_title(title)
        axes.set_xlabel("excess loss, nats")
        axes.set_ylabel("linear probe, validation")
        for number, (_, rows) in enumerate(looks.groupby("seed")):
            rows = rows.sort_values("step")
            axes.plot(rows["excess"], rows["accuracy"], "-o", color=COLOURS[number % 7], markersize=3.5, linewidth=1)
        axes.invert_xaxis()
        return Figure(to_svg(canvas, f"{title}: {len(looks)} looks on the way."), caption)


def ends(frame: pd.DataFrame, title: str, caption: str = "") -> Figure:
    """Excess loss and held-out accuracy at the end of every run. frame: factor, excess, linear."""
    with drawing():
        canvas, axes = panel(WIDE, left=0.6, right=1.2)
        axes.set_title(title)
        axes.set_xlabel("excess loss at the end, nats")
        axes.set_ylabel("linear probe, held out")
        for number, (factor, rows) in enumerate(frame.groupby("factor", sort=False)):
            name = str(factor) or "nothing changed"
            axes.plot(rows["excess"], rows["linear"], "o", color=COLOURS[number % 7], markersize=5, mew=0, label=name)
        axes.invert_xaxis()
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=7.5, handletextpad=0.2)
        return Figure(to_svg(canvas, f"{title}: {len(frame)} runs."), caption)


def sensitivity(frame: pd.DataFrame, factor: str, caption: str = "") -> Figure:
    """The linear probe over the values of one factor, and, dashed, with nothing changed.

    frame: factor, value, linear; one row for every seed.
    """
    rows, base = frame[frame["factor"] == factor], frame[frame["factor"] == ""]["linear"]
    names = list(dict.fromkeys(rows["value"]))
    with drawing():
        canvas, axes = panel(2.5, 2.2, left=0.55, right=0.1)
        axes.set_title(factor)
        axes.set_xticks(range(len(names)), [f"{n:g}" if isinstance(n, int | float) else str(n) for n in names])
        low = float(min(frame["linear"].min(), base.min()))
        axes.set_ylim(low - 0.02, min(1.0, float(frame["linear"].max()) + 0.02))
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.axhline(float(base.mean()), color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
        means = [float(rows[rows["value"] == name]["linear"].mean()) for name in names]
        for place, name in enumerate(names):
            seen = rows[rows["value"] == name]["linear"]
            axes.plot([place] * len(seen), seen, "o", color=COLOURS[0], markersize=3.5, alpha=0.3, mew=0)
        axes.plot(range(len(names)), means, "-o", color=COLOURS[0], markersize=5, linewidth=1.2)
        told = ", ".join(f"{name} {mean:.3f}" for name, mean in zip(names, means, strict=True))
        return Figure(to_svg(canvas, f"{factor}: {told}; {BASE} {float(base.mean()):.3f}."), caption)


def sheet(pixels: np.ndarray, title: str, right: Sequence[Sequence[bool]] | None = None, caption: str = "") -> Figure:
    """Rows of pictures, the first of each row apart from the others; neighbours of another class are framed.

    pixels: [rows, columns, height, width, channels] of bytes. right: [rows, columns - 1] of whether the class agrees.
    """
    count, across, height, width = pixels.shape[:4]
    gap, apart = max(1, width // 8), max(2, width // 2)
    whole = np.zeros((count * (height + gap) - gap, across * (width + gap) + apart - gap, 4), np.uint8)
    places: list[tuple[int, int, bool]] = []
    for i in range(count):
        for j in range(across):
            y, x = i * (height + gap), j * (width + gap) + (apart if j else 0)
            tile = whole[y : y + height, x : x + width]
            tile[:, :, :3] = pixels[i, j][:, :, :3] if pixels.shape[4] >= 3 else pixels[i, j][:, :, :1]
            tile[:, :, 3] = 255
            places.append((x, y, bool(right is None or not j or right[i][j - 1])))
    with drawing():
        wide = 0.31 * across + 0.45
        canvas, axes = panel(wide, 0.86 + (wide - 0.3) * whole.shape[0] / whole.shape[1], left=0.15, right=0.15)
        axes.set_title(title)
        axes.set_axis_off()
        axes.imshow(whole, interpolation="nearest", extent=(0, whole.shape[1], whole.shape[0], 0))
        for x, y, agrees in places:
            if not agrees:
                across_x, down_y = [x, x + width, x + width, x, x], [y, y, y + height, y + height, y]
                axes.plot(across_x, down_y, color=COLOURS[1], linewidth=1.6)
        wrong = sum(not agrees for _, _, agrees in places)
        told = "" if right is None else f", {wrong} of another class"
        return Figure(to_svg(canvas, f"{title}: {count} rows of {across} pictures{told}."), caption)
