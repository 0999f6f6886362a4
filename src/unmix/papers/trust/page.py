"""The page of the study, written like the results of a paper, from what the run folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from unmix.papers.pages import publish
from unmix.papers.trust import claims as claim
from unmix.papers.trust import figures, lessons
from unmix.papers.trust.grids import ASSUMED, LATENTS
from unmix.report.page import Block, DataTable, Paragraph, Section, beside

FORMATS = dict.fromkeys(("promise", "real", "too_high", "worst", "error", "bias", "ranks"), ".2f")
LABELS = {
    "promise": "promised",
    "real": "recovered",
    "too_high": "too high by",
    "worst": "worst",
    "error": "mean error",
    "ranks": "ranks",
    "worst_world": "worst world",
    "count": "promises",
}
NOTE = "A bound that is not kept stays in. No number of others exists to compare with: these are the tool's own."
HEADING = "What promises should keep, and what they kept"
TITLES = {"classifiers": "Classifiers", "motion": "Learners of motion"}


def write(study: Any, folder: Path, small: bool) -> Path:
    """Write promises.json, claims.json and the page; returns the page's path."""
    frame = lessons.outcomes(study, folder, small)
    lessons.keep(frame, folder)
    found = claim.claims(frame)
    sections: list[Section] = []
    if "features" in study.sections:
        sections.append(_features(frame[frame["section"] == "features"]))
    sections += [_learned(frame, name) for name in ("classifiers", "motion") if name in study.sections]
    sections.append(_failures(frame))
    lead = "What unmix trust promises from rows alone, beside what was recovered where the truth is known"
    methods, headline = _methods(study, small), claim.headline(frame)
    return publish(study, folder, small, "Trust", lead, headline, sections, methods, found, NOTE, HEADING)


def _features(rows: pd.DataFrame) -> Section:
    text = (
        "Features are fitted on rows of a world; a world is matched to them, as `unmix trust` does; the same finder "
        "is tried there. Promised: the share of true features on the matched world. Recovered: the share on the "
        f'world itself, which the promise has not seen. Only "{ASSUMED}" is what every matched world is: latents '
        "that fire independently, atoms in random directions. Each other world differs in one respect. Below the "
        "dashed line the promise was too high. It is about the features at hand, not about true ones that were "
        "missed: a matched world has as many latents as there are features."
    )
    right = rows[rows["width"] == LATENTS] if "width" in rows else rows
    many = rows[rows["width"] > LATENTS] if "width" in rows else rows.iloc[:0]
    blocks: list[Block] = [Paragraph(text)]
    own = figures.beside_real(right, "As many atoms as latents", "true share of the features")
    wide = figures.beside_real(many, "Twice as many atoms", "true share of the features")
    blocks.append(beside(own, wide))
    table = lessons.by_world(rows)
    if len(table):
        blocks.append(DataTable(table, "By world, all finders and widths.", FORMATS, "", LABELS))
    lines = []
    for name, promise, real in (
        ("matched world: true share", "promise", "real"),
        ("two seeds: shared by both", "shared", "real"),
        ("the smaller of these two", "cautious", "real"),
        ("matched world: share found", "found_promise", "found"),
        ("matched world: mean cosine", "cosine_promise", "cosine"),
    ):
        error = lessons.errors(rows, promise, real)
        if error["count"]:
            lines.append({"predictor": name, **error})
    if lines:
        caption = "How far each predictor is from what it predicts. Bias: predicted - recovered. Ranks: correlation."
        blocks.append(DataTable(pd.DataFrame(lines), caption, FORMATS, "", LABELS))
    return Section("Features", blocks)


def _learned(frame: pd.DataFrame, section: str) -> Section:
    rows = frame[frame["section"] == section]
    texts = {
        "classifiers": "A classifier of labels, or DIET of the number of each datum, is trained; a world is matched "
        "to its representation, its accuracy and its number of classes; the same learner is tried there.",
        "motion": "SlowVAE is trained on latents that move; a world is matched to the number of its informative "
        "codes, to the law they move by and to the noise that they do not explain; the same learner is tried there.",
    }
    blocks: list[Block] = [Paragraph(texts[section])]
    blocks.append(
        beside(
            figures.beside_real(rows, "Up to a linear map", "R2"),
            figures.beside_real(rows, "Column by column", "MCC", "promise_mcc", "real_mcc"),
        )
    )
    table = lessons.by_world(rows)
    if len(table):
        blocks.append(DataTable(table, "R2 of the latents, by world.", FORMATS, "", LABELS))
    return Section(TITLES[section], blocks)


def _failures(frame: pd.DataFrame) -> Section:
    blocks: list[Block] = []
    refused = frame[frame["refused"].fillna("") != ""]
    if len(refused):
        kept = refused[["section", "world", "method", "seed", "refused"]]
        blocks += [Paragraph("No matched world was justified here, and nothing was promised:"), DataTable(kept)]
    failed = frame[frame["failed"].fillna("") != ""]
    if len(failed):
        kept = failed[["section", "world", "method", "seed", "failed"]]
        blocks += [Paragraph("These could not be matched or failed, with their reason:"), DataTable(kept)]
    return Section("Refused and failed", blocks or [Paragraph("None.")])


def _methods(study: Any, small: bool) -> dict[str, Any]:
    return {
        "worlds": f"{LATENTS} latents in 32 dimensions, 3 active unless said otherwise, noise .05; classes: 4 "
        "latents on the sphere, 50 classes, 16 observed dimensions; motion: 4 latents, 8 observed dimensions",
        "true": "a found atom that fires, matched one to one with a true atom at |cosine| above .9",
        "agreement of seeds": "the same rows, another seed, |cosine| above .9",
        "seeds": ", ".join(map(str, study.chosen_seeds(small))),
        "rows": ", ".join(f"{n:,}" for n in study.samples) + " to fit features on",
        "rank correlation": "of promised and recovered, over the means of the worlds",
    }
