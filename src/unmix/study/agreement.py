"""Agreement: what the seeds of one finder have in common on the same data."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from unmix.core.seeds import Stream
from unmix.scores.base import Inputs
from unmix.scores.matching import Agreement
from unmix.study.study import Results

SHARED = 0.9


def agreement(results: Results) -> pd.DataFrame:
    """For every finder on data and every pair of its seeds: mean |cosine| of matched atoms, chance, share above .9.

    Columns: finder, pair, agreement, chance, shared, cosines (an array [m]: one for each atom of the first seed).
    """
    fits: dict[str, list[Any]] = {}
    for cell, _ in results.cells():
        if cell.world.kind == "Data" and cell.encoder is None:
            fits.setdefault(str(cell.finder), []).append(cell)
    rows = []
    for cells in fits.values():
        cells.sort(key=lambda cell: cell.seed)
        for one, two in itertools.combinations(cells, 2):
            first, second = results.store.features(one), results.store.features(two)
            if first is None or second is None:
                continue
            outcome = Agreement().measure(Inputs(atoms=first.atoms, other=second.atoms), Stream(0))
            cosines = np.abs(outcome.detail["cosines"])
            rows.append(
                {
                    "finder": one.finder.kind,
                    "pair": f"{one.seed}, {two.seed}",
                    "agreement": outcome.value,
                    "chance": outcome.chance,
                    "shared": float((cosines > SHARED).mean()),
                    "cosines": cosines,
                }
            )
    return pd.DataFrame(rows, columns=["finder", "pair", "agreement", "chance", "shared", "cosines"])
