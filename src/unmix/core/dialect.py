"""Dialects of text tables: separator, comments, titles, names of columns and index, from the first lines."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from unmix.core.errors import Failure, UsageError
from unmix.core.numerals import MISSING, Style, looks_like_number

SEPARATORS = (",", ";", "\t", "|", " ")
_SEP_LINE = re.compile(r'"?sep=(.)"?[,;]*', re.IGNORECASE)  # what Excel reads and writes above a table
_COMMENT = re.compile(r"\s*[#%](?!(N/A|NA|DIV/0!|VALUE!|REF!|NAME\?|NUM!|NULL!)\s*([,;\t|]|$))")  # no errors of Excel
_COMMA = Style(",")

Record = tuple[int, list[str]]


@dataclass(frozen=True)
class Dialect:
    """How a text table is laid out.

    separator: one character; " " is any run of spaces and tabs. first: line on which the rows begin, from 1.
    width: columns of a row. names: of the columns, "" where one has none; () where the file names none.
    index: so many leading columns have no name. titles: line and text of what stands above and is no row.
    """

    separator: str
    first: int
    width: int
    names: tuple[str, ...] = ()
    index: int = 0
    titles: tuple[tuple[int, str], ...] = ()


def is_comment(line: str) -> bool:
    """Whether a line begins with # or %, and not with an error of a spreadsheet such as #N/A."""
    return _COMMENT.match(line) is not None


def shown(text: str | Sequence[str], separator: str = ",") -> str:
    """A line, or the fields of one, as a message quotes it."""
    text = (text if isinstance(text, str) else separator.join(text)).strip()
    return repr(text if len(text) <= 60 else text[:57] + "...")


def records(lines: Iterable[tuple[int, str]], separator: str) -> Iterator[Record]:
    """Fields of every record with the line on which it begins; [] for an empty line. Raises `csv.Error`."""
    begins: list[int] = []

    def told() -> Iterator[str]:
        for number, line in lines:
            begins.append(number)
            yield line.strip().replace("\t", " ") + "\n" if separator == " " else line

    reader = csv.reader(told(), delimiter=separator, skipinitialspace=separator != "\t")
    for fields in reader:  # it takes no line before it needs one
        yield begins[0], fields
        begins.clear()


def dialect_of(path: object, lines: Sequence[str], tabs: bool, whole: bool) -> Dialect:
    """The dialect of a file by its first lines.

    tabs: whether the file's name says that tabs separate. whole: whether these are all its lines. Raises `UsageError`
    that names the line where names and rows cannot be told apart, and `Failure` for a file without a record.
    """
    numbered = list(enumerate(lines, 1))
    said = _SEP_LINE.fullmatch(lines[0].strip("\r\n")) if lines else None
    numbered = numbered[1:] if said else numbered
    comments = [(number, line) for number, line in numbered if is_comment(line)]
    given = [(number, line) for number, line in numbered if not is_comment(line)]
    separator = said[1] if said else _separator(path, given, tabs)
    found = [(line, [cell.strip() for cell in fields]) for line, fields in records(given, separator) if fields]
    if not whole and len(found) > 1:
        found.pop()  # it may be cut
    if not found:
        what = "every line begins with # or %" if comments else "it is empty"
        raise Failure(f"{path}: not a whole table ({what})")
    widest = _mode([len(fields) for _, fields in found])
    spare = min(_spare(fields) for _, fields in found if len(fields) == widest)
    width = max(1, widest - spare)
    start = next(place for place, (_, fields) in enumerate(found) if fits(fields, width))
    rows = [(line, fields[:width]) for line, fields in found[start:] if fits(fields, width)]
    above = found[:start]
    short = bool(above) and len(above[-1][1]) == width - 1 and all(map(_is_word, above[-1][1]))
    names_at = _names_at(path, rows, short, separator)
    if names_at is not None and width > 1 and sum(map(bool, rows[names_at][1])) == 1:
        under = next(
            (place for place, (_, fields) in enumerate(rows) if place > names_at and any(fields)), names_at + 1
        )
        if under > names_at + 1:  # one word above an empty row is a title
            above, rows, names_at = [*above, *rows[: names_at + 1]], rows[under:], None
    if names_at is not None:
        line, names = rows[names_at]
        titles = _titles(path, [*above, *rows[:names_at]], (line, names), separator)
        after = rows[names_at + 1][0] if names_at + 1 < len(rows) else line + 1
        _no_second_names(path, names, [fields for _, fields in rows[names_at + 1 :]], after, separator)
        index = next((place for place, name in enumerate(names) if name), 0)
        _are_an_index(path, [fields[:index] for _, fields in rows[names_at + 1 :]], after)
        return Dialect(separator, after, width, tuple(names), index, titles)
    first = rows[0][0]
    if short and _row_names([fields for _, fields in rows]):
        titles = _titles(path, above[:-1], above[-1], separator)
        return Dialect(separator, first, width, ("", *above[-1][1]), 1, titles)
    if short and width == 2 and all(_COMMA.pattern.fullmatch(",".join(fields)) for _, fields in rows):
        raise _unclear(path, *above[-1], separator)  # 1,5 under one name may have a decimal comma
    titles = _titles(path, above, None, separator)
    return Dialect(separator, first, width, _commented(comments, first, width, separator), 0, titles)


def fits(fields: Sequence[str], width: int) -> bool:
    """Whether a record has so many fields, empty ones at its end not counted."""
    return len(fields) >= width and not any(fields[width:])


def _separator(path: object, given: list[tuple[int, str]], tabs: bool) -> str:
    """The separator under which most cells are numbers; that of the file's kind where several are alike."""
    default = "\t" if tabs else ","
    scores, widths = {}, {}
    for separator in (default, *(other for other in SEPARATORS if other != default)):
        try:
            found = [fields for _, fields in records(given[:40], separator) if fields]
        except csv.Error:  # a whole line is one field, and longer than the module takes
            continue
        if not found:
            return default
        width = _mode([len(fields) for fields in found])
        even = [fields for fields in found if len(fields) == width]
        cells = [cell.strip() for fields in (even[1:] or even) for cell in fields[:400] if cell.strip()]
        share = sum(c.casefold() in MISSING or looks_like_number(c) for c in cells) / max(1, len(cells))
        if width > 1 or separator == default:  # in one column every other separator would be as good
            scores[separator], widths[separator] = share * len(even) / len(found), width
    best = max(scores, key=scores.__getitem__, default=default)  # the first of those alike
    if not scores.get(best):
        split = [separator for separator in SEPARATORS[:-1] if widths.get(separator, 1) > 1]
        return split[0] if widths.get(default, 1) == 1 and len(split) == 1 else default
    rivals = [other for other in scores if scores[other] == scores[best] and widths[other] > 1]
    if widths[best] == 1 and rivals:
        line, text = given[-1]
        raise UsageError(f"{path}, line {line}: {shown(text)} may be 1 number or {widths[rivals[0]]}; use tabs")
    return best


def _names_at(path: object, rows: list[Record], short: bool, separator: str) -> int | None:
    """Which record names the columns; None where none does. short: names stand above, one fewer than columns."""
    numeric = [_numeric(column) for column in zip(*(fields for _, fields in rows), strict=True)]
    if not any(numeric):
        if len(rows) > 1 and any(map(_is_number, rows[0][1])):
            raise _unclear(path, *rows[0], separator)
        return 0 if any(map(_is_word, rows[0][1])) else None  # text alone: the first line names it
    leading = []
    for place, (_, fields) in enumerate(rows):
        words = sum(known and _is_word(cell) for known, cell in zip(numeric, fields, strict=True))
        if not words and (sum(map(bool, fields)) > 1 or any(map(_is_number, fields))):
            break
        if words:
            leading.append(place)
    if leading:
        for place in leading[:-1]:
            if sum(map(bool, rows[place][1])) > 1 or len(numeric) == 1:
                one, other = rows[place], rows[leading[-1]]
                raise UsageError(
                    f"{path}: line {one[0]} ({shown(one[1], separator)}) and line {other[0]} "
                    f"({shown(other[1], separator)}) both have words above the numbers; keep one line of names"
                )
        line, names = rows[leading[-1]]
        numbers = [cell for known, cell in zip(numeric, names, strict=True) if known and _is_number(cell)]
        if numbers and numbers != [str(number) for number in range(len(numbers))]:
            raise _unclear(path, line, names, separator)
        return leading[-1]
    line, names = rows[0]
    if not names[0] and len(rows) > 1 and _row_names([fields for _, fields in rows[1:]]):
        return 0  # an index, and columns with numbers for names: pandas
    numbers = [cell for known, cell in zip(numeric, names, strict=True) if known and cell]
    below = [[cell for known, cell in zip(numeric, fields, strict=True) if known] for _, fields in rows[1:]]
    if numbers and all(cell.casefold() in MISSING and cell.strip("-.?") for cell in numbers):
        raise _unclear(path, line, names, separator)  # columns may be called NA
    if short or not numbers or not all(map(str.isdigit, numbers)):
        return None
    counted = numbers == [str(number) for number in range(len(numbers))]
    fractions = [bool(column) and all(_is_fraction(cell) for cell in column) for column in zip(*below, strict=False)]
    exact = bool(fractions) and all(fractions)
    if counted and ((exact and len(numbers) > 1) or (any(fractions) and len(numbers) > 2)):
        return 0
    if counted or not names[0] or exact:
        raise _unclear(path, line, names, separator)
    return None


def _no_second_names(path: object, names: list[str], rows: list[list[str]], line: int, separator: str) -> None:
    """Raise where the first row below the names may be a second line of names, as tables of several levels have."""
    if len(rows) < 2:
        return
    whole = all(cell.isdigit() for cell in rows[0][1:] or rows[0] if cell)
    below = all(_is_fraction(cell) for fields in rows[1:] for cell in fields[1:] or fields)
    twice = len({name for name in names if name}) < sum(map(bool, names))
    if (whole and below and twice) or (not names[0] and not rows[0][0]):
        raise _unclear(path, line, rows[0], separator)


def _are_an_index(path: object, leading: list[list[str]], line: int) -> None:
    """Raise where leading columns without a name hold neither words nor whole numbers."""
    for column in zip(*leading, strict=True):
        odd = next((cell for cell in column if _is_number(cell) and not cell.lstrip("+-").isdigit()), None)
        if odd is not None:
            raise UsageError(
                f"{path}, line {line} on: a first column without a name is taken for an index, but this one holds "
                f"numbers such as {odd}; give it a name, or remove it"
            )


def _unclear(path: object, line: int, fields: Sequence[str], separator: str) -> UsageError:
    return UsageError(
        f"{path}, line {line}: {shown(fields, separator)} may name the columns or be a row; give every column a name "
        "with a letter in one line above the rows"
    )


def _titles(path: object, above: list[Record], names: Record | None, separator: str) -> tuple[tuple[int, str], ...]:
    """Lines above the table that are titles; raises `UsageError` for one that may be a row or names of columns."""
    for line, fields in above:
        told = [cell for cell in fields if cell]
        if told and (all(map(_is_number, told)) or (names is None and len(told) > 1)):
            raise UsageError(
                f"{path}, line {line}: {shown(fields, separator)} has {len(fields)} fields and the rows below have "
                "another number; give every column one name, or remove the line"
            )
    return tuple((line, separator.join(fields)) for line, fields in above if any(fields))


def _row_names(rows: list[list[str]]) -> bool:
    """Whether the first column holds names of rows, as R writes them: words, or 1, 2, 3 ... (or 0, 1, 2 ...)."""
    first = [fields[0] for fields in rows]
    if all(_is_word(cell) for cell in first):
        return True
    if len(rows[0]) == 2 and all(fields[1].isdigit() for fields in rows):
        return False
    return any(first == [str(number) for number in range(start, start + len(first))] for start in (0, 1))


def _commented(comments: list[tuple[int, str]], first: int, width: int, separator: str) -> tuple[str, ...]:
    """Names of the columns in the last comment above the rows, as numpy writes them; () where there are none."""
    above = [line for number, line in comments if number < first]
    if not above:
        return ()
    for _, fields in records([(1, above[-1])], separator):
        names = [cell.strip() for cell in fields]
        names[0] = names[0][1:].strip() or names[0]
        if separator == " " and not fields[0][1:]:
            names = names[1:]
        if len(names) == width and width > 1 and all(map(_is_word, names)):
            return tuple(names)
    return ()


def _numeric(column: Sequence[str]) -> bool:
    """Whether a column is of numbers below what may be titles and names."""
    known = [cell for cell in column[1:] or column if cell.casefold() not in MISSING]
    return bool(known) and all(map(looks_like_number, known[-min(20, (len(known) + 1) // 2) :]))


def _is_number(cell: str) -> bool:
    return any(letter.isdigit() for letter in cell) and looks_like_number(cell)


def _is_word(cell: str) -> bool:
    return bool(cell) and cell.casefold() not in MISSING and not looks_like_number(cell)


def _is_fraction(cell: str) -> bool:
    return not cell or not cell.lstrip("+-").isdigit()


def _spare(fields: Sequence[str]) -> int:
    """Empty fields at the end."""
    return next((place for place, cell in enumerate(reversed(fields)) if cell), len(fields))


def _mode(lengths: list[int]) -> int:
    counts = Counter(lengths)
    return max(counts, key=lambda length: (counts[length], length == lengths[-1]))
