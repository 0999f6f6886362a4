"""The section of the page on one real representation."""

from __future__ import annotations

from typing import Any

import pandas as pd

from unmix.papers.amortisation import real
from unmix.papers.amortisation.claims import judged_claim
from unmix.papers.amortisation.shown import FORMATS, LABELS, UNITS
from unmix.papers.pages import narrow
from unmix.report.page import Block, DataTable, Paragraph, Section
from unmix.report.pareto import pareto
from unmix.report.published import summarised
from unmix.scores.autointerp import paired_difference

METHODS = ("SAE", "MLP", "TopK SAE", "sparse coding")


def real_section(found: real.Representation) -> Section:
    table = real.frame(found)
    data = table.rename(columns={"method": "finder"}).assign(
        world="data", samples=float("nan"), own=table["encoder"] == "own", target_l0=float("nan")
    )
    data["encoder"] = [
        encoder if encoder != "own" else {"SAE": "Linear", "MLP": "MLP", "TopK SAE": "TopK"}.get(method, "Fista")
        for method, encoder in zip(table["method"], table["encoder"], strict=True)
    ]
    order = table.assign(
        place=table["method"].map({m: i for i, m in enumerate(METHODS)}), last=table["encoder"] != "own"
    )
    order = order.sort_values(["place", "last", "encoder", "seed"])
    lines = summarised(order, ("method", "encoder"), ("l0", "fvu", "dead", "encode_flops", "fit_seconds"))
    pairs = found.agreement
    labels: dict[Any, str] = {
        found.results.label(cell.finder): found.names.get(cell.finder.digest, "") for cell, _ in found.results.cells()
    }
    told = "; ".join(
        f"{labels.get(row.finder, row.finder)} {row.shared:.0%} (mean cosine {row.agreement:.2f}, chance "
        f"{row.chance:.2f})"
        for row in pairs.itertuples()
    )
    blocks: list[Block] = [
        pareto(data),
        DataTable(narrow(lines, "fvu"), "Held-out rows; encoders at one sparsity.", FORMATS, "", LABELS, UNITS),
        Paragraph(
            f"Atoms that two seeds share (cosine above .9): {told}." if told else "One seed: no agreement to measure."
        ),
    ]
    if found.losses:
        rows: list[dict[Any, Any]] = []
        for method, loss in found.losses.items():
            for line in loss.table().to_dict("records"):
                if line["replaced by"] != "as it is" and (
                    line["replaced by"].startswith("decode") or method == "SAE"
                ):
                    rows.append(
                        {"codes of": method if line["replaced by"].startswith("decode") else "control", **line}
                    )
        rows.sort(key=lambda line: line["codes of"] == "control")
        shown = pd.DataFrame(rows)
        keep = [n for n in shown if not str(n).endswith(("_low", "_high"))]
        blocks.append(
            DataTable(shown[keep], "What the model loses when the layer's rows are replaced.", {}, LOSS_NOTE)
        )
    if found.judged:
        blocks.append(_judged(found))
    return Section(f"Real representations: {found.name}", blocks)


LOSS_NOTE = (
    "recovered: (mean - replaced) / (mean - original) of the first measure; 1 is no loss, 0 is as bad as putting the "
    "mean of the rows in their place. Above 1 the model predicts this text better with the replacement: then kl, "
    "the distance from its own predictions, says how much was changed."
)


def real_claims(found: real.Representation) -> list[dict[str, Any]]:
    """The paper's claim about real activations, where a judge was asked."""
    if not {"SAE", "MLP"} <= found.judged.keys():
        return []
    sae, mlp = found.judged["SAE"].found, found.judged["MLP"].found
    difference = paired_difference(mlp, sae)
    return [judged_claim(found.name, sae.outcome().value, mlp.outcome().value, difference.interval)]


def _judged(found: real.Representation) -> Block:
    rows: list[dict[str, Any]] = []
    for method, explanations in found.judged.items():
        for line in explanations.summary().to_dict("records"):
            own = line["what"] == "this fit"
            if own or method == next(iter(found.judged)):
                half = (line.get("detect_high", float("nan")) - line.get("detect_low", float("nan"))) / 2
                about = {"features of": method if own else line["what"], "features": line["features"]}
                rows.append({**about, "detection": line["detect"], "detection_half": half, "fuzzing": line["fuzz"]})
    rows.sort(key=lambda row: row["features of"] not in found.judged)
    pairs = list(found.judged.items())
    note = (
        "Macro-F1, ± half of the 95 % bootstrap interval over features. Half of the top contexts of a feature "
        "explain it; "
        "the other half are told from contexts of several sources. This judge counts tokens and their "
        "neighbours; the "
        "paper's was GPT-4o on GPT-2 small (means .639 for its SAE and .686 for its MLP), so the two are not "
        "comparable."
    )
    if len(pairs) > 1:
        difference = paired_difference(pairs[1][1].found, pairs[0][1].found)
        low, high = difference.interval
        note += f" {pairs[1][0]} minus {pairs[0][0]}, paired: {difference.value:+.3f} [{low:+.3f}, {high:+.3f}]."
    return DataTable(pd.DataFrame(rows), "Automated interpretability.", {}, note)
