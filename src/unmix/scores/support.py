"""Support: do the right codes fire? Precision, recall, F1 and the share of rows with exactly the right support."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from scipy import sparse

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_ratio
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.matching import mcc
from unmix.scores.sparsity import as_codes


def activity(values: Any, threshold: float = 0.0) -> sparse.csr_array:
    """Where |value| > threshold: 0 and 1, sparse [n, m]."""
    codes = as_codes(values)
    rows, columns, size = (part.cpu().numpy() for part in codes.nonzero())
    keep = np.abs(size) > threshold
    ones = np.ones(int(keep.sum()), dtype=np.int64)
    return sparse.csr_array((ones, (rows[keep], columns[keep])), shape=codes.shape)


def support(
    codes: Any, latents: Any, threshold: float = 0.0, pairs: np.ndarray | None = None, rng: int | Stream = 0
) -> Outcome:
    """F1 of active codes against active latents, over all entries of all rows, under a one-to-one matching.

    A code is active where |code| > threshold, a latent where it is not 0. With TP the entries where a latent and the
    code matched to it are both active: precision = TP / active codes, of all features, since a feature without a
    latent that fires is wrong too; recall = TP / active latents; F1 = 2 TP / (active codes + active latents).
    codes: `Codes` or [n, m]. latents: `Codes` or [n, f]. pairs: [f] feature of each latent, -1 for none; None takes
    the matching of `mcc`. The chance level is that of codes with their rows shuffled.
    Detail: precision, recall, exact (share of rows whose active codes are just the matched ones), surplus (share of
    the active codes on features without a latent), per_latent [f] (F1 of each latent, NaN for one that never fires).
    Raises `UsageError` for unlike row counts.
    """
    fires, truth = activity(codes, threshold), activity(latents)
    if fires.shape[0] != truth.shape[0]:
        raise UsageError(f"support: codes have {fires.shape[0]} rows, latents {truth.shape[0]}")
    if not fires.shape[0]:
        raise UsageError("support: no rows")
    stream = as_stream(rng)
    if pairs is None:
        pairs = mcc(codes, latents, stream.child("matching"), draws=1).detail["pairs"]
    matched = _in_latents(fires, pairs)
    both = matched.multiply(truth).tocsr()
    hits, said, true = (np.asarray(part.sum(1)).ravel() for part in (both, fires, truth))
    order = stream.child("shuffle").numpy().permutation(fires.shape[0])
    chance = _f1(matched[order].multiply(truth).sum(), said.sum(), true.sum())
    per_latent = [np.asarray(part.sum(0)).ravel() for part in (both, matched, truth)]
    claimed = matched.sum()
    detail = {
        "precision": _share(hits.sum(), said.sum()),
        "recall": _share(hits.sum(), true.sum()),
        "exact": float(((hits == said) & (hits == true)).mean()),
        "surplus": _share(said.sum() - claimed, said.sum()),
        "per_latent": np.array([_f1(*counts) if counts[2] else math.nan for counts in zip(*per_latent, strict=True)]),
        "pairs": pairs,
    }
    value = _f1(hits.sum(), said.sum(), true.sum())
    something = (said + true).any()
    interval = bootstrap_ratio(2 * hits, said + true, stream) if something else (value, value)
    return Outcome(value, chance, 1.0, interval, detail)


class Support(Score):
    """F1 of active codes against true latents under the matching of `mcc`; precision and recall in the detail.

    threshold: a code is active where its absolute value is above it.
    """

    name: ClassVar[str] = "support"
    equation: ClassVar[str] = "F1 = 2 TP / (active codes + active latents)"
    reference: ClassVar[str] = "arXiv 2602.14687"
    needs: ClassVar[frozenset[str]] = frozenset({"codes", "z"})

    threshold: float = Field(default=0.0, ge=0)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return support(inputs.codes, inputs.z, self.threshold, rng=rng)


class ExactSupport(Score):
    """Share of the rows in which just the right codes fire, under the matching of `mcc`. threshold: see `support`."""

    name: ClassVar[str] = "exact_support"
    equation: ClassVar[str] = "mean_n [supp(code_n) = pi(supp(z_n))]"
    reference: ClassVar[str] = "Tropp 2004, exact recovery"
    needs: ClassVar[frozenset[str]] = frozenset({"codes", "z"})

    threshold: float = Field(default=0.0, ge=0)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        outcome = support(inputs.codes, inputs.z, self.threshold, rng=rng)
        return Outcome(outcome.detail["exact"], math.nan, 1.0, detail=outcome.detail)


def _in_latents(fires: sparse.csr_array, pairs: np.ndarray) -> sparse.csr_array:
    """Activity of the features in the order of the latents they belong to: [n, f]; none for a latent without one."""
    latents = np.flatnonzero(pairs >= 0)
    shape = (fires.shape[1], len(pairs))
    move = sparse.csr_array((np.ones(len(latents), dtype=np.int64), (pairs[latents], latents)), shape=shape)
    return (fires @ move).tocsr()


def _f1(hits: float, said: float, true: float) -> float:
    """2 TP / (said + true); 1 where nothing was there and nothing was said."""
    return float(2 * hits / (said + true)) if said + true else 1.0


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan
