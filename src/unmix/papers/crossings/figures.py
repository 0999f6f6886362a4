"""Figures of the crossings: maps of recovery, gains with their seeds, and how scores agree with the truth."""

from __future__ import annotations

import pandas as pd

from unmix.papers.crossings.answers import main_rows
from unmix.papers.crossings.grids import COLUMNS, FINDERS, RAW, SPARSE, UNTRAINED
from unmix.report.page import Figure
from unmix.report.style import COLOURS, INK, MUTED, drawing, nothing, panel, short, to_svg

LETTER = 0.073  # inches of a letter of a row's name
NAMES = {RAW: "x itself", UNTRAINED: "untrained"}
READ = "linear R2"


def recovery_map(frame: pd.DataFrame, world: str) -> Figure:
    """What is recovered of one world: a row for each representation, a column for each finder, MCC in the squares.

    Finders that are dictionaries have two squares: with their own encoder, and with the better of the encoders that
    solve for sparse codes. The first column is the R2 of the linear read-out, which looks at the truth.
    """
    rows = main_rows(frame[(frame["world"] == world) & frame["mcc"].notna()])
    caption = f"{world}: MCC by representation and finder, chance {rows['mcc_chance'].mean():.2f} on average."
    if rows.empty:
        return Figure(nothing(f"{world}: nothing was measured."), caption)
    table = _squares(rows)
    with drawing():
        left = 0.2 + LETTER * max(len(NAMES.get(name, name)) for name in table.index)
        width, height = left + 0.62 * table.shape[1] + 0.1, 1.15 + 0.27 * len(table)
        canvas, axes = panel(width, height, left=left, right=0.1, top=0.55)
        axes.set_xlim(-0.5, table.shape[1] - 0.5)
        axes.set_ylim(len(table) - 0.5, -0.5)
        axes.grid(visible=False)
        axes.set_yticks(range(len(table)), [NAMES.get(name, name) for name in table.index])
        axes.set_xticks(range(table.shape[1]), [str(name).replace(" ", "\n") for name in table.columns], fontsize=7)
        axes.set_title(world, x=0)
        told = []
        for y, name in enumerate(table.index):
            for x, column in enumerate(table.columns):
                value = table.loc[name, column]
                if pd.isna(value):
                    continue
                colour = COLOURS[1] if column == READ else COLOURS[0]
                axes.axvspan(x - 0.47, x + 0.47, 1 - (y + 0.95) / len(table), 1 - (y + 0.05) / len(table),
                             color=colour, alpha=0.08 + 0.55 * max(0.0, min(1.0, value)), lw=0)  # fmt: skip
                axes.annotate(f"{value:.2f}", (x, y), ha="center", va="center", fontsize=8, color=INK)
                told.append(f"{name} {column} {value:.2f}")
        return Figure(to_svg(canvas, f"{world}: {'; '.join(told)}."), caption)


def _squares(rows: pd.DataFrame) -> pd.DataFrame:
    order = list(dict.fromkeys(rows["learner"]))
    found: dict[str, dict[str, float]] = {}
    for learner in order:
        mine = rows[rows["learner"] == learner]
        line = {READ: mine["r2_read"].mean(), COLUMNS: mine.loc[mine["finder"] == COLUMNS, "mcc"].mean()}
        for finder in FINDERS:
            here = mine[mine["finder"] == finder].groupby("encoder")["mcc"].mean()
            if "own" in here:
                line[finder] = here["own"]
            if solved := [here[name] for name in SPARSE if name in here]:
                line[f"{finder} solved"] = max(solved)
        found[learner] = line
    return pd.DataFrame.from_dict(found, orient="index")


def differences(
    frame: pd.DataFrame, names: list[str], column: str, title: str, axis: str, caption: str = ""
) -> Figure:
    """A line for each row of a table of differences, with its interval where it has one, around zero."""
    rows = frame.dropna(subset=[column]) if column in frame else frame.iloc[:0]
    if rows.empty:
        return Figure(nothing(f"{title}: nothing was measured."), caption)
    labels = [names[i] for i in rows.index]
    with drawing():
        left = 0.25 + LETTER * max(len(short(label, 44)) for label in labels)
        canvas, axes = panel(left + 3.0, 0.95 + 0.22 * len(rows), left=left, right=0.55)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [short(label, 44) for label in labels])
        axes.set_xlabel(axis)
        axes.set_title(title, x=-left / 2.45 + 0.02)
        axes.axvline(0, color=MUTED, linewidth=1)
        half = rows[f"{column}_half"] if f"{column}_half" in rows else pd.Series(float("nan"), rows.index)
        for y, (value, around) in enumerate(zip(rows[column], half, strict=True)):
            if not pd.isna(around):
                axes.plot([value - around, value + around], [y, y], color=COLOURS[0], linewidth=1.2, alpha=0.6)
            axes.plot([value], [y], "o", color=COLOURS[0], markersize=5, mew=0)
            axes.annotate(
                f"{value:+.2f}", (1, y), (4, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=8
            )
        told = "; ".join(f"{label} {value:+.2f}" for label, value in zip(labels, rows[column], strict=True))
        return Figure(to_svg(canvas, f"{title}: {told}."), caption)


def agreement(lines: pd.DataFrame, caption: str = "") -> Figure:
    """A line for each score: mean rank correlation with recovery, its interval, and a pale dot for every world."""
    if lines.empty:
        return Figure(nothing("No score could be judged."), caption)
    worlds = [name for name in lines if name not in ("score", "agreement", "low", "high", "worlds")]
    with drawing():
        left = 0.25 + LETTER * max(len(str(name)) for name in lines["score"])
        canvas, axes = panel(left + 3.4, 0.95 + 0.27 * len(lines), left=left, right=0.55)
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.set_xlim(-1.03, 1.03)
        axes.set_yticks(range(len(lines)), list(lines["score"]))
        axes.set_xlabel("rank correlation with true recovery")
        axes.set_title("Which score agrees with the truth", x=-left / 2.9 + 0.02)
        axes.axvline(0, color=MUTED, linewidth=1)
        told = []
        for y, row in enumerate(lines.to_dict("records")):
            axes.plot([row["low"], row["high"]], [y, y], color=COLOURS[0], linewidth=1.6, alpha=0.6)
            dots = [row[name] for name in worlds if not pd.isna(row[name])]
            axes.plot(dots, [y] * len(dots), "o", color=COLOURS[0], markersize=3.5, alpha=0.35, mew=0)
            axes.plot([row["agreement"]], [y], "o", color=COLOURS[0], markersize=6, mew=0, zorder=3)
            axes.annotate(
                f"{row['agreement']:+.2f}", (1, y), (4, 0), ("axes fraction", "data"), "offset points", va="center",
                fontsize=8,
            )  # fmt: skip
            told.append(f"{row['score']} {row['agreement']:+.2f}")
        return Figure(to_svg(canvas, f"Agreement with recovery: {'; '.join(told)}."), caption)
