"""Results for a terminal: a short table, and amounts a person can read."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import pandas as pd

from unmix.core.errors import visible
from unmix.core.seeds import untouched
from unmix.core.statistics import seed_interval
from unmix.study.study import Results

if TYPE_CHECKING:
    from rich.console import Console

    from unmix.study.learning import Learned

MEASURES = ("l0", "fvu", "encode_flops", "dead", "found", "dictionary_mcc", "mcc", "fit_seconds")
HEADINGS = {
    "l0": "L0",
    "fvu": "FVU",
    "encode_flops": "FLOPs/row",
    "dead": "dead",
    "found": "found",
    "dictionary_mcc": "dict. MCC",
    "mcc": "MCC",
    "fit_seconds": "fit (s)",
}
WIDE = 160  # columns of a file or a pipe
ON_DATA = ("l0", "fvu", "encode_flops", "dead")
ON_MATCHED = ("fvu", "found", "dictionary_mcc", "mcc")
ON_TRUTH = ("l0", "fvu", "encode_flops", "dictionary_mcc", "mcc")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One line for every world, size, finder, encoder and sparsity: means over seeds and half-widths."""
    keys = ["world", "samples", "finder", "encoder", "own", "target_l0"]
    rows = []
    for values, group in table.groupby(keys, sort=False, dropna=False):
        row: dict[str, Any] = dict(zip(keys, values, strict=True))
        row["seeds"] = len(group)
        for name in MEASURES:
            if name in group and group[name].notna().any():
                mean, low, _ = seed_interval(group[name].dropna().tolist())
                row[name], row[f"{name}_half"] = mean, mean - low
                if f"{name}_chance" in group:
                    row[f"{name}_chance"] = group[f"{name}_chance"].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def show_table(results: Results, world: str | None = None) -> None:
    """Print a run as short tables, data apart from worlds with a truth; means over seeds, with chance levels."""
    table = results.table().map(visible)
    with untouched():  # rich draws from Python's global state
        from rich.console import Console

        console = Console(markup=False, emoji=False)
        if not console.is_terminal:
            console = Console(width=WIDE, markup=False, emoji=False)
        for number, name in enumerate(table["world"].unique() if len(table) else []):
            if world in (None, name):
                if number and world is None:
                    console.print()
                _show_world(console, name, summary(table[table["world"] == name]))


def _show_world(console: Console, world: str, frame: pd.DataFrame) -> None:
    from rich.table import Table

    wanted = {"data": ON_DATA, "matched": ON_MATCHED}.get(world, ON_TRUTH)
    names = [name for name in ("rows", "finder", "encoder", "seeds") if name != "seeds" or (frame["seeds"] > 1).any()]
    shown = [name for name in wanted if name in frame and frame[name].notna().any()]
    titles = {"data": "data, held-out rows", "matched": "matched world, whose truth is known"}
    grid = Table(box=None, pad_edge=False, header_style="bold", title=titles.get(world, world), title_justify="left")
    for name in names:
        if name in ("rows", "seeds"):
            grid.add_column(name, justify="right", no_wrap=True)
        else:
            grid.add_column(name, overflow="fold")
    for name in shown:
        grid.add_column(HEADINGS[name], justify="right", no_wrap=True)
    for _, row in frame.iterrows():
        encoder = f"{row['encoder']} (own)" if row["own"] else row["encoder"]
        numbers = (_number(name, row[name]) for name in shown)
        facts = [f"{row['samples']:,}", row["finder"], encoder, str(row["seeds"])][: len(names)]
        grid.add_row(*facts, *numbers)
    console.print(grid)
    chances = {n: frame[f"{n}_chance"].mean() for n in ("mcc", "dictionary_mcc") if f"{n}_chance" in frame}
    chances = {n: c for n, c in chances.items() if not math.isnan(c)}
    if chances:
        console.print("chance: " + ", ".join(f"{HEADINGS[n]} {c:.3f}" for n, c in chances.items()), style="dim")


def amounts(costs: dict[str, float]) -> str:
    """Costs of a dry run, one line each."""
    names = {
        "rows": ("rows", lambda v: f"{v:,.0f}"),
        "flops": ("work", lambda v: f"{v:.2e} FLOPs"),
        "seconds": ("time", lambda v: f"about {duration(v)} on this machine"),
        "memory_bytes": ("memory", lambda v: f"{size(v)} at least"),
        "disk_bytes": ("disk", size),
    }
    return "\n".join(f"{label:<7} {form(costs[key])}" for key, (label, form) in names.items() if key in costs)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes as a person says them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _number(name: str, value: float) -> str:
    if pd.isna(value):
        return ""
    if name == "encode_flops":
        return f"{value:.2e}"
    if name == "found":
        return f"{value:.0%}"
    return f"{value:.1f}" if name in ("fit_seconds", "l0") else f"{value:.3f}"


SHOWN = {
    "seed": ("seed", "{:.0f}"),
    "loss": ("loss", "{:.4g}"),
    "excess_loss": ("above Bayes", "{:.4f}"),
    "r2": ("R2", "{:.3f}"),
    "r2_minimum": ("R2 worst", "{:.3f}"),
    "r2_x": ("R2 of x", "{:.3f}"),
    "r2_untrained": ("R2 at start", "{:.3f}"),
    "mcc": ("MCC", "{:.3f}"),
    "beta": ("beta", "{:.3g}"),
    "verdict": ("regime", "{}"),
    "kernel_distance": ("kernel moved", "{:.3f}"),
    "hamming": ("patterns moved", "{:.3f}"),
    "relative_motion": ("weights moved", "{:.3f}"),
}


def show_learned(learned: Learned) -> None:
    """Print what was learnt: one line for every learner and seed, the baselines beside it.

    R2 of x is that of the raw observations, at start that of the network before training.
    """
    with untouched():  # importing rich draws from Python's global state
        from rich.console import Console

        _print(learned.table().map(visible), Console(markup=False, emoji=False))


def _print(frame: pd.DataFrame, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    for number, world in enumerate(frame["world"].unique() if len(frame) else []):
        part = frame[frame["world"] == world]
        names = [name for name in SHOWN if name in part and part[name].notna().any()]
        names = [name for name in names if name != "loss" or "excess_loss" not in names]
        names = [name for name in names if name != "beta" or (part["beta"].dropna() != 1).any()]  # a factor of 1
        rows = []
        for _, row in part.iterrows():
            several = part["recipe"][part["learner"] == row["learner"]].nunique() > 1
            told = ("" if pd.isna(row[name]) else SHOWN[name][1].format(row[name]) for name in names)
            rows.append((row["recipe"] if several else row["learner"], *told))
        # Several recipes of one learner are told by their fields, which are long: they are folded, never the numbers.
        # Nor are numbers cut off on a narrow terminal, which breaks the lines instead.
        long = bool((part.groupby("learner")["recipe"].nunique() > 1).any())
        first, *columns = zip(*rows, strict=True)
        grid = Table(box=None, pad_edge=False, header_style="bold")
        grid.add_column("learner", no_wrap=not long, overflow="fold")
        needed = 16 if long else max(map(len, first))
        for name, cells in zip(names, columns, strict=True):
            width = max(map(len, (*cells, *SHOWN[name][0].split())))
            grid.add_column("\n".join(textwrap.wrap(SHOWN[name][0], width)), justify="right", no_wrap=True)
            needed += width + 2
        console.width = max(console.width, needed)
        for cells in rows:
            grid.add_row(*cells)
        if number:
            console.print()
        console.print(Text(str(world), style="italic"), soft_wrap=True)  # a title would be as narrow as the table
        console.print(grid)
