"""Tables that leave as CSV: no text is a formula in a spreadsheet, and every text comes back as it was."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unmix.study.export import read_table, write_table

TEXT = st.text(st.sampled_from("=+-@'\t\r\n1.e, \"aＮ＝é"), min_size=1, max_size=5)  # noqa: RUF001


def cells(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=HYPERLINK(0)", "'=HYPERLINK(0)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-", "'-"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("＝1", "'＝1"),  # noqa: RUF001
        ("'=1", "''=1"),
        ("-inf", "'-inf"),
        ("1-2", "1-2"),
        ("'s", "'s"),
        ("a=1", "a=1"),
    ],
)
def test_a_text_is_no_formula(text: str, written: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": [text, "plain"], text: [-1.5, 2.0], "word": pd.Categorical([text, "b"])})
    path = write_table(frame, tmp_path / "t.csv")
    assert cells(path) == [["name", written, "word"], [written, "-1.5", written], ["plain", "2.0", "b"]]
    back = read_table(path)
    assert list(back.columns) == list(frame.columns) and back["name"].tolist() == [text, "plain"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXT, min_size=1, max_size=4))
def test_every_text_comes_back(texts: list[str], tmp_path: Path) -> None:
    path = write_table(pd.DataFrame({"name": ["x", *texts], "n": range(len(texts) + 1)}), tmp_path / "t.csv")
    for cell in (row[0] for row in cells(path)[1:]):
        assert cell[0] not in "=+-@\t\r\n＝" or float(cell) == float(cell)  # noqa: RUF001
    assert read_table(path)["name"].tolist() == ["x", *texts]


def test_words_for_nothing_are_words_and_an_empty_cell_is_missing(tmp_path: Path) -> None:
    frame = pd.DataFrame({"label": ["NA", "null", None, "nan"], "value": [-1.0, None, 2.0, 1e-20], "yes": [True] * 4})
    back = read_table(write_table(frame, tmp_path / "t.csv"))
    assert back["label"].isna().tolist() == [False, False, True, False] and back["label"][0] == "NA"
    pd.testing.assert_series_equal(back["value"], frame["value"])
    assert back["yes"].tolist() == [True] * 4
