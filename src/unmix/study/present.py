"""Results for a terminal: a short table, and amounts a person can read."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from unmix.core.statistics import seed_interval
from unmix.study.study import Results

COLUMNS = {
    "l0": "L0",
    "fvu": "FVU",
    "encode_flops": "FLOPs/row",
    "dead": "dead",
    "found": "found",
    "dictionary_mcc": "dictionary MCC",
    "mcc": "MCC",
    "fit_seconds": "fit s",
}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One line for every world, size, finder and encoder: means over seeds, and the half-width of their interval."""
    keys = ["world", "samples", "finder", "encoder", "own"]
    rows = []
    for values, group in table.groupby(keys, sort=False):
        row: dict[str, Any] = dict(zip(keys, values, strict=True))
        row["seeds"] = len(group)
        for name in COLUMNS:
            if name in group and group[name].notna().any():
                mean, low, _ = seed_interval(group[name].dropna().tolist())
                row[name], row[f"{name}_half"] = mean, mean - low
                if f"{name}_chance" in group:
                    row[f"{name}_chance"] = group[f"{name}_chance"].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def show_table(results: Results, world: str | None = None) -> None:
    """Print the summary of a run, with chance levels."""
    from rich.console import Console
    from rich.table import Table

    table = results.table()
    if world is not None and len(table):
        table = table[table["world"] == world]
    console = Console(width=None)
    if len(table):
        frame = summary(table)
        shown = [name for name in COLUMNS if name in frame and frame[name].notna().any()]
        grid = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("world", "rows", "finder", "encoder", "seeds"):
            grid.add_column(name, justify="right" if name in ("rows", "seeds") else "left")
        for name in shown:
            grid.add_column(COLUMNS[name], justify="right")
        for _, row in frame.iterrows():
            encoder = f"{row['encoder']} (own)" if row["own"] else row["encoder"]
            first = [row["world"], f"{row['samples']:,}", row["finder"], encoder, str(row["seeds"])]
            grid.add_row(*first, *(_number(name, row) for name in shown))
        console.print(grid)
        chances = {n: frame[f"{n}_chance"].mean() for n in ("mcc", "dictionary_mcc") if f"{n}_chance" in frame}
        chances = {n: c for n, c in chances.items() if not math.isnan(c)}
        if chances:
            console.print("chance: " + ", ".join(f"{COLUMNS[n]} {c:.3f}" for n, c in chances.items()), style="dim")


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


def _number(name: str, row: pd.Series) -> str:
    value, half = row.get(name, math.nan), row.get(f"{name}_half", math.nan)
    if pd.isna(value):
        return ""
    if name == "encode_flops":
        return f"{value:.2e}"
    if name in ("fit_seconds", "l0"):
        return f"{value:.1f}"
    return f"{value:.3f}" if pd.isna(half) else f"{value:.3f} ± {half:.3f}"
