"""Cautions: what is visibly wrong with fits that ended well, and what to try."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from unmix.core.errors import UsageError
from unmix.core.rows import gather
from unmix.core.seeds import Stream
from unmix.finders.features import Features
from unmix.study.cells import Cell, Split, split
from unmix.study.description import describe
from unmix.study.learning import Learned
from unmix.study.study import Results

DEAD = 0.5  # share of the atoms
ROWS = 2048  # that bits are counted on; their covariance is decomposed
COLUMNS = 2048  # beyond which that takes too long


def cautions(results: Results, finders: Iterable[Any], world: Any) -> list[str]:
    """One sentence for every finder of a run whose fits on a world show that something is wrong, with what to try.

    Said are: scores at chance where the truth is known, and where it is not, features that describe unseen rows in
    no fewer bits than their covariance does (`describe`); an FVU of 1 or more; mostly dead atoms; as many active
    codes as dimensions; more atoms than rows. Of several seeds and sizes the last one speaks.
    """
    wanted = {finder.digest for finder in finders}
    last: dict[str, tuple[Cell, dict[str, Any]]] = {}
    for cell, outcome in results.cells():
        if cell.encoder is None and cell.finder.digest in wanted and cell.world.digest == world.digest:
            last[cell.finder.digest] = (cell, outcome)
    found = []
    for cell, outcome in last.values():
        features = results.store.features(cell)
        if features is not None and (wrong := _wrong(cell, outcome, features, split(cell))):
            found.append(f"{results.label(cell.finder)}: {'; '.join(wrong)}")
    return found


def _wrong(cell: Cell, outcome: dict[str, Any], features: Features, part: Split) -> list[str]:
    scores, (m, d), n = outcome["scores"], features.atoms.shape, part.train.shape[0]
    known, found = type(cell.finder).model_fields, []
    sparse = "k" in known or "active" in known
    if scores["fvu"]["value"] >= 1:
        found.append(
            f"explains nothing of the held-out rows (FVU {scores['fvu']['value']:.2f}): give more steps, a "
            "smaller lr or fewer active codes"
        )
    elif sparse and part.truth is None and (bits := _bits(features, part)) is not None and bits[0] >= bits[1]:
        found.append(
            f"at chance: a held-out row costs {bits[0]:.0f} bits with these features and {bits[1]:.0f} by its "
            "covariance alone; give more rows, another width and k (unmix choose), or the rows are no sparse sums"
        )
    chance = [name for name in ("mcc", "dictionary_mcc") if scores.get(name, {}).get("at_chance")]
    if chance:
        found.append(f"at chance by {' and '.join(chance)}: the true latents were not found; give more rows or steps")
    if scores["dead"]["value"] > DEAD:
        found.append(
            f"{scores['dead']['value']:.0%} of {m:,} atoms never fire on held-out rows: give fewer atoms (width) "
            "or more steps"
        )
    if sparse and scores["l0"]["value"] >= d:
        found.append(
            f"{scores['l0']['value']:.0f} active codes in rows of {d} columns: any {d} directions explain such rows; "
            f"give at most {max(1, d // 4)}"
        )
    if m > n:
        found.append(f"{m:,} atoms for {n:,} rows: atoms can be the rows themselves; give at most {max(1, n // 4):,}")
    return found


def _bits(features: Features, part: Split) -> tuple[float, float] | None:
    """Mean bits of a held-out row with the features and without; None where that cannot be counted."""
    if features.atoms.shape[1] > COLUMNS:
        return None
    train = gather(part.train, ROWS, Stream(0).child("cautions"))
    test = torch.as_tensor(part.test[:ROWS])
    try:
        found = describe(features, train, test)
    except UsageError:  # constant rows, of which the fit itself has spoken
        return None
    return found.mean, float(found.plain.mean())


def cautions_of_learning(learned: Learned, learners: Iterable[Any], world: Any) -> list[str]:
    """One sentence for every learner whose scores on held-out rows are at chance or below a baseline, with the score.

    Baselines are the raw observations and the network before training. Of several seeds the last one speaks.
    """
    wanted = {learner.digest for learner in learners}
    last = {
        job.learner.digest: (job, outcome)
        for job, outcome in learned.jobs()
        if job.learner.digest in wanted and job.world.digest == world.digest
    }
    names = {"x": "the raw observations", "untrained": "the network before training"}
    found = []
    for job, outcome in last.values():
        wrong = []
        for name, score in outcome["scores"].items():
            if score.get("at_chance"):
                wrong.append(f"{name} {score['value']:.2f} is at chance")
            for baseline, beside in score.get("baselines", {}).items():
                if baseline in names and score["value"] < beside["value"] - 0.005:
                    wrong.append(f"{name} {score['value']:.2f} is below {names[baseline]} ({beside['value']:.2f})")
        if wrong:
            found.append(f"{job.learner.kind}: {'; '.join(wrong)}: give more steps, more rows or another learner")
    return found
