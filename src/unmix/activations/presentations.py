"""Presentations: which image each trial showed, from numbers, words or names of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from unmix.core.errors import UsageError
from unmix.core.items import ImageItems


def unknown(shown: np.ndarray, names: Sequence[Any] | None = None) -> np.ndarray:
    """Which values [t] are missing: NaN, text that is empty, and -1 where it is none of the names."""
    if shown.dtype.kind == "U":
        return np.asarray(shown == "")
    none = np.asarray(shown == -1) & (-1 not in (names or ()))
    return none | np.isnan(shown) if shown.dtype.kind == "f" else none


def listed(shown: np.ndarray, values: Sequence[Any]) -> np.ndarray:
    """Which of the values [t] are among those listed; NaN is NaN, and 1 is "1"."""
    wanted, words = set(values), {str(value) for value in values}
    return np.array([value in wanted or str(value) in words for value in shown.tolist()], bool)


def image_numbers(shown: np.ndarray, items: ImageItems, names: Sequence[Any] | None, stimulus: str) -> np.ndarray:
    """The number of the image of every presentation: [t].

    shown: [t] numbers 0 .. n - 1, or words. names: [n] the value of each image; None takes the names of the images'
    files, with or without folder and suffix. stimulus: begins messages. Raises `UsageError` for a value that is no
    image, and names that do not fit.
    """
    text, values = shown.dtype.kind == "U", shown.tolist()
    if names is not None:
        return _by_names(values, items, [str(name) for name in names] if text else list(names), stimulus)
    if not text:
        fractions = shown[shown != np.floor(shown)] if shown.dtype.kind == "f" else shown[:0]
        if len(fractions):
            raise UsageError(f"{stimulus}: holds values such as {fractions[0]}; give names, one for each image")
        return shown.astype(np.int64)
    for part in (str, _file, _stem, _bare):
        place = {part(name): number for number, name in enumerate(items.names or ())}
        if len(place) == len(items) and all(value in place for value in values):
            return np.array([place[value] for value in values], np.int64)
    beside = f", but images are called {items.names[0]!r} ...;" if items.names else ";"
    odd = next((value for value in values if value not in set(items.names or ())), values[0])
    raise UsageError(f"{stimulus}: holds values such as {odd!r}{beside} give names, one for each image")


def _by_names(values: list[Any], items: ImageItems, names: list[Any], stimulus: str) -> np.ndarray:
    place = {name: number for number, name in enumerate(names)}
    if len(names) != len(items):
        raise UsageError(f"names: {len(names)} for {len(items)} images; give one for each, in their order")
    if len(place) != len(names):
        raise UsageError(f"names: {len(names) - len(place)} of them are there twice")
    others = sorted({str(value) for value in values if value not in place})
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise UsageError(f"{stimulus}: {', '.join(others[:3])}{more} not in names; add them, or list them as blank")
    return np.array([place[value] for value in values], np.int64)


def _file(name: str) -> str:
    return PurePosixPath(name).name


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _bare(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
