"""Absorption, splitting, hedging: how features go wrong where latents have parents, measured against the truth.

A latent's feature is the one matched to it, one to one, by the mean of two things: the cosine of the feature's atom
with the latent's true atom, with its sign, and the correlation of when the two fire. It counts if the cosine is
at least `found`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy import sparse

from unmix.core.errors import UsageError
from unmix.core.rows import as_tensor
from unmix.core.scale import unit
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_mean
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.pairing import columns_of, pair
from unmix.scores.support import activity

FOUND = 0.5


def absorption(
    codes: Any,
    latents: Any,
    parents: Any,
    atoms: Any,
    truth: Any,
    carried: float = 0.1,
    found: float = FOUND,
    rng: int | Stream = 0,
) -> Outcome:
    """Share of a child c's firings where its feature stands in for that of its parent p, mean over pairs (p, c).

    A row where c, and so p, fires is absorbed if p's feature is silent (or p has none), c's feature fires, and its
    atom carries the parent: cos(d_c, t_p) - cos(t_c, t_p) > `carried`.
    codes: `Codes` or [n, m]. latents: `Codes` or [n, f]. parents: [f], -1 for none. atoms: [m, d]. truth: [f, d].
    found: least cosine of a latent's feature with it. 0 is right; a pair whose child never fires is left out.
    Detail: pairs [P, 2] (parent, child), rates [P]. Raises `UsageError` where no latent has a parent.
    Source: Chanin et al. 2024, arXiv 2409.14507 (there for probes of a language model, here for known latents).
    """
    fires, true = _both(codes, latents)
    case = _Case.of(fires, true, parents, atoms, truth, found)
    rates = np.full(len(case.pairs), math.nan)
    for number, (parent, child) in enumerate(case.pairs):
        rows = _rows(true, child)
        if not len(rows):
            continue
        excess = case.cosine(child, parent) - case.between[number]
        stands_in = _fires(fires, case.feature[child], rows) & (excess > carried)
        rates[number] = (stands_in & ~_fires(fires, case.feature[parent], rows)).mean()
    return _mean_over(rates, {"pairs": case.pairs, "rates": rates}, as_stream(rng))


def splitting(
    codes: Any,
    latents: Any,
    atoms: Any,
    truth: Any,
    alike: float = 0.8,
    precise: float = 0.9,
    rng: int | Stream = 0,
) -> Outcome:
    """Share of a latent's firings for which its best feature needs help of others like it, mean over latents.

    Features of latent j have cos(d_i, t_j) > `alike`, more than with any other latent, and at least a share
    `precise` of their firings is in rows where it fires. splitting_j = recall of their union - recall of the
    best: 0 for one feature, 1 - 1/k for k that share the rows evenly. Latents without a feature, or
    that never fire, are left out. codes: `Codes` or [n, m]. latents: `Codes` or [n, f]. atoms: [m, d]. truth: [f, d].
    Detail: splitting [f], features [f] (how many). Source: Bricken et al. 2023; arXiv 2409.14507.
    """
    fires, true = _both(codes, latents)
    cosines = _cosines(atoms, truth, fires, true)
    together = (fires.T @ true).toarray()
    often = np.asarray(fires.sum(0)).ravel()
    nearest = cosines.argmax(1)
    split, count = np.full(cosines.shape[1], math.nan), np.zeros(cosines.shape[1], dtype=int)
    for j in range(cosines.shape[1]):
        rows = _rows(true, j)
        own = (cosines[:, j] > alike) & (nearest == j) & (often > 0) & (together[:, j] >= precise * often)
        count[j] = own.sum()
        if len(rows) and count[j]:
            covered = np.asarray(fires[:, np.flatnonzero(own)].sum(1)).ravel()[rows] > 0
            split[j] = covered.mean() - together[own, j].max() / len(rows)
    return _mean_over(split, {"splitting": split, "features": count}, as_stream(rng))


def hedging(
    codes: Any, latents: Any, parents: Any, atoms: Any, truth: Any, found: float = FOUND, rng: int | Stream = 0
) -> Outcome:
    """How much of a child's direction is mixed into its parent's feature, mean over pairs (parent p, child c).

    |cos(d_p, t_c) - cos(t_p, t_c)|, d_p the atom of the parent's feature: a narrow dictionary without a feature for c
    puts a part of it there. Arguments as for `absorption`. 0 is right; pairs whose parent has no feature are left
    out. Detail: pairs [P, 2], mixed [P] (signed).
    Source: Chanin et al. 2025, arXiv 2505.11756 (there by how atoms change as a dictionary is widened).
    """
    case = _Case.of(*_both(codes, latents), parents, atoms, truth, found)
    mixed = np.full(len(case.pairs), math.nan)
    for number, (parent, child) in enumerate(case.pairs):
        if case.feature[parent] >= 0:
            mixed[number] = case.cosines[case.feature[parent], child] - case.between[number]
    return _mean_over(np.abs(mixed), {"pairs": case.pairs, "mixed": mixed}, as_stream(rng))


class Absorption(Score):
    """Share of children's firings in which a child's feature stands in for the silent feature of the parent.

    carried: least excess of the child's atom along the parent's. found: least cosine of a latent with its feature.
    """

    name: ClassVar[str] = "absorption"
    better: ClassVar[str] = "lower"
    equation: ClassVar[str] = (
        "mean_(p,c) P(code_p = 0, code_c > 0 | z_c > 0) [cos(d_c, t_p) - cos(t_c, t_p) > carried]"
    )
    reference: ClassVar[str] = "Chanin et al. 2024, arXiv 2409.14507"
    needs: ClassVar[frozenset[str]] = frozenset({"codes", "z", "parents", "atoms", "truth"})

    carried: float = Field(default=0.1, ge=0, le=1)
    found: float = Field(default=FOUND, ge=0, le=1)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        known = (inputs.codes, inputs.z, inputs.parents, inputs.atoms, inputs.truth)
        return absorption(*known, self.carried, self.found, rng)


class Splitting(Score):
    """Share of a latent's firings that need more features like it than its best one.

    alike: least cosine of such a feature with the latent. precise: least share of its firings inside the latent's.
    """

    name: ClassVar[str] = "splitting"
    better: ClassVar[str] = "lower"
    equation: ClassVar[str] = "mean_j recall_j(all features like t_j) - recall_j(best of them)"
    reference: ClassVar[str] = "Bricken et al. 2023, Towards Monosemanticity; arXiv 2409.14507"
    needs: ClassVar[frozenset[str]] = frozenset({"codes", "z", "atoms", "truth"})

    alike: float = Field(default=0.8, ge=0, le=1)
    precise: float = Field(default=0.9, ge=0, le=1)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return splitting(inputs.codes, inputs.z, inputs.atoms, inputs.truth, self.alike, self.precise, rng)


class Hedging(Score):
    """How much of a child's direction is mixed into the feature of its parent. found: as in `absorption`."""

    name: ClassVar[str] = "hedging"
    better: ClassVar[str] = "lower"
    equation: ClassVar[str] = "mean_(p,c) |cos(d_p, t_c) - cos(t_p, t_c)|"
    reference: ClassVar[str] = "Chanin et al. 2025, arXiv 2505.11756"
    needs: ClassVar[frozenset[str]] = frozenset({"codes", "z", "parents", "atoms", "truth"})

    found: float = Field(default=FOUND, ge=0, le=1)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        known = (inputs.codes, inputs.z, inputs.parents, inputs.atoms, inputs.truth)
        return hedging(*known, self.found, rng)


@dataclass(frozen=True, eq=False)
class _Case:
    """cosines [m, f]; feature [f] of each latent, -1 for none; pairs [P, 2] (parent, child); between [P] cosines."""

    cosines: np.ndarray
    feature: np.ndarray
    pairs: np.ndarray
    between: np.ndarray

    @staticmethod
    def of(
        fires: sparse.csc_array, true: sparse.csc_array, parents: Any, atoms: Any, truth: Any, found: float
    ) -> _Case:
        cosines = _cosines(atoms, truth, fires, true)
        above = np.asarray(parents if isinstance(parents, np.ndarray) else as_tensor(parents).cpu()).astype(np.int64)
        f = cosines.shape[1]
        if above.shape != (f,) or above.max(initial=-1) >= f or (above == np.arange(f)).any():
            raise UsageError(f"parents: expected [{f}] numbers below {f} of other latents, -1 for none")
        children = np.flatnonzero(above >= 0)
        if not len(children):
            raise UsageError("parents: no latent has a parent; take a world with a hierarchy (SparseWorld.roots)")
        likeness = (cosines + _firing_correlation(fires, true)) / 2
        matched = pair(torch.from_numpy(likeness), signed=True).pairs
        feature = np.where((matched >= 0) & (cosines[matched, np.arange(f)] >= found), matched, -1)
        pairs = np.stack([above[children], children], 1)
        true_atoms = unit(columns_of(truth, "truth"))
        between = (true_atoms[pairs[:, 0]] * true_atoms[pairs[:, 1]]).sum(1).numpy()
        return _Case(cosines, feature, pairs, between)

    def cosine(self, owner: int, latent: int) -> float:
        """Cosine of the feature of one latent with another latent; NaN where it has no feature."""
        return float(self.cosines[self.feature[owner], latent]) if self.feature[owner] >= 0 else math.nan


def _cosines(atoms: Any, truth: Any, fires: sparse.csc_array, true_of: sparse.csc_array) -> np.ndarray:
    """Cosines [m, f] of atoms and true atoms, whose numbers must be those of codes and latents."""
    found, true = columns_of(atoms, "atoms"), columns_of(truth, "truth")
    if found.shape[1] != true.shape[1]:
        raise UsageError(f"atoms have width {found.shape[1]}, truth {true.shape[1]}")
    for rows, part, name, of in ((found, fires, "atoms", "codes"), (true, true_of, "truth", "latents")):
        if len(rows) != part.shape[1]:
            raise UsageError(f"{name}: {len(rows)} rows, but {of} have {part.shape[1]} columns")
    return (unit(found) @ unit(true).T).numpy()


def _both(codes: Any, latents: Any) -> tuple[sparse.csc_array, sparse.csc_array]:
    fires, true = activity(codes).tocsc(), activity(latents).tocsc()
    if fires.shape[0] != true.shape[0]:
        raise UsageError(f"codes have {fires.shape[0]} rows, latents {true.shape[0]}")
    return fires, true


def _firing_correlation(fires: sparse.csc_array, true: sparse.csc_array) -> np.ndarray:
    """Correlation of the firing of features and latents [m, f]; 0 for what fires never or always."""
    n = fires.shape[0]
    together = (fires.T @ true).toarray() / n
    one, two = (np.asarray(part.sum(0)).ravel() / n for part in (fires, true))
    scale = np.sqrt(np.outer(one * (1 - one), two * (1 - two)))
    return np.divide(together - np.outer(one, two), scale, out=np.zeros_like(together), where=scale > 0)


def _rows(true: sparse.csc_array, latent: int) -> np.ndarray:
    return true.indices[true.indptr[latent] : true.indptr[latent + 1]]


def _fires(fires: sparse.csc_array, feature: int, rows: np.ndarray) -> np.ndarray:
    if feature < 0:
        return np.zeros(len(rows), dtype=bool)
    return np.isin(rows, fires.indices[fires.indptr[feature] : fires.indptr[feature + 1]])


def _mean_over(values: np.ndarray, detail: dict[str, Any], rng: Stream) -> Outcome:
    """Mean of what could be measured, NaN where nothing could."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Outcome(math.nan, ceiling=0.0, detail=detail)
    return Outcome(float(known.mean()), math.nan, 0.0, bootstrap_mean(known, rng), detail)
