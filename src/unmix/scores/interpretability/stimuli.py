"""Stimuli of a unit: whether a similarity tells its most from its least exciting images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from unmix.core.errors import UsageError
from unmix.scores.similarity.base import Alike


def leave_one_out(alike: Alike, most: Any, least: Any) -> float:
    """Share of all pairs (q+, q-) of a most and a least exciting image that are told apart by the other images.

    Right where D(q+) > D(q-), D(q) = mean_k s(q, e+_k) - mean_k s(q, e-_k) over the images other than q+ and q-, ties
    half: chance 1/2. most, least: [a] and [b] image numbers; copies of an image count once. Raises `UsageError` for
    fewer than 2 different ones of either, or an image that is among both.
    Source: Borowski et al. 2021, arXiv 2010.12606 (the task).
    """
    alike, _, group = alike.different
    plus, minus = (torch.from_numpy(np.unique(group[np.asarray(side, dtype=np.int64)])) for side in (most, least))
    if bool(torch.isin(plus, minus).any()):
        raise UsageError("stimuli: an image is among the most and among the least exciting ones")
    if min(len(plus), len(minus)) < 2:
        raise UsageError(f"stimuli: {len(plus)} most and {len(minus)} least exciting images; at least 2 of each")
    s = alike.within(torch.cat([plus, minus])[None])[0].double()
    a, b = len(plus), len(minus)
    up, down = s[:, :a].sum(1), s[:, a:].sum(1)
    own, cross = s.diagonal(), s[:a, a:]
    first = (up[:a] - own[:a])[:, None] / (a - 1) - (down[:a, None] - cross) / (b - 1)
    second = (up[None, a:] - cross) / (a - 1) - (down[a:] - own[a:])[None] / (b - 1)
    return float(((first > second).double() + 0.5 * (first == second).double()).mean())
