"""Page: a small document model, and its writer to one HTML file that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from unmix.core.errors import UsageError
from unmix.core.store import write_text
from unmix.report.tables import Form, columns, shown

VERDICTS = ("replicates", "differs", "not comparable")
PARTS = ("claim", "source", "published", "measured", "seeds", "interval", "verdict", "why")


@dataclass(frozen=True)
class Paragraph:
    """Plain text; words between backticks are shown as code."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Figure:
    """Panels, each one SVG element that is trusted as markup, with a caption and the command that made them."""

    kind: ClassVar[str] = "figure"
    svg: str | tuple[str, ...]
    caption: str = ""
    command: str = ""

    @property
    def panels(self) -> tuple[str, ...]:
        """The panels from left to right."""
        return (self.svg,) if isinstance(self.svg, str) else tuple(self.svg)

    def _repr_html_(self) -> str:
        """The panels and the caption, for notebooks."""
        drawn = "".join(f'<span style="display: inline-block">{panel}</span>' for panel in self.panels)
        return f'<div style="background: #fff; color: #222">{drawn}<p>{escape(self.caption)}</p></div>'


@dataclass(frozen=True, eq=False)
class DataTable:
    """A table: numbers right-aligned, a column X that has a companion X_half shown as `0.83 ± 0.02`.

    formats: column -> format specification (".3f", ",d", ".0%", "si") or a function to text. labels, units: column ->
    heading and unit in the heading. All three may name columns that are not here, so that tables can share them.
    Missing values are shown as a dash.
    """

    kind: ClassVar[str] = "table"
    frame: pd.DataFrame
    caption: str = ""
    formats: Mapping[str, Form] = field(default_factory=dict)
    notes: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return self.frame.rename(columns=dict(self.labels)).to_html(index=False)


@dataclass(frozen=True)
class Facts:
    """What was done: name -> value."""

    kind: ClassVar[str] = "facts"
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Claims:
    """Published numbers beside measured ones, as `claims.json` holds them.

    Each has claim, source, published, measured, seeds, interval (text, a pair of numbers or None), verdict, why.
    Raises `UsageError` for a claim without its parts or with another verdict.
    """

    kind: ClassVar[str] = "claims"
    claims: Sequence[Mapping[str, Any]]
    caption: str = ""

    def __post_init__(self) -> None:
        for claim in self.claims:
            if missing := [part for part in PARTS if part not in claim]:
                raise UsageError(f"claim {claim.get('claim')!r}: {', '.join(missing)} missing")
            if claim["verdict"] not in VERDICTS:
                known = ", ".join(VERDICTS)
                raise UsageError(f"claim {claim['claim']!r}: verdict must be {known}; got {claim['verdict']!r}")


@dataclass(frozen=True)
class Code:
    """Lines of a shell, shown as they are."""

    kind: ClassVar[str] = "code"
    lines: str | Sequence[str]

    @property
    def text(self) -> str:
        """The lines as one text."""
        return self.lines if isinstance(self.lines, str) else "\n".join(self.lines)


@dataclass(frozen=True)
class Link:
    """A link to a file beside the page, with what to say of it behind it.

    to: the file's path from the folder of the page. Raises `UsageError` for one that is not below it.
    """

    kind: ClassVar[str] = "link"
    words: str
    to: str
    text: str = ""

    def __post_init__(self) -> None:
        if ":" in self.to or "\\" in self.to or self.to.startswith("/") or ".." in self.to.split("/"):
            raise UsageError(f"to={self.to}: must lie below the folder of the page")


Block = Paragraph | Figure | DataTable | Facts | Claims | Code | Link


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A page: what it is, what came out in one sentence, and its sections; `command` is what made it."""

    title: str
    lead: str
    verdict: str
    sections: Sequence[Section]
    command: str = ""


def beside(*figures: Figure) -> Figure:
    """Several figures as one: their panels side by side, their captions one after the other."""
    panels = tuple(panel for figure in figures for panel in figure.panels)
    commands = dict.fromkeys(figure.command for figure in figures if figure.command)
    return Figure(panels, " ".join(figure.caption for figure in figures if figure.caption), "; ".join(commands))


def render(page: Page) -> str:
    """The page as HTML: equal pages give equal text, all text is escaped, every id occurs once."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "static")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(inline=inline, shown=shown, columns=columns, anchored=anchored)
    css = (Path(__file__).parent / "static" / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(page=page, css=Markup(css), version=_version())


def write_page(path: str | Path, page: Page) -> Path:
    """Write the page whole or not at all; gives back where. Raises `Failure` where the disk refuses."""
    write_text(path, render(page))
    return Path(path)


def inline(text: str) -> Markup:
    """Escaped text with `words between backticks` as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def anchored(svg: str, prefix: str) -> Markup:
    """An SVG element whose ids, and what points at them, begin with `prefix`, so that many can share a page."""

    def renamed(tag: re.Match[str]) -> str:
        named = re.sub(r'(\sid=["\'])', rf"\g<1>{prefix}-", tag.group())
        return re.sub(r'(href=["\']#|url\(#)', rf"\g<1>{prefix}-", named)

    return Markup(re.sub(r"<[^>]*>", renamed, svg))


def _version() -> str:
    try:
        return metadata.version("unmix")
    except metadata.PackageNotFoundError:
        return "(not installed)"
