"""The amortisation gap: what encoders explain at the same sparsity, and what they cost."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from unmix.core.statistics import seed_interval
from unmix.report.labels import Label, place
from unmix.report.page import Figure
from unmix.report.style import (
    INK,
    MUTED,
    NARROW,
    PAPER,
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

KEYS = ["finder", "control", "encoder", "amortised", "own", "target_l0"]


def gaps(scores: pd.DataFrame, world: str | None = None, tolerance: float = 0.1) -> pd.DataFrame:
    """The amortisation gap of every dictionary: FVU(amortised) - FVU(best iterative) at the same L0, seed by seed.

    scores: as for `pareto`. tolerance: largest relative difference in L0 that counts as the same. The amortised
    encoder is the finder's own where it is one, otherwise the one that explains most. Dictionaries without such a
    pair are left out. Columns: finder, amortised, iterative, l0, fvu, fvu_iterative, gap, gap_half (half-width of the
    95% interval over seeds, NaN for one seed), cost (times the FLOPs), seeds, and the points' own and target_l0.
    Raises `UsageError` for missing columns.
    """
    rows = _rows(scores, world)
    means = _means(rows)
    found = []
    for finder, group in means.groupby("finder", sort=False):
        slow = group[~group["amortised"]]
        fast = group[group["amortised"]].sort_values(["own", "fvu"], ascending=[False, True])
        for one in fast.to_dict("records"):
            near = slow[(slow["l0"] - one["l0"]).abs() <= tolerance * one["l0"]]
            if near.empty:
                continue
            two = near.sort_values(["fvu", "encode_flops"]).iloc[0].to_dict()
            pair = _of(rows, one).merge(_of(rows, two), on="seed", suffixes=("", "_iterative"))
            differences = (pair["fvu"] - pair["fvu_iterative"]).tolist() or [one["fvu"] - two["fvu"]]
            mean, low, _ = seed_interval(differences)
            found.append(
                {
                    "finder": finder,
                    "amortised": one["encoder"],
                    "iterative": two["encoder"],
                    "l0": one["l0"],
                    "fvu": one["fvu"],
                    "fvu_iterative": two["fvu"],
                    "gap": mean,
                    "gap_half": mean - low,
                    "cost": two["encode_flops"] / one["encode_flops"] if one["encode_flops"] > 0 else float("nan"),
                    "seeds": len(differences),
                    "from": one,
                    "to": two,
                }
            )
            break
    columns = ["finder", "amortised", "iterative", "l0", "fvu", "fvu_iterative", "gap", "gap_half", "cost", "seeds"]
    return pd.DataFrame(found, columns=[*columns, "from", "to"])


def pareto(scores: pd.DataFrame, world: str | None = None, look: Look | None = None, command: str = "") -> Figure:
    """FVU against FLOPs of encoding, a panel for every dictionary, and FVU against L0 for all of them.

    Controls get no panel of their own beside other dictionaries.

    scores, one row for every finder, encoder and seed: world, samples, finder, control (whether it is one), encoder,
    amortised (whether it is), seed, own, target_l0, l0, fvu, encode_flops (NaN where unknown). world: which rows; by
    default 'data', or the first there is. Only rows of the largest `samples` are drawn. An arrow runs from the
    amortised encoder to the best iterative one at equal L0. Raises `UsageError` for missing columns.
    """
    rows = _rows(scores, world)
    if rows.empty:
        return Figure(nothing("No row has both an L0 and an FVU."), "FVU against L0 and FLOPs.", command)
    look = look or Look.of(rows)
    means, arrows = _means(rows), gaps(scores, world)
    priced = rows[rows["encode_flops"] > 0]
    controls = priced["control"]
    priced = priced if controls.all() else priced[~controls]
    finders = list(dict.fromkeys(priced["finder"]))
    width = NARROW if len(finders) in (2, 4, 5) or len(finders) > 7 else WIDE
    svgs, left_out = [], 0
    for finder in finders:
        mine, arrow = priced[priced["finder"] == finder], arrows[arrows["finder"] == finder]
        with drawing():
            canvas, axes = panel(width)
            axes.set_title(short(finder), color=look.colour(finder))
            log_x(axes, priced["encode_flops"], 0.16, 0.55)
            axes.set_ylim(-0.03 * _top(priced), _top(priced))
            axes.set_xlabel("FLOPs to encode a row")
            left_out += _draw(axes, mine, means[means["finder"] == finder], arrow, "encode_flops", look)
            svgs.append(to_svg(canvas, _alt(finder, means)))
    with drawing():
        canvas, axes = panel(width)
        axes.set_title("All dictionaries" if means["finder"].nunique() > 1 else "Sparsity")
        low, high = float(rows["l0"].min()), float(rows["l0"].max())
        spare = max(0.15 * (high - low), 0.12 * high, 0.5)
        axes.set_xlim(max(0.0, low - spare), high + 1.6 * spare)
        axes.set_ylim(-0.03 * _top(rows), _top(rows))
        axes.set_xlabel("L0 (active codes per row)")
        left_out += _draw(axes, rows, means, arrows, "l0", look)
        svgs.append(to_svg(canvas, "FVU against L0 of every dictionary and encoder."))
    return Figure(tuple(svgs), _caption(rows, arrows, left_out), command)


def _rows(scores: pd.DataFrame, world: str | None) -> pd.DataFrame:
    """The rows of one world at its largest sample that have an L0 and an FVU."""
    text, numbers = ["world", "finder", "encoder"], ["samples", "seed", "target_l0", "l0", "fvu", "encode_flops"]
    rows = checked(scores, "scores", text, numbers, ["amortised"])
    for name in ("own", "control"):
        rows[name] = rows[name].fillna(False).astype(bool) if name in rows else False
    if world is None:
        worlds = list(dict.fromkeys(rows["world"]))
        world = "data" if "data" in worlds or not worlds else worlds[0]
    rows = rows[rows["world"] == world].dropna(subset=["l0", "fvu"])
    largest = rows["samples"].max()
    return rows if pd.isna(largest) else rows[rows["samples"] == largest]


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of every finder, encoder and sparsity asked for."""
    grouped = rows.groupby(KEYS, dropna=False, sort=False)
    return grouped[["l0", "fvu", "encode_flops"]].mean().reset_index()


def _top(rows: pd.DataFrame) -> float:
    return float(rows["fvu"].max()) * 1.18 or 1.0


def _of(rows: pd.DataFrame, point: dict[Any, Any]) -> pd.DataFrame:
    """The seeds of one mean."""
    same = (rows["finder"] == point["finder"]) & (rows["encoder"] == point["encoder"]) & (rows["own"] == point["own"])
    target = point["target_l0"]
    return rows[same & (rows["target_l0"].isna() if pd.isna(target) else rows["target_l0"] == target)]


def _draw(axes: Axes, rows: pd.DataFrame, means: pd.DataFrame, arrows: pd.DataFrame, x: str, look: Look) -> int:
    """Seeds, means, curves over sparsities, arrows and labels on one axes; number of labels without a place."""
    by_cost = x == "encode_flops"
    axes.set_ylabel("FVU (share not explained)")
    means = means.dropna(subset=[x])
    means = means[means[x] > 0] if by_cost else means
    lines: list[tuple[float, float, float, float]] = []
    for (finder, encoder), group in means.groupby(["finder", "encoder"], sort=False):
        colour, marker = look.colour(str(finder)), look.marker(str(encoder), bool(group["amortised"].iloc[0]))
        seeds = rows[(rows["finder"] == finder) & (rows["encoder"] == encoder)]
        axes.scatter(seeds[x], seeds["fvu"], s=14, c=colour, marker=marker, alpha=0.3, linewidths=0)
        curve = group[group["target_l0"].notna()].sort_values("target_l0")
        if len(curve) > 1:
            axes.plot(curve[x], curve["fvu"], color=colour, linewidth=0.9, alpha=0.6)
            points = curve[[x, "fvu"]].to_numpy().tolist()
            lines += [(*a, *b) for a, b in itertools.pairwise(points)]
        axes.scatter(
            group[x], group["fvu"], s=40, c=colour, marker=marker, edgecolors=PAPER, linewidths=0.7, zorder=4
        )
    labels = []
    for arrow in arrows.to_dict("records"):
        ends = [(arrow[end][x], arrow[end]["fvu"]) for end in ("from", "to")]
        if not by_cost or any(not end[0] > 0 for end in ends):
            continue
        style = {"arrowstyle": "-|>", "color": INK, "linewidth": 0.9, "shrinkA": 5, "shrinkB": 5, "mutation_scale": 8}
        axes.annotate("", ends[1], ends[0], arrowprops=style, zorder=3)
        (x0, y0), (x1, y1) = ends
        middle = ((x0 * x1) ** 0.5, (y0 + y1) / 2)
        lines += [(x0, y0, *middle), (*middle, x1, y1)]
        labels.append(Label(*middle, f"gap {arrow['gap']:.3f}", INK))
    named = _named(means)
    several = means["finder"].nunique() > 1
    if not by_cost and several:
        named = means.sort_values("fvu", ascending=False).drop_duplicates("finder")
        named = named.assign(name=named["finder"].map(short))
    for point in named.sort_values("fvu").to_dict("records"):
        name = point["name"]
        if by_cost:
            name = f"{name}, L0 {point['l0']:.3g}" if name else f"L0 {point['l0']:.3g}"
        labels.append(Label(point[x], point["fvu"], name, look.colour(point["finder"]) if several else MUTED))
    marks = list(zip(means[x], means["fvu"], strict=True))
    return len(place(axes, labels, marks, lines))


def _named(means: pd.DataFrame) -> pd.DataFrame:
    """The means that get a label, and its words: every one, but of a curve over sparsities only its two ends."""
    parts = []
    for (_, encoder), group in means.groupby(["finder", "encoder"], sort=False):
        curve = group[group["target_l0"].notna()].sort_values("target_l0")
        rest = group[group["target_l0"].isna()]
        own = " (own)" if len(curve) else ""
        parts.append(rest.assign(name=[f"{short(str(encoder), 16)}{own}"] * len(rest)))
        parts.append(curve.iloc[[-1]].assign(name=short(str(encoder), 16)) if len(curve) else curve)
        parts.append(curve.iloc[[0]].assign(name="") if len(curve) > 1 else curve[:0])
    return pd.concat([part for part in parts if len(part)]) if len(means) else means.assign(name="")


def _alt(finder: str, means: pd.DataFrame) -> str:
    parts = [
        f"{point['encoder']}: FVU {point['fvu']:.3f}, L0 {point['l0']:.3g}, {si(point['encode_flops'])} FLOPs"
        for point in means[means["finder"] == finder].to_dict("records")
    ]
    return f"FVU against FLOPs on the dictionary of {finder}. " + "; ".join(parts) + "."


def _caption(rows: pd.DataFrame, arrows: pd.DataFrame, left_out: int) -> str:
    samples, seeds = rows["samples"].max(), rows["seed"].nunique()
    size = "" if pd.isna(samples) else f", {samples:,.0f} rows"
    text = (
        f"What is left unexplained, and what an encoder costs ({rows['world'].iloc[0]}{size}, {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'}). Solid marks are means, pale ones single seeds; round and square "
        "marks are amortised encoders, triangles those that solve for each row, on the same dictionary."
    )
    controls = arrows["finder"].isin(rows.loc[rows["control"], "finder"])
    told = arrows if controls.all() else arrows[~controls]
    if len(told) > 3:
        least, most = (told.loc[told["gap"].agg(which)] for which in ("idxmin", "idxmax"))
        text += (
            f" The amortisation gap lies between {least['gap']:.3f} ({short(least['finder'])}) and {most['gap']:.3f} "
            f"({short(most['finder'])}) FVU."
        )
        told = told[:0]
    for arrow in told.to_dict("records"):
        half = "" if pd.isna(arrow["gap_half"]) else f" ± {arrow['gap_half']:.3f}"
        cost = "" if pd.isna(arrow["cost"]) else f" for {arrow['cost']:,.3g} times the FLOPs"
        text += (
            f" Amortisation gap of {short(arrow['finder'])}: {arrow['gap']:.3f}{half} FVU "
            f"({short(arrow['amortised'])} to {short(arrow['iterative'])} at L0 {arrow['l0']:.3g}{cost})."
        )
    return text + (f" Points without a label: {left_out}, for want of room." if left_out else "")
