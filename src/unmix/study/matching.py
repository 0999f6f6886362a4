"""Matching: which features of two fits are the same, by atoms in one space and by codes on the same rows in two."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from unmix.core.codes import Codes
from unmix.core.digest import array_digest, digest
from unmix.core.errors import UsageError
from unmix.core.options import Count, checked
from unmix.core.rows import Rows, as_rows
from unmix.core.seeds import Stream, as_stream
from unmix.core.watch import Watch
from unmix.finders.features import Features
from unmix.study.study import Results
from unmix.study.verbs import chosen

ABOVE = {"atoms": 0.9, "codes": 0.7}
EXACT = 1 << 24  # pairs up to which the best assignment is looked for among all of them
CANDIDATES = 32  # partners of each feature that are looked at beyond that
BLOCK = 1 << 22  # entries of the similarity matrix that are held at once

Block = Callable[[int, int], np.ndarray]  # similarities [last - first, m'] of features first .. last - 1


@dataclass(frozen=True, eq=False)
class Matching:
    """Features of A (m of them) matched with features of B (m').

    by: atoms (cosine) or codes (correlation on the same rows). pairs: [p, 2] the one-to-one matching, p = min(m, m').
    similarity: [p] signed. chance: [p] what the same feature of A reaches where nothing is shared: Gaussian
    dictionaries of these sizes, or the rows of B shuffled. above: |similarity| from which a pair counts as shared.
    best_a, best_b: [m], [m'] the most similar feature of the other side, many to one; best_a_similarity,
    best_b_similarity: signed.
    """

    by: str
    pairs: np.ndarray
    similarity: np.ndarray
    chance: np.ndarray
    above: float
    best_a: np.ndarray
    best_a_similarity: np.ndarray
    best_b: np.ndarray
    best_b_similarity: np.ndarray

    @property
    def mean(self) -> float:
        """Mean |similarity| of the pairs."""
        return float(np.abs(self.similarity).mean())

    @property
    def shared(self) -> float:
        """Share of the pairs with |similarity| above `above`."""
        return float((np.abs(self.similarity) > self.above).mean())

    @property
    def shared_by_chance(self) -> float:
        """The same share where nothing is shared."""
        return float((self.chance > self.above).mean())

    @property
    def mutual(self) -> np.ndarray:
        """[m] whether a feature of A is the best partner of its own best partner."""
        return np.asarray(self.best_b[self.best_a] == np.arange(len(self.best_a)))

    @property
    def table(self) -> pd.DataFrame:
        """One line for every feature of A.

        Columns: a, b (its one-to-one partner, -1 for none), similarity, chance, shared, best_b (its most similar
        feature, which others may have too), best_similarity, mutual.
        """
        m = len(self.best_a)
        partner, similarity, chance = np.full(m, -1), np.full(m, np.nan), np.full(m, np.nan)
        partner[self.pairs[:, 0]] = self.pairs[:, 1]
        similarity[self.pairs[:, 0]], chance[self.pairs[:, 0]] = self.similarity, self.chance
        frame = {"a": np.arange(m), "b": partner, "similarity": similarity, "chance": chance}
        more = {"shared": np.abs(similarity) > self.above, "best_b": self.best_a}
        last = {"best_similarity": self.best_a_similarity, "mutual": self.mutual}
        return pd.DataFrame({**frame, **more, **last})

    @property
    def sentence(self) -> str:
        """What was found, in a sentence."""
        what = {"atoms": "|cosine| of atoms", "codes": "|correlation| of codes on the same rows"}[self.by]
        m, other = len(self.best_a), len(self.best_b)
        return (
            f"{len(self.pairs):,} pairs of {m:,} and {other:,} features by {what}: mean {self.mean:.3f} "
            f"(chance {self.chance.mean():.3f}), {self.shared:.0%} above {self.above:g} "
            f"(chance {self.shared_by_chance:.0%}); {self.mutual.mean():.0%} are each other's best partner"
        )


@checked
def match(
    a: Features,
    b: Features,
    rows_a: Any = None,
    rows_b: Any = None,
    by: str = "auto",
    above: float | None = None,
    limit: Count = 65_536,
    rng: int | Stream = 0,
    watch: Watch | None = None,
) -> Matching:
    """Match the features of two fits one to one, by the assignment that maximises the sum of |similarity|.

    a, b: features of the same space (atoms [m, d], [m', d]), or of two spaces with rows_a [n, d] and rows_b [n, d'],
    the same n data seen by each (rows_b alone may be left out where both see rows_a).
    by: atoms, codes, or auto: codes where rows_b are given, else atoms.
    above: |similarity| from which a pair counts as shared; by default .9 for cosines, .7 for correlations, which are
    conventions. limit: rows used for codes at most, drawn by rng, the same on both sides.
    Codes stay sparse: correlations come from cross-products of blocks of columns. Up to 2^24 pairs the assignment is
    exact; beyond, each feature of A is matched within its 32 most similar partners.
    Raises `UsageError` for atoms of unlike width and for rows that are missing or unlike in number.
    Source: atoms as in arXiv 2501.16615; codes by correlation as in `mcc`.
    """
    if by not in ("auto", "atoms", "codes"):
        raise UsageError(f"by={by}: atoms, codes or auto")
    by = ("atoms" if rows_b is None else "codes") if by == "auto" else by
    above = ABOVE[by] if above is None else above
    stream, watch = as_stream(rng).child("match"), watch or Watch()
    if by == "atoms":
        if a.shape[1] != b.shape[1]:
            raise UsageError(
                f"match: atoms have widths {a.shape[1]} and {b.shape[1]}; match by codes, with the same rows in both"
            )
        draws = [torch.randn(f.shape, generator=stream.child(n).torch()) for n, f in (("a", a), ("b", b))]
        real, null = _cosines(a.atoms, b.atoms), _cosines(*draws)
    else:
        if rows_a is None:
            raise UsageError("match: matching by codes needs rows_a (and rows_b, where the spaces differ)")
        first = as_rows(rows_a, "rows_a")
        second = first if rows_b is None else as_rows(rows_b, "rows_b")
        count = first.shape[0]
        if second.shape[0] != count:
            raise UsageError(f"match: rows_a has {count} rows, rows_b {second.shape[0]}; give the same data to both")
        if count < 3:
            raise UsageError(f"match: needs at least 3 rows, got {count}")
        index = np.sort(stream.child("rows").numpy().permutation(count)[:limit])
        one, two = (_Columns(_encoded(f, rows, index)) for f, rows in ((a, first), (b, second)))
        mixed = two.shuffled(stream.child("shuffle").numpy().permutation(len(index)))
        real, null = one.correlations(two), one.correlations(mixed)
    m, other = a.shape[0], b.shape[0]
    found = _search(real, m, other, watch, 0)
    unrelated = _search(null, m, other, watch, 1)
    chance = np.zeros(m)
    chance[unrelated.pairs[:, 0]] = np.abs(unrelated.similarity)
    watch.done()
    return Matching(by, found.pairs, found.similarity, chance[found.pairs[:, 0]], above, *found.best)


@checked
def match_runs(
    run_a: str | Path,
    run_b: str | Path,
    finders: Sequence[str | None] = (None, None),
    seeds: Sequence[int | None] = (None, None),
    by: str = "auto",
    same_rows: bool = False,
    above: float | None = None,
    limit: Count = 65_536,
    rng: int | Stream = 0,
    watch: Watch | None = None,
) -> tuple[Matching, tuple[str, str]]:
    """Match a fit of one run with a fit of another (or of the same); the matching, and a name for each side.

    finders, seeds: which fit of A and which of B; by default the one that explains most.
    by: auto takes atoms where both fits are of the same data and transforms, else codes on the same rows.
    same_rows: take it from the caller that row i of both is the same datum, where the items cannot tell.
    Raises `UsageError` where both are one fit, or their rows are not the same data.
    """
    picked = [
        chosen(Results(run), finder, seed) for run, finder, seed in zip((run_a, run_b), finders, seeds, strict=True)
    ]
    (cell_a, a, rows_a, items_a), (cell_b, b, rows_b, items_b) = picked
    if cell_a.fit_digest == cell_b.fit_digest:
        raise UsageError(f"match: both are {cell_a.label}; name two fits with finder=A,B or seed=0,1")
    same_space = cell_a.world.digest == cell_b.world.digest
    if by == "atoms" and not same_space:
        raise UsageError("by=atoms: the two fits are of different data or transforms; match by=codes")
    if by == "auto":
        by = "atoms" if same_space else "codes"
    if by == "codes" and not same_space and not same_rows:
        _require_same_rows(rows_a, rows_b, items_a, items_b)
    names = [f"{cell.finder.kind} seed {cell.seed}" for cell in (cell_a, cell_b)]
    if not same_space:
        names = [f"{name} on {cell.world.label}" for name, cell in zip(names, (cell_a, cell_b), strict=True)]
    first, second = (rows_a, rows_b) if by == "codes" else (None, None)
    return match(a, b, first, second, by, above, limit, rng, watch), (names[0], names[1])


def _require_same_rows(rows_a: Rows, rows_b: Rows, items_a: Any, items_b: Any) -> None:
    counts = rows_a.shape[0], rows_b.shape[0]
    again = "collect both from the same data, in the same order"
    if counts[0] != counts[1]:
        raise UsageError(f"match: {counts[0]:,} rows in one run and {counts[1]:,} in the other; {again}")
    if rows_a.digest == rows_b.digest:
        return
    if items_a.kind == items_b.kind == "vector":
        raise UsageError(
            "match: nothing says that row i is the same datum in both runs; if you know it is, add --same-rows"
        )
    if _shown(items_a) != _shown(items_b):
        raise UsageError(f"match: the rows of the two runs are not the same data (their items differ); {again}")


def _shown(items: Any) -> str:
    """Digest of what the rows show."""
    if items.kind == "text":
        arrays = (items.stream, items.starts, items.places)
        return digest(["text", *(array_digest(np.asarray(part).astype(np.int64)) for part in arrays)])
    return digest([items.kind, array_digest(np.asarray(items.images))]) if items.kind == "image" else items.kind


def _encoded(features: Features, rows: Rows, index: np.ndarray) -> Codes:
    """Codes of some rows, a block of rows in memory at a time."""
    step = 8192
    return Codes.concatenate(
        [features.encode(rows.take(index[start : start + step])) for start in range(0, len(index), step)]
    )


class _Columns:
    """Codes by columns, with mean and deviation of each; sparse ones stay sparse, dense ones are standardised."""

    def __init__(self, codes: Codes) -> None:
        from scipy import sparse

        self.rows = len(codes)
        if codes.indices is None:
            dense = codes.dense().cpu().double()
            deviation = dense.std(0, correction=0)
            constant = deviation <= 1e-10 * (dense.abs().amax(0) + 1e-300)
            standard = (dense - dense.mean(0)) / deviation.clamp_min(1e-300)
            self.matrix: Any = standard.masked_fill_(constant, 0.0).float().numpy()
            self.mean, self.deviation = np.zeros(codes.width), np.ones(codes.width)
            return
        rows, columns, values = (part.cpu().numpy() for part in codes.nonzero())
        self.matrix = sparse.csc_array((values.astype(np.float64), (rows, columns)), shape=codes.shape)
        self.mean = np.asarray(self.matrix.sum(0)).ravel() / self.rows
        square = np.bincount(columns, values.astype(np.float64) ** 2, minlength=codes.width) / self.rows
        variance = square - self.mean**2
        self.deviation = np.sqrt(np.where(variance <= 1e-12 * square, 0.0, variance))

    def shuffled(self, order: np.ndarray) -> _Columns:
        """The same columns with the rows in another order."""
        other = object.__new__(_Columns)
        other.__dict__ = dict(self.__dict__)
        other.matrix = self.matrix[order] if isinstance(self.matrix, np.ndarray) else self.matrix.tocsr()[order]
        return other

    def correlations(self, other: _Columns) -> Block:
        """Pearson correlations of blocks of these columns with all columns of another; 0 for a constant column."""
        right = other.matrix if isinstance(other.matrix, np.ndarray) else other.matrix.tocsr()

        def block(first: int, last: int) -> np.ndarray:
            product = self.matrix[:, first:last].T @ right
            cross = product if isinstance(product, np.ndarray) else product.toarray()
            scale = self.deviation[first:last, None] * other.deviation[None]
            covariance = cross / self.rows - self.mean[first:last, None] * other.mean[None]
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(scale > 0, covariance / scale, 0.0).clip(-1, 1)

        return block


def _cosines(a: torch.Tensor, b: torch.Tensor) -> Block:
    one, two = (torch.nn.functional.normalize(atoms.detach().cpu().float()) for atoms in (a, b))
    return lambda first, last: (one[first:last] @ two.T).double().numpy()


@dataclass(frozen=True)
class _Found:
    pairs: np.ndarray
    similarity: np.ndarray
    best: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _search(block: Block, m: int, other: int, watch: Watch, turn: int) -> _Found:
    """Best partners of both sides and the one-to-one assignment, with blocks of the similarity matrix at a time."""
    step = max(1, BLOCK // other)
    exact = m * other <= EXACT
    whole = np.empty((m, other), np.float32) if exact else None
    keep = min(CANDIDATES, other)
    near, close = np.empty((0 if exact else m, keep), np.int64), np.empty((0 if exact else m, keep))
    best_a, similar_a = np.zeros(m, np.int64), np.zeros(m)
    best_b, similar_b = np.zeros(other, np.int64), np.zeros(other)
    blocks = math.ceil(m / step)
    for number, first in enumerate(range(0, m, step)):
        last = min(first + step, m)
        part = block(first, last)
        size = np.abs(part)
        best_a[first:last] = size.argmax(1)
        similar_a[first:last] = np.take_along_axis(part, best_a[first:last, None], 1)[:, 0]
        rows = size.argmax(0)
        better = size[rows, np.arange(other)] > np.abs(similar_b)
        best_b[better] = rows[better] + first
        similar_b[better] = part[rows, np.arange(other)][better]
        if whole is not None:
            whole[first:last] = part
        else:
            near[first:last] = np.argpartition(-size, keep - 1, axis=1)[:, :keep]
            close[first:last] = np.take_along_axis(part, near[first:last], 1)
        watch.on_step(turn * blocks + number + 1, 2 * blocks, {})
    pairs, similarity = _assigned(whole) if whole is not None else _assigned_among(near, close, other)
    return _Found(pairs, similarity, (best_a, similar_a, best_b, similar_b))


def _assigned(whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.abs(whole), maximize=True)
    return np.stack([rows, columns], 1), whole[rows, columns].astype(np.float64)


def _assigned_among(near: np.ndarray, close: np.ndarray, other: int) -> tuple[np.ndarray, np.ndarray]:
    """The best assignment among candidate pairs; a feature may stay alone, as if it had a partner of its own."""
    from scipy import sparse
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    m, keep = near.shape
    rows = np.repeat(np.arange(m), keep)
    weights = sparse.csr_array(
        (
            np.concatenate([1 + np.abs(close).ravel(), np.ones(m)]),
            (np.concatenate([rows, np.arange(m)]), np.concatenate([near.ravel(), other + np.arange(m)])),
        ),
        shape=(m, other + m),
    )
    one, two = min_weight_full_bipartite_matching(weights, maximize=True)
    inside = two < other
    one, two = one[inside], two[inside]
    slot = (near[one] == two[:, None]).argmax(1)
    return np.stack([one, two], 1), close[one, slot]
