"""What the study set out to find of promises, with what it found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from unmix.papers.claimed import claimed, over_seeds
from unmix.papers.trust.grids import ASSUMED
from unmix.papers.trust.lessons import errors

CLOSE, RANKED = 0.1, 0.7
SOURCE = "unmix docs/trust.md"
WORDS = {"features": "features", "classifiers": "classifiers", "motion": "learners of motion"}


def claims(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Whether promises are close, on worlds as assumed and on others, and whether they rank worlds."""
    found = []
    for section, word in WORDS.items():
        rows = frame[frame["section"] == section]
        rows = rows.dropna(subset=["promise", "real"])
        here, others = rows[rows["world"] == ASSUMED], rows[rows["world"] != ASSUMED]
        what = "share of the features that are true" if section == "features" else "R2 of the latents"
        for part, where in ((here, "on a world as assumed"), (others, "on worlds that differ from it")):
            if len(part):
                text = (
                    f"{word}: {where}, the promise of the {what} is within {CLOSE} of what is recovered, on average"
                )
                found.append(_claim(text, f"within {CLOSE}", part))
        whole = errors(rows)
        if whole["count"] and not np.isnan(whole["ranks"]):
            text = f"{word}: the promise ranks worlds as the recovery does, rank correlation at least {RANKED}"
            told = f"{whole['ranks']:.2f} over {rows['world'].nunique()} worlds"
            found.append(_judged(text, f"at least {RANKED}", told, whole["ranks"] >= RANKED, _seeds(rows)))
    rows = frame[frame["section"] == "features"]
    if "cautious" in rows and rows["cautious"].notna().any():
        plain, careful = errors(rows), errors(rows, "cautious")
        text = "features: the smaller of promise and agreement of two seeds errs less than the promise alone"
        told = f"{careful['error']:.3f} against {plain['error']:.3f}"
        found.append(_judged(text, "smaller error", told, careful["error"] < plain["error"], _seeds(rows)))
    return found


def headline(frame: pd.DataFrame) -> str:
    """What a user of `unmix trust` needs to hear."""
    rows = frame[frame["section"] == "features"]
    whole = errors(rows)
    if not whole["count"]:
        return "No promise about features was tried in this run."
    here = errors(rows[rows["world"] == ASSUMED])
    assumed = f" On worlds as assumed the error is {here['error']:.2f}." if here["count"] else ""
    lean = "too high" if whole["bias"] > 0 else "too low"
    return (
        f"Over {rows.dropna(subset=['promise'])['world'].nunique()} kinds of sparse worlds the share of true "
        f"features that a matched world promises is {abs(whole['bias']):.2f} {lean} on average (mean absolute error "
        f"{whole['error']:.2f}), at worst {whole['worst']:.2f} too high ({whole['worst_world']}).{assumed}"
    )


def _claim(text: str, wanted: str, part: pd.DataFrame) -> dict[str, Any]:
    found = errors(part)
    per_seed = (part["promise"] - part["real"]).abs().groupby(part["seed"]).mean().tolist()
    told = f"{found['error']:.3f}; bias {found['bias']:+.3f}; worst {found['worst']:+.3f} ({found['worst_world']})"
    return _judged(text, wanted, told, found["error"] <= CLOSE, _seeds(part), over_seeds(per_seed))


def _judged(text: str, wanted: str, told: str, holds: bool, seeds: int, interval: str = "") -> dict[str, Any]:
    why = "no published number: the bound is what the tool should keep"
    return claimed(text, SOURCE, wanted, told, holds, why, seeds, interval)


def _seeds(rows: pd.DataFrame) -> int:
    return int(rows["seed"].nunique())
