"""Labels: numbers or text for each row, and what of them means that a row has none."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from unmix.core.errors import UsageError, notice

SPELLINGS = ("#N/A", "<NA>", "N/A", "NA", "NULL", "NaT", "None", "n/a", "null")  # of nothing, by other software
NOTHING = ("", "NAN", "NaN", "nan", *SPELLINGS)
WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]{0,14})(\.0*)?")  # 007 is a code, no number


def plain(labels: Any, name: str = "labels") -> np.ndarray:
    """Labels [n] as numbers, NaN where a row has none, or as text, "" where it has none.

    labels: [n] or [n, 1], numbers, bool, text, bytes, or objects (pandas, lists with None). None are -1, NaN, None,
    blanks and what software writes for them (NA, null, ...), of which a `Notice` tells; numbers written as text are
    numbers, spaces around text are left out. name: begins messages. Raises `UsageError` for other shapes and types,
    and infinite numbers.
    """
    given: Any = labels
    if isinstance(labels, np.ma.MaskedArray):
        given = np.asarray(labels, dtype=object)
        given[np.ma.getmaskarray(labels)] = None
    values = np.asarray(given.to_numpy(dtype=object) if hasattr(given, "to_numpy") else given)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1:
        raise UsageError(f"{name}: labels must be [n], one for each row, got {list(values.shape)}")
    if values.dtype.kind == "O":
        values = _of_objects(values)
    if values.dtype.kind in "SU":
        values = _of_text(values, name)
    if values.dtype.kind not in "biufU":
        raise UsageError(f"{name}: labels must be numbers or text, got {values.dtype}")
    if values.dtype.kind == "f" and np.isinf(values).any():
        raise UsageError(
            f"{name}: label {int(np.isinf(values).argmax())} is infinite; labels are classes, not amounts"
        )
    if values.dtype.kind in "if" and (values == -1).any():
        if len(rest := np.unique(values[known(values) & (values != -1)])) == 1:
            notice(
                f"{name}: labels of -1 mean that a row has none, so that {rest[0]:g} is left; number classes from 0"
            )
        values = np.where(values == -1, np.nan, values)
    return values


def known(labels: np.ndarray) -> np.ndarray:
    """Which rows have a label: [n] of bool. labels: as `plain` gives them."""
    if labels.dtype.kind == "f":
        return np.isfinite(labels)
    return labels != "" if labels.dtype.kind == "U" else np.ones(len(labels), bool)


def numbered(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers [n] of the classes, from 0 in their order, -1 for none, and the names of the classes.

    labels: as `plain` gives them.
    """
    there = known(labels)
    kinds, places = np.unique(labels[there], return_inverse=True)
    numbers = np.full(len(labels), -1, np.int64)
    numbers[there] = places
    return numbers, tuple(_name(kind) for kind in kinds.tolist())


def _name(kind: Any) -> str:
    return str(int(kind) if isinstance(kind, float) and kind.is_integer() else kind)


def _of_objects(values: np.ndarray) -> np.ndarray:
    import pandas as pd

    missing = pd.isna(values)
    given = [value for value, none in zip(values, missing, strict=True) if not none]
    if all(isinstance(value, (bool, np.bool_)) for value in given) and not missing.any():
        return values.astype(bool)
    if all(isinstance(value, (bool, int, float, np.number, np.bool_)) for value in given):
        return np.asarray([np.nan if none else float(v) for v, none in zip(values, missing, strict=True)])
    words = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values]
    return np.asarray(["" if none else word for word, none in zip(words, missing, strict=True)])


def _of_text(values: np.ndarray, name: str) -> np.ndarray:
    words = np.char.decode(values, errors="replace") if values.dtype.kind == "S" else values
    words = np.char.strip(words)
    if said := [word for word in SPELLINGS if (words == word).any()]:
        notice(f"{name}: {int(np.isin(words, said).sum())} labels are {', '.join(said)}, taken for none")
    words = np.where(np.isin(words, [*NOTHING, "-1"]), "", words)
    there = words != ""
    if there.any() and all(WHOLE.fullmatch(word) for word in np.unique(words[there])):
        numbers = np.full(len(words), np.nan)
        numbers[there] = words[there].astype(float)
        return numbers if not there.all() else numbers.astype(np.int64)
    return words
