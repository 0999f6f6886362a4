"""The page of the study: written like the results section of a paper, from what the run folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from unmix.papers.cross_entropy import claims as claim
from unmix.papers.cross_entropy import grids
from unmix.papers.cross_entropy.more_page import (
    objectives_section,
    pretrained_section,
    sprites_section,
    violations_section,
)
from unmix.papers.cross_entropy.pretrained import tested
from unmix.papers.cross_entropy.runs import row_of
from unmix.papers.cross_entropy.shown import FORMATS, LABELS
from unmix.papers.cross_entropy.sprites import PUBLISHED
from unmix.papers.pages import narrow, publish
from unmix.papers.parts import results as part_results
from unmix.report.page import Block, DataTable, Figure, Paragraph, Section, beside
from unmix.report.published import beside_published, curves, summarised

Rows = list[tuple[str, dict[str, Any]]]


def write(study: Any, folder: Path, small: bool) -> Path:
    """Write claims.json and the page; returns the page's path."""
    groups = study.grouped(small)
    made = {part.file(folder): result for part, result in part_results(folder, study.parts(small))}
    caveat = "" if study.training == 1 else f"{study.training:.0%} of the training steps"

    def rows(section: str) -> Rows:
        return [
            (name, row_of(part.settings, made[part.file(folder)]))
            for name, part in groups.get(section, ())
            if part.file(folder) in made
        ]

    def plain(section: str) -> list[dict[str, Any]]:
        return [made[p.file(folder)] for _, p in groups.get(section, ()) if p.file(folder) in made]

    named = {row.key: row for row in grids.ROWS}
    theorem = pd.DataFrame(
        [{**row, "labels": "instances" if "Instance" in row["learner"] else "classes"} for _, row in rows("theorem")]
    )
    lines, better = ([(named[name], row) for name, row in rows(s)] for s in ("tables", "improved"))
    broken, pairs, seen = rows("violations"), rows("objectives"), plain("sprites")
    tables = []
    for result in plain("pretrained"):
        table = pd.DataFrame(tested(result["accuracy"]))
        table.attrs.update({name: result[name] for name in ("kind", "images", "left_out")})
        tables.append(table)
    found: list[dict[str, Any]] = []
    sections: list[Section] = []
    hard = _hard(lines, better)
    if len(theorem):
        found += claim.theorem_claims(theorem, caveat)
        sections.append(_theorem(theorem))
    if lines:
        found += claim.row_claims(lines, caveat)
        sections.append(_lines(lines, better, hard))
    if broken:
        found += claim.violation_claims(broken, caveat)
        sections.append(violations_section(broken))
    if pairs:
        sections.append(objectives_section(pairs))
    if seen:
        found += claim.sprite_claims(seen, PUBLISHED)
        sections.append(sprites_section(seen))
    if "pretrained" in study.sections:
        found += claim.pretrained_claims(tables)
        missing = [name for name in ("photographs", "objects") if getattr(study, name) is None]
        sections.append(pretrained_section(tables, missing))
    best = [(old, new) for _, old, new in hard]
    title = "Cross-entropy and the data-generating process"
    lead = f"Recovery of latents by classification, after {study.reference}"
    methods, headline = _methods(study, small), claim.headline(found, theorem, best)
    return publish(study, folder, small, title, lead, headline, sections, methods, found, CLAIMS_NOTE)


CLAIMS_NOTE = (
    f"A number replicates when the mean over seeds lies within {claim.CLOSE} of the published one. A statement of "
    "the theorem replicates when every seed meets the bound that is named. Claims that differ stay in, with what "
    "is known of the difference."
)


def _theorem(table: pd.DataFrame) -> Section:
    table = table.assign(method=[f"{c}, {n}" for c, n in zip(table["case"], table["labels"], strict=True)])
    panels = []
    for column, title in (("r2_minimum", "The worst latent"), ("procrustes_scaled", "Up to rotation and scale")):
        chance = table["r2_x_minimum" if column == "r2_minimum" else "procrustes_scaled_x"]
        drawn = table.assign(value=table[column], published=float("nan"), chance=chance)
        panels.append(beside_published(drawn, title, "R2 of held-out rows"))
    caption = (
        "5 latents on the sphere, 100 classes, concentration 10. Left: R2 of the latent that least squares reads "
        "worst from the representation; right: mean R2 after the best rotation and one scale. Solid: mean over "
        "seeds, pale: single seeds; grey bars: the same for the raw observations. C4 is promised no rotation."
    )
    first = ("r2", "r2_minimum", "worst_direction", "procrustes_scaled", "r2_x", "r2_x_minimum", "r2_untrained")
    second = ("weights_r2", "singular_values", "beta_ratio", "duality_ratio", "within_class", "excess_loss")
    keys = ("labels", "case")
    tight = narrow(summarised(table, keys, first), "r2", "procrustes_scaled")
    # Only where the theorem fixes them.
    fixed = table.assign(
        singular_values=table["singular_values"].where(table["case"].isin(["C1", "C3"])),
        beta_ratio=table["beta_ratio"].where(table["case"] == "C1"),
    )
    head = narrow(summarised(fixed, keys, second))
    values = _within(table)
    text = (
        f"In every run the worst latent has an R2 of at least {values['least']:.3f}; the raw observations reach "
        f"{values['raw']:.3f} on average over latents and an untrained network {values['untrained']:.3f}. The "
        "concentration of the world, 10, can be read off features and weights together in every case "
        f"(estimates of {values['low']:.2f} to {values['high']:.2f} times the truth): beta A_w' A_h = kappa I, which "
        "the paper leaves implicit. The cross-entropy stays above that of the exact posterior in all runs."
        if values["above"]
        else ""
    )
    blocks: list[Block] = [
        *([Paragraph(text)] if text else []),
        Figure(beside(*panels).svg, caption),
        DataTable(tight, "Latents from the representation: R2 of held-out rows.", FORMATS, NOTE, LABELS),
        DataTable(head, "The head, the map's scale and the loss.", FORMATS, HEAD_NOTE, LABELS),
    ]
    return Section("The theorem, where its assumptions hold", blocks)


NOTE = "Mean over seeds and latents; worst is the smallest latent's, mean over seeds. x: raw observations."
HEAD_NOTE = (
    "Weights: R2 of class vectors from the head's weights, classes held out. Scale error: largest relative error "
    "of the map's singular values against kappa / beta, promised to vanish in C1 and C3. Within classes: share of "
    "the weights' variance. Above Bayes: cross-entropy minus that of the exact posterior, nats."
)


def _within(table: pd.DataFrame) -> dict[str, Any]:
    ratio = table["duality_ratio"].dropna()
    return {
        "least": table["r2_minimum"].min(),
        "raw": table["r2_x"].mean(),
        "untrained": table["r2_untrained"].mean(),
        "low": ratio.min() if len(ratio) else float("nan"),
        "high": ratio.max() if len(ratio) else float("nan"),
        "above": bool((table["excess_loss"] > -0.005).all()),
    }


def _hard(lines: Sequence[Any], better: Sequence[Any]) -> list[tuple[str, float, float]]:
    """(name, published, best mean over seeds) of the hard lines that were run."""
    found = []
    for row in dict.fromkeys(row for row, _ in lines if row.hard):
        runs = pd.DataFrame([measured for r, measured in [*lines, *better] if r == row])
        best = float(runs.groupby("case")["r2"].mean().max())
        found.append((f"{row.labels}, {row.name}", max(row.published.values()), best))
    return found


def _lines(lines: Sequence[Any], better: Sequence[Any], hard: Sequence[tuple[str, float, float]]) -> Section:
    rows = []
    for row, measured in lines:
        rows.append({**measured, "labels": row.labels, "row": row.name, "published": row.published[measured["case"]]})
    table = pd.DataFrame(rows)
    values = ("published", "r2", "r2_minimum", "r2_x", "excess_loss", "seconds")
    shown = summarised(table, ("labels", "case", "row"), values)
    panels = []
    for (labels, case), group in table.groupby(["labels", "case"], sort=False):
        drawn = group.assign(method=group["row"], value=group["r2"], chance=group["r2_x"])
        panels.append(beside_published(drawn, f"{str(labels).capitalize()}, {case}", "R2 of z"))
    caption = (
        "Lines of the published tables: solid ours, open diamonds as printed, grey bars the raw observations, which "
        "the paper does not report. Rows without another word have 5 latents, 100 classes and concentration 10."
    )
    blocks: list[Block] = [
        Figure(beside(*panels).svg, caption),
        DataTable(narrow(shown, "r2"), "The paper's lines.", FORMATS, ROW_NOTE, LABELS),
    ]
    blocks += _on_the_way(table)
    if better:
        blocks += _improved(lines, better, hard)
    return Section("The paper's tables", blocks)


def _on_the_way(table: pd.DataFrame) -> list[Block]:
    """R2 against the loss that is left, over training, for the lines with the most left at the end."""
    rows = []
    left = table.groupby(["labels", "case", "row"], sort=False)["excess_loss"].mean()
    for labels, case, row in left[left > claim.FINISHED].sort_values(ascending=False).index[:6]:
        group = table[(table["labels"] == labels) & (table["case"] == case) & (table["row"] == row)]
        seen = [curve for curve in group["curve"] if curve]
        for looks in zip(*seen, strict=True):
            r2, excess = (sum(look[place] for look in looks) / len(looks) for place in (1, 2))
            rows.append({"group": f"{labels}, {case}, {row}", "x": 1 / max(excess, 1e-3), "y": r2})
    if not rows:
        return []
    drawn = curves(
        pd.DataFrame(rows), "On the way", ("1 / (nats above the best possible loss)", "R2 of z"), WAY, log=True
    )
    return [Paragraph(LEFT), drawn]


LEFT = (
    "The theorem speaks of the minimum of the loss. Where an R2 falls short, training has left some of the loss: as "
    "it comes down to the best possible R2 rises towards 1, at a rate of its own for each line."
)
WAY = (
    "Each line at steps that double (a point each, further right the less loss is left; means over seeds), for the "
    f"lines that end more than {claim.FINISHED} nats above the best possible, at most six. A conditional outside the "
    "theorem has a floor of its own: no linear head can have its posterior."
)


ROW_NOTE = (
    "The mixing is the paper's (4 layers, the best conditioned of 25,000 draws); the network, the learning rate and "
    "the number of steps are ours."
)


def _improved(lines: Sequence[Any], better: Sequence[Any], hard: Sequence[tuple[str, float, float]]) -> list[Block]:
    rows = []
    for row, measured in [*lines, *better]:
        if row.hard and row.labels == "classes":
            old = row.published.get(measured["case"], float("nan"))
            method = f"{row.name}, {measured['case']}"
            rows.append({**measured, "row": row.name, "method": method, "published": old})
    table = pd.DataFrame(rows)
    drawn = table.assign(value=table["r2"], chance=table["r2_x"])
    caption = (
        "Hard lines with classes as labels, in the case that the paper ran (C4) and with features and weights on the "
        "sphere. Diamonds: published for that case; grey bars: raw observations."
    )
    figure = beside_published(drawn, "The hard lines", "R2 of z", caption)
    shown = summarised(table, ("row", "case"), ("published", "r2", "r2_minimum", "duality_ratio", "excess_loss"))
    told = "; ".join(f"{name}: {new:.3f}, published {old:.3f}" for name, old, new in hard)
    text = (
        "At a high concentration classes hardly overlap: the few rows between them carry the whole signal, the "
        "loss is nearly flat in what identifies the latents, and free features and weights drift. Nothing is lost "
        f"by bringing both to the sphere, where the optimum lies; best of the cases here: {told}."
    )
    return [Paragraph(text), figure, DataTable(narrow(shown), "Hard lines by case.", FORMATS, "", LABELS)]


def _methods(study: Any, small: bool) -> dict[str, Any]:
    return {
        "source": study.reference,
        "seeds": ", ".join(str(seed) for seed in study.chosen_seeds(small))
        + "; a seed draws world, start and batches",
        "worlds": "latents around unit class vectors on the sphere (von Mises-Fisher unless said), seen through "
        "layers of square matrices with leaky rectifiers; every batch is drawn afresh",
        "training": "Adam with a cosine to 0, batches of 1,024, the head's learning rate five times the network's, "
        "four layers of 64 smooth units with batch norm; the inverse temperature is learnt",
        "training, tables": "the same rule for every line: leaky units, 128 of them beyond 5 latents and 256 "
        "beyond 10, there with four times the steps; orthogonalised steps (Muon) for the network's matrices, at a "
        "rate of 0.02. 100,000 instances: a softmax over those of the batch",
        "scores": "least squares on one half of 8,192 held-out rows, R2 on the other half; the smallest latent "
        "beside the mean; baselines by the same read-out",
        "departures": "the paper trains networks of width 250 for up to four hours each with Adam; its head has no "
        "learnable inverse temperature. Sprites: pixels and features are read out by ridge regression",
        "not repeated": "ImageNet-X and its networks (ResNet-50, ViT), Shapes3D, MPI3D, Cars3D, smallNORB",
    }
