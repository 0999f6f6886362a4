"""The piece of work: one representation of one world, every finder and encoder on it, every score."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UnmixError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.encoders import ENCODERS
from unmix.encoders.matched import at_sparsity
from unmix.finders import FINDERS
from unmix.finders.features import Features, replace
from unmix.learners import LEARNERS
from unmix.learners.loop import moved
from unmix.papers.crossings.grids import COLUMNS, DICTIONARIES, UNTRAINED
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.study.cells import split_rows
from unmix.worlds import WORLDS

# Trees that are fewer and see fewer rows than the score's own: it is measured on every cell, beside cheap ones.
DCI = {"rounds": 30, "rows": 1000}
OTHER = 1000  # added to the seed for the second fit that stability compares with


def crossed(
    world: Mapping[str, Any],
    learner: Mapping[str, Any] | None,
    representation: str,
    finders: Sequence[Mapping[str, Any]],
    encoders: Sequence[Mapping[str, Any]],
    scores: Sequence[str],
    active: int,
    seed: int,
    samples: int,
    test: int,
) -> dict[str, Any]:
    """Every finder and encoder on one representation of a world, with `scores` on held-out rows.

    learner: what is trained (of which `untrained` is the start); None takes x itself. active: mean number of active
    codes that encoders other than a finder's own are set to. The result has r2 and its worst latent (of the linear
    read-out from the representation), where the truth is known, loss, seconds, and cells: finder, encoder,
    {score: {value, chance}} or error. The first cell is the columns as they are.
    """
    known, begun = WORLDS.make(dict(world)), time.perf_counter()
    train, held = _drawn(known, samples, test, seed)
    found: dict[str, Any] = {"cells": [], "loss": None}
    try:
        if learner is None:
            h, h_test = (part.x.flatten(1).float() for part in (train, held))
        else:
            made = LEARNERS.make(dict(learner))
            learnt = made.untrained(known, seed) if representation == UNTRAINED else made.fit(known, seed)
            h, h_test = learnt(train.x), learnt(held.x)
            found["loss"] = learnt.trace[-1]["loss"] if learnt.trace else None
    except UnmixError as error:
        return {**found, "error": str(error)}
    truth = _truth(known, held)
    if "z" in truth:
        outcome = SCORES["r2"]().measure(Inputs(h=h_test, **truth), Stream(seed).child("scores"))
        found |= {"r2": float(outcome.value), "r2_worst": float(outcome.detail["minimum"])}
    found["width"] = h.shape[1]
    wanted = [name for name in scores if name not in ("fvu", "stability", "dictionary_mcc", "l0", "dead")]
    columns = _scored(Codes(h_test, None, h_test.shape[1]), None, h_test, truth, wanted, seed)
    found["cells"].append({"finder": COLUMNS, "encoder": "own", "scores": columns})
    for recipe in finders:
        found["cells"] += _cells(recipe, encoders, h, h_test, truth, list(scores), active, seed)
    return {**found, "seconds": round(time.perf_counter() - begun, 1)}


def _cells(
    recipe: Mapping[str, Any],
    encoders: Sequence[Mapping[str, Any]],
    h: Tensor,
    h_test: Tensor,
    truth: dict[str, Any],
    scores: list[str],
    active: int,
    seed: int,
) -> list[dict[str, Any]]:
    """One finder with its own encoder and, where it is a dictionary, with every other one."""
    made = FINDERS.make(dict(recipe))
    try:
        features = made.fit(h, seed)
        others = [made.fit(h, seed + OTHER).atoms] if "stability" in scores and made.seeded else None
    except UnmixError as error:
        return [{"finder": made.kind, "encoder": "own", "error": str(error)}]
    given = {**truth, "others": others} if others else truth
    wanted = [name for name in scores if name != "stability" or others]
    cells = []
    for encoder in (None, *(encoders if made.kind in DICTIONARIES else ())):
        told = "own" if encoder is None else str(encoder["kind"])
        try:
            used = features if encoder is None else _swapped(encoder, features, h, active, seed)
            codes = used.encode(h_test)
            kept = _scored(codes, used, h_test, given, wanted, seed)
            cells.append({"finder": made.kind, "encoder": told, "scores": kept})
        except UnmixError as error:
            cells.append({"finder": made.kind, "encoder": told, "error": str(error)})
    return cells


def _swapped(encoder: Mapping[str, Any], features: Features, h: Tensor, active: int, seed: int) -> Features:
    """The same atoms with another encoder: amortised ones are fitted on the rows, penalties set to the sparsity."""
    made, stream = ENCODERS.make(dict(encoder)), Stream(seed).child("encoder")
    if made.needs_rows:
        return replace(features, encoder=made, rows=h, rng=stream)
    return replace(features, encoder=at_sparsity(made, features, h, float(active), stream), rng=stream)


def _scored(
    codes: Codes, used: Features | None, h: Tensor, given: dict[str, Any], scores: list[str], seed: int
) -> dict[str, dict[str, float | None]]:
    dense = codes.dense()
    made: dict[str, Any] = {"codes": codes}
    if used is not None:
        made |= {"atoms": used.atoms, "reconstruction": used.decode(codes)}
    stream, found = Stream(seed).child("scores"), {}
    for name in scores:
        inputs = {**given, **made, "h": h}
        if name in ("r2", "rankme"):
            inputs["h"] = dense  # of the codes, not of what they were found in
        options = DCI if name.startswith("dci") else {}
        outcome = SCORES[name](**options).measure(Inputs(**inputs), stream)
        kept = {"value": float(outcome.value), "chance": float(outcome.chance)}
        found[name] = {part: None if math.isnan(value) else value for part, value in kept.items()}
    return found


def _drawn(world: Any, samples: int, test: int, seed: int) -> tuple[Sample, Sample]:
    """Rows to fit finders on and held-out rows, whole sequences where there are such."""
    stream = Stream(seed).child("crossed")
    if world.kind == "Data":
        rows = world.open()
        train, held = split_rows(rows, test, rows.items)
        rows = world.transformed(rows, train)
        train = stream.numpy().permutation(train)[:samples]
        return Sample(x=rows.take(train)), Sample(x=rows.take(held))
    held_out = world.held_out
    count = samples if world.size is None else min(samples, world.size)
    tested = test if held_out.size is None else min(test, held_out.size)
    first, second = world.sample(count, stream.child("rows")), held_out.sample(tested, stream.child("test"))
    return moved(first, "cpu"), moved(second, "cpu")


def _truth(world: Any, held: Sample) -> dict[str, Any]:
    """Latents that are numbers, with their kinds, and the true atoms where there are such."""
    if held.z is None:
        return {}
    kinds = world.factor_kinds
    numbers = [j for j, factor in enumerate(kinds) if factor.kind != "categorical"]
    found: dict[str, Any] = {"z": held.z[:, torch.tensor(numbers)], "factors": [kinds[j] for j in numbers]}
    if "atoms" in world.provides:
        found["truth"] = world.atoms
    return found
