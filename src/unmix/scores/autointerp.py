"""Automated interpretability: a judge explains half of a feature's contexts and is asked about the other half."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field, model_validator

from unmix.core.codes import Codes
from unmix.core.errors import Failure, UsageError
from unmix.core.items import TextItems
from unmix.core.rows import as_tensor
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_mean
from unmix.core.watch import Watch
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.contexts import SOURCES, Chosen, Firing, Windows
from unmix.scores.judging import JUDGES
from unmix.scores.judging.base import AtWork, Context, Evidence, Explanation
from unmix.scores.judging.controls import AlwaysYes, Coin

TASKS = ("detect", "fuzz")


@dataclass(frozen=True)
class Explained:
    """One feature with its explanation and how well that did on contexts it was not made from.

    rate: share of rows in which the feature fires. f1, accuracy: macro-F1 and balanced accuracy by task; always_yes,
    coin: macro-F1 of these controls on the same questions. sources: share of each source in the negatives.
    explained, scored, negatives: rows in the middle of the contexts.
    """

    feature: int
    rate: float
    explanation: str
    f1: dict[str, float]
    accuracy: dict[str, float]
    always_yes: dict[str, float]
    coin: dict[str, float]
    sources: dict[str, float]
    explained: tuple[int, ...]
    scored: tuple[int, ...]
    negatives: tuple[int, ...]


@dataclass(frozen=True)
class Interpretation:
    """Explained features, and why others were passed over (reason -> number of features)."""

    features: tuple[Explained, ...]
    skipped: dict[str, int] = field(default_factory=dict)

    def outcome(self, task: str = "detect", rng: int | Stream = 0) -> Outcome:
        """Mean macro-F1 over the features with a 95 % bootstrap interval over features; chance is the coin's mean.

        Detail: f1 [features], accuracy (mean balanced accuracy), always_yes, coin, sources (mean shares), skipped.
        Raises `UsageError` for a task that was not asked.
        """
        if not self.features or task not in self.features[0].f1:
            known = ", ".join(self.features[0].f1) if self.features else "none"
            raise UsageError(f"task={task}: was not asked here; known: {known}")
        f1 = np.array([feature.f1[task] for feature in self.features])
        detail: dict[str, Any] = {
            "f1": f1,
            "accuracy": float(np.mean([feature.accuracy[task] for feature in self.features])),
            "always_yes": float(np.mean([feature.always_yes[task] for feature in self.features])),
            "coin": float(np.mean([feature.coin[task] for feature in self.features])),
            "sources": {s: float(np.mean([feature.sources[s] for feature in self.features])) for s in SOURCES},
            "skipped": dict(self.skipped),
        }
        return Outcome(float(f1.mean()), detail["coin"], 1.0, bootstrap_mean(f1, as_stream(rng)), detail)


class AutoInterp(Score):
    """Macro-F1 of a judge that has seen half of a feature's contexts, on the other half and as many without it.

    The contexts where a feature fires most (non-overlapping windows, not twice the same words, at most three of one
    document) are split in halves that share no document. The judge explains the feature from the first half and as
    many silent contexts, and is asked about the second half among as many negatives: random contexts, contexts in
    which a neighbour (a close atom) fires, and contexts around the same tokens in which the feature is silent.

    judge: a recipe of the table of judges. task: what the value is taken from, detect or fuzz; both are asked.
    features: how many are drawn among those that fire; only: these instead. contexts: of each feature, in both halves
    together; least: fewer than so many and a feature is passed over. before, after: tokens around the row.
    random, neighbour, token: parts in which the negatives divide among their sources.
    spread: take contexts evenly over the ranks of the activations instead of the largest.
    background: windows that a judge may take its base rates from.
    Codes below zero count as silent. Raises `UsageError` for items that are not text.
    """

    name: ClassVar[str] = "autointerp"
    equation: ClassVar[str] = "mean over features of (F1 of yes + F1 of no) / 2"
    reference: ClassVar[str] = "arXiv 2411.13117; detection and fuzzing as in Paulo et al. 2024, arXiv 2410.13928"
    needs: ClassVar[frozenset[str]] = frozenset({"codes", "items", "atoms"})

    judge: Annotated[Any, BeforeValidator(JUDGES.make)] = "TokenJudge"
    task: Literal["detect", "fuzz"] = "detect"
    features: int = Field(default=100, ge=1)
    only: tuple[int, ...] = ()
    contexts: int = Field(default=40, ge=4)
    least: int = Field(default=8, ge=4)
    before: int = Field(default=12, ge=0)
    after: int = Field(default=8, ge=0)
    random: float = Field(default=1.0, ge=0)
    neighbour: float = Field(default=1.0, ge=0)
    token: float = Field(default=1.0, ge=0)
    spread: bool = False
    background: int = Field(default=1000, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> AutoInterp:
        if self.least > self.contexts:
            raise ValueError(f"least={self.least} must be at most contexts={self.contexts}")
        if not any(self.parts.values()):
            raise ValueError("random, neighbour and token must not all be 0")
        return self

    @property
    def parts(self) -> dict[str, float]:
        """In which parts the negatives divide among their sources."""
        return {source: getattr(self, source) for source in SOURCES}

    def interpret(
        self,
        codes: Codes | Any,
        items: Any,
        atoms: Any,
        rng: int | Stream = 0,
        watch: Watch | None = None,
        known: Mapping[int, Explained] | None = None,
        keep: Callable[[Explained], None] | None = None,
    ) -> Interpretation:
        """Explain and score features on rows of a text.

        codes: `Codes` or [n, m]. items: `TextItems` of the same n rows. atoms: [m, d].
        known: results of features to take over instead of asking again; keep: called with every new one.
        Raises `UsageError` for items that are not text or of other rows, and `Failure` where no feature has enough
        contexts.
        """
        codes = codes if isinstance(codes, Codes) else _dense(codes)
        atoms = as_tensor(atoms)
        self._check(codes, items, atoms)
        stream = as_stream(rng).child("autointerp")
        firing = Firing(codes)
        windows = Windows(items, firing, atoms, self.before, self.after)
        background = windows.background(self.background, stream.child("background"))
        order = self.only or stream.child("features").numpy().permutation(np.flatnonzero(firing.counts))
        wanted = len(self.only) or min(self.features, len(order))
        done: list[Explained] = []
        skipped: Counter[str] = Counter()
        watch = watch or Watch()
        with self.judge.open() as judge:
            for feature in (int(number) for number in order):
                if len(done) == wanted:
                    break
                own = stream.child(feature)
                if known is not None and feature in known:
                    done.append(known[feature])
                elif isinstance(chosen := self._choose(windows, feature, own), str):
                    skipped[chosen] += 1
                    continue
                else:
                    done.append(self._feature(judge, windows, feature, chosen, background, own))
                    if keep is not None:
                        keep(done[-1])
                watch.on_step(len(done), wanted, {"f1": done[-1].f1[self.task]})
        watch.done()
        if not done:
            reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "no feature fires"
            raise Failure(f"autointerp: no feature can be scored ({reasons}); give more text or lower least")
        return Interpretation(tuple(done), dict(skipped))

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return self.interpret(inputs.codes, inputs.items, inputs.atoms, rng).outcome(self.task, rng)

    def _check(self, codes: Codes, items: Any, atoms: Any) -> None:
        if not isinstance(items, TextItems):
            kind = getattr(items, "kind", type(items).__name__)
            raise UsageError(f"autointerp: explains tokens of text only, these rows are {kind} items")
        if len(items) != len(codes):
            raise UsageError(f"autointerp: {len(items)} items for {len(codes)} rows of codes; give the same rows")
        if atoms.ndim != 2 or len(atoms) != codes.width:
            raise UsageError(f"autointerp: atoms are {list(atoms.shape)}, codes have {codes.width} features")
        if wrong := [feature for feature in self.only if not 0 <= feature < codes.width]:
            raise UsageError(f"autointerp.only={wrong[0]}: features are numbered 0 to {codes.width - 1}")

    def _choose(self, windows: Windows, feature: int, rng: Stream) -> Chosen | str:
        return windows.choose(feature, self.contexts, self.least, self.parts, self.spread, rng.child("contexts"))

    def _feature(
        self,
        judge: AtWork,
        windows: Windows,
        feature: int,
        chosen: Chosen,
        background: list[Context],
        rng: Stream,
    ) -> Explained:
        examples = [windows.example(feature, row) for row in chosen.explained]
        sizes = rng.child("sizes").numpy().choice([len(c.marks) for c in examples], len(chosen.negatives))
        more = rng.child("contrast sizes").numpy().choice([len(c.marks) for c in examples], len(chosen.contrast))
        contrast = [
            windows.silent(drawn, int(size), rng.child(f"marks {drawn.row}"))
            for drawn, size in zip(chosen.contrast, more, strict=True)
        ]
        explanation = judge.explain(Evidence(examples, contrast, background))
        asked = [windows.example(feature, row, seen=False) for row in chosen.scored]
        asked += [
            windows.silent(drawn, int(size), rng.child(f"marks {drawn.row}"))
            for drawn, size in zip(chosen.negatives, sizes, strict=True)
        ]
        truth = np.arange(len(asked)) < len(chosen.scored)
        order = rng.child("order").numpy().permutation(len(asked))
        questions, truth = [asked[i] for i in order], truth[order]
        f1: dict[str, float] = {}
        accuracy: dict[str, float] = {}
        controls: dict[str, dict[str, float]] = {"yes": {}, "coin": {}}
        for task in TASKS:
            put = questions if task == "fuzz" else [Context(c.tokens, (), None, c.row) for c in questions]
            said = _answers(judge, task, explanation, put)
            f1[task], accuracy[task] = macro_f1(truth, said), balanced_accuracy(truth, said)
            for name, control in (("yes", AlwaysYes()), ("coin", Coin(seed=rng.child("coin").number % 2**31))):
                controls[name][task] = macro_f1(truth, _answers(control, task, explanation, put))
        return Explained(
            feature,
            float(windows.firing.counts[feature] / windows.firing.shape[0]),
            explanation.text,
            f1,
            accuracy,
            controls["yes"],
            controls["coin"],
            chosen.shares,
            chosen.explained,
            chosen.scored,
            tuple(drawn.row for drawn in chosen.negatives),
        )


def macro_f1(truth: np.ndarray, said: np.ndarray) -> float:
    """(F1 of yes + F1 of no) / 2; the F1 of a class that is neither there nor said is 0. truth, said: [n] bool."""
    truth, said = np.asarray(truth, bool), np.asarray(said, bool)
    halves = []
    for there, claimed in ((truth, said), (~truth, ~said)):
        total = there.sum() + claimed.sum()
        halves.append(2 * (there & claimed).sum() / total if total else 0.0)
    return float(np.mean(halves))


def balanced_accuracy(truth: np.ndarray, said: np.ndarray) -> float:
    """Mean of the shares answered right among the true and among the false. truth, said: [n] bool, both classes."""
    truth, said = np.asarray(truth, bool), np.asarray(said, bool)
    return float((said[truth].mean() + (~said[~truth]).mean()) / 2)


def paired_difference(
    one: Interpretation, two: Interpretation, task: str = "detect", rng: int | Stream = 0
) -> Outcome:
    """Mean macro-F1 of `one` minus `two` over pairs of features with the closest firing rates, with a 95 % interval.

    Features are paired one to one so that sum |log(rate / rate')| is least; the bootstrap is over pairs. Both must
    come from the same rows with the same budget of contexts, judge and number of features for this to be a
    comparison of what found them. Detail: pairs (feature, feature'), differences [pairs], rates ([pairs], [pairs]).
    Raises `UsageError` where a side has no features.
    """
    from scipy.optimize import linear_sum_assignment

    if not one.features or not two.features:
        raise UsageError("paired_difference: a side has no features")
    rates = [np.log([feature.rate for feature in side.features]) for side in (one, two)]
    first, second = linear_sum_assignment(np.abs(rates[0][:, None] - rates[1][None]))
    differences = np.array(
        [one.features[i].f1[task] - two.features[j].f1[task] for i, j in zip(first, second, strict=True)]
    )
    detail = {
        "pairs": [(one.features[i].feature, two.features[j].feature) for i, j in zip(first, second, strict=True)],
        "differences": differences,
        "rates": (np.exp(rates[0][first]), np.exp(rates[1][second])),
    }
    return Outcome(float(differences.mean()), 0.0, math.nan, bootstrap_mean(differences, as_stream(rng)), detail)


def shuffled(codes: Codes, rng: int | Stream = 0) -> Codes:
    """The same codes with the rows in another order: features fire as often and together, but anywhere."""
    order = as_stream(rng).child("shuffled").numpy().permutation(len(codes))
    rows, columns, values = (part.cpu() for part in codes.nonzero())
    rows = torch.from_numpy(order)[rows]
    by_row = rows.argsort(stable=True)
    counts = rows.bincount(minlength=len(codes))
    pointers = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Codes(values[by_row], columns[by_row], codes.width, pointers)


def as_plain(explained: Explained) -> dict[str, Any]:
    """An explained feature as JSON values; `from_plain` reads it."""
    return asdict(explained)


def from_plain(value: Mapping[str, Any]) -> Explained:
    """An explained feature from JSON values. Raises `Failure` where they are not whole."""
    try:
        rows = {name: tuple(int(row) for row in value[name]) for name in ("explained", "scored", "negatives")}
        return Explained(**{**value, **rows})
    except (KeyError, TypeError, ValueError) as error:
        raise Failure(f"explanation: not whole ({error!r})") from None


def _answers(judge: AtWork, task: str, explanation: Explanation, contexts: list[Context]) -> np.ndarray:
    said = np.asarray(judge.detect(explanation, contexts) if task == "detect" else judge.fuzz(explanation, contexts))
    if said.shape != (len(contexts),):
        raise Failure(f"judge: {len(contexts)} contexts were asked about, answers have shape {list(said.shape)}")
    return said > 0.5


def _dense(codes: Any) -> Codes:
    matrix = as_tensor(codes, "codes")
    if matrix.ndim != 2:
        raise UsageError(f"codes: expected [n, m], got {list(matrix.shape)}")
    return Codes(matrix, None, matrix.shape[1])
