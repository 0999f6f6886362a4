"""Numerals: the numbers that cells of a text table stand for, as programs and people write them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

_SPREADSHEET = "#n/a #na #div/0! #value! #ref! #name? #num! #null!"
_WINDOWS = "1.#ind -1.#ind 1.#qnan -1.#qnan 1.#snan"  # of C there
_OTHERS = "na n/a n.a. nan +nan -nan null none nil missing nat <na> - -- . ?"
MISSING = frozenset(["", *f"{_OTHERS} {_SPREADSHEET} {_WINDOWS}".split()])
SPACES = "\u00a0\u202f\u2009"  # no-break, narrow no-break and thin: as thousands separators of French and SI
APOSTROPHES = "'\u2019"
_MINUS = "\u2212"  # of typesetters
_SPECIAL = {"1.#inf": math.inf, "-1.#inf": -math.inf, "\u221e": math.inf, "-\u221e": -math.inf}
_TRUTH = {"true": 1.0, "false": 0.0}
_FORTRAN = re.compile(r"[+-]?(\d+\.\d*|\.\d+)[dD][+-]?\d+")
_HEX = re.compile(r"[+-]?0[xX][0-9a-fA-F]+(\.[0-9a-fA-F]*)?([pP][+-]?\d+)?")
_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")
_MARKED = re.compile(rf"[+-]?[\d.,{APOSTROPHES}{SPACES}]*\d[\d.,{APOSTROPHES}{SPACES}]*([eE][+-]?\d+)?")
LARGE = 2**53  # above it float64 leaves out whole numbers

Kind = Literal["number", "missing", "truth", "percent"]


@dataclass(frozen=True)
class Style:
    """How numbers are written: the decimal mark, and what may stand between groups of three digits.

    thousands: the marks that may, each of them alike; "" is none.
    """

    decimal: str = "."
    thousands: str = ""
    pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        point, whole = re.escape(self.decimal), r"\d+"
        if self.thousands:
            whole = rf"(?:\d+|[1-9]\d{{0,2}}(?:[{re.escape(self.thousands)}]\d{{3}})+)"
        pattern = re.compile(rf"[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?")
        object.__setattr__(self, "pattern", pattern)

    def plain(self, text: str) -> str | None:
        """The number as Python writes it; None where this is none."""
        if not self.pattern.fullmatch(text):
            return None
        for mark in self.thousands:
            text = text.replace(mark, "")
        return text.replace(self.decimal, ".")


PLAIN = Style()
STYLES = (
    PLAIN,
    *(Style(".", marks) for marks in (",", APOSTROPHES, SPACES)),
    *(Style(",", marks) for marks in ("", ".", APOSTROPHES, SPACES)),
)


def number(cell: str, style: Style = PLAIN) -> tuple[Kind, float] | None:
    """What a cell holds and its value (nan where it is missing); None where it is no number.

    true and false are 1 and 0, 5% is .05, 0x1p-2 is .25, and 0.5D+01 is 5, as Fortran writes it.
    Raises `OverflowError` for a whole number whose digits float64 does not keep.
    """
    text = cell.strip().replace(_MINUS, "-")
    low = text.casefold()
    if low in MISSING:
        return "missing", math.nan
    if low in _TRUTH:
        return "truth", _TRUTH[low]
    if low in _SPECIAL or low.lstrip("+-") in ("inf", "infinity"):
        return "number", _SPECIAL[low] if low in _SPECIAL else float(low)
    if _HEX.fullmatch(text):
        whole = "." not in text and "p" not in low
        return "number", exact(str(int(text, 16))) if whole else float.fromhex(text)
    if _FORTRAN.fullmatch(text):
        return "number", float(low.replace("d", "e"))
    if text.endswith("%") and (share := style.plain(text[:-1].rstrip())) is not None and "e" not in low:
        return "percent", float(f"{share}e-2")
    plain = style.plain(text)
    return None if plain is None else ("number", exact(plain))


def exact(text: str) -> float:
    """float(text); raises `OverflowError` for a whole number that float64 does not hold."""
    value = float(text)
    if abs(value) >= LARGE and text.lstrip("+-").isdigit() and int(text) != value:
        raise OverflowError(text)
    return value


def style_of(cells: Iterable[tuple[int, str]]) -> tuple[Style | None, tuple[int, str] | None]:
    """The one style in which all cells that look like numbers can be read.

    cells: line and text of each. Gives the style; or None and the cell that shows why: one that fits no style that
    the others fit, or one that would be another number in another style that they all fit as well.
    """
    alive, marked, only_commas = STYLES, None, False
    for line, cell in cells:
        text = cell.strip().replace(_MINUS, "-").rstrip("%").rstrip()
        if text.isdigit() or (only_commas and text.lstrip("+-").replace(",", "", 1).isdigit()):
            continue
        if not _MARKED.fullmatch(text):
            continue
        left = tuple(style for style in alive if style.pattern.fullmatch(text))
        if not left:
            return None, (line, cell)
        alive = left
        only_commas = all(style.decimal == "," for style in alive)
        if marked is None and ("," in text or "." in text):
            marked = line, cell
    if marked is not None and len({style.decimal for style in alive}) > 1:
        return None, marked
    return alive[0], None


def may_be_grouped(cells: Iterable[str]) -> bool:
    """Whether every cell with a point may have it between groups of three digits, and one has one."""
    pointed = [cell for cell in cells if "." in cell and len(cell) > 1]
    return bool(pointed) and all(map(_GROUPS.fullmatch, pointed))


def looks_like_number(cell: str, missing: bool = False) -> bool:
    """Whether a cell is a number in some style, or one that is missing where that counts."""
    text = cell.strip()
    try:
        read = (number(text, style) for style in STYLES)
        return any(found is not None and (missing or found[0] != "missing") for found in read)
    except OverflowError:
        return True
