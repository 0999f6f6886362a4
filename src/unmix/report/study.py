"""The page of a paper's study: its claims, then its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unmix.report.page import Claims, Code, DataTable, Page, Paragraph, Section, write_page
from unmix.report.run import FORMATS, LABELS
from unmix.study.present import summary
from unmix.study.study import Results


def study_page(results: Results, paper: Any, claims: Sequence[dict[str, Any]], small: bool) -> Path:
    """Write the page of a study beside its claims.json; returns its path."""
    counts = {v: sum(claim["verdict"] == v for claim in claims) for v in ("replicates", "differs", "not comparable")}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    table = summary(results.table())
    names = [
        n for n in ("recipe", "encoder", "seeds", "l0", "fvu", "mcc", "dictionary_mcc", "encode_flops") if n in table
    ]
    halves = [f"{name}_half" for name in ("l0", "fvu", "mcc", "dictionary_mcc") if f"{name}_half" in table]
    chance = {n: table[f"{n}_chance"].mean() for n in ("mcc", "dictionary_mcc") if f"{n}_chance" in table}
    notes = "Chance: " + ", ".join(f"{LABELS[name]} {value:.3f}" for name, value in chance.items()) + "."
    if "recipe" not in names:
        names.insert(0, "finder")
    name = paper.kind
    command = f"unmix study {name}" + (" --small" if small else "")
    sections = [
        Section("Claims", [Claims(list(claims), "Published numbers beside measured ones.")]),
        Section("Measured", [DataTable(table[[*names, *halves]], "Means over seeds.", FORMATS, notes, LABELS)]),
        Section("Again", [Paragraph("This page is made by:"), Code(command)]),
    ]
    lead = (type(paper).__doc__ or "").split("\n")[0]
    page = Page(f"Study: {name}", f"{lead} Source: {paper.reference}.", f"Of the claims: {told}.", sections, command)
    return write_page(results.store.root / "report.html", page)
