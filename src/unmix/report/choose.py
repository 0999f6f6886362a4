"""The page of a choice: bits of a held-out row over the grid, the suggestion, and what more rows would bring."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from unmix.report.labels import Label, name_ends, place
from unmix.report.page import Block, DataTable, Figure, Page, Paragraph, Section, write_page
from unmix.report.style import COLOURS, INK, MUTED, NARROW, WIDE, drawing, log_x, nothing, panel, short, to_svg
from unmix.study.choose import Choice
from unmix.study.learning_curve import NAMES, Curve

FORMATS = {"width": ",d", "l0": ".1f", "fvu": ".4f", "bits": ".1f", "codes": ".1f", "residual": ".1f", "dead": ".1%"}
FORMATS |= {"agreement": ".3f", "chance": ".3f", "shared": ".0%", "samples": ",d", "dictionary_mcc": ".3f"}
FORMATS |= {"dictionary_mcc_chance": ".3f", "found": ".0%"}
LABELS = {
    "width": "atoms",
    "l0": "active codes",
    "fvu": "FVU",
    "bits": "bits a row",
    "codes": "of it codes",
    "residual": "residual",
    "samples": "rows",
    "dictionary_mcc": "mean cosine with true atoms",
    "dictionary_mcc_chance": "chance",
    "found": "true atoms found",
}
METHOD = (
    "A code that fires has to save more bits of the residual than it costs to name it and to send its value. Rates, "
    "laws of the values and the residual's covariance come from rows that were fitted on, bits are counted on rows "
    "that were not. Among recipes within one standard error of the lowest (shaded), the one with the fewest atoms, "
    "then the fewest active codes, is suggested (Breiman, Friedman, Olshen, Stone 1984). The suggestion is for "
    "describing rows like these; it is not the true number of features."
)


def choice_page(choice: Choice, path: str | Path, command: str = "") -> Path:
    """Write a choice as one HTML page: the curves, the table with the suggestion, the learning curve; returns where.

    Raises `Failure` where the disk refuses.
    """
    table = choice.table.sort_values("bits", kind="stable")
    shown = table.drop(columns=["near", "suggested", "error"])
    if table["seeds"].max() < 2:
        shown = shown.drop(columns=["agreement", "chance", "shared"])
    marks = zip(table["suggested"], table["near"], strict=True)
    shown.insert(0, "", ["suggested" if chosen else "near the lowest" if near else "" for chosen, near in marks])
    shown["bits_half"] = table["error"]
    blocks: list[Block] = [
        bits_figure(choice.table, choice.plain),
        DataTable(shown, "Every recipe; ± is one standard error.", FORMATS, "", LABELS),
    ]
    if choice.left_out:
        blocks.append(Paragraph(f"Left out: {'; '.join(choice.left_out)}."))
    sections = [Section("What a held-out row costs", blocks)]
    if choice.curve is not None:
        curve = choice.curve
        frame = curve.table.rename(columns={f"{n}_error": f"{n}_half" for n in ("fvu", "dictionary_mcc", "found")})
        more: list[Block] = [
            curve_figure(curve),
            Paragraph(curve.sentence),
            DataTable(frame, "The suggested recipe at several sizes; ± is one standard error.", FORMATS, "", LABELS),
        ]
        sections.append(Section("Would more rows help?", more))
    sections.append(Section("How it is counted", [Paragraph(METHOD)]))
    lead = (
        f"{len(table)} recipes, fitted and compared by the bits that a held-out row costs: its codes, and what they "
        f"leave of it to {choice.distortion:.0%} of the variance."
    )
    return write_page(path, Page("Choosing a recipe", lead, choice.sentence, sections, command))


def bits_figure(table: pd.DataFrame, plain: float, command: str = "") -> Figure:
    """Bits of a held-out row against active codes (or atoms), a panel for every finder, a line for every width.

    table: as `Choice.table`. plain: bits of a row without features. The last panel splits the bits of the suggested
    finder and width into codes and residual.
    """
    rows = table.assign(finder=[str(recipe).partition("(")[0] for recipe in table["recipe"]])
    by_width = rows.groupby(["finder", "width"]).size().max() < 2
    x = "width" if by_width else "l0"
    widths = sorted(set(rows["width"]))
    finders = list(dict.fromkeys(rows["finder"]))
    low, high = float((rows["bits"] - rows["error"]).min()), float((rows["bits"] + rows["error"]).max())
    spare = 0.12 * (high - low) or 0.05 * max(abs(high), 1.0)
    best = rows.iloc[int(rows["bits"].argmin())]
    chosen = rows[rows["suggested"]].iloc[0]
    svgs = []
    for finder in finders:
        mine = rows[rows["finder"] == finder]
        with drawing():
            canvas, axes = panel(WIDE if len(finders) < 3 else NARROW, left=0.6, right=1.2)
            axes.set_title(short(finder))
            _across(axes, rows[x], "atoms" if by_width else "active codes per row")
            axes.set_ylabel("bits a held-out row")
            axes.set_ylim(low - spare, high + spare)
            axes.axhspan(best["bits"], best["bits"] + best["error"], color=MUTED, alpha=0.18, linewidth=0)
            if low - spare < plain < high + spare:
                axes.axhline(plain, color=MUTED, linewidth=1.0, linestyle=":")
            ends = []
            lines = [("", mine)] if by_width else [(f"{width:,} atoms", g) for width, g in mine.groupby("width")]
            for number, (name, group) in enumerate(lines):
                colour = COLOURS[0] if by_width else COLOURS[widths.index(group["width"].iloc[0]) % 7]
                group = group.sort_values(x)
                axes.errorbar(group[x], group["bits"], group["error"], fmt="none", ecolor=colour, elinewidth=0.9)
                axes.plot(
                    group[x], group["bits"], "-o", color=colour, linewidth=1.4, markersize=4.5, zorder=3 + number
                )
                ends.append((name, float(group["bits"].iloc[-1]), colour))
            if not by_width:
                name_ends(axes, ends)
            if chosen["finder"] == finder:
                point = (float(chosen[x]), float(chosen["bits"]))
                axes.plot(*point, "o", markersize=11, markerfacecolor="none", markeredgecolor=INK, mew=1.4, zorder=20)
                segments = [line for _, group in lines for line in _segments(group.sort_values(x), x)]
                place(axes, [Label(*point, "suggested", INK)], zip(mine[x], mine["bits"], strict=True), segments)
            told = "; ".join(f"{name or 'largest'} {value:.1f}" for name, value, _ in ends)
            svgs.append(to_svg(canvas, f"Bits of a held-out row, {finder}. At the right end: {told}."))
    mine = rows[(rows["finder"] == chosen["finder"]) & (by_width | (rows["width"] == chosen["width"]))].sort_values(x)
    if len(mine) > 1:
        svgs.append(_parts(mine, x, by_width))
    caption = (
        "What a held-out row costs with every recipe; bars are one standard error, the band is one above the lowest, "
        f"and the ring is the suggestion. Without features a row costs {plain:.1f} bits"
        + (" (dotted)." if low - spare < plain < high + spare else ".")
    )
    if len(mine) > 1:
        caption += f" Last panel: what the bits of {chosen['finder']}"
        caption += " go to." if by_width else f" with {chosen['width']:,} atoms go to."
    return Figure(tuple(svgs), caption, command)


def _segments(rows: pd.DataFrame, x: str) -> list[tuple[float, float, float, float]]:
    points = list(zip(rows[x], rows["bits"], strict=True))
    return [(*one, *two) for one, two in itertools.pairwise(points)]


def _parts(rows: pd.DataFrame, x: str, by_width: bool) -> str:
    """Codes and residual of one line of recipes, as areas on each other."""
    with drawing():
        canvas, axes = panel(NARROW, left=0.6, right=0.95)
        axes.set_title("Where the bits go")
        _across(axes, rows[x], "atoms" if by_width else "active codes per row")
        both = (rows["codes"] + rows["residual"]).to_numpy()
        axes.set_ylim(0, 1.12 * float(both.max()))
        axes.fill_between(rows[x], 0, rows["codes"], color=COLOURS[2], alpha=0.45, linewidth=0)
        axes.fill_between(rows[x], rows["codes"], both, color=COLOURS[1], alpha=0.35, linewidth=0)
        axes.plot(rows[x], both, "-o", color=INK, linewidth=1.2, markersize=3.5)
        last = rows.iloc[-1]
        for name, value, colour in (
            ("codes", last["codes"] / 2, COLOURS[2]),
            ("residual", last["codes"] + last["residual"] / 2, COLOURS[1]),
        ):
            fraction = value / axes.get_ylim()[1]
            axes.annotate(
                name, (1, fraction), (5, 0), "axes fraction", "offset points", color=colour, va="center", fontsize=8
            )
        said = f"codes {last['codes']:.1f}, residual {last['residual']:.1f} bits at the right end"
        return to_svg(canvas, f"Where the bits go: {said}.")


def curve_figure(curve: Curve, command: str = "") -> Figure:
    """Held-out FVU, and recovery where the truth is known, against the rows that the recipe was fitted on."""
    table, svgs = curve.table, []
    for score in ("dictionary_mcc", "fvu"):
        if score not in table:
            continue
        with drawing():
            canvas, axes = panel(WIDE, left=0.6, right=0.85)
            log_x(axes, table["samples"], 0.06, 0.15)
            axes.set_title(NAMES[score][0].upper() + NAMES[score][1:])
            axes.set_xlabel("rows to fit on")
            axes.set_ylim(0, 1.03 if score == "dictionary_mcc" else 1.2 * float(table[score].max()))
            bars = table[f"{score}_error"]
            axes.errorbar(table["samples"], table[score], bars, fmt="none", ecolor=COLOURS[0], elinewidth=1.0)
            axes.plot(table["samples"], table[score], "-o", color=COLOURS[0], linewidth=1.5, markersize=4.5, zorder=3)
            if f"{score}_chance" in table:
                axes.plot(table["samples"], table[f"{score}_chance"], ":", color=MUTED, linewidth=1.1)
                name_ends(axes, [("chance", float(table[f"{score}_chance"].iloc[-1]), MUTED)])
            last = (float(table["samples"].iloc[-1]), float(table[score].iloc[-1]))
            axes.annotate(
                f"{last[1]:.3g}", last, (6, 0), textcoords="offset points", color=COLOURS[0], va="center", fontsize=8
            )
            told = ", ".join(f"{s:,} rows {v:.3f}" for s, v in zip(table["samples"], table[score], strict=True))
            svgs.append(to_svg(canvas, f"{NAMES[score]}: {told}."))
    if not svgs:
        return Figure(nothing("No score at several sizes."), "Learning curve.", command)
    caption = f"{curve.recipe} fitted on more and more rows, held-out rows the same; bars are one standard error."
    return Figure(tuple(svgs), caption + (" Dotted: random atoms." if len(svgs) > 1 else ""), command)


def _across(axes: Axes, values: Sequence[float] | pd.Series, name: str) -> None:
    """The x axis: logarithmic where the values are far apart."""
    low, high = float(min(values)), float(max(values))
    axes.set_xlabel(name)
    if low > 0 and high / low >= 6:
        log_x(axes, values, 0.06)
        return
    spare = 0.08 * (high - low) or 0.5 * max(high, 1.0)
    axes.set_xlim(low - spare, high + spare)
