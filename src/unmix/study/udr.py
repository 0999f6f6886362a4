"""Choosing a model without the truth: unsupervised disentanglement ranking (UDR)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from unmix.core.errors import UsageError
from unmix.learners.representation import Representation
from unmix.networks.posterior import Posterior

INFORMATIVE = 0.01  # nats: a code whose posterior differs less than this from the prior says nothing


@dataclass(frozen=True, eq=False)
class Ranking:
    """UDR of models: scores [models], NaN where nothing can be said, and the pairwise values [models, models]."""

    scores: np.ndarray
    pairwise: np.ndarray

    @property
    def best(self) -> int:
        """Number of the model that agrees most with the others; raises `UsageError` where no model has a score."""
        if not np.isfinite(self.scores).any():
            raise UsageError("udr: no two models have informative codes, so none can be ranked")
        return int(np.nanargmax(self.scores))


def udr(
    codes: Sequence[Any],
    informative: Sequence[Any] | None = None,
    correlation: Literal["spearman", "pearson"] = "spearman",
) -> Ranking:
    """How well each model's codes agree, one to one, with those of the other seeds: their median.

        UDR_ij = 1 / (d_i + d_j) [sum_b r_b^2 / sum_a R(a, b) + sum_a r_a^2 / sum_b R(a, b)]

    R(a, b) is |correlation| of code a of model i with code b of model j, r_b = max_a R(a, b) and r_a = max_b R(a, b),
    sums over informative codes, of which there are d_i and d_j. 1 where models agree up to order, sign and (Spearman)
    monotone warps; a code that is shared out over many of the other model's counts little.
    codes: of models with the same settings and other seeds on the same rows, each [n, d] (d may differ). informative:
    for each model which codes say something [d]; None takes those that vary. Raises `UsageError` for fewer than two
    models, unlike rows or values that are not finite. Source: Duan et al. 2020, arXiv 1905.12614.
    """
    tables = [_plain(table).astype(np.float64) for table in codes]
    if len(tables) < 2:
        raise UsageError(f"udr: needs at least 2 models, got {len(tables)}")
    rows = {table.shape[:1] for table in tables}
    if any(table.ndim != 2 for table in tables) or len(rows) > 1 or len(tables[0]) < 3:
        raise UsageError(f"udr: codes must be [n, d] of the same n >= 3 rows, got {[list(t.shape) for t in tables]}")
    if not all(np.isfinite(table).all() for table in tables):
        raise UsageError("udr: codes have values that are not finite")
    used = []
    for number, table in enumerate(tables):
        kept = np.ptp(table, axis=0) > 0
        if informative is not None:
            kept &= _plain(informative[number]).astype(bool)
        used.append(_standard(table[:, kept], correlation))
    pairwise = np.full((len(used), len(used)), np.nan)
    for i, one in enumerate(used):
        for j in range(i):
            pairwise[i, j] = pairwise[j, i] = _agreement(one, used[j])
    scores = np.array([_median(np.delete(row, i)) for i, row in enumerate(pairwise)])
    return Ranking(scores, pairwise)


def informative_codes(learnt: Representation, x: Any, least: float = INFORMATIVE) -> torch.Tensor:
    """Which codes of a variational autoencoder say something: mean KL(q || N(0, 1)) over rows above `least`: [d].

    x: [n, *shape]. Raises `UsageError` for a representation without posteriors.
    """
    from unmix.learners.representation import evaluating
    from unmix.learners.vae_losses import normal_kl

    module = learnt.module
    if not isinstance(module, Posterior):
        raise UsageError(f"informative_codes: {learnt} has no posteriors; it takes variational autoencoders")
    with torch.no_grad(), evaluating(module):
        mean, logvar = module.inside(torch.as_tensor(x).float()).split(module.width, 1)
    return normal_kl(mean, logvar).mean(0) > least


def _plain(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _agreement(one: np.ndarray, other: np.ndarray) -> float:
    if not one.shape[1] or not other.shape[1]:
        return float("nan")
    size = np.abs(one.T @ other) / len(one)
    total = 0.0
    for axis in (0, 1):
        sums = size.sum(axis)
        with np.errstate(invalid="ignore", divide="ignore"):
            total += float(np.where(sums > 0, size.max(axis) ** 2 / sums, 0.0).sum())
    return total / sum(size.shape)


def _standard(table: np.ndarray, correlation: str) -> np.ndarray:
    if correlation == "spearman":
        from scipy.stats import rankdata

        table = rankdata(table, axis=0) if table.size else table
    centred = table - table.mean(0)
    return centred / np.sqrt((centred**2).mean(0))


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")
