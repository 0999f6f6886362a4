"""Similarities pixel by pixel: what is alike at equal positions."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unmix.scores.similarity.base import Alike, Measured, Rule, unit_rows
from unmix.scores.similarity.images import grey, smaller


class Pixels(Measured):
    """Cosine of images less the mean image, or minus their distance.

    side: images are reduced to that longer side first. rule: cosine or distance (root mean square over the pixels).
    """

    equation: ClassVar[str] = "s(i, j) = cos(x_i - mean(x), x_j - mean(x)), or -|x_i - x_j| / sqrt(pixels)"
    reference: ClassVar[str] = "Klindt et al. 2023, arXiv 2310.11431"

    side: int = Field(default=16, ge=1)
    rule: Rule = "cosine"

    def _bind(self, images: Tensor) -> Alike:
        flat = torch.cat([smaller(block, self.side).flatten(1) for block in images.split(256)])
        if self.rule == "distance":
            return Alike(flat / flat.shape[1] ** 0.5, "distance")
        centred = flat.double() - flat.double().mean(0)
        nothing = centred.abs() <= 1e-12 * flat.abs().amax(0)  # what equal pixels leave by rounding
        return Alike(unit_rows(centred.masked_fill(nothing, 0)))


class Structural(Measured):
    """Structural similarity of grey images: means, variances and covariance in windows, averaged over the places.

    Constants are (.01 L)^2 and (.03 L)^2, L the range of all images. Slow beside the others: every pair is filtered.
    side: images are reduced to that longer side first. window: side of the uniform window.
    """

    equation: ClassVar[str] = "mean (2 m_i m_j + a)(2 c_ij + b) / ((m_i^2 + m_j^2 + a)(v_i + v_j + b))"
    reference: ClassVar[str] = "Wang et al. 2004"

    side: int = Field(default=32, ge=4)
    window: int = Field(default=7, ge=2)

    def _bind(self, images: Tensor) -> Alike:
        small = torch.cat([smaller(grey(block), self.side) for block in images.split(256)])
        h, w = small.shape[-2:]
        size = min(self.window, h, w)
        small = small / (float(small.max() - small.min()) or 1.0)  # the same number, where squares do not vanish
        a, b = 0.01**2, 0.03**2

        def mean(x: Tensor) -> Tensor:
            return (
                torch.nn.functional.avg_pool2d(x.reshape(-1, 1, h, w), size, 1).flatten(1).reshape(*x.shape[:-1], -1)
            )

        def compare(one: Tensor, two: Tensor) -> Tensor:
            left, right = one[..., :, None, :], two[..., None, :, :]
            m, k = mean(left), mean(right)
            v, u = mean(left**2) - m**2, mean(right**2) - k**2
            c = mean(left * right) - m * k
            return ((2 * m * k + a) * (2 * c + b) / ((m**2 + k**2 + a) * (v + u + b))).mean(-1)

        return Alike(small.flatten(1), compare=compare)
