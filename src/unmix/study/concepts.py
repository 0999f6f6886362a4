"""Concepts: which features tell a labelled concept, one by one, and what probes on a few of them reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse, stats

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.labels import known
from unmix.core.options import Count, checked
from unmix.core.rows import Rows, Subset
from unmix.core.seeds import Stream
from unmix.finders.controls import RandomAtoms
from unmix.finders.features import Features
from unmix.scores.association import Ranks, best_threshold, entries, ranks_of, shifted
from unmix.scores.probes import Labelled, SparseProbe, auc
from unmix.study.cells import kept_together, split_rows
from unmix.study.labels import labels_of, matches
from unmix.study.study import Results
from unmix.study.verbs import chosen

SEVERAL = 40


@dataclass(frozen=True, eq=False)
class Labels:
    """A fit's rows with labels. rows: [n, d] as its features saw them. y: [n]. fitted, held: numbers of the labelled
    rows on either side of the run's split. documents: [n] or None. together: [n] numbers of groups of rows that no
    split cuts.
    """

    features: Features
    rows: Rows
    y: np.ndarray
    fitted: np.ndarray
    held: np.ndarray
    documents: np.ndarray | None
    together: np.ndarray


@checked
def concepts(
    run: str | Path,
    labels: Any = None,
    pattern: str | None = None,
    on: Literal["token", "text"] = "token",
    finder: str | None = None,
    seed: int | None = None,
    top: Count = 20,
    limit: Count = 100_000,
    draws: Count = 200,
) -> pd.DataFrame:
    """Features ranked by how well each alone tells a concept: a labelled set in, ranked features out.

    labels, pattern, on: as `labels_of` and `matches`; of several classes each is taken against the rest. top:
    features listed for each class, of those that fire. limit: labelled rows that rank, out of those fitted on.
    Columns: label, feature, name, rate (share of rows it fires on), auc (on the rows that rank), q
    (Benjamini-Hochberg over all features, rank-sum test, as if rows were independent), p (share of `draws` shifts of
    the labels along the rows under which any feature does as well; this one counted), threshold (of largest F1 on the
    same rows), then on held-out rows held_auc, precision and recall; NaN where these lack the concept.
    Raises `UsageError` for one class, or more than 40.
    """
    given = _labelled(run, labels, pattern, on, finder, seed)
    fitted = given.fitted
    if len(fitted) > limit:
        fitted = _some(fitted, given.documents, limit)
    codes = given.features.encode(Subset(given.rows, fitted))
    ranks, rates = ranks_of(codes), codes.firing().cpu().numpy() / len(codes)
    columns = _columns(codes)
    held = _columns(given.features.encode(given.rows.take(given.held))) if len(given.held) else None
    found = []
    for label in _classes(given.y[fitted]):
        positive, held_positive = given.y[fitted] == label, given.y[given.held] == label
        lines = _ranked(ranks, columns, positive, held, held_positive, top, draws)
        found += [{"label": label, **line} for line in lines]
    frame = pd.DataFrame(found)
    frame.insert(2, "name", [given.features.names[j] if given.features.names else "" for j in frame["feature"]])
    frame.insert(3, "rate", rates[frame["feature"]])
    return frame


@checked
def probe(
    run: str | Path,
    labels: Any = None,
    pattern: str | None = None,
    on: Literal["token", "text"] = "token",
    finder: str | None = None,
    seed: int | None = None,
    recipe: SparseProbe | None = None,
    limit: Count = 20_000,
) -> pd.DataFrame:
    """k-sparse probes on a fit's codes, beside the same on the rows' own columns, on random atoms, and the majority.

    The probe's rows are split by document: those that the features were fitted on, a fifth of them for validation; it
    is scored on the rows held out from both. limit: training rows, as many of each class as there are, up to its
    share. The random atoms are as many as the features, with as many active codes, read by OMP.
    Columns: read from, k, auc, auc_low, auc_high, balanced, balanced_low, balanced_high, strength, converged, chosen.
    Raises `UsageError` as `SparseProbe.measure`.
    """
    given = _labelled(run, labels, pattern, on, finder, seed)
    rng, recipe = Stream(0, ("probe",)), recipe or SparseProbe()
    train, validation = _two(given.fitted, given.together, rng)
    train, validation = (
        _balanced(part, given.y, size, rng) for part, size in ((train, limit), (validation, limit // 2))
    )
    if not len(given.held):
        raise UsageError("labels: no held-out row has one; label more rows")
    numbers = (train, validation, given.held)
    taken = [given.rows.take(part) for part in numbers]
    codes = [given.features.encode(h) for h in taken]
    l0 = max(1, round(float(codes[0].l0().double().mean())))
    width = given.features.shape[0]
    control = RandomAtoms(width=width, k=min(l0, width)).fit(Subset(given.rows, given.fitted), rng)
    sources: dict[str, Sequence[Any]] = {
        "features": codes,
        "rows": taken,
        "random atoms": [control.encode(h) for h in taken],
    }
    lines = []
    for name, parts in sources.items():
        groups = None if given.documents is None else given.documents[given.held]
        train_, validation_, test = (Labelled(x, given.y[part]) for x, part in zip(parts, numbers, strict=True))
        for result in recipe.measure(train_, validation_, test._replace(groups=groups), rng):
            lines.append(
                {
                    "read from": name,
                    "k": result.active,
                    **_spread("auc", result.auc),
                    **_spread("balanced", result.balanced),
                    "strength": result.strength,
                    "converged": result.converged,
                    "chosen": result.chosen[:SEVERAL].tolist(),
                }
            )
    chance = 1 / len(np.unique(given.y[train]))
    lines.append({"read from": "majority", "k": 0, "auc": 0.5, "balanced": chance, "converged": True, "chosen": []})
    return pd.DataFrame(lines)


def _columns(codes: Codes) -> sparse.csc_array:
    rows, columns, values, shape = entries(codes)
    return sparse.csc_array((values, (rows, columns)), shape=shape)


def _column(columns: sparse.csc_array, feature: int) -> np.ndarray:
    return columns[:, [feature]].toarray()[:, 0]


def _ranked(
    ranks: Ranks,
    columns: sparse.csc_array,
    positive: np.ndarray,
    held: sparse.csc_array | None,
    held_positive: np.ndarray,
    top: int,
    draws: int,
) -> list[dict[str, Any]]:
    """One line for each of the best features of one label."""
    value = ranks.auc(positive[:, None])[0]
    q = stats.false_discovery_control(ranks.p(positive[:, None])[0])
    null = np.sort(ranks.auc(shifted(positive, draws, Stream(0, ("concepts",)))).max(1))
    lines = []
    fires = np.diff(columns.indptr) > 0  # one that never does has an area of 1/2 and no threshold
    order = np.argsort(-value, kind="stable")
    for feature in order[fires[order]][:top].tolist():
        threshold, _, _ = best_threshold(_column(columns, feature), positive)
        line = {
            "feature": feature,
            "auc": float(value[feature]),
            "q": float(q[feature]),
            "p": (1 + draws - int(np.searchsorted(null, value[feature]))) / (1 + draws),
            "threshold": threshold,
            **dict.fromkeys(("held_auc", "precision", "recall"), float("nan")),
        }
        if held is not None and held_positive.any() and not held_positive.all():
            values = _column(held, feature)
            above = values > threshold
            line["held_auc"] = auc(values, held_positive)
            line["precision"] = float(held_positive[above].mean()) if above.any() else float("nan")
            line["recall"] = float(above[held_positive].mean())
        lines.append(line)
    return lines


def _labelled(run: Any, labels: Any, pattern: str | None, on: Any, finder: str | None, seed: int | None) -> Labels:
    if pattern is not None and labels is not None:
        raise UsageError("labels: give a file or a pattern, not both")
    cell, features, rows, items = chosen(Results(run), finder, seed)
    raw = cell.world.open()
    y = matches(pattern, items, on) if pattern is not None else labels_of(labels, raw, items)
    train, _ = split_rows(raw, cell.test, items)
    documents = items.documents() if getattr(items, "kind", "") == "text" else None
    if pattern is not None and not y.any():
        raise UsageError(f"pattern={pattern}: no row matches; try --on text for what spans tokens")
    usable = known(y)
    held = np.setdiff1d(np.arange(len(y)), train)
    if not usable[train].any():
        raise UsageError("labels: no row that was fitted on has one")
    groups = kept_together(raw, items)
    return Labels(features, rows, y, train[usable[train]], held[usable[held]], documents, groups)


def _classes(y: np.ndarray) -> list[Any]:
    """The classes taken each against the rest: of two the second only."""
    classes = np.unique(y)
    if len(classes) < 2:
        raise UsageError(
            f"labels: only one class ({classes[0]}) in the rows fitted on; a concept needs rows without it"
        )
    if len(classes) > SEVERAL:
        raise UsageError(f"labels: {len(classes)} classes, at most {SEVERAL}; labels are classes, not amounts")
    return classes.tolist()[1:] if len(classes) == 2 else classes.tolist()


def _some(rows: np.ndarray, documents: np.ndarray | None, limit: int) -> np.ndarray:
    """About `limit` of the rows: whole documents drawn by name, so that neighbours stay together, or single rows."""
    draw = Stream(0, ("concepts",)).child("documents").numpy()
    if documents is None or len(np.unique(documents[rows])) < 2:
        return np.sort(draw.permutation(rows)[:limit])
    names, member = np.unique(documents[rows], return_inverse=True)
    order = draw.permutation(len(names))
    sizes = np.bincount(member)[order].cumsum()
    return rows[np.isin(member, order[: max(1, int(np.searchsorted(sizes, limit, side="right")))])]


def _two(rows: np.ndarray, together: np.ndarray, rng: Stream) -> tuple[np.ndarray, np.ndarray]:
    """Training rows, and a fifth for validation, in whole groups; single rows where there is one group."""
    group = np.unique(together[rows], return_inverse=True)[1]
    group = group if group.max() else np.arange(len(rows))
    count = int(group.max()) + 1
    aside = np.zeros(count, bool)
    aside[rng.child("validation").numpy().permutation(count)[: max(1, count // 5)]] = True
    return rows[~aside[group]], rows[aside[group]]


def _balanced(rows: np.ndarray, y: np.ndarray, limit: int, rng: Stream) -> np.ndarray:
    """At most `limit` rows: of every class as many as there are, up to its share."""
    if len(rows) <= limit:
        return rows
    classes = np.unique(y[rows])
    share, draw = max(1, limit // len(classes)), rng.child("rows").numpy()
    parts = [draw.permutation(rows[y[rows] == label]) for label in classes]
    spare = limit - sum(min(share, len(part)) for part in parts)
    kept = []
    for part in parts:
        more = min(spare, max(0, len(part) - share))
        kept.append(part[: min(share, len(part)) + more])
        spare -= more
    return np.sort(np.concatenate(kept))


def _spread(name: str, outcome: Any) -> dict[str, float]:
    return {name: outcome.value, f"{name}_low": outcome.interval[0], f"{name}_high": outcome.interval[1]}
