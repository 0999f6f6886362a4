"""Mutual information of codes with factors: the matrix that MIG, modularity and InfoMEC read, and the first two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.kernels.information import mutual_information
from unmix.scores.base import Inputs, Outcome
from unmix.scores.disentanglement.data import (
    COMPAT,
    MOST_VALUES,
    Disentanglement,
    Paired,
    around,
    exact_labels,
    labels_of,
    mean_ranks,
    once,
    paired,
    reweighted,
    shared,
)

SHUFFLES = 8
RESAMPLES = 60


@dataclass(frozen=True, eq=False)
class Information:
    """Normalised information of code i about factor j: matrix [m, f], and the same of shuffled rows [s, m, f] and of
    bootstrap draws [r, m, f]; nats [m, f] as counted, entropy [f] of the factors.
    """

    matrix: np.ndarray
    shuffled: np.ndarray
    drawn: np.ndarray
    nats: np.ndarray
    entropy: np.ndarray

    def outcome(self, rule: Any, detail: dict[str, Any]) -> Outcome:
        """The outcome of a rule matrix [m, f] -> number, with chance from the shuffles and a bootstrap interval."""
        value = float(rule(self.matrix))
        level = np.array([rule(matrix) for matrix in self.shuffled])
        half = 1.96 * float(level.std(ddof=1)) if len(level) > 1 else float("nan")
        chance = float(level.mean())
        interval = around(value, np.array([rule(matrix) for matrix in self.drawn]))
        return Outcome(value, chance, 1.0, interval, detail, (chance - half, chance + half))


def information(pair: Paired, rng: Stream, bins: int = 20, resamples: int = RESAMPLES) -> Information:
    """Adjusted information A = (I - E) / (H - E), E the mean of I over shuffles of the rows; at least 0.

    A is 1 for a code that determines the factor and 0 on average for an unrelated one, at any number of rows; the
    plug-in I / H of an unrelated code is about (bins - 1)(values - 1) / (2 n H) instead. Codes with up to 64 values
    have a bin for each. Others are cut by rank where the factor's values would lie if the code followed them in the
    order of their mean ranks, each piece again until there are `bins`: a monotone code of any shape loses nothing.
    """

    def make() -> Information:
        labels = labels_of(pair, bins)
        n, f = labels.shape[1], len(labels)
        orders = [rng.child(f"shuffle {s}").numpy().permutation(n) for s in range(SHUFFLES)]
        weights = reweighted(pair, rng, resamples)
        chunk = max(1, (1 << 25) // (n * f))
        parts = [
            _one(_bins(pair.codes[:, start : start + chunk], labels, bins), labels, orders, weights)
            for start in range(0, pair.codes.shape[1], chunk)
        ]
        matrix, shuffled, drawn, nats = (np.concatenate([p[k] for p in parts], axis=-2) for k in range(4))
        return Information(matrix, shuffled, drawn, nats, parts[0][4])

    return once(pair.key("information", rng, bins, resamples), make)


def library_information(pair: Paired, rng: Stream, name: str, resamples: int = RESAMPLES) -> Information:
    """As disentanglement_lib: codes in 20 bins of equal width, plug-in information in nats, not normalised."""
    labels = exact_labels(pair, name)
    codes = pair.codes.astype(np.float32) if pair.single else pair.codes
    binned = np.stack([np.digitize(c, np.histogram_bin_edges(c, 20)[:-1]) for c in codes.T])[:, None]
    nats, entropy = mutual_information(binned, labels)
    orders = [rng.child(f"shuffle {s}").numpy().permutation(labels.shape[1]) for s in range(SHUFFLES)]
    shuffled = np.stack([mutual_information(binned, labels[:, order])[0][0] for order in orders])
    drawn = mutual_information(binned, labels, reweighted(pair, rng, resamples))[0]
    return Information(nats[0], shuffled, drawn, nats[0], entropy[0])


def _one(
    binned: np.ndarray, labels: np.ndarray, orders: list[np.ndarray], weights: np.ndarray
) -> tuple[np.ndarray, ...]:
    nats, entropy = mutual_information(binned, labels)
    # Bins of a code lie where its own factor's values are, so its rows are shuffled, not the labels' sizes.
    shuffled = np.stack([mutual_information(binned[:, :, order], labels)[0][0] for order in orders])
    bias = shuffled.mean(0)

    def adjusted(found: np.ndarray, whole: np.ndarray) -> np.ndarray:
        room = whole[..., None, :] - bias
        return np.clip(np.where(room > 1e-9, (found - bias) / np.where(room > 1e-9, room, 1), 0), 0, 1)

    drawn = adjusted(*mutual_information(binned, labels, weights))
    return adjusted(nats[0], entropy[0]), adjusted(shuffled, entropy), drawn, nats[0], entropy[0]


def _bins(codes: np.ndarray, labels: np.ndarray, bins: int) -> np.ndarray:
    """[m, f, n]: bins of every code for every factor."""
    n, f = labels.shape[1], len(labels)
    out = np.empty((codes.shape[1], f, n), np.int16)
    for i, column in enumerate(codes.T):
        values, place = np.unique(column, return_inverse=True)
        if len(values) <= MOST_VALUES:
            out[i] = place
            continue
        ranks = mean_ranks(column)
        for j, label in enumerate(labels):
            count = np.bincount(label)
            order = np.argsort(np.bincount(label, ranks) / np.maximum(count, 1), kind="stable")
            pieces = max(1, -(-bins // int((count > 0).sum())))
            inner = np.arange(1, pieces + 1) / pieces
            ends = (np.cumsum(count[order])[:, None] - count[order][:, None] * (1 - inner)).ravel()
            out[i, j] = np.searchsorted(ends, ranks + 0.5, side="left")
    return out


def mig(
    codes: Any,
    z: Any,
    factors: Sequence[Any] | None = None,
    group: Any = None,
    rng: int | Stream = 0,
    compat: COMPAT = None,
    bins: int = 20,
    resamples: int = RESAMPLES,
) -> Outcome:
    """Mutual information gap: how much more the best code knows of a factor than the second best.

    MIG = mean_j (A_(1)j - A_(2)j), A the adjusted information of `information`; factors that do not vary are left
    out, a single code has a second of 0. codes: [n, m]. z: [n, f]. factors: kinds. group: [n] sequences.
    compat: "disentanglement_lib" is mean_j (I_(1)j - I_(2)j) / H_j with codes in 20 bins of equal width and plug-in
    counts. Its quirks: factors with more than 20 values cannot score 1 (.80 for 40, .84 for 32 at 10 thousand rows),
    one outlier empties most bins, few rows add information, and a factor with one value gives NaN (refused here).
    Detail: gaps [f], best [f] (code), matrix [m, f], entropy [f] in nats, left_out.
    Source: Chen et al. 2018, arXiv 1802.04942.
    """
    pair, stream = paired(codes, z, factors, group, "mig"), as_stream(rng)
    if compat:
        if pair.left_out:
            raise UsageError(
                f"mig: factor {pair.left_out[0]} has one value, which compat={compat!r} cannot divide by"
            )
        found = library_information(pair, stream, "mig", resamples)
        scale = found.entropy
    else:
        found, scale = information(pair, stream, bins, resamples), np.ones(len(pair.factors))

    def gaps(matrix: np.ndarray) -> np.ndarray:
        ordered = np.sort(np.concatenate([np.zeros((1, matrix.shape[1])), matrix]), axis=0)
        return ((ordered[-1] - ordered[-2]) / scale)[pair.varied]

    every = np.zeros(len(pair.factors))
    every[pair.varied] = gaps(found.matrix)
    detail = {
        "gaps": every,
        "best": pair.columns[found.matrix.argmax(0)],
        "matrix": pair.back(found.matrix),
        "entropy": found.entropy,
        "left_out": pair.left_out,
    }
    return found.outcome(lambda matrix: gaps(matrix).mean(), detail)


def modularity(
    codes: Any,
    z: Any,
    factors: Sequence[Any] | None = None,
    group: Any = None,
    rng: int | Stream = 0,
    compat: COMPAT = None,
    bins: int = 20,
    resamples: int = RESAMPLES,
) -> Outcome:
    """Modularity: whether each code knows of one factor only.

    sum_i w_i (1 - sum_{j != best} A_ij^2 / (A_i,best^2 (f - 1))), w_i = max_j A_ij over its sum: codes weigh by what
    they know, so that dead and noise codes count nothing; 0 where no code knows anything, 1 with a single factor.
    codes: [n, m]. z: [n, f]. factors: kinds. group: [n] sequences.
    compat: "disentanglement_lib" is the plain mean over codes with plug-in information in nats over 20 bins of equal
    width. Its quirks: dead codes score 0 (5 perfect and 5 dead codes: .50) and noise codes what chance gives them
    (5 perfect and 5 noise: about .83); factors of larger entropy weigh more; NaN for one factor (refused here).
    Detail: by_code [m], weights [m], matrix [m, f], left_out. Source: Ridgeway, Mozer 2018, arXiv 1802.05312.
    """
    pair, stream = paired(codes, z, factors, group, "modularity"), as_stream(rng)
    if compat and len(pair.factors) < 2:
        raise UsageError(f"modularity: compat={compat!r} divides by the number of other factors; z has one")
    if compat:
        found = library_information(pair, stream, "modularity", resamples)
    else:
        found = information(pair, stream, bins, resamples)
    kept = slice(None) if compat else np.flatnonzero(pair.varied)

    def parts(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        square = matrix[:, kept] ** 2
        best, others = square.max(1), max(1, square.shape[1] - 1)
        single = np.where(best > 0, 1 - (square.sum(1) - best) / (np.where(best > 0, best, 1) * others), 0)
        return single, np.full(len(best), 1 / len(best)) if compat else np.sqrt(best) / max(
            np.sqrt(best).sum(), 1e-300
        )

    by_code, weights = (pair.back(part) for part in parts(found.matrix))
    detail = {"by_code": by_code, "weights": weights, "matrix": pair.back(found.matrix), "left_out": pair.left_out}
    return found.outcome(lambda matrix: float(np.prod(parts(matrix), axis=0).sum()), detail)


class Mig(Disentanglement):
    """Mutual information gap between the best and the second best code of each factor.

    compat: disentanglement_lib for that library's protocol. bins: of codes and factors that are continua. resamples:
    of the bootstrap.
    """

    name: ClassVar[str] = "mig"
    equation: ClassVar[str] = "mean_j (A_(1)j - A_(2)j), A = (I - E[I]) / (H - E[I])"
    reference: ClassVar[str] = "Chen et al. 2018, arXiv 1802.04942"

    compat: COMPAT = None
    bins: int = Field(default=20, ge=2, le=1000)
    resamples: int = Field(default=RESAMPLES, ge=0)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        given = inputs.codes, inputs.z, inputs.factors, inputs.group
        return mig(*given, shared(rng), self.compat, self.bins, self.resamples)


class Modularity(Disentanglement):
    """Whether each code knows of one factor only, codes weighed by what they know.

    compat: disentanglement_lib for that library's protocol. bins: of codes and factors that are continua. resamples:
    of the bootstrap.
    """

    name: ClassVar[str] = "modularity"
    equation: ClassVar[str] = "sum_i w_i (1 - sum_{j != best} A_ij^2 / ((f - 1) A_i,best^2))"
    reference: ClassVar[str] = "Ridgeway, Mozer 2018, arXiv 1802.05312"

    compat: COMPAT = None
    bins: int = Field(default=20, ge=2, le=1000)
    resamples: int = Field(default=RESAMPLES, ge=0)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        given = inputs.codes, inputs.z, inputs.factors, inputs.group
        return modularity(*given, shared(rng), self.compat, self.bins, self.resamples)
