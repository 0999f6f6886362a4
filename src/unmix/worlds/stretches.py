"""Stretches of consecutive frames, drawn at random from tracks."""

from __future__ import annotations

import numpy as np

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream


def spans(track: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """How many consecutive frames of the same track follow each row [n]; rows are ordered by track, then frame."""
    goes_on = (np.diff(track) == 0) & (np.diff(frame) == 1)
    found = np.zeros(len(track), np.int64)
    for row in np.flatnonzero(goes_on)[::-1]:
        found[row] = found[row + 1] + 1
    return found


def stretches(
    following: np.ndarray, kept: np.ndarray, count: int, length: int, gap: int, rng: Stream, world: str, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and times [count, length] of `count` sequences from uniform starts; neighbours are 1 .. gap frames apart.

    following: `spans` [n]. kept: which rows may be used [n]. Raises `UsageError`, which names the
    world and its split, where no track is long enough.
    """
    apart = rng.child("time").numpy().integers(1, gap + 1, (count, length - 1))
    time = np.concatenate([np.zeros((count, 1), np.int64), apart.cumsum(1)], 1)
    usable = np.where(kept, following, -1)
    draw = rng.child("start").numpy()
    # Starts of the shortest stretches that are long enough: sorted once, drawn among the first.
    order = np.argsort(-usable, kind="stable")
    enough = np.searchsorted(-usable[order], -time[:, -1], side="right")
    if not enough.min(initial=1):
        longest = int(time[:, -1].max()) + 1
        told = f"no track of the {split} split has {longest} consecutive frames"
        raise UsageError(f"{world}.length={length}, gap={gap}: {told}")
    starts = order[(draw.random(count) * enough).astype(np.int64)]
    return starts[:, None] + time, time
