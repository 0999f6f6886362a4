"""What theory and papers say of crossings, beside what was measured, each with a verdict."""

from __future__ import annotations

from typing import Any

import pandas as pd

from unmix.papers.claimed import claimed, over_seeds
from unmix.papers.crossings.answers import agreements, main_rows
from unmix.papers.crossings.grids import COLUMNS, RAW, SPARSE, UNTRAINED

AMORTISATION, CROSS, SLOW = "arXiv 2411.13117", "arXiv 2410.21869", "arXiv 2007.10930"
CLOSE, GAIN, RECOVERED, AGREES = 0.05, 0.05, 0.9, 0.3


def claims(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Every claim that the rows can answer."""
    rows = main_rows(frame)
    found = [*_sparse(rows), *_clusters(rows), *_motion(rows)]
    lines = agreements(frame)
    if len(lines):
        judged = lines.set_index("score")
        for score, text in (
            ("stability", "agreement of two seeds ranks crossings as the true recovery does"),
            ("fvu", "unexplained variance ranks crossings as the true recovery does"),
            ("rankme", "the rank of the codes (RankMe) ranks crossings as the true recovery does"),
        ):
            if score in judged.index:
                row: dict[Any, Any] = judged.loc[score].to_dict()
                told, interval = f"{row['agreement']:+.2f}", f"{row['low']:+.2f} to {row['high']:+.2f}"
                why = f"mean over {int(row['worlds'])} worlds; holds where the interval is above {AGREES}"
                seeds = frame["seed"].nunique()
                found.append(claimed(text, "asked here", "", told, row["low"] > AGREES, why, seeds, interval))
    return found


def _sparse(rows: pd.DataFrame) -> list[dict[str, Any]]:
    here = rows[(rows["world"] == "sparse") & (rows["learner"] == RAW)]
    found: list[dict[str, Any]] = []
    once = here.drop_duplicates("seed")
    if len(once) and once["r2_read"].notna().any():
        values = once["r2_read"].tolist()
        mean = _mean(values)
        text = "sparse, x itself: a linear read-out of 32 latents in 16 dimensions has an R2 of M / N"
        why = f"within {CLOSE}"
        found.append(_of(text, AMORTISATION, "0.50", values, abs(mean - 0.5) <= CLOSE, why))
    table = here[here["finder"] == "SparseCoding"].pivot_table(index="seed", columns="encoder", values="mcc")
    solved = [name for name in SPARSE if name in table]
    if solved and "TopK" in table:
        best = table[solved].mean().idxmax()
        gain = (table[best] - table["TopK"]).tolist()
        text = f"sparse, x itself: on one dictionary, {best} recovers codes better than an amortised TopK encoder"
        found.append(_of(text, AMORTISATION, "above 0", gain, _mean(gain) > 0, "difference of MCC"))
    return found


def _clusters(rows: pd.DataFrame) -> list[dict[str, Any]]:
    here = rows[(rows["world"] == "clusters") & (rows["finder"] == COLUMNS)]
    found = []
    for learner, source in (("Supervised", CROSS), ("Diet", CROSS)):
        values = here.loc[here["learner"] == learner, "r2_read"].dropna().tolist()
        if values:
            beside = {name: here.loc[here["learner"] == name, "r2_read"].mean() for name in (RAW, UNTRAINED)}
            text = f"clusters: {learner} recovers the latents up to a linear map, R2 of {RECOVERED} or more"
            why = f"x itself {beside[RAW]:.2f}, untrained {beside[UNTRAINED]:.2f}"
            found.append(_of(text, source, "near 1", values, _mean(values) >= RECOVERED, why))
    return found


def _motion(rows: pd.DataFrame) -> list[dict[str, Any]]:
    found = []
    for world in ("motion", "sprites"):
        here = rows[(rows["world"] == world) & (rows["finder"] == COLUMNS)]
        table = here.pivot_table(index="seed", columns="learner", values="mcc")
        if {"SlowVAE", "BetaVAE"} <= set(table):
            gain = (table["SlowVAE"] - table["BetaVAE"]).dropna().tolist()
            text = f"{world}: SlowVAE's columns recover the latents better than beta-VAE's, by {GAIN} or more"
            why = f"MCC {table['SlowVAE'].mean():.2f} against {table['BetaVAE'].mean():.2f}; short training"
            found.append(_of(text, SLOW, "above 0", gain, _mean(gain) >= GAIN, why))
    return found


def headline(frame: pd.DataFrame, told: dict[str, str]) -> str:
    """What came out, in two sentences."""
    made = frame[frame["failed"].fillna("") == ""]
    count = made.drop_duplicates(["world", "learner", "start", "seed"])
    return (
        f"{len(made):,} cells on {len(count)} representations of {made['world'].nunique()} worlds. {told['scores']}"
    )


def _of(text: str, source: str, published: str, values: list[float], holds: bool, why: str) -> dict[str, Any]:
    told = f"{_mean(values):.3f}"
    return claimed(text, source, published, told, holds, why, len(values), over_seeds(values))


def _mean(values: list[float]) -> float:
    return float(sum(values) / len(values))
