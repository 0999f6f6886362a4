"""The verbs of the command line on a run folder, for Python: fit, compare, trust."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unmix.core.errors import UsageError
from unmix.core.options import checked
from unmix.core.rows import Rows
from unmix.core.seeds import Stream
from unmix.core.store import recall, write_json
from unmix.finders.features import Features
from unmix.study.cells import Cell, Split, all_rows, split
from unmix.study.engines import Engine
from unmix.study.holdings import nothing
from unmix.study.justified import signs, unjustified
from unmix.study.sizing import Sizing
from unmix.study.study import Results, Study
from unmix.worlds.matched import MatchedWorld

TRUTH = ("fvu", "l0", "dead", "mcc", "dictionary_mcc", "found")


@checked
def fit(
    world: Any,
    finders: Sequence[Any],
    folder: str | Path,
    seeds: Sequence[int] = (0,),
    samples: Sequence[int | None] = (None,),
    engine: Engine | None = None,
    test: int = 8192,
    start: str | Path | None = None,
) -> Results:
    """Fit every finder with every seed on a world (data or synthetic) and score it on held-out rows.

    start: go on from the features in a folder, or from the fit of a run folder that explains most.
    """
    scores = TRUTH if "z" in world.provides else TRUTH[:3]
    study = Study(
        name="fit",
        worlds=(world,),
        finders=tuple(finders),
        samples=tuple(samples),
        seeds=tuple(seeds),
        scores=scores,
        test=test,
        start=None if start is None else _start(Path(start)),
    )
    return study.run(folder, engine)


def sizing(
    world: Any,
    samples: int | None = None,
    start: str | Path | None = None,
    folder: str | Path | None = None,
    test: int = 8192,
) -> Sizing:
    """What finders need and are not given, from the rows of a world that they are fitted on.

    `sizing(world).fields(TopKSAE, {})` are fields for `TopKSAE`. folder: of a run that keeps what was tried.
    Raises `UsageError` where the world has no such rows.
    """
    cell = Cell(world=world, finder="TopKSAE", samples=samples, test=test, scores=("l0",))
    if reason := cell.refusal():
        raise UsageError(reason)
    begun = None if start is None else Features.load(_start(Path(start))[0])
    return Sizing(split(cell).train, begun, None if folder is None else Path(folder))


@checked
def compare(
    folder: str | Path,
    encoders: Sequence[Any],
    l0: float | None = None,
    seeds: Sequence[int] | None = None,
    engine: Engine | None = None,
) -> Results:
    """Swap the encoders of every fit in a run, at matched sparsity: of those on data, or on worlds where none are.

    l0: mean number of active codes; None takes the mean of the fits' own, so that all are compared at one sparsity.
    seeds: only these seeds of the fits. Raises `UsageError` where the run has no fits.
    """
    results = Results(folder)
    known = [(c, o) for c, o in results.cells() if c.world.kind not in ("Data", "MatchedWorld") and c.encoder is None]
    on_data = any(cell.world.kind == "Data" for cell, _ in results.cells())
    fits = known if known and not on_data else _fits(results)
    if l0 is None:
        l0 = round(float(np.mean([outcome["scores"]["l0"]["value"] for _, outcome in fits])), 1)
    for cell, _ in fits:
        if seeds is None or cell.seed in seeds:
            Study(
                name="compare",
                worlds=(cell.world,),
                finders=(cell.finder,),
                encoders=tuple(encoders),
                samples=(cell.samples,),
                l0=l0,
                seeds=(cell.seed,),
                test=cell.test,
                scores=cell.scores,
                start=cell.start,
            ).run(folder, engine)
    return Results(folder)


@checked
def trust(
    folder: str | Path,
    sizes: Sequence[float] = (0.1, 0.32, 1.0),
    seeds: Sequence[int] = (0,),
    engine: Engine | None = None,
) -> Results:
    """Try the finders of a run on a matched world whose truth is known, at shares `sizes` of the data's rows.

    The world is matched to the fit that explains most on held-out rows, of those that are sparse sums. Raises
    `UsageError` without fits on data, or where none of them justifies a matched world.
    """
    results = Results(folder)
    fits = _fits(results)
    cell, features, part = _matchable(results)
    world, rows = MatchedWorld.of(features, part.train), part.train.shape[0]
    note, told = _noted(results, world), {"fit": cell.fit_digest}
    if recall(note, "fit") != told:
        write_json(note, told)
    samples = sorted({max(2, round(share * rows)) for share in sizes})
    finders = {cell.finder.digest: cell.finder for cell, _ in fits}
    return fit(world, list(finders.values()), folder, seeds, samples, engine, fits[0][0].test)


def best_fit(results: Results) -> Cell:
    """The fit on data that explains most of the held-out rows with its own encoder."""
    return _by_explained(results)[0][0]


def chosen(results: Results, finder: str | None = None, seed: int | None = None) -> tuple[Cell, Features, Rows, Any]:
    """A fit on data by finder and seed, by default the one that explains most: cell, features, rows, items.

    Raises `UsageError` where the run has no such fit.
    """
    fits = [(cell, outcome) for cell, outcome in _fits(results) if results.is_called(cell.finder, finder)]
    fits = [(cell, outcome) for cell, outcome in fits if seed in (None, cell.seed)]
    if not fits:
        known = ", ".join(f"{cell.finder.kind} seed {cell.seed}" for cell, _ in _fits(results))
        raise UsageError(f"finder={finder}, seed={seed}: no such fit here; known: {known}")
    cell = min(fits, key=lambda pair: pair[1]["scores"]["fvu"]["value"])[0]
    rows, items = all_rows(cell)
    return cell, _features(results, cell), rows, items


def matched_world(results: Results) -> tuple[MatchedWorld, int]:
    """The world matched to the fit that explains most and is a sparse sum, and the number of rows it was fitted on.

    Raises `UsageError` with the reasons where no fit is one.
    """
    _, features, part = _matchable(results)
    return MatchedWorld.of(features, part.train), part.train.shape[0]


def tried_world(results: Results) -> tuple[MatchedWorld, Cell]:
    """The matched world that a run's finders were tried on, and the fit on data that it was matched to.

    Of several, the one matched to the fit that explains most. Raises `UsageError` where there is none.
    """
    worlds = {cell.world.digest: cell.world for cell, _ in results.cells() if cell.world.kind == "MatchedWorld"}
    if not worlds:
        raise UsageError(f"{results.store.root}: no finder was tried on a matched world; run unmix trust")
    files = {digest: _noted(results, world) for digest, world in worlds.items()}
    again = f"unmix trust {results.store.root} makes it again"
    kept = {digest: recall(file, "fit", remedy=again) for digest, file in files.items()}
    of = {note["fit"]: worlds[digest] for digest, note in kept.items() if note is not None}
    for cell, _ in _by_explained(results):
        if cell.fit_digest in of:
            return of[cell.fit_digest], cell
    # Runs from before the fit was noted: the one that would be matched now.
    return next(iter(worlds.values())), _matchable(results)[0]


def departure(results: Results) -> dict[str, float]:
    """By how much the run's data and its matched world differ in each of `signs`, for the finder matched to.

    Raises `UsageError` where the finder was not tried on the matched world.
    """
    world, cell = tried_world(results)
    features, part = _features(results, cell), split(cell)
    tried = [c for c, _ in results.cells() if c.world == world and c.finder == cell.finder and c.encoder is None]
    if not tried:
        raise UsageError(
            f"{results.store.root}: {cell.finder.kind} was not tried on a matched world; run unmix trust"
        )
    largest = max(tried, key=lambda c: c.samples or 0)
    on_data = signs(features, part.test)
    on_matched = signs(_features(results, largest), split(largest).test)
    return {name: on_data[name] - on_matched[name] for name in on_data}


def _matchable(results: Results) -> tuple[Cell, Features, Split]:
    """Of the fits on data that are sparse sums, the one that explains most; its features and rows."""
    reasons: dict[str, str] = {}
    for cell, _ in _by_explained(results):
        features, part = _features(results, cell), split(cell)
        if (reason := unjustified(features, part.train)) is None:
            return cell, features, part
        reasons.setdefault(results.label(cell.finder), reason)
    told = "; ".join(f"{finder}: {reason}" for finder, reason in reasons.items())
    raise UsageError(
        f"{results.store.root}: no matched world is justified ({told}); fit TopKSAE or SparseCoding as well"
    )


def data_split(results: Results) -> Split:
    """Rows of the run's data: those fitted on and those held out."""
    return split(best_fit(results))


def estimate(world: Any, finders: Sequence[Any], seeds: Sequence[int], samples: int | None) -> dict[str, float]:
    """What fits on a world would cost; see `estimate_fits`."""
    rows = split(Cell(world=world, finder=finders[0], samples=samples, scores=("l0",))).train
    return estimate_fits(rows.shape, finders, len(seeds))


def estimate_fits(shape: tuple[int, int], finders: Sequence[Any], fits: float) -> dict[str, float]:
    """What `fits` fits of every finder on rows of a shape cost: work, seconds on this machine, memory, disk.

    The seconds assume a fifth of the speed that a matrix product reaches here now.
    """
    rate = _product_speed()
    costs = [finder.estimate(_Shaped(shape)) for finder in finders]
    work = fits * sum(cost["flops"] for cost in costs)
    widths = [getattr(finder, "width", shape[1]) for finder in finders]
    return {
        "flops": work,
        "seconds": work / (0.2 * rate),
        "memory_bytes": max(cost["bytes"] for cost in costs) + 4.0 * shape[0] * shape[1],
        "disk_bytes": fits * sum(12.0 * width * shape[1] for width in widths),
    }


@dataclass(frozen=True)
class _Shaped:
    shape: tuple[int, int]


def _product_speed() -> float:
    """Floating-point operations a second of a matrix product, measured now."""
    probe = torch.randn(1024, 1024, generator=Stream(0).child("probe").torch())
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < 0.3:
        probe @ probe
        count += 1
    return count * 2 * 1024**3 / (time.perf_counter() - begun)


def _start(path: Path) -> tuple[str, str]:
    """Folder and digest of features to go on from, in a folder of features or of a run."""
    if not (path / "features.json").is_file():
        results = Results(path)
        path = results.store.root / "fits" / best_fit(results).fit_digest
    return str(path.resolve()), Features.load(path).digest


def _features(results: Results, cell: Cell) -> Features:
    features = results.store.features(cell)
    if features is None:
        raise UsageError(f"{results.store.root}: the fit of {cell.label} is missing; fit again")
    return features


def _noted(results: Results, world: MatchedWorld) -> Path:
    """Where a run notes the fit that a world was matched to."""
    return results.store.root / "matched" / f"{world.digest}.json"


def _by_explained(results: Results) -> list[tuple[Cell, dict[str, Any]]]:
    """The fits on data, the one that explains most of the held-out rows first."""
    return sorted(_fits(results), key=lambda pair: pair[1]["scores"]["fvu"]["value"])


def _fits(results: Results) -> list[tuple[Cell, dict[str, Any]]]:
    fits = [(c, o) for c, o in results.cells() if c.world.kind == "Data" and c.encoder is None]
    if not fits:
        raise nothing(results.store.root, "fits on data", f"unmix fit DATA -o {results.store.root}")
    return fits
