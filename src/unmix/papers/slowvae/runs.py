"""The pieces of work: a learner trained on a world that is known, closed-form controls, and the motion of objects."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unmix.core.errors import UnmixError, UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, untouched
from unmix.core.watch import Checkpoint
from unmix.learners import LEARNERS
from unmix.learners.loop import moved
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.scores.disentanglement.typed import typed_mcc
from unmix.study.udr import informative_codes
from unmix.worlds import WORLDS
from unmix.worlds.tracks import fit_transitions, read_tracks

SCORED = 5000  # rows that the scores beside the MCC are measured on
SAVED = 30.0  # seconds between checkpoints
BINS = np.linspace(-5, 5, 81)


def trained(
    world: Mapping[str, Any],
    learner: Mapping[str, Any],
    seed: int,
    test: int = 10_000,
    measures: Sequence[str] = (),
    keep: int = 0,
    working: Path | None = None,
) -> dict[str, Any]:
    """A learner on a world with one seed, scored on `test` held-out rows.

    The result has spearman and pearson (`typed_mcc`: value; chance: random projections of the true factors; low,
    high, associations), untrained (spearman of the network before training), `measures` by name, seconds, the last
    line of the log. keep: rows of codes to keep, with what of them is informative. working: folder of checkpoints,
    from which an interrupted training goes on (seconds are then those of the last run). A fit that fails gives
    `error`.
    """
    made, known = LEARNERS.make(dict(learner)), WORLDS.make(dict(world))
    begun = time.perf_counter()
    try:
        watch = None if working is None else Checkpoint(working, f"{made.kind} on {known.kind}, seed {seed}", SAVED)
        learnt = made.fit(known, seed, watch)
    except UnmixError as error:
        return {"error": str(error), "seconds": round(time.perf_counter() - begun, 1)}
    seconds = time.perf_counter() - begun
    sample = _held_out(known, test, seed)
    codes, before = learnt(sample.x), made.untrained(known, seed)(sample.x)
    found = _recovery(codes, known, sample, seed)
    found["untrained"] = _mcc(before, known, sample, seed, "spearman", 4)["value"]
    rows = min(SCORED, len(sample))
    inputs = Inputs(codes=codes[:rows], z=sample.z[:rows], factors=known.factor_kinds)
    for name in measures:
        outcome = SCORES[name]().measure(inputs, Stream(seed).child("scores"))
        found[name] = {"value": float(outcome.value), "chance": float(outcome.chance)}
    if keep:
        kept = _held_out(known, keep, 0).x
        found["codes"] = np.round(learnt(kept).numpy().astype(float), 5).tolist()
        found["informative"] = informative_codes(learnt, kept).tolist()
    return {**found, "seconds": round(seconds, 1), "last": dict(learnt.trace[-1])}


def ica(world: Mapping[str, Any], seed: int, on: str = "differences", test: int = 10_000) -> dict[str, Any]:
    """Linear ICA (scikit-learn's FastICA) of the differences of a pair's frames, or of the frames: the control.

    It is fitted on ten times `test` rows and scored on `test` others; right where the mixing is linear and the
    differences are not Gaussian. The result is as that of `trained`; `converged` says whether FastICA met its
    tolerance.
    """
    with untouched():
        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning

    known = WORLDS.make(dict(world))
    x = known.sample(10 * test, Stream(seed).child("ica")).x.numpy().astype(np.float64)
    data = x[1::2] - x[::2] if on == "differences" else x[::2]
    begun = time.perf_counter()
    solver = FastICA(whiten="unit-variance", max_iter=500, tol=1e-6, random_state=seed)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ConvergenceWarning)
        solver.fit(data)
    seconds = round(time.perf_counter() - begun, 2)
    sample = _held_out(known, test, seed)
    codes = (sample.x.numpy() @ solver.components_.T).astype(np.float32)
    converged = not any(issubclass(note.category, ConvergenceWarning) for note in told)
    return {**_recovery(codes, known, sample, seed), "seconds": seconds, "converged": converged}


def motion(path: str) -> list[dict[str, Any]]:
    """Laws of the differences of consecutive frames of real tracks: one record for every source and latent.

    source, latent, pairs, alpha (maximum of the likelihood), alpha_scipy (`scipy.stats.gennorm.fit`, which published
    numbers come from), scale, centre, kurtosis, still, likelihood (a pair, of the three laws), density (of the
    standardised differences in 80 bins from -5 to 5), deviation. Raises as `read_tracks`.
    """
    tracks, found = read_tracks(path), []
    for source in tracks.sources:
        d = tracks.of(source).differences()
        exact = fit_transitions(d, tracks.names)
        simplex = fit_transitions(d, tracks.names, "scipy")
        for column, fit, published in zip(d.T, exact, simplex, strict=True):
            deviation = float(column.std())
            density = np.histogram(column / deviation, BINS)[0] / len(column) / np.diff(BINS)
            found.append(
                {
                    "source": source,
                    "latent": fit.name,
                    "pairs": fit.count,
                    "alpha": fit.alpha,
                    "alpha_scipy": published.alpha,
                    "centre": fit.centre,
                    "scale": fit.scale,
                    "deviation": deviation,
                    "kurtosis": fit.kurtosis,
                    "still": fit.still,
                    "likelihood": {law: value / fit.count for law, value in fit.likelihood.items()},
                    "density": np.round(density, 6).tolist(),
                }
            )
    return found


def tracks_of(path: str) -> Path:
    """The file of tracks; raises `UsageError` where it is not there."""
    if not Path(path).is_file():
        raise UsageError(f"tracks={path}: no such file; give a table of tracks, see unmix check")
    return Path(path).resolve()


def _held_out(world: Any, n: int, seed: int) -> Sample:
    length = int(getattr(world, "length", 1))
    return moved(world.held_out.sample(n - n % length, Stream(seed).child("test")), "cpu")


def _recovery(codes: Any, world: Any, sample: Sample, seed: int) -> dict[str, Any]:
    return {rule: _mcc(codes, world, sample, seed, rule) for rule in ("spearman", "pearson")}


def _mcc(codes: Any, world: Any, sample: Sample, seed: int, rule: Any, draws: int = 16) -> dict[str, Any]:
    group, stream = sample.group, Stream(seed).child("mcc")
    outcome = typed_mcc(codes, sample.z, world.factor_kinds, group, stream, rule, draws=draws, resamples=20)
    low, high = outcome.interval
    return {
        "value": float(outcome.value),
        "chance": float(outcome.chance),
        "low": float(low),
        "high": float(high),
        "associations": [round(float(value), 4) for value in outcome.detail["associations"]],
    }
