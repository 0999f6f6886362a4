"""Trust of learned representations: the same learner on a matched world whose truth is known, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unmix.core.errors import UsageError
from unmix.core.options import checked
from unmix.core.store import write_json
from unmix.study.engines import Engine
from unmix.study.learning import Learned, Learning, learn
from unmix.study.promises import known, match

READABLE, PARTLY, MATTERS = 0.9, 0.5, 0.05


@dataclass(frozen=True)
class Promise:
    """What to expect of one learner of a run.

    learner, world: their names. refused: why no matched world is justified, or empty. told: what the match rests on.
    outcomes: stored outcomes of the learner on the matched world, one for each seed.
    """

    learner: str
    world: str
    refused: str
    told: tuple[str, ...]
    outcomes: tuple[dict[str, Any], ...]

    @property
    def sentence(self) -> str:
        """One honest sentence: what was reached where the truth is known, and what follows."""
        if self.refused:
            return self.refused
        if not self.outcomes:
            return f"{self.learner} on {self.world}: every fit on the matched world failed."
        r2, worst = self._mean("r2", "value"), min(o["scores"]["r2"]["minimum"] for o in self.outcomes)
        mcc, chance = self._mean("mcc", "value"), self._mean("mcc", "chance")
        start = float(np.mean([o["scores"]["r2"]["baselines"]["untrained"]["value"] for o in self.outcomes]))
        if r2 < start + MATTERS:
            advice = (
                "training adds nothing there to the untrained network; train longer, or do not credit the learner"
            )
        elif r2 >= READABLE:
            advice = "if the data have such latents, a linear map reads them from this representation"
        elif r2 >= PARTLY:
            advice = "such latents are in the representation in part; a probe finds less than there is"
        else:
            advice = "such latents would be lost; do not read this representation as the factors of the data"
        columns = "single columns may stand for factors" if mcc >= READABLE else "single columns mean nothing alone"
        return (
            f"On a matched world with known truth, {self.learner} reaches R2 {r2:.2f} of the latents (worst latent "
            f"{worst:.2f}, before training {start:.2f}) and MCC {mcc:.2f} (chance {chance:.2f}): {advice}; {columns}."
        )

    def _mean(self, score: str, part: str) -> float:
        return float(np.mean([outcome["scores"][score][part] for outcome in self.outcomes]))


@checked
def trust_learned(
    folder: str | Path, seeds: Sequence[int] = (0,), engine: Engine | None = None
) -> tuple[Learned, list[Promise]]:
    """Try each learner of a run on its matched world with every seed; what is there is not trained again.

    The world is matched to the seed with the lowest loss. A learner without a justified matched world keeps the
    reason, in folder/promises/DIGEST.json. Raises `UsageError` where nothing has been learned.
    """
    learned = Learned(folder)
    first = _first(learned)
    if not first:
        raise UsageError(f"{learned.root}: nothing learned here; run: unmix learn DATA -o {learned.root}")
    promises = []
    for job, label in first:
        try:
            if (reason := known(job.world)) is not None:
                raise UsageError(f"{job.learner.kind}: {reason}")
            made = match(job.world, job.learner, learned.representation(job), job.seed)
        except UsageError as error:
            _keep(learned.root, job, {"refused": str(error)})
            promises.append(Promise(job.learner.kind, label, str(error), (), ()))
            continue
        _keep(learned.root, job, {"told": list(made.told)})
        again = learn(made.world, [made.learner], learned.root, seeds, job.test, engine, matched=job.digest)
        asked = {Learning(world=made.world, learner=made.learner, seed=seed, test=job.test).digest for seed in seeds}
        found = [outcome for one, outcome in again.jobs() if one.digest in asked]
        promises.append(Promise(job.learner.kind, label, "", made.told, tuple(found)))
    return Learned(folder), promises


def _first(learned: Learned) -> list[tuple[Learning, str]]:
    """Of every learner on every world that is no matched one, the seed with the lowest loss, and the world's name."""
    best: dict[str, tuple[float, Learning, str]] = {}
    for job, outcome in learned.jobs():
        loss = outcome["loss"] if outcome["loss"] is not None else float("inf")
        key = f"{job.world.digest} {job.learner.digest}"
        if job.matched is None and (key not in best or loss < best[key][0]):
            best[key] = (loss, job, outcome["world"])
    return [(job, label) for _, job, label in best.values()]


def _keep(root: Path, job: Learning, what: dict[str, Any]) -> None:
    """Keep what became of a job's match."""
    write_json(root / "promises" / f"{job.digest}.json", {"of": job.as_dict(), **what})
