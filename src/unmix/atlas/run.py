"""The atlas of a run folder: one fit's features over all rows of its data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from unmix.atlas.bundle import write_atlas
from unmix.scores.base import Inputs
from unmix.scores.matching import Agreement
from unmix.study.agreement import same_fit
from unmix.study.study import Results
from unmix.study.verbs import chosen
from unmix.study.verdict import verdict


def atlas_run(
    run: str | Path, out: str | Path | None = None, finder: str | None = None, seed: int | None = None
) -> Path:
    """Write the atlas of a fit on data; returns its index.html.

    out: the folder, RUN/atlas by default. finder, seed: which fit; by default the finder that
    recovered most on the matched world, else the one that explains most.
    Features carry the cosine of their partner in the other seeds, where there are any.
    """
    results = Results(run)
    told = verdict(results)
    finder = finder or told.best
    cell, features, rows, items = chosen(results, finder, seed)
    codes = features.encode(rows)
    table = pd.DataFrame({"feature": range(codes.width)})
    others = [results.store.features(other) for other in same_fit(results, cell)]
    matched = [
        np.abs(Agreement().measure(Inputs(atoms=features.atoms, other=other.atoms)).detail["cosines"])
        for other in others
        if other is not None
    ]
    if matched:
        table["seed agreement"] = np.mean(matched, axis=0).round(3)
    about = {
        **cell.world.facts,
        "finder": str(cell.finder),
        "encoder": str(features.encoder.recipe),
        "seed": str(cell.seed),
        "rows": f"{codes.shape[0]:,}",
    }
    image = items.kind == "image" and np.prod(items.images.shape[1:]) == features.atoms.shape[1]
    return write_atlas(
        out or Path(run) / "atlas",
        title=cell.world.label,
        subtitle=f"{codes.width:,} features of {cell.finder.kind}",
        codes=codes,
        items=items,
        atoms=features.atoms,
        table=table.drop(columns="feature") if matched else None,
        about=about,
        verdict=told.sentence,
        atom_images=bool(image),
    )
