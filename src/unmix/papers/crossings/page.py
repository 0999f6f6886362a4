"""The page of the study, written like the results of a paper, from what the run folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from unmix.papers.crossings import answers, figures, grids
from unmix.papers.crossings import claims as claim
from unmix.papers.crossings.runs import DCI
from unmix.papers.pages import failures, publish
from unmix.report.page import Block, DataTable, Paragraph, Section, beside

LABELS = {
    "r2_read": "R2, linear read-out",
    "r2_worst": "worst latent",
    "mcc_columns": "MCC of columns",
    "best": "best finder",
    "mcc": "MCC",
    "r2": "change of R2",
    "balanced": "R2, balanced",
    "low": "from",
    "high": "to",
    "what": "with",
    "dci_disentanglement": "DCI",
    "stability": "agreement of seeds",
    "rankme": "RankMe",
    "fvu": "FVU",
    "l0": "L0",
}
THREE = ("r2_read", "r2_worst", "mcc_columns", "mcc", "chance", "fvu", "dead", "stability", "hoyer", "gain")
FORMATS = dict.fromkeys((*THREE, "dci_disentanglement", "dictionary_mcc", "r2", "balanced"), ".3f")
FORMATS |= dict.fromkeys(("agreement", "low", "high", *grids.WORLDS), "+.2f") | dict.fromkeys(("l0", "rankme"), ".1f")
NOTE = "Every seed counts, and a claim that differs stays in. `asked here`: no number was published."


def write(study: Any, folder: Path, small: bool) -> Path:
    """Write claims.json, cells.csv and the page; returns the page's path."""
    from unmix.study.export import write_table

    frame = answers.cells(study, folder, small)
    write_table(frame, folder / "cells.csv")
    found, told = claim.claims(frame), answers.sentences(frame)
    sections = [_read_out(frame, told), _sparse(frame, told), _start(frame, told), _scores(frame, told)]
    sections += [_given(study, frame), _refused(study), _failures(frame)]
    lead = "Every learner, start, finder and encoder on every world, beside the truth where it is known"
    methods, headline = _methods(study, small), claim.headline(frame, told)
    return publish(study, folder, small, "Crossings", lead, headline, sections, methods, found, NOTE)


def _read_out(frame: pd.DataFrame, told: dict[str, str]) -> Section:
    text = (
        "R2 is that of least squares from the representation to the latents, which looks at the truth: a linear "
        "read-out suffices where it is near 1. MCC is what a finder reaches that has not seen it, one code to one "
        "latent; `columns` are the representation as it is. `solved`: the same atoms, read by the better of Omp and "
        "Fista. Means over seeds; learners from a balanced start."
    )
    blocks: list[Block] = [Paragraph(told["read-out"]), Paragraph(text)]
    blocks += [figures.recovery_map(frame, world) for world in answers.with_truth(frame)]
    lines = answers.read_outs(frame)
    if len(lines):
        blocks.append(DataTable(lines, "Read-outs, and the finder that recovers most.", FORMATS, "", LABELS))
    return Section("Where a linear read-out suffices", blocks)


def _sparse(frame: pd.DataFrame, told: dict[str, str]) -> Section:
    text = (
        "The same atoms under two kinds of encoders: one pass of a fitted network (Linear, TopK), or codes that are "
        "solved for (Omp, Fista at the same mean number of active codes). What differs is inference alone."
    )
    lines = answers.sparse_gains(frame)
    blocks: list[Block] = [Paragraph(told["sparse"]), Paragraph(text)]
    if len(lines):
        names = [f"{row['finder']}, {answers.place_(row)}" for _, row in lines.iterrows()]
        caption = "MCC with codes solved for, less MCC with amortised codes, on the same atoms."
        blocks.append(figures.differences(lines, names, "gain", "What sparse inference adds", "MCC gained", caption))
        blocks.append(DataTable(lines, "", FORMATS, "", LABELS))
    return Section("Where sparse inference adds", blocks)


def _start(frame: pd.DataFrame, told: dict[str, str]) -> Section:
    text = (
        "Each learner begins with every unit balanced, or with the same function and its scale moved to later layers "
        f"(Upstream) or to earlier ones (Downstream) by a factor of {grids.ALPHA:g} for each pair of layers. Same "
        "seeds, same batches."
    )
    lines = answers.start_changes(frame)
    blocks: list[Block] = [Paragraph(told["start"]), Paragraph(text)]
    if len(lines):
        names = [f"{row['start']}, {answers.place_(row)}" for _, row in lines.iterrows()]
        blocks.append(
            beside(
                figures.differences(lines, names, "r2", "Linear read-out", "R2 less that of a balanced start"),
                figures.differences(lines, names, "mcc", "Columns", "MCC less that of a balanced start"),
            )
        )
        blocks.append(DataTable(lines, "", FORMATS, "", {**LABELS, "mcc": "change of MCC"}))
    return Section("What the initialisation changes", blocks)


def _scores(frame: pd.DataFrame, told: dict[str, str]) -> Section:
    text = (
        "Within every world, cells are ranked by a score and by their true recovery (MCC above chance); shown is the "
        "rank correlation, each world a pale dot, their mean solid with a 95 % bootstrap interval over "
        "representations. FVU and dead codes are counted so that less is better. R2 and DCI need the truth "
        "themselves and stand here for comparison."
    )
    lines = answers.agreements(frame)
    blocks: list[Block] = [Paragraph(told["scores"]), Paragraph(text), figures.agreement(lines)]
    if len(lines):
        blocks.append(DataTable(lines, "", FORMATS, "", LABELS))
    return Section("Which score agrees with the truth", blocks)


def _given(study: Any, frame: pd.DataFrame) -> Section:
    """Worlds without a truth: what can be measured there."""
    known = answers.with_truth(frame)
    blocks: list[Block] = []
    rows = answers.main_rows(frame[~frame["world"].isin(known)])
    rows = rows[(rows["encoder"] == "own") & (rows["finder"] != grids.COLUMNS)]
    names = [name for name in grids.LABEL_FREE if name in rows]
    if len(rows):
        text = "No latents are known here, so nothing can be said of recovery: these are the scores that need none."
        lines = rows.groupby(["world", "learner", "finder"], sort=False)[names].mean().reset_index()
        blocks += [Paragraph(text), DataTable(lines, "Own encoders, means over seeds.", FORMATS, "", LABELS)]
    for name in study.missing:
        blocks.append(Paragraph(f"{name.capitalize()} are left out: none were given. Give `{name}=PATH`."))
    return Section("Real data", blocks or [Paragraph("None was asked for.")])


def _refused(study: Any) -> Section:
    rows = pd.DataFrame(study.check(), columns=["world", "what", "why"])
    text = (
        "These crossings are impossible; they were refused, with the reason, before anything ran. A start belongs to "
        "a learner: x itself has none."
    )
    blocks: list[Block] = [Paragraph(text)]
    return Section("Refused", [*blocks, DataTable(rows, "", {}, "", LABELS)] if len(rows) else blocks)


def _failures(frame: pd.DataFrame) -> Section:
    failed = frame[frame["failed"].fillna("") != ""]
    kept = failed.groupby(["world", "learner", "finder", "encoder", "failed"], sort=False).size()
    text, none = "Cells that failed count as failures, not as missing.", "None: every cell ended with finite numbers."
    return failures(kept.reset_index(name="cells"), text, none)


def _methods(study: Any, small: bool) -> dict[str, Any]:
    return {
        "sparse": "32 non-negative latents, 2 active, through a random dictionary in 16 dimensions, noise .02",
        "clusters": "4 latents on the sphere around 50 class vectors, 500 data, 3 layers of mixing to 16 dimensions",
        "motion": "4 latents with Laplace steps, a mixing of 2 layers to 8 dimensions",
        "sprites": "three shapes that move and grow by a Laplace law, 16 pixels; the shape is the label, and counts "
        "in no score of recovery, being no number",
        "digits": "scikit-learn's digits, 8 pixels, no latents known",
        "learners": f"two hidden layers of 64 units, {max(1, round(1000 * study.training)):,} steps of 256 rows",
        "finders": ", ".join(study.finders) + f", fitted on {study.samples:,} rows (or what there is), scored on "
        f"{study.test:,} held out",
        "agreement of seeds": "mean cosine of matched atoms of a second fit on the same representation",
        "RankMe": "of the codes",
        "DCI": f"disentanglement, {DCI['rounds']} trees on at most {DCI['rows']:,} rows",
        "seeds": ", ".join(map(str, study.chosen_seeds(small))) + "; each has its own world, weights and draws",
    }
