"""Linear read-out: R2 of the true latents from a representation by least squares, on rows held out from the fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.scale import centred, near_one
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import members
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.identifiability.explained import (
    Explained,
    aligned,
    baselines,
    explained,
    halves,
    shuffle,
    with_chance,
)
from unmix.scores.identifiability.kinds import targets
from unmix.scores.influence import tell_of_rows


class LeastSquares:
    """Least squares from columns [n, d] to any targets, factored once; where many solutions fit, the smallest.

    Columns are brought to unit deviation (unit length a row without intercept), so that units do not matter, and
    constant ones do not count. rank: number of directions that are used. Normal equations where their condition is
    below 1e6, else the singular values of the columns themselves.
    """

    def __init__(self, columns: Tensor, intercept: bool = True) -> None:
        self.intercept = intercept
        self.mean = columns.mean(0) if intercept else torch.zeros_like(columns[0])
        away = centred(columns) if intercept else columns
        size = away.square().mean(0).sqrt()
        self.scale = torch.where(size > 0, size, torch.inf)
        self.columns = away / self.scale
        self.singular, self.axes = _spectrum(self.columns)
        self.rank = len(self.singular)

    def coefficients(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Map [d, c] and offset [c] with targets ~ columns @ map + offset, for targets [n, c] of the same rows."""
        offset = targets.mean(0) if self.intercept else torch.zeros_like(targets[0])
        along = self.axes.T @ (self.columns.T @ (targets - offset))
        read = (self.axes @ (along / self.singular[:, None].square())) / self.scale[:, None]
        return read, offset - self.mean @ read


def r2(
    h: Any,
    latents: Any,
    rng: int | Stream = 0,
    intercept: bool = True,
    group: Any = None,
    factors: Sequence[Factor] | None = None,
    x: Any = None,
    untrained: Any = None,
) -> Outcome:
    """Mean over latents of the held-out R2 of least squares from h: fitted on one half, scored on the other.

    R2_j = 1 - sum (z_j - a_j h - b_j)^2 / sum (z_j - mean z_j)^2 over the held-out rows; a latent that does not vary
    there has 0. With fewer rows than columns the smallest of the exact fits is scored, which is no R2 of 1.
    h: [n, d]. latents: `Codes` or [n, f]. intercept: False fits no b. group: [n] rows that stay on one side and are
    resampled together. factors: kind of each latent; an angle counts by the R2 of its (cos, sin), categories are left
    out (`balanced_accuracy` has them). x: [n, ...] raw observations, untrained: [n, d'] for baselines.
    Chance: the latents in another order of rows. Interval: bootstrap over held-out rows or groups.
    Detail: minimum, minimum_interval, per_dimension [f], worst (the latent), back (the other direction, z to h: value
    and minimum), rank, baselines (x, untrained: value and minimum each).
    Raises `UsageError` for fewer than 4 rows, unlike rows, NaN, or a single group.
    """
    name = "r2" if intercept else "r2_linear"
    a, z = aligned(name, 4, h=h, latents=latents)
    columns, owners, names = targets(z, factors)
    a, columns = near_one(a), near_one(columns, owners)
    stream, member = as_stream(rng), members(group, len(a))
    fit, held = (torch.from_numpy(part) for part in halves(member, stream))

    def read(source: Tensor) -> LeastSquares:
        return LeastSquares(source[fit], intercept)

    def score(solver: LeastSquares, source: Tensor, truth: Tensor, owner: np.ndarray, **draw: Any) -> Explained:
        slope, offset = solver.coefficients(truth[fit])
        error = (truth[held] - source[held] @ slope - offset).square()
        return explained(error, truth[held], owner, **draw)

    solver = read(a)
    value = score(solver, a, columns, owners, rng=stream, group=member[held.numpy()])
    back = score(read(columns), columns, a, np.arange(a.shape[1]))

    def beside(source: Tensor) -> dict[str, float]:
        source = near_one(source)
        found = score(read(source), source, columns, owners)
        return {"value": found.value, "minimum": found.minimum}

    def again(kept: np.ndarray) -> float:
        inside = None if group is None else member[kept]
        return r2(a[kept], z[kept], rng, intercept, inside, factors).value

    tell_of_rows(name, value.value, {"h": a, "latents": columns}, again)
    detail = {
        "names": names,
        "back": {"value": back.value, "minimum": back.minimum},
        "rank": solver.rank,
        "rows_fitted": len(fit),
        "baselines": baselines(name, latents, beside, x=x, untrained=untrained),
    }
    return with_chance(value, lambda order: score(solver, a, shuffle(columns, order), owners), len(a), stream, detail)


class R2(Score):
    """Latents read out of h by an affine map, fitted on one half of the rows and scored on the other: mean R2.

    Kinds of factors are used where they are given: an angle counts by its (cos, sin), categories are left out.
    """

    name: ClassVar[str] = "r2"
    equation: ClassVar[str] = "(1/f) sum_j 1 - |z_j - a_j h - b_j|^2 / |z_j - mean z_j|^2, held-out rows"
    reference: ClassVar[str] = "arXiv 2410.21869, theorem on C4"
    needs: ClassVar[frozenset[str]] = frozenset({"h", "z"})
    intercept: ClassVar[bool] = True

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        rest = (inputs.group, inputs.factors, inputs.x, inputs.untrained)
        return r2(inputs.h, inputs.z, rng, type(self).intercept, *rest)


class R2Linear(R2):
    """Latents read out of h by a linear map without offset, fitted on one half and scored on the other: mean R2."""

    name: ClassVar[str] = "r2_linear"
    equation: ClassVar[str] = "(1/f) sum_j 1 - |z_j - a_j h|^2 / |z_j - mean z_j|^2, held-out rows"
    reference: ClassVar[str] = "arXiv 2410.21869, theorem on C1 to C3"
    intercept: ClassVar[bool] = False


def require_same_width(name: str, wide: Tensor, narrow: Tensor) -> None:
    """Raise `UsageError` where h [n, d] has more columns than z [n, f], so that there is no rotation."""
    if wide.shape[1] > narrow.shape[1]:
        raise UsageError(
            f"{name}: h has {wide.shape[1]} columns, more than the {narrow.shape[1]} latents; "
            "a rotation needs as many or fewer (r2 takes any number)"
        )


def _spectrum(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values [r] above rounding, and their right singular vectors [d, r]."""
    n, d = columns.shape
    if n >= d:
        squares, axes = torch.linalg.eigh(columns.T @ columns)
        if squares[0] > 1e-6 * squares[-1]:
            return squares.sqrt(), axes
        columns = torch.linalg.qr(columns, mode="r").R
    _, singular, axes = torch.linalg.svd(columns, full_matrices=False)
    kept = singular > max(n, d) * torch.finfo(singular.dtype).eps * singular[:1]
    return singular[kept], axes[kept].T
