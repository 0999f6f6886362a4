"""Tables as programs write them come back with every number, or are refused in words; never with others."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from unmix.core.errors import Failure, Notice, UsageError
from unmix.core.tables import open_table

NAMES = st.sampled_from(["a", "b c", "x1", "Ä", "mean,of", "50%", "id", "index", "NA", "a", "#n", '"q"'])
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TIDY = st.integers(-5000, 5000).map(lambda number: number / 8)
WHOLE = st.integers(-(2**53), 2**53)
SMALL = st.integers(0, 3)


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """Numbers in columns of one kind each, some of them missing, under names that are hard or none."""
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    kinds = [draw(st.sampled_from([FLOATS, TIDY, WHOLE, SMALL, st.booleans()])) for _ in range(columns)]
    holes = st.sampled_from([False] * (1 if draw(st.integers(0, 3)) else 5) + [True] * (not draw(st.integers(0, 3))))
    frame = pd.DataFrame(
        {
            place: [None if draw(holes) else value for value in draw(st.lists(kind, min_size=rows, max_size=rows))]
            for place, kind in enumerate(kinds)
        }
    )
    if draw(st.booleans()):
        frame.columns = pd.Index([draw(NAMES) for _ in range(columns)])
    return frame


def numbers(frame: pd.DataFrame) -> np.ndarray:
    return np.asarray([[np.nan if pd.isna(v) else float(v) for v in row] for row in frame.itertuples(index=False)])


def pandas(frame: pd.DataFrame, draw: Any) -> tuple[str, bytes, np.ndarray]:
    """to_csv in every dialect that it has."""
    sep, decimal = draw(st.sampled_from([(",", "."), (";", ","), ("\t", "."), ("\t", ","), (";", "."), ("|", ".")]))
    # One column with decimal commas is two columns in a file whose name says that commas separate.
    decimal = decimal if frame.shape[1] > 1 else "."
    index, header = (
        draw(st.sampled_from(["none", "count", "words", "whole", "fractions", "two"])),
        draw(st.booleans()),
    )
    n = len(frame)
    indices = {
        "words": [f"r{i}" for i in range(n)],
        "whole": [7 * i % 11 for i in range(n)],
        "fractions": np.arange(n) / 2,
        "two": pd.MultiIndex.from_tuples([(i // 2, i % 2) for i in range(n)]),
    }
    written = frame if index not in indices else frame.set_axis(indices[index])
    text = written.to_csv(
        sep=sep,
        decimal=decimal,
        index=index != "none",
        header=header,
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
        na_rep=draw(st.sampled_from(["", "NA", "nan", "NULL", "-"])),
        lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
    )
    expected = numbers(frame)
    if index in ("count", "whole", "fractions", "two") and not header:
        levels = np.asarray([np.ravel(value) for value in written.index.tolist()], dtype=float)
        expected = np.column_stack([levels, expected])
    suffix = ".tsv" if sep == "\t" else ".csv"
    return suffix, text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))), expected


def savetxt(frame: pd.DataFrame, draw: Any) -> tuple[str, bytes, np.ndarray]:
    """numpy.savetxt with and without a commented header."""
    held, values = io.StringIO(), numbers(frame)
    separator = draw(st.sampled_from([" ", ",", ";", "\t", ", "]))
    np.savetxt(
        held,
        values,
        fmt=draw(st.sampled_from(["%.18e", "%.17g"])),
        delimiter=separator,
        header=draw(
            st.sampled_from(["", "of layer 3", "two lines\nof words", separator.join("abcde"[: values.shape[1]])])
        ),
        comments=draw(st.sampled_from(["# ", "#", "%"])),
    )
    return draw(st.sampled_from([".csv", ".txt", ".tsv"])), held.getvalue().encode(), values


def of_r(frame: pd.DataFrame, draw: Any) -> tuple[str, bytes, np.ndarray]:
    """write.table, write.csv and write.csv2 of R: row names, and a head that is one field shorter without a comma."""
    kind = draw(st.sampled_from(["write.table", "write.csv", "write.csv2"]))
    separator, decimal = {"write.table": (" ", "."), "write.csv": (",", "."), "write.csv2": (";", ",")}[kind]
    decimal = decimal if frame.shape[1] > 1 else "."
    quoted: Callable[[str], str] = (lambda word: f'"{word}"') if draw(st.booleans()) else str
    row_names, words = draw(st.booleans()), draw(st.booleans())
    names = [f"V{place + 1}" for place in range(frame.shape[1])]
    head = [quoted(name) for name in names]
    if row_names and kind != "write.table":
        head = ['""', *head]
    lines = [separator.join(head)] if draw(st.booleans()) or kind != "write.table" else []
    for number, row in enumerate(frame.itertuples(index=False), 1):
        cells = ["NA" if pd.isna(v) else str(v).upper() if isinstance(v, bool) else repr(float(v)) for v in row]
        name = [quoted(f"s{number}" if words else str(number))] if row_names else []
        lines.append(separator.join([*name, *(cell.replace(".", decimal) for cell in cells)]))
    values = numbers(frame)
    counted = np.column_stack([np.arange(1.0, len(values) + 1), values])
    bare = row_names and not words and (not lines or len(lines) == len(frame))
    return ".csv" if kind != "write.table" else ".txt", "\n".join([*lines, ""]).encode(), counted if bare else values


def spreadsheet(frame: pd.DataFrame, draw: Any) -> tuple[str, bytes, np.ndarray]:
    """As saved from a spreadsheet: titles, blank lines, separators at the ends, thousands apart, percentages."""
    separator, decimal, group = draw(
        st.sampled_from([(",", ".", ","), (";", ",", "."), (";", ",", "\u202f"), ("\t", ".", ",")])
    )
    decimal = decimal if frame.shape[1] > 1 else "."
    thousands, spare, width = draw(st.booleans()), draw(st.integers(0, 2)), frame.shape[1]

    above = draw(st.sampled_from([[], [["Experiment 3"]], [["Experiment 3"], [""]]])) if width > 1 else []

    def cell(value: Any) -> str:
        if pd.isna(value):
            return "#N/A" if above else draw(st.sampled_from(["", "#N/A"]))
        text = f"{value:,}" if thousands and not isinstance(value, bool) else str(value)
        return text.upper().translate(str.maketrans({",": group, ".": decimal}))

    rows = [[cell(v) for v in row] for row in frame.itertuples(index=False)]
    head = [[f"name {place}" for place in range(width)]] if draw(st.booleans()) else []
    held = io.StringIO()
    if draw(st.booleans()):
        held.write(f"sep={separator}\r\n")
    padded = [[*row, *[""] * (width - len(row) + spare)] for row in [*above, *head, *rows]]
    csv.writer(held, delimiter=separator, lineterminator="\r\n").writerows(padded)
    return ".csv", held.getvalue().encode("utf-8-sig"), numbers(frame)


WRITERS = [pandas, savetxt, of_r, spreadsheet]


def check(folder: Path, frame: pd.DataFrame, write: Callable[..., Any], draw: Any) -> None:
    suffix, content, expected = write(frame, draw)
    path = folder / f"table{suffix}"
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)
            found = open_table(path).numbers()
    except (UsageError, Failure) as error:
        event(f"{write.__name__}: refused")
        assert "\n" not in str(error)
        return
    if not len(found):  # refused by what takes rows
        return
    event(f"{write.__name__}: read")
    while expected.shape[1] > found.shape[1] and np.isnan(expected[:, -1]).all():
        expected = expected[:, :-1]  # separators at the ends of lines may stand for it
    assert found.shape == expected.shape and np.array_equal(found, expected, equal_nan=True), content


@pytest.mark.parametrize("write", WRITERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frame=frames(), data=st.data())
def test_what_is_written_comes_back_or_is_refused(
    tmp_path: Path, write: Callable[..., Any], frame: pd.DataFrame, data: st.DataObject
) -> None:
    check(tmp_path, frame, write, data.draw)


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITERS)
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frame=frames(), data=st.data())
def test_what_is_written_comes_back_or_is_refused_many_times(
    tmp_path: Path, write: Callable[..., Any], frame: pd.DataFrame, data: st.DataObject
) -> None:
    check(tmp_path, frame, write, data.draw)
