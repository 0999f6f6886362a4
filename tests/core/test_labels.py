"""Labels: what means none is none in every type, and classes keep their names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unmix.core.errors import Notice, UsageError
from unmix.core.labels import known, numbered, plain

NONE = float("nan")


@pytest.mark.parametrize("labels, numbers, names", [
    ([1, 2, -1], [0, 1, -1], ("1", "2")),
    ([1.0, 2.0, NONE], [0, 1, -1], ("1", "2")),
    (["1", " 2.0", ""], [0, 1, -1], ("1", "2")),
    (["1", "2", "-1"], [0, 1, -1], ("1", "2")),
    (["cat", " cat ", "dog", None], [0, 0, 1, -1], ("cat", "dog")),
    (["cat", "nan", "dog", NONE], [0, -1, 1, -1], ("cat", "dog")),
    (["007", "7", "-1"], [0, 1, -1], ("007", "7")),
    ([True, False, True], [1, 0, 1], ("False", "True")),
    ([[3], [5]], [0, 1], ("3", "5")),
    ([1234567.0, 1234568.0], [0, 1], ("1234567", "1234568")),
    ([0.5, 1.5], [0, 1], ("0.5", "1.5")),
    (np.array([b"a", b"b"]), [0, 1], ("a", "b")),
    (np.ma.masked_array([4, 5, 6], [0, 1, 0]), [0, -1, 1], ("4", "6")),
    (pd.Series(["a", None, "b"]), [0, -1, 1], ("a", "b")),
    (pd.Categorical(["x", None, "y"]), [0, -1, 1], ("x", "y")),
    (pd.array([1, None, 2], dtype="Int64"), [0, -1, 1], ("1", "2")),
    (pd.array(["a", None], dtype="string"), [0, -1], ("a",)),
])  # fmt: skip
def test_what_means_none_is_no_class(labels, numbers, names):
    found = plain(labels)
    assert numbered(found)[0].tolist() == numbers and numbered(found)[1] == names
    assert known(found).tolist() == [number >= 0 for number in numbers]


def test_words_for_nothing_are_none_and_said():
    with pytest.warns(Notice, match="labels.csv: 2 labels are NA, None, taken for none"):
        assert known(plain(["a", "NA", "None", "none"], "labels.csv")).tolist() == [True, False, False, True]
    with pytest.warns(Notice, match="labels of -1 mean that a row has none, so that 1 is left"):
        assert numbered(plain([-1, 1, 1]))[0].tolist() == [-1, 0, 0]


@pytest.mark.parametrize("labels, told", [
    (np.zeros((3, 2)), r"labels must be \[n\], one for each row, got \[3, 2\]"),
    (np.array([1.0, np.inf]), "label 1 is infinite"),
    (np.array(["2020-01-01"], "M8[D]"), "must be numbers or text, got datetime64"),
    (np.array([1j]), "must be numbers or text, got complex"),
])  # fmt: skip
def test_what_is_no_label_is_refused(labels, told):
    with pytest.raises(UsageError, match=told):
        plain(labels)
