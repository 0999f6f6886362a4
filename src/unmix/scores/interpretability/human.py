"""Calibration against human choices: tables of answers, agreement beside the majority, sensitivity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.core.tables import open_table

COLUMNS = ("subject_id", "trial_type", "catch_trial", "instr_type", "layer", "kernel_size", "channel", "correct")


def read_choices(path: str | Path, catch: bool = False, practice: bool = False) -> pd.DataFrame:
    """Answers of people who chose which of two images excites a unit more, one row for each trial.

    path: a table (.csv, .parquet) with the columns of the published ones: subject_id, trial_type, catch_trial,
    instr_type, layer, kernel_size, channel, correct and, where they are, condition_name, conf_rating,
    abs_conf_rating, RT. catch: keep the catch trials, which only show that people attend. practice: keep trials that
    are not main ones.
    Adds unit (text: layer, kernel size, channel). Raises `UsageError` for a missing file, column or value, and
    `Failure` for what is no table.
    Source: Borowski et al. 2021, arXiv 2010.12606.
    """
    given = open_table(path, "choices")
    table = given.frame()
    if missing := [name for name in COLUMNS if name not in table]:
        raise UsageError(f"choices={path}: lacks the columns {', '.join(missing)}")
    correct, catch_trial = given.columns(["correct", "catch_trial"]).T
    if np.isnan(correct).any():
        raise UsageError(f"choices={path}: trial {int(np.isnan(correct).argmax())} has no answer")
    if not np.isin([correct, catch_trial], [0, 1]).all():
        raise UsageError(f"choices={path}: correct and catch_trial must be true or false, or 1 or 0")
    unit = table["layer"].astype(str) + "/" + table["kernel_size"].astype(str) + "/" + table["channel"].astype(str)
    table = table.assign(unit=unit, correct=correct == 1, catch_trial=catch_trial == 1)
    keep = (catch | ~table["catch_trial"]) & (practice | (table["trial_type"] == "main"))
    return table[keep].reset_index(drop=True)


def accuracy(choices: pd.DataFrame, by: str = "instr_type") -> pd.DataFrame:
    """Share of correct answers for each value of a column: accuracy, error (2 SEM over people), people, trials.

    The accuracy is the mean over people, each of whom counts alike, as the paper has it.
    """
    if by not in choices:
        raise UsageError(f"by={by}: no such column; known: {', '.join(choices.columns)}")
    rows = []
    for value, part in choices.groupby(by, sort=True):
        people = part.groupby("subject_id")["correct"].mean()
        error = 2 * people.std(ddof=1) / math.sqrt(len(people)) if len(people) > 1 else math.nan
        facts = {"accuracy": people.mean(), "error": error, "people": len(people), "trials": len(part)}
        rows.append({by: value, **facts})
    return pd.DataFrame(rows)


def noise_ceiling(choices: pd.DataFrame, splits: int = 200, rng: int | Stream = 0) -> dict[str, float]:
    """How well half of the people predict the accuracy of a unit that the others reach: correlation over the units.

    Halves of the people are drawn `splits` times. Gives half (mean correlation), full (2 half / (1 + half), what all
    people would reach with as many others), ceiling (sqrt(full), the best a judge can correlate with these people)
    and units. Raises `UsageError` for fewer than 4 people or 3 units.
    """
    people = choices["subject_id"].unique()
    units, unit = np.unique(choices["unit"].to_numpy(), return_inverse=True)
    if len(people) < 4 or len(units) < 3:
        raise UsageError(f"noise_ceiling: needs 4 people and 3 units, got {len(people)} and {len(units)}")
    right, draw = choices["correct"].to_numpy(float), as_stream(rng).child("halves").numpy()
    found = []
    for _ in range(splits):
        first = np.isin(choices["subject_id"], draw.permutation(people)[: len(people) // 2])
        sides = []
        for side in (first, ~first):
            count = np.bincount(unit[side], minlength=len(units))
            sides.append(np.bincount(unit[side], right[side], len(units)) / np.where(count, count, np.nan))
        both = np.isfinite(sides[0]) & np.isfinite(sides[1])
        if both.sum() > 2 and sides[0][both].std() > 0 and sides[1][both].std() > 0:
            found.append(np.corrcoef(sides[0][both], sides[1][both])[0, 1])
    half = float(np.mean(found)) if found else math.nan
    full = 2 * half / (1 + half)
    return {"half": half, "full": full, "ceiling": math.sqrt(max(0.0, full)), "units": float(len(units))}


@dataclass(frozen=True)
class Agreement:
    """How far a judge's decisions agree with people's being right: never to be read without the majority.

    agreement: share of trials in which the judge is right where the person is and wrong where the person is not.
    majority: what always saying the more frequent of the two reaches. kappa: Cohen's, 0 for a judge that knows
    nothing. auc: area under the curve of the margin for telling right from wrong answers, .5 by chance. trials: how
    many.
    """

    agreement: float
    majority: float
    kappa: float
    auc: float
    trials: int

    def __str__(self) -> str:
        beside = f"majority {self.majority:.3f}), kappa {self.kappa:.3f}, AUC {self.auc:.3f}"
        return f"agreement {self.agreement:.3f} ({beside}"


def agreement(margins: Any, correct: Any) -> Agreement:
    """A judge against people on the same trials.

    margins: [t] the judge's evidence for the correct image, positive where it would be right; at 0 it is right half
    of the time. correct: [t] whether the person was. The area is NaN where all answers are right or all are wrong.
    Raises `UsageError` for unlike lengths.
    """
    margin, right = _paired(margins, correct)
    judged = (margin > 0) + 0.5 * (margin == 0)
    agree = float(np.where(right, judged, 1 - judged).mean())
    share = float(right.mean())
    expected = float(judged.mean() * share + (1 - judged.mean()) * (1 - share))
    kappa = (agree - expected) / (1 - expected) if expected < 1 else math.nan
    return Agreement(agree, max(share, 1 - share), kappa, _area(margin, right), len(right))


@dataclass(frozen=True)
class Sensitivity:
    """P(correct) = lapse / 2 + (1 - lapse) sigmoid(alpha margin), by maximum likelihood.

    alpha: the sensitivity, with its 95 % interval; NaN bounds where the likelihood has no curvature. lapse: share of
    guesses. log_likelihood: in nats a trial; majority: the same of the constant that fits best. trials: how many.
    """

    alpha: float
    interval: tuple[float, float]
    lapse: float
    log_likelihood: float
    majority: float
    trials: int

    def predict(self, margins: Any) -> np.ndarray:
        """Probability [t] that a person is right, from margins [t]."""
        from scipy.special import expit

        return self.lapse / 2 + (1 - self.lapse) * expit(self.alpha * np.asarray(margins, dtype=np.float64))


def fit_sensitivity(margins: Any, correct: Any, lapse: float = 0.0) -> Sensitivity:
    """The sensitivity alpha with which a judge's margins predict people's answers best.

    margins: [t], such as D(q+) - D(q-) of `machine_interpretability`. correct: [t]. lapse: known share of guesses.
    Raises `UsageError` for unlike lengths, a lapse outside [0, 1), margins that are all 0, or answers that margins of
    either sign predict without fault (no finite alpha fits).
    Source: Zimmermann, Klindt, Brendel 2024 (alpha of the machine interpretability score).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import expit

    margin, right = _paired(margins, correct)
    if not 0 <= lapse < 1:
        raise UsageError(f"lapse={lapse}: must be in [0, 1)")
    scale = float(np.sqrt(np.mean(margin**2)))
    if scale == 0:
        raise UsageError("margins: all are 0; the judge says nothing")
    signed = np.where(right, margin, -margin) / scale
    if lapse == 0 and (signed.min() >= 0 or signed.max() <= 0):
        raise UsageError("margins: their sign predicts every answer; no finite sensitivity fits, give more trials")

    def loss(alpha: float) -> float:
        chance = lapse / 2 + (1 - lapse) * expit(alpha * signed)
        return float(-np.log(np.maximum(chance, 1e-300)).mean())

    best = minimize_scalar(loss, bounds=(-200, 200), method="bounded", options={"xatol": 1e-8})
    alpha, step = float(best.x), 1e-3 * max(1.0, abs(best.x))
    curvature = (loss(alpha + step) - 2 * loss(alpha) + loss(alpha - step)) / step**2 * len(right)
    half = 1.96 / math.sqrt(curvature) if curvature > 0 else math.nan
    share = float(np.clip(right.mean(), 1e-12, 1 - 1e-12))
    constant = share * math.log(share) + (1 - share) * math.log(1 - share)
    interval = ((alpha - half) / scale, (alpha + half) / scale)
    return Sensitivity(alpha / scale, interval, lapse, -float(best.fun), constant, len(right))


def _paired(margins: Any, correct: Any) -> tuple[np.ndarray, np.ndarray]:
    margin, right = np.asarray(margins, dtype=np.float64), np.asarray(correct).astype(bool)
    if margin.ndim != 1 or margin.shape != right.shape or not len(margin):
        raise UsageError(f"margins {list(margin.shape)} and correct {list(right.shape)} must both be [trials]")
    if not np.isfinite(margin).all():
        bad = int((~np.isfinite(margin)).argmax())
        raise UsageError(f"margins: trial {bad} is {margin[bad]}")
    return margin, right


def _area(margin: np.ndarray, right: np.ndarray) -> float:
    """Area under the receiver's curve: the chance that a right answer has the larger margin, ties half."""
    from scipy.stats import rankdata

    good, bad = int(right.sum()), int((~right).sum())
    if not good or not bad:
        return math.nan
    return float((rankdata(margin)[right].sum() - good * (good + 1) / 2) / (good * bad))
