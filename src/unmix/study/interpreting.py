"""Interpretability of the features of a run over the images that they were not fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from unmix.core.copies import first_copies
from unmix.core.errors import UsageError
from unmix.core.rows import Subset, gather
from unmix.core.seeds import Stream
from unmix.core.store import read_json, write_json
from unmix.finders.features import Features
from unmix.scores.interpretability.sets import interpretability_index, label_purity
from unmix.scores.interpretability.trials import two_choices
from unmix.scores.similarity import SIMILARITIES
from unmix.scores.similarity.base import Alike
from unmix.study.cells import Cell, all_rows, split_rows
from unmix.study.export import read_table, write_table
from unmix.study.holdings import nothing
from unmix.study.interpretable import Judge, findings, side_by_side, turned
from unmix.study.study import Results

FOLDER = "interpretability"
FEWEST = 30  # held-out images; with fewer the null says nothing
MANY = 200  # held-out images; with fewer there is a word of caution
TRIALS = 60  # held-out images from which choices of two are drawn
PURITY = 10  # images of a feature whose labels are counted


@dataclass(frozen=True)
class Interpreted:
    """What `interpret` found: bases (one row for each basis, control and way to read it), told (sentences that follow
    the controls), features (name of a fit -> one row for every feature), images scored on, and folder.
    """

    bases: pd.DataFrame
    told: list[str]
    features: dict[str, pd.DataFrame]
    images: int
    folder: Path

    def table(self) -> pd.DataFrame:
        """All features of all fits: basis first."""
        parts = [table.assign(basis=label) for label, table in self.features.items()]
        return pd.concat(parts, ignore_index=True).loc[:, lambda frame: ["basis", *frame.columns.drop("basis")]]


def interpret(
    run: str | Path,
    similarity: Any = "OrientedEnergy",
    count: int = 5,
    draws: int = 1000,
    finder: str | None = None,
    seed: int | None = None,
    untrained: str | Path | None = None,
) -> Interpreted:
    """Interpretability index of the neurons and of every fit of a run, with controls, on held-out images.

    similarity: how images are compared. count: exciting images of a feature. draws: random sets of the null. finder,
    seed: only these fits. untrained: rows of the untrained network on the same images, as a control.
    Held-out images that are copies of fitted ones are left out. Everything is kept in RUN/interpretability/, where
    `unmix atlas` finds it: bases.csv, about.json, and a table of features for every fit. Features have value, low,
    high, z, p, q (Benjamini, Hochberg over the features), effective; two_choices and label_purity with z where there
    are enough images, and labels.
    Raises `UsageError` where the rows show no images, or fewer than 30 are held out.
    """
    results = Results(run)
    fits = _fits(results, finder, seed)
    cell = fits[0][0]
    rows, items = all_rows(cell)
    if items.kind != "image":
        raise UsageError(
            f"{run}: its rows show {items.kind} items; interpretability is of images: make the rows with "
            "unmix activations on a folder or .zip of images"
        )
    train, test = split_rows(cell.world.open(), cell.test, items)
    first = first_copies(items)
    test = test[~np.isin(first[test], first[train])]
    if len(test) < FEWEST:
        raise UsageError(
            f"{run}: {len(test)} different images are held out, at least {FEWEST} are needed; fit holds out a tenth: "
            f"make the rows from {10 * FEWEST} images or more"
        )
    pictures = items.images[test]
    alike = SIMILARITIES.make(similarity).bind(pictures)
    rng = Stream(0).child("interpret")
    folder = results.store.root / FOLDER
    before = None if untrained is None else _untrained(untrained, len(items), train, test)
    given, shown = gather(Subset(rows, train)).float(), rows.take(test).float()
    alike.guard(shown)
    fitted = [(label, one.finder, _features(results, one)) for one, label in fits]
    judge = Judge(alike, pictures, count, draws, rng)
    frame = pd.DataFrame(side_by_side(judge, given, shown, fitted, before, rng)).assign(split=0)
    features: dict[str, pd.DataFrame] = {}
    for (one, label), (_, _, found) in zip(fits, fitted, strict=True):
        features[label] = feature_scores(found, given, shown, alike, _labels(items, test), count, draws, rng)
        write_table(features[label], folder / f"{one.fit_digest}.csv")
    told = findings(frame)
    if len(test) < MANY:
        told.append(
            f"Only {len(test)} images are scored, the tenth that fit holds out: intervals are wide and features may "
            f"be missed. Take {10 * MANY:,} images or more, or in Python compare_bases, which scores on half of them"
        )
    write_table(frame.drop(columns="split"), folder / "bases.csv")
    about = {"similarity": str(SIMILARITIES.make(similarity)), "count": count, "draws": draws, "images": len(test)}
    write_json(folder / "about.json", {**about, "findings": told})
    return Interpreted(frame, told, features, len(test), folder)


def feature_scores(
    features: Features,
    given: Tensor,
    shown: Tensor,
    alike: Alike,
    labels: Any = None,
    count: int = 5,
    draws: int = 1000,
    rng: int | Stream = 0,
) -> pd.DataFrame:
    """One row for every feature, of its codes on the images shown [n, d]; columns as `interpret` says.

    given: rows that were fitted on, which say to which side a feature with codes of either sign is turned.
    """
    from scipy.stats import false_discovery_control

    codes, sign = turned(features, given, shown)
    table = interpretability_index(codes, alike, count, rng, draws).frame()
    known = table["p"].notna()
    table.loc[known, "q"] = false_discovery_control(table.loc[known, "p"]) if known.any() else np.nan
    if len(shown) >= TRIALS:
        found = two_choices(codes, alike, rng=rng)
        table["two_choices"], table["two_choices_z"] = found.values, found.z
    if labels is not None and len(shown) > PURITY:
        found = label_purity(codes, labels, PURITY, rng, draws)
        table["label_purity"], table["label_purity_z"] = found.values, found.z
        table["label"] = np.where(np.isfinite(found.values), found.detail["label"], "")
    table["turned"] = (sign < 0).numpy()
    return table


def stored_scores(results: Results, cell: Cell) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """What `interpret` kept of a fit: the table of its features, and how they were scored; None where it has not."""
    table, about = (results.store.root / FOLDER / name for name in (f"{cell.fit_digest}.csv", "about.json"))
    return (read_table(table), read_json(about)) if table.is_file() and about.is_file() else None


def _fits(results: Results, finder: str | None, seed: int | None) -> list[tuple[Cell, str]]:
    """Fits on one data with a short name each; raises `UsageError` where there is none, or several data."""
    cells = [cell for cell, _ in results.cells() if cell.world.kind == "Data" and cell.encoder is None]
    if not cells:
        raise nothing(results.store.root, "fits on data", f"unmix fit DATA -o {results.store.root}")
    kept = [c for c in cells if results.is_called(c.finder, finder) and seed in (None, c.seed)]
    if not kept:
        known = ", ".join(f"{cell.finder.kind} seed {cell.seed}" for cell in cells)
        raise UsageError(f"finder={finder}, seed={seed}: no such fit here; known: {known}")
    if len({(cell.world.digest, cell.test) for cell in kept}) > 1:
        raise UsageError(
            f"{results.store.root}: has fits on different data or transforms; score each in a run of its own, or "
            "name one with finder= and seed="
        )
    several = len({cell.seed for cell in kept}) > 1
    return [(c, results.label(c.finder) + (f" seed {c.seed}" if several else "")) for c in kept]


def _features(results: Results, cell: Cell) -> Features:
    found = results.store.features(cell)
    if found is None:
        raise UsageError(f"{results.store.root}: the fit of {cell.label} is missing; fit again")
    return found


def _labels(items: Any, test: np.ndarray) -> np.ndarray | None:
    labels = None if items.labels is None else np.asarray(items.labels)[test]
    return labels if labels is not None and len(np.unique(labels)) > 1 else None


def _untrained(path: str | Path, n: int, train: np.ndarray, test: np.ndarray) -> tuple[Tensor, Tensor]:
    from unmix.activations.arrays import open_rows

    rows = open_rows(path)
    if rows.shape[0] != n:
        raise UsageError(f"untrained={path}: {rows.shape[0]} rows for {n} images")
    return torch.as_tensor(rows.take(train)).float(), torch.as_tensor(rows.take(test)).float()
