"""Choosing width, active count and penalty on held-out rows: a curve of description lengths and a suggestion."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unmix.core.digest import digest
from unmix.core.errors import Failure, UsageError
from unmix.core.options import checked
from unmix.core.rows import gather
from unmix.core.seeds import Stream
from unmix.core.store import recall, write_json
from unmix.core.watch import Progress, Watch
from unmix.scores.matching import dictionary_mcc
from unmix.study.agreement import SHARED
from unmix.study.cells import Cell, split
from unmix.study.description import describe
from unmix.study.engines import Engine
from unmix.study.export import write_table
from unmix.study.learning_curve import Curve, learning_curve
from unmix.study.study import Results
from unmix.study.verbs import fit

LIMIT = 8192  # training rows that code tables are made from


@dataclass(frozen=True, eq=False)
class Choice:
    """Recipes side by side, and the one suggested.

    table: one line for each recipe: recipe, width, l0, fvu, bits, error (one standard error of bits), codes, residual
    (their parts), dead, seeds, agreement, chance, shared (between seeds; NaN for one), near (within one standard
    error of the lowest), suggested. plain: bits of a row without features. distortion: what bits are counted to.
    curve: how the suggested recipe does with fewer rows, where several sizes were asked for.
    left_out: recipes that could not be fitted with every seed, with the reason.
    """

    table: pd.DataFrame
    finder: Any
    plain: float
    distortion: float
    curve: Curve | None = None
    left_out: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The suggestion in a sentence, with what speaks against it."""
        line = self.table[self.table["suggested"]].iloc[0]
        lowest = self.table.iloc[int(self.table["bits"].argmin())]
        told = (
            f"Suggested: {line['recipe']} ({line['width']:.0f} atoms, {line['l0']:.1f} active): "
            f"{line['bits']:.1f} bits to describe a held-out row to {self.distortion:.0%} of the variance "
            f"({self.plain:.1f} without features), "
        )
        if line["recipe"] == lowest["recipe"]:
            told += "the lowest of all"
        else:
            told += f"within one standard error of the lowest, {lowest['recipe']} ({lowest['bits']:.1f}), with less"
        edges = []
        for name, what in (("width", "atoms"), ("l0", "active codes")):
            values = self.table[name].round(1).unique()
            for edge, word in ((values.max(), "more"), (values.min(), "fewer")):
                if len(values) > 1 and round(line[name], 1) == edge:
                    edges.append(f"{word} {what}")
        if edges:
            told += f"; it is at the edge of the grid: try {' and '.join(edges)}"
        if line["bits"] >= self.plain:
            told += "; no recipe describes the rows better than their covariance does"
        if not math.isnan(line["agreement"]):
            told += f"; its seeds share {line['shared']:.0%} of their atoms (mean cosine {line['agreement']:.2f}, "
            told += f"chance {line['chance']:.2f})"
        if self.left_out:
            told += f"; left out: {'; '.join(self.left_out)}"
        return told + ". A suggestion for describing rows like these, not the true number of features."


@checked
def choose(
    world: Any,
    finders: Sequence[Any],
    folder: str | Path,
    seeds: Sequence[int] = (0,),
    samples: Sequence[int | None] = (None,),
    engine: Engine | None = None,
    test: int = 8192,
    distortion: float = 0.01,
    watch: Callable[[str], Watch] = Progress,
) -> Choice:
    """Fit every recipe and suggest one by the bits that a held-out row costs; writes choose.csv in the run folder.

    The criterion is `describe`: bits for codes and residual at one distortion, with code tables from training rows.
    Among recipes within one standard error of the lowest (rows, and seeds where there are several), the one with the
    fewest atoms, then the fewest active codes, is suggested: the one-standard-error rule of Breiman, Friedman,
    Olshen, Stone 1984. world: data or synthetic. finders: the recipes to choose from. samples: rows to fit on; with
    several, the choice is made at the largest and the suggested recipe is fitted at every one for a learning curve.
    distortion: share of the variance that a description may miss.
    Everything is a fit of the run folder, so that nothing is done twice; a recipe that cannot be fitted is left out
    and named. Raises `UsageError` without a recipe, and `Failure` where none could be fitted.
    """
    if not finders:
        raise UsageError("choose: no recipes to choose from")
    largest = None if None in samples else max(size for size in samples if size is not None)
    results = fit(world, finders, folder, seeds, (largest,), engine, test)
    asked = {(finder.digest, seed) for finder in finders for seed in seeds}
    cells: dict[str, list[tuple[Cell, dict[str, Any]]]] = {}
    for cell, outcome in results.cells():
        same = cell.encoder is None and cell.world.digest == world.digest and cell.samples == largest
        if same and cell.test == test and (cell.finder.digest, cell.seed) in asked:
            cells.setdefault(cell.finder.digest, []).append((cell, outcome))
    left_out = []
    for finder in dict.fromkeys(finders):
        if len(cells.get(finder.digest, ())) < len(set(seeds)):
            cells.pop(finder.digest, None)
            left_out.append(f"{finder} ({_why(results, world, finder, largest, test)})")
    if not cells:
        raise Failure(f"choose: no recipe could be fitted; first: {left_out[0]}")
    seen, rows, total = watch("description lengths"), [], sum(map(len, cells.values()))
    count = itertools.count(1)
    plain = []
    for finder in (finder for finder in dict.fromkeys(finders) if finder.digest in cells):
        parts = []
        for cell, _ in cells[finder.digest]:
            parts.append(_described(results, cell, distortion))
            seen.on_step(next(count), total, {"bits": parts[-1]["bits"]})
        plain += [part["plain"] for part in parts]
        rows.append(_line(results, finder, cells[finder.digest], parts))
    seen.done()
    table = pd.DataFrame(rows).sort_values(["width", "l0"], kind="stable").reset_index(drop=True)
    suggested = suggest_row(table)
    table["suggested"] = np.arange(len(table)) == suggested
    chosen = {str(finder): finder for finder in finders}[table["recipe"].iloc[suggested]]
    curve = None
    if len(set(samples)) > 1:
        curve = learning_curve(world, chosen, folder, samples, seeds, engine, test)
        write_table(curve.table, Path(folder) / "learning_curve.csv")
    write_table(table, Path(folder) / "choose.csv")
    return Choice(table, chosen, float(np.mean(plain)), distortion, curve, tuple(left_out))


def suggest_row(table: pd.DataFrame) -> int:
    """Number of the line with the fewest atoms, then active codes, within one standard error of the fewest bits.

    table: columns width, l0, bits, error; a column near is added. Raises `UsageError` for an empty table.
    """
    if table.empty:
        raise UsageError("choose: no recipes to choose from")
    bits, lowest = table["bits"].to_numpy(), int(table["bits"].argmin())
    table["near"] = bits <= bits[lowest] + table["error"].to_numpy()[lowest]
    near = table[table["near"]]
    return int(near.sort_values(["width", "l0", "bits"], kind="stable").index[0])


def _why(results: Results, world: Any, finder: Any, samples: int | None, test: int) -> str:
    """Why a recipe has no fit."""
    for outcome in results.store.outcomes():
        cell = outcome["cell"]
        same = cell["finder"] == finder.as_dict() and cell["samples"] == samples and cell["test"] == test
        if "error" in outcome and same and cell["world"] == world.as_dict():
            return str(outcome["error"])
    return "no fit of it was kept"


def _described(results: Results, cell: Cell, distortion: float) -> dict[str, float]:
    """Bits of one fit's held-out rows, kept in the run folder."""
    name = digest([cell.fit_digest, distortion, LIMIT])
    path = results.store.root / "descriptions" / f"{name}.json"
    parts = ("bits", "error", "codes", "residual", "plain")
    if (kept := recall(path, *parts)) is not None:
        return kept
    features, part = results.store.features(cell), split(cell)
    if features is None:
        raise UsageError(f"{results.store.root}: the fit of {cell.label} is missing; fit again")
    train = gather(part.train, LIMIT, Stream(0).child("description"))
    found = describe(features, train, part.test, distortion)
    made = {
        "bits": found.mean,
        "error": found.error,
        "codes": float(found.codes.mean()),
        "residual": float(found.residual.mean()),
        "plain": float(found.plain.mean()),
    }
    write_json(path, made)
    return made


def _line(
    results: Results, finder: Any, cells: list[tuple[Cell, dict[str, Any]]], parts: list[dict[str, float]]
) -> dict[str, Any]:
    """One recipe's line: means over its seeds."""
    fitted = [features for cell, _ in cells if (features := results.store.features(cell)) is not None]
    bits = np.array([part["bits"] for part in parts])
    # Held-out rows are the same for every seed on data, so that their error does not shrink with seeds.
    spread = bits.std(ddof=1) / math.sqrt(len(bits)) if len(bits) > 1 else 0.0
    scores = {n: float(np.mean([o["scores"][n]["value"] for _, o in cells])) for n in ("l0", "fvu", "dead")}
    line = {
        "recipe": str(finder),
        "width": fitted[0].shape[0],
        "l0": scores["l0"],
        "fvu": scores["fvu"],
        "bits": float(bits.mean()),
        "error": math.hypot(float(np.mean([part["error"] for part in parts])), spread),
        "codes": float(np.mean([part["codes"] for part in parts])),
        "residual": float(np.mean([part["residual"] for part in parts])),
        "dead": scores["dead"],
        "seeds": len(cells),
    }
    pairs = [dictionary_mcc(b.atoms, a.atoms, draws=1) for a, b in itertools.combinations(fitted, 2)]
    found = {
        "agreement": [pair.value for pair in pairs],
        "chance": [pair.chance for pair in pairs],
        "shared": [float((np.abs(pair.detail["cosines"]) > SHARED).mean()) for pair in pairs],
    }
    return {**line, **{name: float(np.mean(v)) if v else float("nan") for name, v in found.items()}}
