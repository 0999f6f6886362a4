"""Agreement: what the seeds of one finder have in common on the same data."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import torch

from unmix.core.seeds import Stream
from unmix.scores.base import Inputs
from unmix.scores.matching import Agreement, dictionary_mcc
from unmix.study.study import Results

SHARED = 0.9


def same_fit(results: Results, cell: Any) -> list[Any]:
    """The other seeds of a cell's finder on the same data."""
    return [
        other
        for other, _ in results.cells()
        if other.encoder is None
        and other.seed != cell.seed
        and other.finder == cell.finder
        and other.world.digest == cell.world.digest
        and other.samples == cell.samples
    ]


def agreement(results: Results) -> pd.DataFrame:
    """For every finder on data and every pair of its seeds: mean |cosine| of matched atoms, chance, share above .9.

    Columns: finder, pair, agreement, chance, shared, cosines (an array [m]: one for each atom of the first seed),
    chance_cosines (the same of two Gaussian dictionaries).
    """
    fits: dict[str, list[Any]] = {}
    for cell, _ in results.cells():
        if cell.world.kind == "Data" and cell.encoder is None:
            fits.setdefault(str(cell.finder), []).append(cell)
    rows = []
    for cells in fits.values():
        cells.sort(key=lambda cell: cell.seed)
        for one, two in itertools.combinations(cells, 2):
            first, second = results.store.whole_features(one), results.store.whole_features(two)
            if first is None or second is None:
                continue
            outcome = Agreement().measure(Inputs(atoms=first.atoms, other=second.atoms), Stream(0))
            cosines = np.abs(outcome.detail["cosines"])
            unrelated = [
                torch.randn(f.shape, generator=Stream(0).child(n).torch()) for n, f in (("a", first), ("b", second))
            ]
            chance = dictionary_mcc(unrelated[1], unrelated[0], draws=1).detail["cosines"]
            rows.append(
                {
                    "finder": results.label(one.finder),
                    "pair": f"{one.seed}, {two.seed}",
                    "agreement": outcome.value,
                    "chance": outcome.chance,
                    "shared": float((cosines > SHARED).mean()),
                    "cosines": cosines,
                    "chance_cosines": np.abs(chance),
                }
            )
    return pd.DataFrame(
        rows, columns=["finder", "pair", "agreement", "chance", "shared", "cosines", "chance_cosines"]
    )
