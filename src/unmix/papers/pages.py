"""What the pages of all studies have in common: their frame, their methods, their failures, narrow tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from unmix.papers.parts import command_of
from unmix.report.page import Claims, Code, DataTable, Facts, Page, Paragraph, Section, write_page
from unmix.study.study import Results


def publish(
    study: Any,
    folder: Path,
    small: bool,
    title: str,
    lead: str,
    headline: str,
    sections: Sequence[Section],
    methods: Mapping[str, Any],
    claims: list[dict[str, Any]],
    note: str,
    heading: str = "Published and measured",
) -> Path:
    """Write claims.json and the page of a study: claims first, then sections, methods and command; the page's path.

    lead: one sentence without its full stop. headline: what came out. methods: name -> how it was done. note: what
    the verdicts go by.
    """
    Results(folder).write_claims(claims)
    command = command_of(study, small)
    first = [Section(heading, [Claims(claims, note)])] if claims else []
    last = Section("Methods", [Facts(dict(methods)), Paragraph("This page is made by:"), Code(command)])
    lead += ", in a version that takes minutes." if small else "."
    return write_page(folder / "report.html", Page(title, lead, headline, [*first, *sections, last], command))


def failures(
    failed: pd.DataFrame, text: str, none: str = "None: every piece of work ended with finite numbers."
) -> Section:
    """What failed, a row each, with its reason; text: what is made of it. none: said where nothing failed."""
    return Section("Failures", [Paragraph(none)] if failed.empty else [Paragraph(text), DataTable(failed)])


def narrow(lines: pd.DataFrame, *halves: str, least: int = 1) -> pd.DataFrame:
    """A table of `summarised` with the half-widths of these columns alone, so that it fits a page.

    least: seeds that an interval needs; it is left blank where there are fewer.
    """
    intervals = [str(name) for name in lines if str(name).endswith("_half")]
    kept = lines.drop(columns=[name for name in intervals if name.removesuffix("_half") not in halves])
    for name in kept.columns.intersection(intervals):
        kept[name] = kept[name].where(kept["seeds"] >= least)
    return kept
