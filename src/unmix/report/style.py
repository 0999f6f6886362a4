"""Style: one look for all figures of a page, and deterministic SVG that follows the page's light or dark colours."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from unmix.core.errors import UsageError
from unmix.report.tables import si

INK, MUTED, RULE, PAPER = "#1f2328", "#59636e", "#d8dee4", "#ffffff"
# Okabe and Ito's colour-blind-safe hues, the lightest three darkened for white; then two greys for controls.
# page.css holds the same colours by number, and lighter ones for the dark.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c2629a", "#b87a00", "#3a93cc", "#7a6a1a", "#6e7781", "#98a1ab")
FINDERS = ("TopKSAE", "SparseCoding", "FastICA", "PCA", "NMF", "SAE", "KMeans", "RandomAtoms", "DataAtoms")
# Markers of the encoders that amortise, round and square, and of those that solve for each row, triangles.
MARKERS = {
    True: {"TopK": "o", "Linear": "s", "MLP": "D", "": "hp8X*P"},
    False: {"Fista": "^", "Omp": "v", "Refine": ">", "": "<>v^"},
}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
WIDE, NARROW, HEIGHT = 4.45, 3.2, 2.9
RC: dict[Any, Any] = {
    "figure.dpi": 72,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "unmix",
    "path.simplify": True,
}


class Look:
    """Which colour stands for a finder and which marker for an encoder: the same on every figure of a page.

    finders: names in tables. encoders: names in tables -> whether they amortise. The names unmix knows keep their
    colour and marker everywhere; others take what is left of their kind, in the order given.
    """

    def __init__(self, finders: Iterable[str] = (), encoders: Mapping[str, bool] | None = None) -> None:
        self._colours: dict[str, str] = {}
        self._markers: dict[str, str] = {}
        finders = list(dict.fromkeys(finders))
        for name in sorted(finders, key=lambda name: name not in FINDERS):
            self.colour(name)
        given = encoders or {}
        for name in sorted(given, key=lambda name: name not in MARKERS[given[name]]):
            self.marker(name, given[name])

    @staticmethod
    def of(rows: pd.DataFrame) -> Look:
        """The look of a table with the columns finder, encoder and amortised."""
        kinds = zip(rows["encoder"].astype(str), rows["amortised"].astype(bool), strict=True)
        return Look(rows["finder"].astype(str), dict(kinds))

    def colour(self, finder: str) -> str:
        """The colour of a finder, as hexadecimal."""
        if finder not in self._colours:
            hues = COLOURS[:7]
            if finder in FINDERS:
                self._colours[finder] = COLOURS[FINDERS.index(finder)]
            else:
                free = [hue for hue in hues if hue not in self._colours.values()]
                self._colours[finder] = free[0] if free else hues[len(self._colours) % len(hues)]
        return self._colours[finder]

    def marker(self, encoder: str, amortised: bool) -> str:
        """The marker of an encoder, as matplotlib names it: round and square amortise, triangles solve."""
        if encoder not in self._markers:
            shapes = MARKERS[amortised]
            free = [shape for shape in shapes[""] if shape not in self._markers.values()]
            self._markers[encoder] = shapes.get(encoder) or (free or shapes[""])[0]
        return self._markers[encoder]


@contextmanager
def drawing() -> Iterator[None]:
    """The settings that figures are drawn under, whatever a matplotlibrc says; those of before come back after."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        # The reader's browser draws the letters, with its own fonts; those of this machine do not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def panel(
    width: float = WIDE, height: float = HEIGHT, left: float = 0.62, right: float = 0.16, top: float = 0.36
) -> tuple[Canvas, Axes]:
    """A canvas of width x height inches with one axes, margins in inches; less at the top where there is no title."""
    canvas = Canvas(figsize=(width, height))
    FigureCanvasAgg(canvas)
    box = (left / width, 0.5 / height, 1 - (left + right) / width, 1 - (0.5 + top) / height)
    return canvas, canvas.add_axes(box)


def to_svg(canvas: Canvas, alt: str) -> str:
    """The canvas as an SVG element: the same bytes for the same drawing, text as text, colours that follow the page.

    alt: what a reader who cannot see it is told. Colours are written `var(--name, #rrggbb)`.
    """
    out = io.StringIO()
    canvas.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    names = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper", **{c: f"c{i}" for i, c in enumerate(COLOURS)}}

    def restyled(match: re.Match[str]) -> str:
        tag = re.sub(r' id="([^"]*)"', lambda m: m.group() if m.group(1) in used else "", match.group())
        tag = re.sub(r"'DejaVu Sans'[^;\"]*", FONTS, tag)
        return re.sub(r"#[0-9a-f]{6}\b", lambda m: _variable(m.group(), names), tag)

    svg = re.sub(r"<[^>]*>", restyled, svg)
    svg = re.sub(r"\n\s*", "\n", svg).strip()
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" ', 1)


def _variable(colour: str, names: dict[str, str]) -> str:
    return f"var(--{names[colour]}, {colour})" if colour in names else colour


def nothing(reason: str) -> str:
    """A panel that says in words why there is nothing to draw."""
    with drawing():
        canvas = Canvas(figsize=(WIDE, 0.6))
        FigureCanvasAgg(canvas)
        canvas.text(0.5, 0.5, reason, ha="center", va="center", color=MUTED)
        return to_svg(canvas, reason)


def checked(
    frame: pd.DataFrame, name: str, text: Iterable[str], numbers: Iterable[str], flags: Iterable[str] = ()
) -> pd.DataFrame:
    """A copy with the named columns as text, as float (infinite becomes NaN) and as bool (what is missing is False).

    Raises `UsageError` for a column that is missing or does not hold numbers.
    """
    text, numbers, flags = list(text), list(numbers), list(flags)
    if missing := [column for column in [*text, *numbers, *flags] if column not in frame]:
        raise UsageError(
            f"{name}: columns {', '.join(missing)} are missing; got {', '.join(map(str, frame.columns))}"
        )
    copy = frame.reset_index(drop=True)
    for column in text:
        copy[column] = copy[column].astype(str)
    for column in flags:
        copy[column] = copy[column].eq(True)
    for column in numbers:
        try:
            copy[column] = copy[column].astype(float)
        except (TypeError, ValueError):
            raise UsageError(f"{name}: column {column} must hold numbers, got {frame[column].iloc[0]!r}") from None
        copy[column] = copy[column].where(np.isfinite(copy[column]))
    return copy


def short(text: str, length: int = 26) -> str:
    """A name cut to fit a label; of "Kind(field=value)" the kind is cut where that is enough."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    kind, bracket, told = text.partition("(")
    left = length - 1 - len(bracket + told)
    return f"{kind[:left]}…{bracket}{told}" if bracket and 3 <= left <= len(kind) else text[: length - 1] + "…"


def log_x(axes: Axes, values: Iterable[float], pad: float = 0.12, right: float | None = None) -> None:
    """A logarithmic x axis around positive values, at least a decade wide, with ticks such as 10k.

    pad, right: free room on the left and on the right, as a share of the range.
    """
    axes.set_xscale("log")
    logs = np.log10([value for value in values if value > 0] or [1.0])
    low, high = float(logs.min()), float(logs.max())
    spare = max(pad * (high - low), (1.0 - (high - low)) / 2, 0.08)
    after = spare if right is None else max(spare, right * (high - low))
    axes.set_xlim(10 ** (low - spare), 10 ** (high + after))
    decades = high - low + spare + after
    inner = (1.0, 2.0, 5.0) if decades < 1.6 else (1.0, 3.0) if decades < 2.6 else (1.0,)
    inches = axes.figure.get_figwidth() * axes.get_position().width  # type: ignore[union-attr]
    axes.xaxis.set_major_locator(ticker.LogLocator(10, inner, numticks=max(3, int(inches / 0.4))))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: si(value)))
