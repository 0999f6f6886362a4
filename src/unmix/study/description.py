"""Description length: the bits that features need to tell a held-out row to a given accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.rows import as_tensor
from unmix.finders.features import Features

SHARES = (0.05, 0.25, 1.0, 4.0)  # quantisation noise of the codes tried, in parts of the noise that is allowed


@dataclass(frozen=True, eq=False)
class Description:
    """Bits of every held-out row. codes, residual: [n] bits; plain: [n] bits of the row itself, without features."""

    codes: Tensor
    residual: Tensor
    plain: Tensor

    @property
    def bits(self) -> Tensor:
        """[n] codes and residual together."""
        return self.codes + self.residual

    @property
    def mean(self) -> float:
        """Mean bits of a row."""
        return float(self.bits.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean over rows."""
        return float(self.bits.std() / math.sqrt(len(self.bits))) if len(self.bits) > 1 else 0.0


def describe(features: Features, train: Tensor, test: Tensor, distortion: float = 0.01) -> Description:
    """Bits to tell held-out rows up to a squared error of `distortion` times their variance, by codes and residual.

    L(h) = sum_j -log2 P(b_j) + sum_{active} -log2 P(q_j) + R(h - h'), with b_j whether feature j fires (a Bernoulli
    rate for each), q_j its code in steps (a geometric law for each, on 1, 2, ...; a sign costs one bit), and R the
    rate of a Gaussian residual with covariance S at noise t = distortion * variance / d on each dimension,
    R(r) = 1/2 log2 det(I + S / t) + (r' (S + t I)^-1 r + t tr (S + t I)^-1 - d) / (2 ln 2).
    Every table (rates, laws, S, the step) comes from `train`, so that on `test` a table that does not hold costs
    bits. Models are compared at one distortion, whatever their own reconstruction error. Atoms are not charged: they
    are sent once, for any number of rows.

    train: [n, d] rows that features were fitted on, or some of them. test: [n', d] held-out rows.
    Raises `UsageError` for rows that are all equal or a distortion outside (0, 1).
    Source: description length of sparse codes in Ayonrinde, Pearce, Sharkey 2024, arXiv 2410.11179; the residual's
    rate makes models of unlike error comparable, and is ours.
    """
    if not 1e-9 <= distortion < 1:
        raise UsageError(f"distortion={distortion}: must lie between 0 and 1, and be 1e-9 at least")
    train, test = as_tensor(train), as_tensor(test)
    if len(train) < 2 or not len(test):
        raise UsageError(
            f"describe: needs at least 2 training rows and 1 held-out row, got {len(train)}, {len(test)}"
        )
    wide = train.double()
    variance = float((wide - wide.mean(0)).square().mean())
    if variance <= 1e-24 * float(wide.square().mean()):
        raise UsageError("describe: all rows are equal, there is nothing to describe")
    noise = distortion * variance
    codes, held = features.encode(train).ragged(), features.encode(test).ragged()
    # Rounding a code moves the row along its atom: noise grows with active codes and squared norms.
    spread = len(codes.values) / len(codes) * float(features.atoms.double().square().sum(1).mean()) or 1.0
    best: tuple[float, Tensor, Tensor] | None = None
    for share in SHARES:
        step = math.sqrt(12 * share * noise * train.shape[1] / spread)
        tables = _Tables(codes, step)
        residual = _Gaussian(wide - _decoded(features, codes, step), noise)
        inside = float((tables.bits(codes) + residual.bits(wide - _decoded(features, codes, step))).mean())
        if best is None or inside < best[0]:
            best = (inside, tables.bits(held), residual.bits(test.double() - _decoded(features, held, step)))
    assert best is not None
    return Description(best[1], best[2], _Gaussian(wide, noise).bits(test.double()))


def _decoded(features: Features, codes: Codes, step: float) -> Tensor:
    """Reconstruction from codes rounded to whole steps, float64 [n, d]."""
    return features.decode(replace(codes, values=(codes.values / step).round() * step)).double()


class _Tables:
    """Rates and laws of the rounded codes, smoothed by half a firing and one firing of the mean size."""

    def __init__(self, codes: Codes, step: float) -> None:
        self.step, self.width = step, codes.width
        _, columns, steps = self._rounded(codes)
        counts = torch.bincount(columns, minlength=codes.width).double()
        sums = torch.bincount(columns, steps.abs(), minlength=codes.width)
        rate = (counts + 0.5) / (len(codes) + 1)
        typical = float(steps.abs().mean()) if len(steps) else 1.0
        stop = 1 / ((sums + typical) / (counts + 1)).clamp_min(1 + 1e-6)
        self.silent = -float(torch.log2(1 - rate).sum())
        self.fires = torch.log2(1 - rate) - torch.log2(rate)
        self.stop, self.more = -torch.log2(stop), -torch.log2(1 - stop)
        self.sign = 1.0 if bool((steps < 0).any()) else 0.0

    def bits(self, codes: Codes) -> Tensor:
        """[n] bits of each row's codes."""
        rows, columns, steps = self._rounded(codes)
        sign = max(self.sign, float(bool((steps < 0).any())))
        spent = self.fires[columns] + self.stop[columns] + (steps.abs() - 1) * self.more[columns] + sign
        return self.silent + torch.zeros(len(codes), dtype=torch.float64).index_add_(0, rows, spent)

    def _rounded(self, codes: Codes) -> tuple[Tensor, Tensor, Tensor]:
        rows, columns, values = codes.nonzero()
        steps = (values.double() / self.step).round()
        keep = steps != 0
        return rows[keep], columns[keep], steps[keep]


class _Gaussian:
    """A Gaussian code for vectors at a given noise: mean and covariance of those it is made from."""

    def __init__(self, vectors: Tensor, noise: float) -> None:
        self.noise, self.mean = noise, vectors.mean(0)
        centred = vectors - self.mean
        values, self.basis = torch.linalg.eigh(centred.T @ centred / len(vectors))
        self.scale = values.clamp_min(0) + noise
        self.fixed = 0.5 * float(torch.log2(self.scale / noise).sum())
        self.fixed += float((noise / self.scale - 1).sum()) / (2 * math.log(2))

    def bits(self, vectors: Tensor) -> Tensor:
        """[n] bits of each vector."""
        turned = (vectors - self.mean) @ self.basis
        return self.fixed + (turned.square() / self.scale).sum(1) / (2 * math.log(2))
