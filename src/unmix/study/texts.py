"""Texts: the words of documents as a person reads them, and which characters belong to which token."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from unmix.core.items import TextItems


def words(items: TextItems, first: int, last: int) -> tuple[str, np.ndarray]:
    """The text of the places first to last of the stream, and the ends [last - first] of every token in it.

    A token without a row (a start token, a massive one) is a space. Where the vocabulary has "##" pieces, other
    tokens begin a new word; elsewhere the tokens bring their own spaces.
    """
    with_row = set(items.places[slice(*np.searchsorted(items.places, [first, last]))].tolist())
    pieces = _has_pieces(items.vocabulary)
    text, ends = "", []
    for place in range(first, last):
        token = items.text(place) if place in with_row else " "
        if pieces and place in with_row:
            glued = token.startswith("##") and len(token) > 2
            token = token[2:] if glued else (" " if text and not text.endswith(" ") else "") + token
        text += token
        ends.append(len(text))
    return text, np.asarray(ends, np.int64)


def snippet(items: TextItems, first: int, last: int, limit: int = 72) -> str:
    """One line of the text of some places, cut off after `limit` characters."""
    text = " ".join(words(items, first, min(last, first + limit))[0].split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


@lru_cache(maxsize=4)
def _has_pieces(vocabulary: tuple[str, ...]) -> bool:
    return any(token.startswith("##") and len(token) > 2 for token in vocabulary)
