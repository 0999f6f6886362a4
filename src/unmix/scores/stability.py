"""Stability: what many seeds of one finder have in common."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.scale import unit
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_mean
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.matching import dictionary_chance
from unmix.scores.pairing import columns_of, pair


def stability(
    dictionaries: Sequence[Any],
    readers: Sequence[Any] | None = None,
    threshold: float = 0.9,
    share: float = 0.5,
    rng: int | Stream = 0,
) -> Outcome:
    """Mean |cosine| of atoms matched one to one between every two of several seeds, averaged over the pairs of seeds.

    An atom is found by another seed where the |cosine| with its match there is above `threshold`, and, where encoder
    directions are given, that of the two encoder directions too. dictionaries: S arrays [m_s, d].
    readers: S arrays of encoder directions, of the same shapes, or None. share: of the other seeds.
    Detail: between [S, S] (mean |cosine| of the pair, 1 on the diagonal), found (share of all atoms that at least
    `share` of the other seeds find), shares (S arrays [m_s]: by how many of the others each atom is found).
    An atom left over, where sizes differ, has cosine 0. Raises `UsageError` for fewer than two dictionaries.
    Source: Paulo, Belrose 2025, arXiv 2501.16615; arXiv 2505.20254.
    """
    units = [_unit(d, f"dictionary {s}") for s, d in enumerate(dictionaries)]
    if len(units) < 2:
        raise UsageError(f"stability: needs at least 2 dictionaries, got {len(units)}")
    if len({unit.shape[1] for unit in units}) > 1:
        raise UsageError(f"stability: dictionaries have widths {[unit.shape[1] for unit in units]}; they must agree")
    second = units if readers is None else [_unit(r, f"readers {s}") for s, r in enumerate(readers)]
    if [r.shape for r in second] != [u.shape for u in units]:
        raise UsageError("stability: readers must have the shapes of the dictionaries")
    seeds = len(units)
    between = np.eye(seeds)
    strengths = [np.zeros(len(unit)) for unit in units]
    hits = [np.zeros(len(unit)) for unit in units]
    for s, t in itertools.combinations(range(seeds), 2):
        matched = pair(units[s] @ units[t].T)
        columns = np.flatnonzero(matched.pairs >= 0)
        rows = matched.pairs[columns]
        same = (second[s][rows] * second[t][columns]).sum(1).abs().numpy()
        good = (matched.strength[columns] > threshold) & (same > threshold)
        for seed, atoms in ((s, rows), (t, columns)):
            strengths[seed][atoms] += matched.strength[columns]
            hits[seed][atoms] += good
        between[s, t] = between[t, s] = matched.strength.sum() / max(len(units[s]), len(units[t]))
    shares = [count / (seeds - 1) for count in hits]
    pairs = between[np.triu_indices(seeds, 1)]
    stream = as_stream(rng)
    m, d = max(len(unit) for unit in units), units[0].shape[1]
    interval = bootstrap_mean(np.concatenate(strengths) / (seeds - 1), stream)
    found = float((np.concatenate(shares) >= share).mean())
    detail = {"between": between, "found": found, "shares": shares}
    return Outcome(float(pairs.mean()), dictionary_chance(m, m, d, stream), 1.0, interval, detail)


class Stability(Score):
    """Atoms of many seeds matched pair by pair: what other runs would find again; `found` in the detail.

    threshold: |cosine| above which an atom is found again. share: of the other seeds that must find it.
    """

    name: ClassVar[str] = "stability"
    equation: ClassVar[str] = "mean_(s<t) (1/m) sum_j |cos(d^s_j, d^t_pi(j))|"
    reference: ClassVar[str] = "Paulo, Belrose 2025, arXiv 2501.16615; arXiv 2505.20254"
    needs: ClassVar[frozenset[str]] = frozenset({"atoms", "others"})

    threshold: float = Field(default=0.9, ge=0, lt=1)
    share: float = Field(default=0.5, gt=0, le=1)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return stability([inputs.atoms, *(inputs.others or ())], inputs.readers, self.threshold, self.share, rng)


def _unit(values: Any, name: str) -> Tensor:
    return unit(columns_of(values, name))
