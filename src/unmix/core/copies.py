"""Copies: which rows or images have the same content, and splits that keep copies on one side."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

BLOCK = 8192


def first_copies(given: Any) -> np.ndarray:
    """The number of the first row with the same content, for each of n: [n] int64; its own where it is the first.

    given: any array [n, ...], `ImageItems`, or `Rows`, which are read once, block by block. Rows are copies where all
    their values agree; 0 and -0 do.
    """
    seen: dict[bytes, int] = {}
    return np.asarray([seen.setdefault(own, row) for row, own in enumerate(_digests(given))], dtype=np.int64)


def contents(given: Any) -> np.ndarray:
    """A number for the content of each of n rows, equal for copies: [n] int64, 0 up to how many are different.

    given: as `first_copies` takes it. The numbers follow from the contents alone, not from the order of the rows.
    """
    own = list(_digests(given))
    number = {content: place for place, content in enumerate(sorted(set(own)))}
    return np.asarray([number[content] for content in own], dtype=np.int64)


def hold_out(order: np.ndarray, first: np.ndarray, wanted: int) -> np.ndarray:
    """Numbers of about `wanted` rows to hold out, sorted, copies together: order[:wanted] where there are none.

    order: numbers of rows in a random order, with all copies of each. first: [n], as `first_copies` gives them. Rows
    with more copies than are wanted stay where they are, unless all have; none are held out where half of the rows
    are copies of one and the others do not do.
    """
    heads = order[first[order] == order]
    sizes = np.bincount(first, minlength=len(first))[heads]
    fit = sizes <= wanted
    if wanted and not fit.any() and 2 * sizes.min(initial=len(order)) <= len(order):
        return np.flatnonzero(first == heads[sizes.argmin()])
    count = int(np.searchsorted(sizes[fit].cumsum(), wanted, side="right"))
    return np.flatnonzero(np.isin(first, heads[fit][:count]))


def _digests(given: Any) -> Iterator[bytes]:
    for block in _blocks(given):
        flat = np.ascontiguousarray(block).reshape(len(block), -1)
        flat = flat + 0.0 if flat.dtype.kind == "f" else flat  # -0 becomes 0
        for row in flat:
            yield hashlib.blake2b(row.tobytes(), digest_size=16).digest()


def _blocks(given: Any) -> Iterable[np.ndarray]:
    if hasattr(given, "blocks"):
        return (block.numpy() for block in given.blocks(BLOCK))
    array = getattr(given, "images", given)
    array = array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)
    return (array[start : start + BLOCK] for start in range(0, len(array), BLOCK))
