"""The matching as a picture: how strongly every code goes with every factor, and which code is whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from unmix.core.errors import UsageError
from unmix.report.page import Figure
from unmix.report.style import COLOURS, INK, PAPER, RULE, drawing, nothing, panel, short, to_svg

MOST = 40  # rows and columns that can still be read
NUMBERS = 16  # columns that leave room for two digits
CELL = 0.3  # inches


def association(
    detail: Mapping[str, Any], names: Sequence[str] = (), summary: str = "", command: str = "", title: str = ""
) -> Figure:
    """A map of |association|, a row for each factor and a column for each code, its matched pairs framed.

    detail: of the score `typed_mcc`: matrix [m, f], pairs [f] (code of each factor, -1 for none), signs [f]. Codes
    stand in the order of the factors they are matched with, then the others by their largest association; at most 40
    of each are drawn. A minus marks a matched code that falls as its factor rises. names: [f] of the factors.
    summary: the score in words, for the caption. title: a few words above the map, for a picture that
    stands alone. Raises `UsageError` for shapes that do not fit.
    """
    matrix = np.asarray(detail["matrix"], dtype=np.float64)
    pairs, signs = np.asarray(detail["pairs"], dtype=np.int64), np.asarray(detail["signs"], dtype=np.float64)
    if matrix.ndim != 2 or pairs.shape != (matrix.shape[1],) or signs.shape != pairs.shape:
        raise UsageError(f"association: matrix {matrix.shape}, pairs {pairs.shape}, signs {signs.shape}: do not fit")
    names = list(names) or [f"z{j}" for j in range(len(pairs))]
    if len(names) != len(pairs):
        raise UsageError(f"association: {len(names)} names for {len(pairs)} factors")
    if not matrix.size:
        return Figure(nothing("No code or no factor to match."), "Codes matched with factors.", command)
    matched = pairs[pairs >= 0]
    others = np.setdiff1d(np.arange(len(matrix)), matched)
    order = np.concatenate([matched, others[np.argsort(-matrix[others].max(1), kind="stable")]])
    codes, factors = order[:MOST], np.arange(len(pairs))[:MOST]
    words = ["Association of codes (columns) with factors (rows): darker is stronger, frames mark the matching."]
    words += [summary] if summary else []
    if len(codes) < len(order) or len(factors) < len(pairs):
        words.append(f"Drawn are {len(codes)} of {len(order)} codes and {len(factors)} of {len(pairs)} factors.")
    labels = [short(str(names[j]), 18) for j in factors]
    alone = [labels[j] for j in factors if pairs[j] < 0]
    if alone:
        words.append(f"Without a code: {', '.join(alone)}.")
    return Figure(_map(matrix, pairs, signs, codes, factors, labels, title), " ".join(words), command)


def _map(
    matrix: np.ndarray,
    pairs: np.ndarray,
    signs: np.ndarray,
    codes: np.ndarray,
    factors: np.ndarray,
    labels: list[str],
    title: str,
) -> str:
    with drawing():
        left = 0.3 + 0.075 * max(map(len, labels))
        top, least = (0.3, left + 0.085 * len(title)) if title else (0.12, 2.0)
        width, height = left + 0.16 + CELL * len(codes), 0.5 + top + CELL * len(factors)
        canvas, axes = panel(max(width, least), height, left=left, right=max(0.16, least + 0.16 - width), top=top)
        axes.set_title(title)
        axes.grid(False)
        for row, j in enumerate(factors):
            for place, i in enumerate(codes):
                strength, own = min(1.0, max(0.0, float(matrix[i, j]))), pairs[j] == i
                axes.add_patch(Rectangle((place, row), 1, 1, facecolor=COLOURS[0], alpha=strength, linewidth=0))
                if own:
                    frame = Rectangle((place + 0.05, row + 0.05), 0.9, 0.9, fill=False, edgecolor=INK, linewidth=1.2)
                    axes.add_patch(frame)
                text = "\u2212" if own and signs[j] < 0 else ""
                if len(codes) <= NUMBERS and (own or strength >= 0.1):
                    text += f"{strength:.2f}".lstrip("0")
                if text:
                    colour = PAPER if strength > 0.6 else INK
                    axes.text(place + 0.5, row + 0.52, text, ha="center", va="center", fontsize=6.5, color=colour)
        axes.set_xlim(0, len(codes))
        axes.set_ylim(len(factors), 0)
        axes.set_xticks(np.arange(len(codes)) + 0.5, [str(i) for i in codes], fontsize=7)
        axes.set_yticks(np.arange(len(factors)) + 0.5, labels)
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(True)
            side.set_color(RULE)
        axes.set_xlabel("code")
        found = int((pairs >= 0).sum())
        return to_svg(canvas, f"{found} of {len(pairs)} factors matched with a code of their own")
