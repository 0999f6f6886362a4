"""Labels with names: matched to pictures in any order and spelling of their paths, never by place, or refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from unmix.core.errors import Notice, UsageError
from unmix.core.items import ImageItems
from unmix.study.labels import labels_of

NAMES = ("cat/1.png", "cat/2.png", "dog/1.png")
ITEMS = ImageItems(np.zeros((3, 2, 2), np.uint8), None, NAMES)
RAW = SimpleNamespace(shape=(3, 4))


def read(path, frame, items=ITEMS, column="kind", **more):
    if str(path).endswith(".parquet"):
        frame.to_parquet(path, **more)
    else:
        frame.to_csv(path, **more)
    return labels_of(f"{path}:{column}", SimpleNamespace(shape=(len(items),)), items).tolist()


@pytest.mark.parametrize("names", [
    ["dog/1.png", "cat/1.png", "cat/2.png"],
    ["p/dog/1.png", "p/cat/1.png", "p/cat/2.png"],
    ["/home/me/set/dog/1.jpg", ".\\cat\\1.png", " ./cat/2.png "],
    ["dog/1", "cat/1", "cat/2"],
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_rows_are_matched_by_name_in_any_order(tmp_path, names, suffix):
    frame = pd.DataFrame({"kind": ["b", "x", "y"], "file": names, "age": [1, 2, 3]})
    assert read(tmp_path / f"l{suffix}", frame, index=False) == ["x", "y", "b"]


def test_names_in_an_index_a_dict_and_a_series(tmp_path):
    frame = pd.DataFrame({"kind": [7, 8, 9]}, index=["dog/1.png", "cat/1.png", "cat/2.png"])
    assert read(tmp_path / "l.csv", frame) == [8, 9, 7]
    assert labels_of(frame["kind"], RAW, ITEMS).tolist() == [8, 9, 7]
    assert labels_of({"dog/1": "a", "cat/2": "b", "cat/1": "b"}, RAW, ITEMS).tolist() == ["b", "b", "a"]
    assert labels_of(pd.Series([1, 2, 3]), RAW, ITEMS).tolist() == [1, 2, 3]


def test_numbers_of_files_are_names_and_ages_are_not(tmp_path):
    items = ImageItems(np.zeros((3, 2, 2), np.uint8), None, ("0.png", "1.png", "2.png"))
    frame = pd.DataFrame({"id": [2, 1, 0], "age": [0, 0, 1], "kind": ["c", "b", "a"]})
    assert read(tmp_path / "l.csv", frame, items, index=False) == ["a", "b", "c"]
    assert read(tmp_path / "l.csv", frame[["age", "kind"]], items, index=False) == ["c", "b", "a"], (
        "no names: in order"
    )


def test_a_stack_goes_by_its_file(tmp_path):
    items = ImageItems(np.zeros((3, 2, 2), np.uint8), None, ("s.tif:0", "s.tif:1", "t.tif"))
    frame = pd.DataFrame({"file": ["t.tif", "s.tif"], "kind": ["a", "b"]})
    assert read(tmp_path / "l.csv", frame, items, index=False) == ["b", "b", "a"]


def test_rows_and_names_that_are_left_over_are_said(tmp_path):
    frame = pd.DataFrame({"file": ["dog/1.png", "cat/2.png", "cow/1.png"], "kind": [4, 5, 6]})
    with pytest.warns(Notice) as said:
        found = read(tmp_path / "l.csv", frame, index=False)
    assert np.isnan(found[0]) and found[1:] == [5, 4]
    told = " ".join(str(one.message) for one in said)
    assert "1 of 3 rows are not named and have no label" in told and "1 of 3 names are of no row" in told
    with pytest.warns(Notice, match="rows have no names to compare column 'file' with"):
        assert read(tmp_path / "l.csv", frame, ImageItems(ITEMS.images), index=False) == [4, 5, 6]


@pytest.mark.parametrize("names, told", [
    (["x.png", "y.png", "z.png"], r"the names in column 'file', such as 'x\.png', are of no row; rows are named"),
    (["1.png", "2.png", "3.png"], r"'1\.png' stands for 'cat/1\.png' and 'dog/1\.png'; give names"),
    (["cat/1.png", "./cat/1.png", "dog/1.png"], r"'\./cat/1\.png' is there twice, as 'a' and as 'b'"),
])  # fmt: skip
def test_names_that_do_not_fit_are_refused(tmp_path, names, told):
    with pytest.raises(UsageError, match=told):
        read(tmp_path / "l.csv", pd.DataFrame({"file": names, "kind": list("abc")}), index=False)
