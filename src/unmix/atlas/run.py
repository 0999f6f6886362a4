"""The atlas of a run folder: one fit's features over all rows of its data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from unmix.atlas.bundle import write_atlas
from unmix.scores.base import Inputs
from unmix.scores.matching import Agreement
from unmix.study.agreement import same_fit
from unmix.study.cells import Cell
from unmix.study.interpreting import stored_scores
from unmix.study.study import Results
from unmix.study.verbs import chosen
from unmix.study.verdict import verdict


def atlas_run(
    run: str | Path, out: str | Path | None = None, finder: str | None = None, seed: int | None = None
) -> Path:
    """Write the atlas of a fit on data; returns its index.html.

    out: the folder, RUN/atlas by default. finder, seed: which fit; by default the finder that
    recovered most on the matched world, else the one that explains most.
    Features carry the cosine of their partner in the other seeds, where there are any, and their interpretability
    with its null where `unmix score RUN` has been run.
    """
    results = Results(run)
    told = verdict(results)
    finder = finder or told.best
    cell, features, rows, items = chosen(results, finder, seed)
    codes = features.encode(rows)
    table = pd.DataFrame({"feature": range(codes.width)})
    others = [results.store.whole_features(other) for other in same_fit(results, cell)]
    matched = [
        np.abs(Agreement().measure(Inputs(atoms=features.atoms, other=other.atoms)).detail["cosines"])
        for other in others
        if other is not None
    ]
    if matched:
        table["seed agreement"] = np.mean(matched, axis=0).round(3)
    scored, notes, more = _scores(results, cell)
    table = pd.concat([table, scored], axis=1)
    about = {
        **cell.world.facts,
        "finder": str(cell.finder),
        "encoder": str(features.encoder.recipe),
        "seed": str(cell.seed),
        "rows": f"{codes.shape[0]:,}",
        **more,
    }
    image = items.kind == "image" and np.prod(items.images.shape[1:]) == features.atoms.shape[1]
    return write_atlas(
        out or Path(run) / "atlas",
        title=cell.world.label,
        subtitle=f"{codes.width:,} features of {cell.finder.kind}",
        codes=codes,
        items=items,
        atoms=features.atoms,
        table=table.drop(columns="feature") if table.shape[1] > 1 else None,
        notes=notes,
        about=about,
        verdict=told.sentence,
        atom_images=bool(image),
    )


def _scores(results: Results, cell: Cell) -> tuple[pd.DataFrame, dict[str, list[str]], dict[str, str]]:
    """Columns of interpretability, the null of each value, and what to say of them; empty where none was scored."""
    stored = stored_scores(results, cell)
    if stored is None:
        return pd.DataFrame(), {}, {}
    table, about = stored
    columns, notes = score_columns(table, about["count"])
    said = {
        "interpretability": f"{about['similarity']}, {about['count']} of {about['images']} held-out images; "
        f"null: {about['draws']} random sets",
        "bases": " ".join(part if part.endswith(".") else f"{part}." for part in about["findings"]),
    }
    return columns, notes, said


def score_columns(table: pd.DataFrame, count: int) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Columns of an atlas, and the notes under them, from a table of `feature_scores` with sets of `count` images."""
    columns = {"interpretability": table["value"], "z": table["z"], "q": table["q"]}
    chance = [
        f"{_short(low)} to {_short(high)}; chance {_short(null)}"
        for low, high, null in table[["low", "high", "chance"]].to_numpy()
    ]
    notes = {"interpretability": chance, "q": ["false discovery rate"] * len(table)}
    notes["z"] = [
        _drawn(int(effective), int(active), int(tied), bool(few), count)
        for effective, active, tied, few in table[["effective", "active", "tied", "few"]].to_numpy()
    ]
    if "low_level" in table:
        columns["low level"] = table["low_level_value"]
        notes["low level"] = [
            "" if np.isnan(beyond) else f"by {name}; the feature is {_short(beyond)} deviations above"
            for name, beyond in table[["low_level", "beyond"]].itertuples(index=False, name=None)
        ]
    for name, words in (("two_choices", "two choices"), ("label_purity", "label purity")):
        if name in table:
            columns[words] = table[name]
            notes[words] = [f"z {_short(z)}" for z in table[f"{name}_z"]]
    return pd.DataFrame(columns), notes


def _drawn(effective: int, active: int, tied: int, few: bool, count: int) -> str:
    """What a z is of, or why there is none."""
    if few:
        return f"left out: active on {active} of the images scored, a set has {count}"
    told = f"null deviations; {effective} of {count} images"
    return f"{told}, drawn from {tied} of equal activation" if tied else told


def _short(value: float) -> str:
    """Two decimals with a true minus sign, and no minus before zero."""
    return "none" if np.isnan(value) else f"{round(value, 2) + 0.0:.2f}".replace("-", "\u2212")
