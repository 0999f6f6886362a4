"""The sections of the page beyond the theorem and the tables: violations, other objectives, sprites, photographs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from unmix.papers.cross_entropy.shown import FORMATS, LABELS
from unmix.papers.pages import narrow
from unmix.report.page import Block, DataTable, Facts, Figure, Paragraph, Section, beside
from unmix.report.published import beside_published, summarised


def violations_section(rows: Sequence[tuple[str, dict[str, Any]]]) -> Section:
    """Worlds outside the theorem, with what the check says of them before training."""
    lines: list[dict[str, Any]] = []
    told: dict[str, str] = {}
    for name, row in rows:
        lines.append(
            {
                "world": name,
                "check": "applies" if row["cases"] else "no case",
                **{k: row.get(k) for k in SCORES},
                "result": _result(row),
            }
        )
        if row["warnings"]:
            told[name] = "; ".join(row["warnings"])
    text = (
        "A mean R2 hides what was lost, and even the smallest R2 of single latents does where a direction between "
        "them is lost: the worst direction is the honest number. The check refuses such a world before anything is "
        "trained, and what is trained on it all the same is never called recovered, whatever its mean."
    )
    blocks: list[Block] = [
        Paragraph(text),
        DataTable(pd.DataFrame(lines), "Outside the theorem (5 latents, 100 classes).", FORMATS, NOTE, LABELS),
    ]
    if told:
        blocks += [Paragraph("What the check says before training:"), Facts(told)]
    return Section("Where the assumptions do not hold", blocks)


SCORES = ("r2", "r2_minimum", "worst_direction", "duality_ratio", "excess_loss")
NOTE = (
    "Check: whether a case of the theorem applies to the world, known before training; it does not see the loss, so "
    "label smoothing passes. Result: recovered where a case applies and the worst direction has an R2 of 0.95."
)


def _result(row: dict[str, Any]) -> str:
    if not row["cases"]:
        return "not identified" if row["worst_direction"] < 0.8 else "no promise"
    return "recovered" if row["worst_direction"] >= 0.95 else "not reached"


def objectives_section(rows: Sequence[tuple[str, dict[str, Any]]]) -> Section:
    """Contrastive objectives on pairs: what each recovers, up to a linear map and one to one."""
    table = pd.DataFrame([{"world": name, **row} for name, row in rows])
    shown = summarised(table, ("world", "learner", "similarity"), ("r2", "r2_minimum", "r2_x", "mcc"))
    text = (
        "Two rows of a pair have nearby latents, and no label is given. On the sphere the latents come back up to a "
        "linear map, so that single features are no single latents (a low MCC). In a box with Laplace steps a "
        "distance that fits them tells single latents apart; the wrong distance does not."
    )
    note = "MCC: mean |correlation| of latents with features under the best one-to-one matching."
    lines = DataTable(narrow(shown), "Pairs: 5 latents.", FORMATS, note, LABELS)
    return Section("Other objectives", [Paragraph(text), lines])


def sprites_section(results: Sequence[dict[str, Any]]) -> Section:
    """R2 of every factor but the shape, from pixels, untrained and trained features."""
    rows = []
    for result in results:
        for factor, value in result["trained"]["r2"].items():
            row = {"network": result["network"], "factor": factor, "trained": value}
            rows.append({**row, **{source: result[source]["r2"][factor] for source in ("pixels", "untrained")}})
    table = pd.DataFrame(rows)
    panels = []
    for network, group in table.groupby("network", sort=False):
        drawn = pd.DataFrame(
            [
                {"method": row.factor, "value": row.trained, "published": float("nan"), "chance": row.pixels}
                for row in group.itertuples()
            ]
        )
        panels.append(beside_published(drawn, f"{network}, features", "R2 of the factor"))
    shown = summarised(table, ("network", "factor"), ("pixels", "untrained", "trained"))
    accuracy = "; ".join(
        f"{name} {sum(values) / len(values):.3f}"
        for name in dict.fromkeys(r["network"] for r in results)
        if (values := [r["accuracy"] for r in results if r["network"] == name])
    )
    straight = table[table["factor"] != "orientation"]
    ahead = {source: int((straight["trained"] > straight[source]).sum()) for source in ("pixels", "untrained")}
    text = (
        f"The label is the shape alone (held-out accuracy: {accuracy}). With three classes for five factors the "
        "theorem's conditions are not met, so nothing is promised. Features that were never told of place and size "
        f"still carry them: of {len(straight)} such factors and networks the trained features are read out better "
        f"than pixels in {ahead['pixels']}, and better than those of the same network before training in "
        f"{ahead['untrained']}: much of it needs no training."
    )
    caption = "Least squares from the trained features, held-out rows; grey bars: from raw pixels."
    note = "An angle counts by the R2 of its cosine and sine, with the symmetry that all shapes share."
    labels = {**LABELS, "trained": "trained", "pixels": "raw pixels"}
    blocks: list[Block] = [
        Paragraph(text),
        Figure(beside(*panels).svg, caption),
        DataTable(narrow(shown), "Factors that no label told of: R2.", FORMATS, note, labels),
    ]
    return Section("Sprites: the class is the shape", blocks)


def pretrained_section(tables: Sequence[pd.DataFrame], missing: Sequence[str]) -> Section:
    """Binary factors of photographs and objects from a trained network, its untrained copy and a projection."""
    blocks: list[Block] = []
    panels = []
    for table in tables:
        wide = table.pivot(index="factor", columns="source", values="accuracy").reset_index()
        p = table.pivot(index="factor", columns="source", values="p").reset_index()
        wide["p"] = p["trained"]
        wide["p_untrained"] = p["untrained"]
        drawn = table[table["source"] == "trained"].assign(
            method=lambda t: t["factor"], value=lambda t: t["accuracy"]
        )
        base = table[table["source"] == "untrained"].set_index("factor")["accuracy"]
        drawn = drawn.assign(published=float("nan"), chance=drawn["factor"].map(base))
        panels.append(beside_published(drawn, table.attrs["kind"].capitalize(), "held-out accuracy"))
        order = ["factor", "random projection", "untrained", "trained", "p_untrained", "p"]
        labels = {"p": "p, trained", "p_untrained": "p, untrained"}
        left = table.attrs["left_out"]
        note = P_NOTE + (f" Left out, with too few images on one side: {', '.join(left)}." if left else "")
        caption = f"{table.attrs['kind'].capitalize()}: {table.attrs['images']} images, balanced held-out accuracy."
        formats = {**FORMATS, "random projection": ".3f", "p_untrained": ".1g"}
        blocks.append(DataTable(wide[order], caption, formats, note, labels))
    if panels:
        caption = "A logistic regression on the trained network's features; grey bars: on its untrained copy's."
        blocks.insert(0, Figure(beside(*panels).svg, caption))
        blocks.insert(0, Paragraph(SEEN))
    for name in missing:
        blocks.append(Paragraph(f"Left out: `{name}=` was not given. {WHERE[name]}"))
    return Section("A network trained on photographs", blocks)


SEEN = (
    "Categories that the network was not trained on by these names are linear in its features. Brightness, colour "
    "and edges are splits at the median of what any network is given, and a network that was trained to be blind "
    "to them need not keep them: compare its untrained copy and a random projection of the pixels."
)
P_NOTE = (
    "EfficientNet-Lite0, trained on ImageNet. p: one-sample t-test of the splits against 0.5, times the number of "
    "tests. The splits share their images, so that p speaks of these images alone."
)
WHERE = {
    "photographs": "It takes a zip or folder of photographs (jpg, png).",
    "objects": "It takes the MATLAB file of the supplement of Kriegeskorte et al. 2008 (92 objects), or its folder.",
}
