"""The pieces of work: a promise made from rows alone, beside what was really recovered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from unmix.core.errors import UnmixError
from unmix.core.seeds import Stream
from unmix.finders import FINDERS
from unmix.finders.features import Features
from unmix.learners import LEARNERS
from unmix.scores.base import Inputs
from unmix.scores.matching import Agreement, dictionary_mcc
from unmix.study.agreement import SHARED
from unmix.study.justified import signs, unjustified
from unmix.study.learning import Learning, measure
from unmix.study.promises import match
from unmix.worlds import WORLDS
from unmix.worlds.matched import MatchedWorld


def promised(
    world: Mapping[str, Any], finder: Mapping[str, Any], seed: int, samples: int, test: int = 4096
) -> dict[str, Any]:
    """What a matched world promises of a finder on a world, and what it really recovers there.

    real, promise: true (share of the found atoms that fire with a true atom of their own at |cosine| > .9), found
    (share of the true atoms so recovered), cosine (dictionary MCC), chance. shared: share of the atoms that another
    seed finds as well. data, matched: `signs` of the two. A world that no matched world is justified for gives
    `refused`, a fit that fails `error`.
    """
    made, known = FINDERS.make(dict(finder)), WORLDS.make(dict(world))
    stream = Stream(seed).child("promised")
    try:
        rows = known.sample(samples, stream.child("rows")).x
        held = known.sample(test, stream.child("test")).x
        features, other = made.fit(rows, seed), made.fit(rows, seed + 1000)
        real = _recovered(features, held, known.atoms)
        agreed = Agreement().measure(Inputs(atoms=features.atoms, other=other.atoms), stream)
        shared = float((np.abs(agreed.detail["cosines"]) > SHARED).mean())
        seen = {"real": real, "shared": shared, "data": signs(features, held)}
        if (reason := unjustified(features, rows)) is not None:
            return {**seen, "refused": reason}
        matched = MatchedWorld.of(features, rows, seed)
        drawn = matched.sample(samples, stream.child("matched rows")).h
        again = made.fit(drawn, seed)
        held = matched.sample(test, stream.child("matched test")).h
        promise = _recovered(again, held, matched.atoms)
    except UnmixError as error:
        return {"error": str(error)}
    return {**seen, "promise": promise, "matched": signs(again, held), "latents": matched.latents}


def foretold(world: Mapping[str, Any], learner: Mapping[str, Any], seed: int, test: int = 4096) -> dict[str, Any]:
    """What a matched world foretells of a learner on a world, and what it really reaches there.

    real, promise: r2 and mcc of the latents (value, and untrained where known). told: what the match rests on.
    """
    made, known = LEARNERS.make(dict(learner)), WORLDS.make(dict(world))
    try:
        job = Learning(world=known, learner=made, seed=seed, test=test)
        learnt = made.fit(known, seed)
        real = _reached(job, learnt)
        matched = match(known, made, learnt, seed)
        again = Learning(world=matched.world, learner=matched.learner, seed=seed, test=test)
        promise = _reached(again, matched.learner.fit(matched.world, seed))
    except UnmixError as error:
        return {"error": str(error)}
    return {"real": real, "promise": promise, "told": list(matched.told), "world": matched.world.as_dict()}


def _recovered(features: Features, held: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    outcome = dictionary_mcc(features.atoms, truth, draws=2)
    hits = int((np.abs(outcome.detail["cosines"]) > SHARED).sum())
    alive = int((features.encode(held).firing() > 0).sum())
    return {
        "true": hits / max(alive, hits, 1),
        "found": hits / len(truth),
        "cosine": float(outcome.value),
        "chance": float(outcome.chance),
        "alive": float(alive),
    }


def _reached(job: Learning, learnt: Any) -> dict[str, float]:
    scores = measure(job, learnt)["scores"]
    found = {name: float(scores[name]["value"]) for name in ("r2", "mcc")}
    return {**found, "chance": float(scores["mcc"]["chance"]), "worst": float(scores["r2"]["minimum"])}
