"""Ceilings: what no linear-nonlinear encoder can pass, because its pre-activations are a linear map of low rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from unmix.core.errors import UsageError
from unmix.core.scale import centred, near_one, together_near_one
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_ratio
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.identifiability.linear import LeastSquares
from unmix.scores.influence import tell_of_rows
from unmix.scores.pairing import columns_of


@dataclass(frozen=True, eq=False)
class LinearMap:
    """Pre-activations as a map of the latents, G = W D': rank, singular values [min(m, N)] and what they leave.

    residual: |I - G s|_F^2 / N at the best scale s, for m = N; NaN otherwise. bound: (N - M) / N, the least that any
    map of rank M leaves (Eckart, Young).
    """

    rank: int
    singular: np.ndarray
    residual: float
    bound: float


def linear_map(weight: Any, atoms: Any) -> LinearMap:
    """The map from latents to pre-activations of an encoder W x + b on x = z D, and its rank, at most M.

    weight: [m, M] encoder rows. atoms: [N, M] true atoms. An encoder exact on all sparse z needs G with a positive
    diagonal and zeros elsewhere, of rank N; with M < N there is none. Source: O'Neill et al. 2024, arXiv 2411.13117.
    """
    rows, true = columns_of(weight, "weight"), columns_of(atoms, "atoms")
    if rows.shape[1] != true.shape[1]:
        raise UsageError(f"linear_map: weight has width {rows.shape[1]}, atoms {true.shape[1]}")
    g = together_near_one(rows)[0] @ together_near_one(true)[0].T
    singular = torch.linalg.svdvals(g)
    rank = int((singular > singular[0] * max(g.shape) * torch.finfo(torch.float32).eps).sum()) if singular[0] else 0
    n, square = len(true), g.shape[0] == g.shape[1]
    residual = float("nan")
    if square:
        scale = g.trace() / g.square().sum().clamp_min(1e-300)
        residual = float((torch.eye(n, dtype=g.dtype) - scale * g).square().sum() / n)
    return LinearMap(rank, singular.numpy(), residual, max(0, n - true.shape[1]) / n)


def linear_ceiling(h: Any, latents: Any, rng: int | Stream = 0, folds: int = 2) -> Outcome:
    """R2 of the best linear read-out of the latents, fitted and tested on different rows: about M / N when M < N.

    R2 = 1 - sum |z - z'|^2 / sum |z - mean(z)|^2, z' = A h + b by least squares on the other folds (the linear
    minimum-mean-square estimate). h: [n, M]. latents: `Codes` or [n, N].
    Detail: per_latent [N] R2, ratio (M / N). Raises `UsageError` for unlike rows, too few rows, or constant latents.
    """
    x, z = near_one(columns_of(h, "h")), columns_of(latents, "latents")
    if len(x) != len(z):
        raise UsageError(f"linear_ceiling: h has {len(x)} rows, latents {len(z)}")
    if len(x) < folds * (x.shape[1] + 2):
        raise UsageError(f"linear_ceiling: needs at least {folds * (x.shape[1] + 2)} rows for width {x.shape[1]}")
    z = near_one(z)
    total = centred(z).square()
    if not total.sum():
        raise UsageError("linear_ceiling: the latents do not vary")
    stream = as_stream(rng)
    order = torch.from_numpy(stream.child("folds").numpy().permutation(len(x)))
    error = torch.zeros_like(z)
    for fold in order.chunk(folds):
        rest = torch.ones(len(x), dtype=torch.bool)
        rest[fold] = False
        read, offset = LeastSquares(x[rest]).coefficients(z[rest])
        error[fold] = (z[fold] - x[fold] @ read - offset).square()
    per_latent = 1 - error.sum(0) / total.sum(0).clamp_min(1e-300)
    low, high = bootstrap_ratio(error.sum(1).numpy(), total.sum(1).numpy(), stream)
    value = float(1 - error.sum() / total.sum())

    def again(kept: np.ndarray) -> float:
        return linear_ceiling(x[kept], z[kept], rng, folds).value

    tell_of_rows("linear_ceiling", value, {"h": x, "latents": z}, again)
    detail = {"per_latent": per_latent.numpy(), "ratio": x.shape[1] / z.shape[1]}
    return Outcome(value, 0.0, 1.0, (1 - high, 1 - low), detail)


class LinearCeiling(Score):
    """R2 of the best linear read-out of the true latents from the rows: the linear part of any amortised encoder."""

    name: ClassVar[str] = "linear_ceiling"
    better: ClassVar[str] = ""
    equation: ClassVar[str] = "1 - min_A,b sum |z - A h - b|^2 / sum |z - mean(z)|^2"
    reference: ClassVar[str] = "O'Neill, Gumran, Klindt 2024, arXiv 2411.13117"
    needs: ClassVar[frozenset[str]] = frozenset({"h", "z"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return linear_ceiling(inputs.h, inputs.z, rng)
