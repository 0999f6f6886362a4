"""Learning in a run folder: one learner on one world with one seed, trained once, scored on held-out rows."""

from __future__ import annotations

import functools
import shutil
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import BeforeValidator, Field

from unmix.core.digest import digest
from unmix.core.errors import UnmixError, UsageError, notice, reason
from unmix.core.named import trusting
from unmix.core.options import checked
from unmix.core.recipe import Recipe
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.core.store import read_json, set_aside, write_json
from unmix.core.watch import Checkpoint, Following, Watch, resumed
from unmix.learners import LEARNERS, parallel
from unmix.learners.base import _first as first_batch
from unmix.learners.labels import UNKNOWN
from unmix.learners.loop import moved
from unmix.learners.representation import Representation
from unmix.regimes.monitors import RegimeWatch
from unmix.regimes.pairs import given_pairs
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.study.cells import _stored, world_label
from unmix.study.engines import Engine, Lost, Serial
from unmix.study.runs import Store, made_of, records
from unmix.worlds import WORLDS

MEASURED = ("r2", "r2_linear", "procrustes_scaled", "mcc", "weights_r2", "within_class", "duality", "excess_loss")


FACTS = ("world", "learner", "recipe", "seed", "loss", "scores")
REGIME = ("verdict", "kernel distance", "hamming", "relative motion", "drift")
PROBE = 64  # held-out rows that the monitors look at


class Learning(Recipe):
    """One learner on one world with one seed.

    world, learner, seed: what is trained. test: held-out rows, at most, that scores are measured on. watch: "regime"
    looks on at training with the monitors of lazy and rich learning; None does not. pairs: of layers that they
    follow, by hand, such as "encoder.0 -> encoder.2"; none for those that are found. start, begun: folder and digest
    of a representation to go on from; None begins anew. matched: digest of the job to which this world was matched,
    where `unmix trust` made it.
    """

    world: Annotated[Any, BeforeValidator(WORLDS.make)]
    learner: Annotated[Any, BeforeValidator(LEARNERS.make)]
    seed: int = 0
    test: int = Field(default=8192, ge=8)
    watch: Literal["regime"] | None = None
    pairs: tuple[str, ...] = ()
    start: str | None = None
    begun: str | None = None
    matched: str | None = None

    @property
    def digest(self) -> str:
        """Digest of what decides the result; data enter by their content, not by their path."""
        watched = [self.watch, *self.pairs] if self.watch else []
        started = ["start", self.begun] if self.begun else []
        return digest([self.world.digest, self.learner.as_dict(), self.seed, self.test, *watched, *started])

    @property
    def label(self) -> str:
        """A short name for progress lines."""
        return f"{world_label(self.world)} {self.learner.kind} seed {self.seed}"


@checked
def learn(
    world: Any,
    learners: Sequence[Any],
    folder: str | Path,
    seeds: Sequence[int] = (0,),
    test: int = 8192,
    engine: Engine | None = None,
    watch: Literal["regime"] | None = None,
    start: str | Path | None = None,
    pairs: Sequence[str] = (),
    matched: str | None = None,
) -> Learned:
    """Train every learner with every seed on a world; folder/learned/DIGEST/ holds representation and outcome.

    What is there is not trained again; an interrupted one goes on from its checkpoint; one that fails is stored with
    its reason. watch: "regime" keeps what the monitors saw in DIGEST/regime.json. start: folder of a representation
    that each learner goes on from. pairs: of layers that the monitors follow, by hand and instead of those that are
    found: "encoder.0 -> encoder.2" (`regimes.pairs.given_pairs`). matched: digest of the job that the world was
    matched to. Raises `UsageError`, before anything is trained, where the world lacks what a learner needs or holds
    nothing out, the start is of another network, shape or width, or a pair is not in the network.
    """
    for learner in learners:
        if reason := learner.refusal(world):
            raise UsageError(reason)
    if world.held_out.size == 0:
        raise UsageError(
            f"{world_label(world)}: has too few rows of a class to hold any out; give world.held=0 to score on the "
            "training rows, or a larger share"
        )
    if pairs and not watch:
        raise UsageError("pairs: of layers that the monitors follow; give watch=regime with them")
    if pairs:
        _followable(learners, world, pairs)
    store = Store(folder).create()
    shared: dict[str, Any] = {"world": world, "test": test, "watch": watch, "pairs": tuple(pairs), "matched": matched}
    if start is not None:
        shared |= {"start": str(Path(start).resolve()), "begun": _startable(learners, world, start)}
    jobs = [Learning(learner=made, seed=seed, **shared) for made in learners for seed in seeds]
    for job, outcome in (engine or Serial()).map(functools.partial(run_learning, store.root.resolve()), jobs):
        if isinstance(outcome, Lost) and not _done(store.root / "learned" / job.digest):
            file = store.root / "learned" / f"{job.digest}.json"
            write_json(file, {"learning": job.as_dict(), "error": outcome.reason, "label": job.label})
    return Learned(store.root, trusted(learners))


def run_learning(root: Path, job: Learning) -> bool:
    """Train and score what is missing of one job; whether it ended well. Under torchrun the first process stores."""
    parallel.join()
    store, folder = Store(root), root / "learned" / job.digest
    with store.locked(job.digest, job.label):
        if _done(folder):
            return True
        working = folder.with_name(f"{folder.name}.working")
        first, file = parallel.rank() == 0, folder.with_name(f"{folder.name}.json")
        try:
            learnt = _present(folder, job)
            if learnt is None:
                learnt = _trained(folder, working, job)
            if first:
                outcome = {"learning": job.as_dict(), **measure(job, learnt)}
                if job.watch:
                    last = read_json(folder / "regime.json")[-1]
                    outcome |= {name.replace(" ", "_"): last[name] for name in REGIME}
                write_json(file, outcome)
        except Exception as error:  # a learner of one's own: the others go on
            if first:
                kept = {"learning": job.as_dict(), "error": reason(error), "label": job.label}
                more = {} if isinstance(error, UnmixError) else {"traceback": traceback.format_exc()}
                write_json(file, {**kept, **more})
            return False
        if first and working.is_dir():
            if (working / "log.jsonl").is_file():
                shutil.copyfile(working / "log.jsonl", folder / "log.jsonl")
            shutil.rmtree(working)
        return True


def _done(folder: Path) -> bool:
    """Whether a job's outcome and its representation are there and whole, as far as sizes tell."""
    try:
        outcome = read_json(folder.with_name(f"{folder.name}.json"))
    except UnmixError:
        return False
    return _harm(outcome) is None and "error" not in outcome and Representation.lacks(folder) is None


def _present(folder: Path, job: Learning) -> Representation | None:
    """What the job learnt before, with what its monitors saw; None where it is not there, or not whole any more."""
    if not folder.exists():
        return None
    lacking = Representation.lacks(folder)
    if lacking is None and job.watch and not (folder / "regime.json").is_file():
        lacking = "regime.json"
    if lacking is None:
        return Representation.load(folder, trust=trusted([job.learner]))
    if not parallel.rank():
        set_aside(folder, f"{folder / lacking}: missing or not whole")
    return None


def _trained(folder: Path, working: Path, job: Learning) -> Representation:
    kept = Checkpoint(working, job.label)

    def train() -> Representation:
        watch: Watch = kept
        if parallel.rank():
            watch = Following(watch)
        elif job.watch:
            watch = _regime_watch(job, watch)
        start = None if job.start is None else Representation.load(job.start, trust=trusted([job.learner]))
        learnt = job.learner.fit(job.world, job.seed, watch, start=start)
        if not parallel.rank():
            learnt.save(folder)
        if isinstance(watch, RegimeWatch):
            write_json(folder / "regime.json", watch.records)
        return learnt

    return resumed(kept, train, parallel.ranks() == 1)


def _regime_watch(job: Learning, inner: Watch) -> RegimeWatch:
    """Monitors on a few held-out rows, some twenty looks in all."""
    sample = held_out(job)
    if sample.y is not None and not sample.y.is_floating_point() and bool((known := sample.y != UNKNOWN).any()):
        sample = sample.take(np.flatnonzero(known))
    probe = sample.take(np.arange(min(PROBE, len(sample))))
    return RegimeWatch(probe.x, probe.y, every=max(1, job.learner.steps // 20), inner=inner, pairs=job.pairs or None)


def _followable(learners: Sequence[Any], world: Any, pairs: Sequence[str]) -> None:
    """Raise `UsageError` where a learner's modules lack one of the pairs."""
    for learner in learners:
        modules = learner._prepared(world, Stream(0).child("pairs"), "cpu", None)[1]
        try:
            given_pairs(modules, pairs)
        except UsageError as error:
            raise UsageError(
                f"watch.pairs: {error} (the modules of {learner.kind} are {', '.join(modules)})"
            ) from None


def _startable(learners: Sequence[Any], world: Any, start: str | Path) -> str:
    """The digest of a representation that all these learners can go on from."""
    for learner in learners:
        found = Representation.load(start, trust=trusted(learners))
        learner._startable(found, tuple(first_batch(world, learner.batch, Stream(0)).x.shape[1:]))
    return found.digest


def trusted(learners: Sequence[Any]) -> frozenset[str]:
    """The modules that learners' networks are built by: who gives a recipe trusts them."""
    codes = (learner._network().code for learner in learners)
    return frozenset(code.partition(":")[0] for code in codes if code is not None)


def measure(job: Learning, learnt: Representation) -> dict[str, Any]:
    """What is stored of a job: facts, and every score that the world's truth allows, with its baselines.

    A score that this result cannot have keeps the sentence that says why.
    """
    sample = held_out(job)
    inputs = inputs_of(job, learnt, sample)
    scores: dict[str, Any] = {}
    for name in MEASURED:
        if not SCORES[name].needs <= inputs.provides:
            continue
        try:
            outcome = SCORES[name]().measure(inputs, Stream(job.seed).child("scores"))
        except UsageError as error:
            scores[name] = {"refused": str(error)}
            continue
        kept = {part: outcome.detail[part] for part in ("minimum", "baselines") if part in outcome.detail}
        scores[name] = {**_stored(outcome), **kept}
    beta = learnt.parts.get("beta")
    return {
        "world": world_label(job.world),
        "learner": job.learner.kind,
        "recipe": str(job.learner),
        "seed": job.seed,
        "loss": learnt.trace[-1]["loss"] if learnt.trace else None,
        "beta": None if beta is None else float(beta),
        "seconds": learnt.about["seconds"],
        "test": len(sample),
        "warnings": list(warnings_of(job.world)),
        "scores": scores,
    }


def held_out(job: Learning) -> Sample:
    """Held-out rows of a job as tensors: as many as asked for, or as there are, in whole sequences."""
    world = job.world.held_out
    n = job.test if world.size is None else min(job.test, world.size)
    n -= n % int(getattr(world, "length", 1) or 1)
    return moved(world.sample(n, Stream(job.seed).child("test")), "cpu")


def inputs_of(job: Learning, learnt: Representation, sample: Sample) -> Inputs:
    """What scores may need of a trained learner on rows of its world."""
    h = learnt(sample.x)
    head, field = learnt.parts, getattr(job.learner, "label", None)
    given: dict[str, Any] = {"codes": h, "class_vectors": getattr(job.world, "class_vectors", None)}
    if "weights" in head and "beta" in head and field is not None:
        classes = getattr(job.world, "instance_classes", None) if field == "index" else None
        given["weights"], given["beta"] = head["weights"], float(head["beta"])
        given["weight_classes"] = torch.arange(len(head["weights"])) if classes is None else classes
        logits = given["beta"] * h @ head["weights"].T + head.get("bias", torch.zeros(()))
        labels = getattr(sample, field)
        # Held-out data have no row of a head of indices, and rows without a label have none of any.
        if int(labels.min()) >= 0 and int(labels.max()) < len(head["weights"]):
            given["loss"] = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        if sample.z is not None and hasattr(job.world, "log_posterior"):
            best = -job.world.log_posterior(sample.z).gather(1, sample.y[:, None])[:, 0]
            if classes is not None:
                best = best + torch.bincount(classes).double().log()[sample.y]
            given["bayes_loss"] = best
    untrained = job.learner.untrained(job.world, job.seed)(sample.x)
    factors = job.world.factor_kinds if sample.z is not None and job.world.factors else None
    concentration = getattr(job.world, "concentration", None)
    return Inputs(
        z=sample.z,
        h=h,
        x=sample.x,
        untrained=untrained,
        factors=factors,
        group=sample.group,
        concentration=concentration,
        **given,
    )


def warnings_of(world: Any) -> tuple[str, ...]:
    """What of the theorem's assumptions a world does not meet, a sentence each; none where no theorem is known."""
    from unmix.worlds.assumptions import check_assumptions

    try:
        return check_assumptions(world).warnings
    except UsageError:
        return ()


class Learned:
    """What has been learnt in a run folder, as a table and as representations.

    trust: packages whose networks may be imported, beside those of UNMIX_TRUST.
    """

    root: Path
    trust: frozenset[str]

    def __init__(self, folder: str | Path, trust: frozenset[str] = frozenset()) -> None:
        self.root, self.trust = Store.open(folder).root, trust

    def outcomes(self) -> list[dict[str, Any]]:
        """Every stored outcome, failures included, sorted by file name; what is not whole is left out, told."""
        found = []
        for file, record in records(self.root / "learned"):
            if (reason := _harm(record)) is None:
                found.append(record)
            else:
                notice(f"{file}: left out: {reason}")
        return found

    def jobs(self) -> list[tuple[Learning, dict[str, Any]]]:
        """Every job that ended well, with its outcome.

        One whose recipes cannot be made here is left out, with a notice; raises `UsageError` where all are such.
        """
        ended = [outcome for outcome in self.outcomes() if "error" not in outcome]
        with trusting(self.trust):
            return made_of(Learning, [(outcome["learning"], outcome) for outcome in ended], self.root)

    @property
    def failures(self) -> list[str]:
        """One sentence for every job that failed."""
        return [f"{o['label']}: {o['error']}" for o in self.outcomes() if "error" in o]

    def representation(self, job: Learning) -> Representation:
        """What a job learnt; raises `UsageError` where it is not there."""
        return Representation.load(self.root / "learned" / job.digest, trust=self.trust)

    def table(self) -> pd.DataFrame:
        """One row for every job that ended well: facts, then NAME, NAME_minimum and NAME_x, NAME_untrained."""
        rows = []
        for _, outcome in self.jobs():
            row = {k: v for k, v in outcome.items() if k not in ("learning", "scores", "warnings")}
            for name, numbers in outcome["scores"].items():
                row[name] = numbers.get("value")
                if "minimum" in numbers:
                    row[f"{name}_minimum"] = numbers["minimum"]
                for baseline, found in numbers.get("baselines", {}).items():
                    row[f"{name}_{baseline}"] = found["value"]
            rows.append(row)
        frame = pd.DataFrame(rows)
        order = [name for name in ("world", "recipe", "seed") if name in frame]
        return frame.sort_values(order, kind="stable").reset_index(drop=True) if len(frame) else frame


def _harm(record: Any) -> str | None:
    """What is wrong with the stored outcome of a job, or None."""
    if not isinstance(record, dict):
        return f"expected an object, got {type(record).__name__}"
    needed = ("learning", "label", "error") if "error" in record else ("learning", *FACTS)
    missing = [name for name in needed if name not in record]
    missing += [name for name in ("learning", "scores") if not isinstance(record.get(name, {}), dict)]
    return f"has no {', '.join(missing)}" if missing else None
