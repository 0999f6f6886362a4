"""The pieces of work: a learner trained on a world with known latents, and everything that can be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.learners.losses import cross_entropy_head
from unmix.scores import SCORES
from unmix.scores.identifiability.explained import halves
from unmix.scores.identifiability.linear import LeastSquares, r2
from unmix.study.cells import _stored
from unmix.study.learning import Learning, held_out, inputs_of, measure
from unmix.worlds.assumptions import check_assumptions

LOOKS = 7  # at steps that double, on so many rows:
FIRST = 2048
FURTHER = ("procrustes", "singular_values", "isotropy", "within_class")


def trained(world: Mapping[str, Any], learner: Mapping[str, Any], seed: int, test: int = 8192) -> dict[str, Any]:
    """A learner trained on a world and scored on `test` held-out rows, after its assumptions were checked.

    world, learner: recipes as JSON. The result has what `unmix learn` stores (`scores`: value, chance, low, high, and
    minimum and baselines where the score has them), `worst_direction` among the scores, `cases` and `verdict` of the
    theorem as they were known before training, `singular`, the singular values of the map from z to h, and for a
    classifier `curve`: step, R2 and cross-entropy above the best on the way.
    """
    job = Learning(world=dict(world), learner=dict(learner), seed=seed, test=test)
    found: dict[str, Any] = {"cases": [], "verdict": ""}
    try:
        known = check_assumptions(job.world)
        found |= {"cases": list(known.cases), "verdict": known.verdict.splitlines()[0]}
    except UsageError:
        pass
    sample = held_out(job)
    looks = Looks(sample.take(np.arange(min(FIRST, len(sample)))), job.learner)
    learnt = job.learner.fit(job.world, seed, looks)
    found |= measure(job, learnt)
    inputs = inputs_of(job, learnt, sample)
    if looks.seen and inputs.bayes_loss is not None:
        best = float(torch.as_tensor(inputs.bayes_loss)[:FIRST].mean())
        found["curve"] = [[step, value, loss - best] for step, value, loss in looks.seen]
    found["scores"]["worst_direction"] = {"value": worst_direction(inputs.h, inputs.z, seed)}
    for name in FURTHER:
        if name in found["scores"] or not SCORES[name].needs <= inputs.provides:
            continue
        try:
            outcome = SCORES[name]().measure(inputs, Stream(seed).child("scores"))
        except UsageError as error:
            found["scores"][name] = {"refused": str(error)}
            continue
        kept = {part: outcome.detail[part] for part in ("minimum", "baselines") if part in outcome.detail}
        found["scores"][name] = {**_stored(outcome), **kept}
        if "values" in outcome.detail:
            found["singular"] = [round(float(value), 6) for value in np.asarray(outcome.detail["values"])]
    return found


class Looks(Watch):
    """Sees R2 of the latents and cross-entropy on held-out rows before steps steps / 2^k, where there is a head.

    seen: step, R2, cross-entropy. The network is as it is in use: batch norm by its running statistics.
    """

    def __init__(self, sample: Sample, learner: Any) -> None:
        self.sample, self.learner = sample, learner
        self.seen: list[list[float]] = []
        self.steps = {max(1, learner.steps // 2**k) for k in range(LOOKS)} if hasattr(learner, "label") else set()

    def before_step(self, step: int, module: Any, optimiser: Any) -> None:
        if step not in self.steps:
            return
        head, labels = module["head"], getattr(self.sample, self.learner.label)
        module.eval()
        with torch.no_grad():
            h = module["encoder"](self.sample.x)
            loss = cross_entropy_head(h, head.weights, head.log_beta.exp(), head.bias, labels)
        module.train()
        self.seen.append([step, r2(h, self.sample.z).value, float(loss)])


def worst_direction(h: Any, z: Any, seed: int) -> float:
    """R2 of the direction u of the latents that is read worst: min_u 1 - (u' E u) / (u' C u).

    h: [n, d], z: [n, f]. E and C: covariances of the held-out residuals of least squares and of the latents. Single
    latents can all look fair while a direction between them is lost.
    """
    from scipy.linalg import eigh

    fit, held = (torch.from_numpy(part) for part in halves(np.arange(len(h)), Stream(seed).child("worst direction")))
    h, z = h.double(), z.double()
    slope, offset = LeastSquares(h[fit]).coefficients(z[fit])
    error, latents = z[held] - h[held] @ slope - offset, z[held] - z[held].mean(0)
    return float(1 - eigh((error.T @ error).numpy(), (latents.T @ latents).numpy(), eigvals_only=True)[-1])


def row_of(settings: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """One flat row of a result: world and learner fields that tables need, then NAME, NAME_minimum, NAME_x ..."""
    world, learner = settings["world"], settings["learner"]
    row: dict[str, Any] = {
        "learner": learner["kind"],
        "case": case_of(learner),
        "similarity": learner.get("similarity", ""),
        "seed": settings["seed"],
        "steps": learner["steps"],
        "concentration": world.get("concentration"),
        "beta": result.get("beta"),
        "seconds": result["seconds"],
        "cases": len(result["cases"]),
        "verdict": result["verdict"],
        "warnings": list(result["warnings"]),
        "curve": result.get("curve", []),
    }
    for name, numbers in result["scores"].items():
        row[name] = numbers.get("value")
        if "minimum" in numbers:
            row[f"{name}_minimum"] = numbers["minimum"]
        for baseline, value in numbers.get("baselines", {}).items():
            row[f"{name}_{baseline}"] = value["value"]
            row[f"{name}_{baseline}_minimum"] = value.get("minimum")
    if row["beta"] and row["concentration"]:
        row["beta_ratio"] = row["beta"] / row["concentration"]
        # Outside the theorem there is nothing that the estimate would be of.
        if row.get("duality") and row["cases"]:
            row["duality_ratio"] = row["duality"] / row["concentration"]
    return row


def case_of(learner: Mapping[str, Any]) -> str:
    """C1 to C4 of a learner with a head; an empty text for another."""
    if "unit_features" not in learner:
        return ""
    return {(True, True): "C1", (True, False): "C2", (False, True): "C3", (False, False): "C4"}[
        learner["unit_features"], learner["unit_weights"]
    ]
