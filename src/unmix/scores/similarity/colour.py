"""Similarities by colour alone: the histogram, the mean colour, the brightness."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unmix.scores.similarity.base import Alike, Measured, unit_rows
from unmix.scores.similarity.images import smaller


class ColourHistogram(Measured):
    """Bhattacharyya coefficient of joint colour histograms: which colours an image has, wherever they are.

    bins: along each channel, between the smallest and the largest value of all images. side: images are reduced to
    that longer side first.
    """

    equation: ClassVar[str] = "s(i, j) = sum_b sqrt(p_i(b) p_j(b))"
    reference: ClassVar[str] = "Bhattacharyya 1943"

    bins: int = Field(default=6, ge=2)
    side: int = Field(default=64, ge=1)

    def _bind(self, images: Tensor) -> Alike:
        given = torch.cat([smaller(block, self.side) for block in images.split(256)])
        low, high = given.min(), given.max()
        span = high - low if high > low else torch.ones(())
        places = ((given - low) / span * self.bins).long().clamp_max(self.bins - 1)
        channels = given.shape[1]
        powers = self.bins ** torch.arange(channels)
        cell = (places * powers[:, None, None]).sum(1).flatten(1)
        counts = torch.zeros(len(given), self.bins**channels).scatter_add_(1, cell, torch.ones(cell.shape))
        return Alike(unit_rows(counts.sqrt()))


class MeanColour(Measured):
    """Minus the distance of mean colours: what is alike by colour alone."""

    equation: ClassVar[str] = "s(i, j) = -|mean(x_i) - mean(x_j)|"
    reference: ClassVar[str] = "Klindt et al. 2023, arXiv 2310.11431"

    def _bind(self, images: Tensor) -> Alike:
        return Alike(images.mean((2, 3)), "distance")


class Brightness(Measured):
    """Minus the difference of mean grey values: what is alike by brightness alone."""

    equation: ClassVar[str] = "s(i, j) = -|mean(x_i) - mean(x_j)|, over all channels"
    reference: ClassVar[str] = "control"

    def _bind(self, images: Tensor) -> Alike:
        return Alike(images.mean((1, 2, 3))[:, None], "distance")
