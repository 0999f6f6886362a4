"""Labels: what is known of a run's rows, from files, from the rows themselves, or from a pattern over the text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from unmix.activations.arrays import open_columns
from unmix.core.errors import UsageError
from unmix.core.items import TextItems
from unmix.core.labels import plain
from unmix.study.naming import in_rows
from unmix.study.texts import words


def labels_of(given: Any, raw: Any, items: Any) -> np.ndarray:
    """Labels [n] of numbers or text, aligned with a run's rows; "" or NaN where a row has none.

    given: an array [n]; a file as `unmix.activations.arrays.open_column` takes it, such as "labels.csv:speaker"; a
    dict or a pandas Series by names; or None for labels that came with the rows. What means none is told by
    `core.labels.plain`. Where a table or Series names the rows' files, labels go by name and in any order
    (`study.naming.in_rows`); else there is one for each row.
    Raises `UsageError` for another number of rows, names that do not fit, a missing file or column, or where no
    labels came with the rows.
    """
    n, names, where = raw.shape[0], getattr(items, "names", None), "labels"
    columns: dict[str, Any] = {}
    if given is None:
        own = getattr(raw, "labels", None)
        given = getattr(items, "labels", None) if own is None else own
        if given is None:
            raise UsageError("labels: none came with the rows; give a file (.npy, .csv), or --pattern for text")
    elif isinstance(given, (str, Path)):
        where = f"labels={given}"
        given, columns = open_columns(given)
    elif isinstance(given, Mapping) or (isinstance(given, pd.Series) and given.index.dtype.kind == "O"):
        given = pd.Series(given)
        columns = {"index": given.index.to_numpy()}
    labels = plain(given, where)
    if columns and (matched := in_rows(labels, columns, names, where)) is not None:
        return matched
    if len(labels) != n:
        raise UsageError(f"{where}: expected {n} of them, one for each row of the run, got {list(labels.shape)}")
    return labels


def matches(pattern: str, items: Any, on: Literal["token", "text"] = "token") -> np.ndarray:
    """Which rows [n] a regular expression finds: in the row's own token, or in the text of its document.

    on: token searches each token alone; text finds the tokens that share a character with a match in the document, so
    that a match may span tokens. Raises `UsageError` for rows without tokens or a pattern that is none.
    """
    if not isinstance(items, TextItems):
        raise UsageError(f"pattern={pattern}: these rows are no tokens of text; give labels in a file")
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"pattern={pattern}: no regular expression ({error})") from None
    if on == "token":
        ids = np.asarray(items.stream)[items.places]
        hit = {int(i): expression.search(items.vocabulary[int(i)]) is not None for i in np.unique(ids)}
        return np.asarray([hit[int(i)] for i in ids], bool)
    if on != "text":
        raise UsageError(f"on={on}: should be token or text")
    starts, found = np.asarray(items.starts), np.zeros(len(items.stream), bool)
    for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        text, ends = words(items, first, last)
        for match in expression.finditer(text):
            if match.end() > match.start():
                low = int(np.searchsorted(ends, match.start(), side="right"))
                high = int(np.searchsorted(ends, match.end() - 1, side="right"))
                found[first + low : first + high + 1] = True
    return found[items.places]
