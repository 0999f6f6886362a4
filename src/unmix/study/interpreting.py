"""Interpretability of the features of a run over the images that they were not fitted on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from unmix.core.copies import first_copies
from unmix.core.errors import UsageError
from unmix.core.options import Count, checked
from unmix.core.rows import Subset, gather
from unmix.core.seeds import Stream, as_stream
from unmix.core.store import read_json, write_json
from unmix.finders.features import Features
from unmix.scores.interpretability.base import Judged
from unmix.scores.interpretability.lowlevel import baselines
from unmix.scores.interpretability.sets import interpretability_index, label_purity
from unmix.scores.interpretability.trials import two_choices
from unmix.scores.similarity import SIMILARITIES
from unmix.scores.similarity.base import Alike, Similarity
from unmix.scores.similarity.learnt import Embedding
from unmix.study.cells import Cell, all_rows, split_rows
from unmix.study.export import read_table, write_table
from unmix.study.holdings import nothing
from unmix.study.interpretable import Judge, findings, side_by_side, turned
from unmix.study.study import Results

FOLDER = "interpretability"
FILE = re.compile(r"\.(npy|npz|safetensors|csv|tsv|parquet)(\.gz)?(:[^/]*)?$")  # an embedding
FEWEST = 30  # held-out images; with fewer the null says nothing
MANY = 200  # held-out images; with fewer there is a word of caution
TRIALS = 60  # held-out images from which choices of two are drawn
PURITY = 10  # images of a feature whose labels are counted
LISTED = 8  # features that are named


@dataclass(frozen=True)
class Interpreted:
    """What `interpret` found: bases (one row for each basis, control and way to read it), told (sentences that follow
    the controls), features (name of a fit -> one row for every feature), images scored on, count (images of a set),
    and folder.
    """

    bases: pd.DataFrame
    told: list[str]
    features: dict[str, pd.DataFrame]
    images: int
    count: int
    folder: Path

    def table(self) -> pd.DataFrame:
        """All features of all fits: basis first."""
        parts = [table.assign(basis=label) for label, table in self.features.items()]
        return pd.concat(parts, ignore_index=True).loc[:, lambda frame: ["basis", *frame.columns.drop("basis")]]


@checked
def interpret(
    run: str | Path,
    similarity: Any = "OrientedEnergy",
    count: Count = 5,
    draws: Count = 1000,
    finder: str | None = None,
    seed: int | None = None,
    untrained: str | Path | None = None,
) -> Interpreted:
    """Interpretability index of the neurons and of every fit of a run, with controls, on held-out images.

    similarity: how images are compared, as `similarity_of` takes it; an `Embedding` has one row for each image of the
    run, in their order, in any file that `unmix fit` reads rows from. count: exciting images of a feature. draws:
    random sets of the null. finder, seed: only these fits. untrained: rows of the untrained network on the same
    images, as a control.
    Held-out images that are copies of fitted ones are left out, and copies of one another count once. Everything is
    kept in RUN/interpretability/, where `unmix atlas` finds it: bases.csv, about.json, and a table of features for
    every fit, see `feature_scores`.
    Raises `UsageError` where the rows show no images, or fewer than 30 different ones are held out.
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
    train, held = split_rows(cell.world.open(), cell.test, items)
    first = first_copies(items)
    test = held[~np.isin(first[held], first[train])]
    beside_fitted, test = len(held) - len(test), test[np.unique(first[test], return_index=True)[1]]
    test.sort()
    if len(test) < FEWEST:
        raise UsageError(
            f"{run}: {len(test)} different images are held out, at least {FEWEST} are needed; fit holds out a tenth: "
            f"make the rows from {10 * FEWEST} images or more"
        )
    pictures = items.images[test]
    recipe = similarity_of(similarity)
    alike = _alike(recipe, items, test)
    rng = Stream(0).child("interpret")
    folder = results.store.root / FOLDER
    before = None if untrained is None else _untrained(untrained, len(items), train, test)
    given, shown = gather(Subset(rows, train)), rows.take(test)
    alike.guard(shown)
    fitted = [(label, one.finder, _features(results, one)) for one, label in fits]
    judge = Judge(alike, pictures, count, draws, rng)
    frame = pd.DataFrame(side_by_side(judge, given, shown, fitted, before, rng)).assign(split=0)
    features: dict[str, pd.DataFrame] = {}
    for (one, label), (_, _, found) in zip(fits, fitted, strict=True):
        labels = _labels(items, test)
        features[label] = feature_scores(found, given, shown, alike, labels, count, draws, rng, pictures)
        write_table(features[label], folder / f"{one.fit_digest}.csv")
    told = findings(frame)
    if again := len(held) - beside_fitted - len(test):
        told.append(f"{again} held-out images are copies of others among them and count once")
    if beside_fitted:
        told.append(f"{beside_fitted} held-out images are copies of fitted ones and are left out")
    if len(test) < MANY:
        told.append(
            f"Only {len(test)} images are scored, the tenth that fit holds out: intervals are wide and features may "
            f"be missed. Take {10 * MANY:,} images or more, or in Python compare_bases, which scores on half of them"
        )
    write_table(frame.drop(columns="split"), folder / "bases.csv")
    about = {"similarity": str(recipe), "count": count, "draws": draws, "images": len(test)}
    write_json(folder / "about.json", {**about, "findings": told})
    return Interpreted(frame, told, features, len(test), count, folder)


def similarity_of(given: Any) -> Similarity:
    """A similarity from a recipe, its name or a dict; the path of a file of numbers is an `Embedding`."""
    if isinstance(given, (str, Path)) and FILE.search(str(given)):
        given = {"kind": "Embedding", "path": str(given)}
    return SIMILARITIES.make(given)


def feature_scores(
    features: Features,
    given: Tensor,
    shown: Tensor,
    alike: Alike,
    labels: Any = None,
    count: int = 5,
    draws: int = 1000,
    rng: int | Stream = 0,
    images: Any = None,
) -> pd.DataFrame:
    """One row for every feature, of its codes on the images shown [n, d].

    given: rows that were fitted on, which say to which side a feature with codes of either sign is turned. images:
    those shown, for the low-level baselines.
    Columns: feature; value, low, high, z, p of `interpretability_index`; q (false discovery rate over the features);
    chance; effective, active, tied and few as in `Judged`: features active on fewer images than `count` have no
    value. With images low_level (the measure, such as luminance, in which other images like a feature's own are most
    alike), low_level_value (their index), beyond (how far the feature is above them, in their deviations) and
    explained (above random images, and not above these); where there are images enough, two_choices and label_purity
    with z, and label; turned.
    """
    codes, sign = turned(features, given, shown)
    rng = as_stream(rng)
    judged = interpretability_index(codes, alike, count, rng, draws)
    table = judged.frame()
    if images is not None:
        beside = baselines(codes, alike, images, judged, rng.child("low-level"))
        table["low_level"], table["low_level_value"] = beside.name, beside.value
        table["beyond"], table["explained"] = beside.beyond, beside.explained
    if len(shown) >= TRIALS:
        found = two_choices(codes, alike, rng=rng)
        table["two_choices"], table["two_choices_z"] = _counted(found, found.values), _counted(found, found.z)
    if labels is not None and len(shown) > PURITY:
        found = label_purity(codes, labels, PURITY, rng, draws)
        table["label_purity"], table["label_purity_z"] = _counted(found, found.values), _counted(found, found.z)
        table["label"] = np.where(found.counted, found.detail["label"], "")
    table["turned"] = (sign < 0).numpy()
    return table


def summary(table: pd.DataFrame, count: int) -> str:
    """What a table of `feature_scores` with sets of `count` images says of its features, in a phrase."""
    passed, few = int((table["q"] < 0.05).sum()), int(table["few"].sum())
    told = f"{passed} of {len(table)} features above random images (false discovery rate 5 %)"
    explained = table.loc[table["explained"], "low_level"].value_counts() if "explained" in table else pd.Series()
    if len(explained):
        names = ", ".join(f"{name} {number}" for name, number in explained.items())
        told += f", {explained.sum()} of them no more than other images alike in a low-level measure ({names})"
    if few:
        shown = ", ".join(str(j) for j in table.loc[table["few"], "feature"][:LISTED])
        more = ", ..." if few > LISTED else ""
        told += f"; {few} left out, active on fewer than {count} images of those scored ({shown}{more})"
    if dead := int((table["active"] == 0).sum()):
        told += f"; {dead} do not vary"
    if ties := int(((table["tied"] > 0) & ~table["few"]).sum()):
        told += f"; in {ties} ties decide on some images of the set, and the value is the mean over their orders"
    return told


def _counted(found: Judged, values: np.ndarray) -> np.ndarray:
    return np.where(found.counted, values, np.nan)


def _alike(recipe: Any, items: Any, test: np.ndarray) -> Alike:
    """The images that are scored, ready to be compared; an embedding is of all images of the run."""
    if not isinstance(recipe, Embedding):
        return recipe.bind(items.images[test])
    from unmix.activations.arrays import open_array

    if recipe.path.endswith(".safetensors"):  # which of its arrays it is, the recipe knows
        return recipe.bind(items).take(test)
    found = open_array(recipe.path)
    vectors = gather(found) if hasattr(found, "blocks") else found
    return recipe.of(vectors, items).take(test)


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
    return labels if labels is not None and len(set(labels) - {""}) > 1 else None


def _untrained(path: str | Path, n: int, train: np.ndarray, test: np.ndarray) -> tuple[Tensor, Tensor]:
    from unmix.activations.arrays import open_rows

    rows = open_rows(path)
    if rows.shape[0] != n:
        raise UsageError(f"untrained={path}: {rows.shape[0]} rows for {n} images")
    return rows.take(train), rows.take(test)
