"""FactorVAE and BetaVAE scores: which code stays put when one factor is held, from rows that share its value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_mean
from unmix.kernels.votes import Groups, groups_of, least_variance, mean_differences
from unmix.scores.base import Inputs, Outcome
from unmix.scores.disentanglement.data import COMPAT, Disentanglement, Paired, exact_labels, labels_of, paired
from unmix.scores.disentanglement.readout import logistic, standardised


def factor_vae(
    codes: Any,
    z: Any,
    factors: Sequence[Any] | None = None,
    group: Any = None,
    rng: int | Stream = 0,
    compat: COMPAT = None,
    train: int = 10000,
    test: int = 5000,
    batch: int = 64,
    bins: int = 20,
) -> Outcome:
    """FactorVAE score: accuracy of guessing the held factor from the code that varies least.

    A vote draws a factor, a row, and `batch` rows (with replacement) that share its value of that factor; it goes to
    the code with the least variance among them over that among all rows. The guess of a code is the factor of most of
    its `train` votes; the value is the share of `test` votes guessed right. Nothing is rendered: the given rows stand
    for the intervention, which is right as far as the other factors are independent of the held one. Factors with
    more than 64 values are held within `bins` bins of equal count. Constant codes get no votes; factors that do not
    vary are never drawn; 0 where no code varies.
    codes: [n, m]. z: [n, f]. factors: kinds.
    compat: "disentanglement_lib" holds exact values and draws factors that do not vary too. Its quirk: nothing is
    pruned by default, so that a constant code gives 0/0, which numpy's argmin takes for the least: it gets all votes.
    Chance: votes on shuffled rows. Interval: over test votes, the rows being given. Detail: votes [f, m] of training,
    guess [m] (factor of each code), left_out. Source: Kim, Mnih 2018, arXiv 1802.05983.
    """
    pair, stream = paired(codes, z, factors, group, "factor_vae"), as_stream(rng)
    groups, held = _groups(pair, compat, bins, "factor_vae")
    scale = np.where(pair.live, pair.codes.var(0, ddof=1), np.nan if compat else 0.0)
    m, f = len(scale), len(pair.factors)
    if not pair.live.any():
        return Outcome(0.0, 1 / len(held), 1.0, detail={"votes": np.zeros((f, m)), "left_out": pair.left_out})

    def accuracy(order: np.ndarray, draw: Stream) -> tuple[np.ndarray, np.ndarray]:
        factor, row, picks = _draws(len(pair.z), held, train + test, batch, draw)
        chosen = least_variance(pair.codes[order], groups, factor, row, picks, scale)
        votes = np.zeros((f, m))
        np.add.at(votes, (factor[:train], chosen[:train]), 1)
        return votes, votes.argmax(0)[chosen[train:]] == factor[train:]

    votes, right = accuracy(np.arange(len(pair.z)), stream.child("votes"))
    shuffle = stream.child("shuffle")
    _, unrelated = accuracy(shuffle.numpy().permutation(len(pair.z)), shuffle)
    detail = {"votes": pair.back(votes.T).T, "guess": pair.back(votes.argmax(0)), "left_out": pair.left_out}
    value, chance = float(right.mean()), float(unrelated.mean())
    interval = bootstrap_mean(right.astype(float), stream)
    return Outcome(value, chance, 1.0, interval, detail, bootstrap_mean(unrelated.astype(float), shuffle))


def beta_vae(
    codes: Any,
    z: Any,
    factors: Sequence[Any] | None = None,
    group: Any = None,
    rng: int | Stream = 0,
    compat: COMPAT = None,
    train: int = 3000,
    test: int = 1500,
    batch: int = 64,
    bins: int = 20,
) -> Outcome:
    """BetaVAE score: accuracy of a linear guess of the held factor from mean differences of codes.

    A point is the mean over `batch` pairs of rows that share one factor's value of |code - code'|; logistic
    regression on `train` points guesses the factor of `test` others. Pairs come from the given rows, as in
    `factor_vae`. Codes are scaled to unit deviation and points standardised, so that the score does not depend on the
    codes' scale. codes: [n, m]. z: [n, f]. factors: kinds. A rotation of the factors often still scores 1: linear
    guesses undo much.
    compat: "disentanglement_lib" scales neither, holds exact values, and draws factors that do not vary too; its
    numbers have 10000 points to fit and 5000 to test (train=, test=), and changed with scikit-learn's solver.
    Chance: 1 over the number of factors drawn. Interval: over test points. Detail: coefficients, left_out.
    Source: Higgins et al. 2017 (openreview Sy2fzU9gl).
    """
    pair, stream = paired(codes, z, factors, group, "beta_vae"), as_stream(rng)
    groups, held = _groups(pair, compat, bins, "beta_vae")
    chance = 1 / len(held)
    half = 1.96 * float(np.sqrt(chance * (1 - chance) / test))
    around = (chance - half, chance + half)
    if len(held) == 1 or not pair.live.any():
        return Outcome(chance, chance, 1.0, detail={"left_out": pair.left_out}, chance_interval=around)
    x = pair.codes if compat else standardised(pair.codes, pair.codes[:0])[0]
    factor, _, picks = _draws(len(x), held, train + test, batch, stream.child("points"))
    rows = stream.child("pairs").numpy().integers(len(x), size=(train + test, batch))
    points = mean_differences(x, groups, factor, rows, picks)
    fit, other = points[:train], points[train:]
    if not compat:
        fit, other = standardised(fit, other)
    model = logistic(fit, factor[:train])
    right = model.classes_[model.predict_proba(other).argmax(1)] == factor[train:]
    detail = {"coefficients": pair.back(model.coef_.T).T, "left_out": pair.left_out}
    interval = bootstrap_mean(right.astype(float), stream)
    return Outcome(float(right.mean()), chance, 1.0, interval, detail, around)


def _groups(pair: Paired, compat: COMPAT, bins: int, name: str) -> tuple[Groups, np.ndarray]:
    labels = exact_labels(pair, name) if compat else labels_of(pair, bins)
    held = np.arange(len(labels)) if compat else np.flatnonzero(pair.varied)
    return groups_of(labels), held


def _draws(
    n: int, held: np.ndarray, count: int, batch: int, rng: Stream
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = rng.numpy()
    return held[draw.integers(len(held), size=count)], draw.integers(n, size=count), draw.random((count, batch))


class FactorVae(Disentanglement):
    """Accuracy of guessing which factor is held from the code that varies least.

    compat: disentanglement_lib for that library's protocol. train, test: votes. batch: rows of a vote. bins: of
    factors that are continua.
    """

    name: ClassVar[str] = "factor_vae"
    equation: ClassVar[str] = "P(majority(argmin_i var_i(rows that share z_k) / var_i) = k)"
    reference: ClassVar[str] = "Kim, Mnih 2018, arXiv 1802.05983"

    compat: COMPAT = None
    train: int = Field(default=10000, ge=1)
    test: int = Field(default=5000, ge=1)
    batch: int = Field(default=64, ge=2)
    bins: int = Field(default=20, ge=2, le=1000)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return factor_vae(inputs.codes, inputs.z, inputs.factors, inputs.group, rng, **fields)


class BetaVae(Disentanglement):
    """Accuracy of a linear guess of the held factor from mean absolute differences of codes.

    compat: disentanglement_lib for that library's protocol. train, test: points. batch: pairs of a point. bins: of
    factors that are continua.
    """

    name: ClassVar[str] = "beta_vae"
    equation: ClassVar[str] = "P(guess(mean |code - code'| over pairs that share z_k) = k)"
    reference: ClassVar[str] = "Higgins et al. 2017, openreview Sy2fzU9gl"

    compat: COMPAT = None
    train: int = Field(default=3000, ge=2)
    test: int = Field(default=1500, ge=1)
    batch: int = Field(default=64, ge=1)
    bins: int = Field(default=20, ge=2, le=1000)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return beta_vae(inputs.codes, inputs.z, inputs.factors, inputs.group, rng, **fields)
