"""DCI: disentanglement, completeness and informativeness from the importances of boosted trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, as_stream, untouched
from unmix.core.statistics import bootstrap_mean
from unmix.kernels._compiled import run_queue
from unmix.kernels.boosting import binned, boost
from unmix.scores.base import Inputs, Outcome
from unmix.scores.disentanglement.data import (
    COMPAT,
    Disentanglement,
    Paired,
    exact_labels,
    once,
    paired,
    shared,
    split,
)
from unmix.scores.disentanglement.readout import targets_of

CHANCE_ROWS = 3000
FINE_ROWS = 5000  # up to here quantiles of 64 bins are too coarse for thresholds between values
Part = Literal["disentanglement", "completeness", "informativeness"]


@dataclass(frozen=True, eq=False)
class Importances:
    """matrix: [m, f] importance of code i for factor j, columns sum to 1 (or 0). skill: [f] on rows not fitted on: R2
    for numbers and angles, (accuracy - rate of the most frequent) / (1 - that rate) for categories. accuracy: [f],
    NaN for numbers.
    """

    matrix: np.ndarray
    skill: np.ndarray
    accuracy: np.ndarray


def dci(
    codes: Any,
    z: Any,
    part: Part = "disentanglement",
    factors: Sequence[Any] | None = None,
    group: Any = None,
    rng: int | Stream = 0,
    compat: COMPAT = None,
    exact: bool = False,
    rounds: int = 100,
    depth: int = 3,
    bins: int | None = None,
    rows: int = 15000,
) -> Outcome:
    """One of the three parts of DCI.

    Boosted trees predict each factor from all codes; R_ij is the importance of code i for factor j, summing to 1 over
    codes. Disentanglement D = sum_i rho_i (1 - H_f(R_i.)), rho_i code i's share of R; completeness
    C = sum_j rho_j (1 - H_m(R_.j)); H_k the entropy to base k. Informativeness: mean skill on the third of the rows
    that was not fitted on (R2 for continuous, ordinal and circular factors, chance-corrected accuracy for
    categories), at least 0. Factors and codes that do not vary are left out of f and m; with one of them, its part is
    1 where anything is known. A code that tells nothing has importance by chance: see informativeness first.
    codes: [n, m]. z: [n, f]. factors: kinds. group: [n] sequences. exact: scikit-learn's GradientBoosting (100 times
    slower) for the trees over bins. Chance: trees on shuffled rows, at most 3000 of them. bins: of each code; None
    takes 256 up to 5000 rows to fit on, where 256 keeps every value apart and importances are within .02 of
    scikit-learn's, and 64 above. rows: at most so many are used.
    compat: "disentanglement_lib" classifies every value of a factor, counts dead codes in m, and has accuracy for
    informativeness (chance is then the rate of the most frequent value). Its quirk: a factor with one value fails
    (refused here); the original authors had other estimators and an error, where less is better.
    Detail: matrix [m, f], skill [f], accuracy [f], left_out; by_code [m] or by_factor [f].
    Source: Eastwood, Williams 2018 (openreview By-7dz-AZ); Locatello et al. 2019, arXiv 1811.12359.
    """
    pair, stream = paired(codes, z, factors, group, f"dci_{part}"), as_stream(rng)
    if compat and pair.left_out:
        raise UsageError(f"dci_{part}: factor {pair.left_out[0]} has one value, where compat={compat!r} fails")
    settings = bool(compat), exact, rounds, depth, bins, rows
    found, unrelated = once(pair.key("dci", stream, settings), lambda: _both(pair, stream, *settings))
    value, single = _part(pair, found, part, bool(compat))
    chance, _ = _part(pair, unrelated, part, bool(compat))
    interval = (float("nan"), float("nan"))
    if part == "informativeness":
        interval = bootstrap_mean(single[pair.varied], stream)
    detail = {
        "matrix": pair.back(found.matrix),
        "skill": found.skill,
        "accuracy": found.accuracy,
        "by_code" if part == "disentanglement" else "by_factor": single,
        "left_out": pair.left_out,
    }
    return Outcome(value, chance, 1.0, interval, detail)


def importances(
    pair: Paired,
    train: np.ndarray,
    test: np.ndarray,
    order: np.ndarray,
    classify: bool,
    exact: bool = False,
    rounds: int = 100,
    depth: int = 3,
    bins: int | None = None,
    rng: Stream | None = None,
) -> Importances:
    """Importances of all codes for all factors; factors are shared out among torch's number of threads.

    order: [n] which row's codes stand beside each row of z. classify: every value of every factor is a class, else
    only those of categories are.
    """
    x, other = pair.codes[order[train]], pair.codes[order[test]]
    given, beside = (x, other) if exact else binned(x, other, bins or (256 if len(x) <= FINE_ROWS else 64))
    f = len(pair.factors)
    labels = exact_labels(pair, "dci") if classify else None
    matrix, skill, accuracy = np.zeros((x.shape[1], f)), np.zeros(f), np.full(f, np.nan)
    seed = (rng or Stream(0)).child("trees").number % (1 << 32)

    def work(_: int, j: int) -> None:
        if classify or pair.factors[j].kind == "categorical":
            label = labels[j] if labels is not None else np.unique(pair.z[:, j], return_inverse=True)[1]
            fitted = _classes(given, beside, label[train], label[test], exact, rounds, depth, seed)
            matrix[:, j], skill[j], accuracy[j] = fitted
        else:
            y = targets_of(pair, j)
            matrix[:, j], skill[j] = _numbers(given, beside, y[train], y[test], exact, rounds, depth, seed)

    todo = sorted(np.flatnonzero(pair.varied), key=lambda j: -len(np.unique(pair.z[:, j])))
    run_queue(work, todo, max(1, min(torch.get_num_threads(), len(todo))))
    return Importances(matrix, skill, accuracy)


def _both(
    pair: Paired, rng: Stream, compat: bool, exact: bool, rounds: int, depth: int, bins: int | None, rows: int
) -> Any:
    train, test = split(pair, rng)
    if len(train) + len(test) > rows:
        share, draw = rows / (len(train) + len(test)), rng.child("rows").numpy()
        train, test = (np.sort(draw.choice(part, max(2, int(share * len(part))), False)) for part in (train, test))
    order = np.arange(len(pair.z))
    found = importances(pair, train, test, order, compat, exact, rounds, depth, bins, rng)
    few_train, few_test = (
        np.sort(rng.child(f"chance {k}").numpy().permutation(p)[:most]) for k, p, most in _few(train, test)
    )
    chosen = np.concatenate([few_train, few_test])
    order[chosen] = rng.child("shuffle").numpy().permutation(chosen)
    return found, importances(pair, few_train, few_test, order, compat, False, rounds, depth, bins or 64, rng)


def _few(train: np.ndarray, test: np.ndarray) -> list[tuple[int, np.ndarray, int]]:
    """Both parts with the number of their rows that chance is measured on."""
    return [(0, train, 2 * CHANCE_ROWS // 3), (1, test, CHANCE_ROWS // 3)]


def _classes(
    x: Any, other: Any, y: Any, truth: Any, exact: bool, rounds: int, depth: int, seed: int
) -> tuple[np.ndarray, float, float]:
    classes, y = np.unique(y, return_inverse=True)
    counts = np.bincount(y)
    rate = float((truth == classes[counts.argmax()]).mean())
    if len(classes) < 2:
        return np.zeros(x.shape[1]), 0.0, rate
    if exact:
        with untouched():
            from sklearn.ensemble import GradientBoostingClassifier
        state = np.random.RandomState(seed)
        model = GradientBoostingClassifier(n_estimators=rounds, max_depth=depth, random_state=state).fit(x, y)
        weight, guess = model.feature_importances_, model.predict(other)
    else:
        fitted = boost(x, y, len(classes), other, rounds, depth)
        weight = fitted.importances / max(fitted.importances.sum(), 1e-300)
        raw = fitted.test_raw
        guess = (raw[:, 0] > 0).astype(int) if len(classes) == 2 else raw.argmax(1)
    accuracy = float((classes[guess] == truth).mean())
    return weight, (accuracy - rate) / (1 - rate) if rate < 1 else 0.0, accuracy


def _numbers(
    x: Any, other: Any, y: Any, truth: Any, exact: bool, rounds: int, depth: int, seed: int
) -> tuple[np.ndarray, float]:
    """Importances and R2; an angle has two columns, which weigh by their variance."""
    weight, left, total = np.zeros(x.shape[1]), 0.0, 0.0
    for column, true in zip(y.T, truth.T, strict=True):
        if exact:
            with untouched():
                from sklearn.ensemble import GradientBoostingRegressor
            state = np.random.RandomState(seed)
            model = GradientBoostingRegressor(n_estimators=rounds, max_depth=depth, random_state=state)
            model.fit(x, column)
            weight += model.feature_importances_ * column.var()
            guess = model.predict(other)
        else:
            fitted = boost(x, column, 0, other, rounds, depth)
            weight += fitted.importances
            guess = fitted.test_raw[:, 0]
        left += float(((true - guess) ** 2).sum())
        total += float(((true - column.mean()) ** 2).sum())
    return weight / max(weight.sum(), 1e-300), 1 - left / total if total > 0 else 0.0


def _part(pair: Paired, found: Importances, part: Part, compat: bool) -> tuple[float, np.ndarray]:
    """The value and what each code (or factor) adds to it, in the order given."""
    if part == "informativeness":
        single = found.accuracy if compat else np.clip(found.skill, 0, 1)
        return float(single[pair.varied].mean()), single
    live = np.ones(len(pair.live), bool) if compat else pair.live
    r = found.matrix[np.ix_(live, pair.varied)]
    if not r.size or not r.any():
        return 0.0, np.zeros(len(live) if part == "disentanglement" else len(pair.factors))
    axis = 1 if part == "disentanglement" else 0
    total = r.sum(axis)
    p = (r + 1e-11) / (r + 1e-11).sum(axis, keepdims=True)
    size = r.shape[axis]
    alone = np.ones(len(total)) if size == 1 else 1 + (p * np.log(p)).sum(axis) / np.log(size)
    alone = np.clip(alone, 0, 1)
    single = np.zeros(len(live) if axis else len(pair.factors))
    single[np.flatnonzero(live if axis else pair.varied)] = alone
    value = float((alone * total).sum() / total.sum())
    return value, pair.back(single) if axis else single


class DciDisentanglement(Disentanglement):
    """DCI: whether each code matters for one factor only.

    compat: disentanglement_lib for that library's protocol. exact: scikit-learn's trees rather than histogram trees.
    rounds, depth: of the trees. bins: of each code, None for 256
    up to 5000 rows and 64 above. rows: at most so many are used.
    """

    name: ClassVar[str] = "dci_disentanglement"
    part: ClassVar[Part] = "disentanglement"
    equation: ClassVar[str] = "sum_i rho_i (1 - H_f(R_i. / sum_j R_ij))"
    reference: ClassVar[str] = "Eastwood, Williams 2018, openreview By-7dz-AZ"

    compat: COMPAT = None
    exact: bool = False
    rounds: int = Field(default=100, ge=1)
    depth: int = Field(default=3, ge=1, le=8)
    bins: int | None = Field(default=None, ge=2, le=256)
    rows: int = Field(default=15000, ge=12)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return dci(inputs.codes, inputs.z, self.part, inputs.factors, inputs.group, shared(rng), **fields)


class DciCompleteness(DciDisentanglement):
    """DCI: whether one code matters for each factor."""

    name: ClassVar[str] = "dci_completeness"
    part: ClassVar[Part] = "completeness"
    equation: ClassVar[str] = "sum_j rho_j (1 - H_m(R_.j))"


class DciInformativeness(DciDisentanglement):
    """DCI: how well boosted trees predict the factors from all codes, on rows they were not fitted on."""

    name: ClassVar[str] = "dci_informativeness"
    part: ClassVar[Part] = "informativeness"
    equation: ClassVar[str] = "mean_j max(0, 1 - loss_j / loss_j of the mean)"
