"""OrientedEnergy: the energy of edges by place, size and orientation, after the first stage of the visual system."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unmix.scores.similarity.base import Alike, Measured, unit_rows
from unmix.scores.similarity.images import grey, smaller

BANDWIDTH = 0.25  # deviation in the Fourier domain as a share of the frequency: about one octave


class OrientedEnergy(Measured):
    """Cosine of Gabor energies: amplitude at each frequency and orientation, pooled over a grid of places.

    Of the grey image. Every feature has mean 0 and deviation 1 over the images that it is bound to, so that common
    structure counts little. Tolerates shifts within a cell of the grid.
    frequencies: in cycles a pixel of the image at its reduced size; bandwidth about one octave. orientations: evenly
    over half a turn. grid: cells along each side. side: images are reduced to that longer side.
    """

    equation: ClassVar[str] = "e = zscore(sqrt mean_cell |x * g_(f, theta)|),  s(i, j) = cos(e_i, e_j)"
    reference: ClassVar[str] = "Daugman 1985 (Gabor filters)"

    frequencies: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    orientations: int = Field(default=6, ge=1)
    grid: int = Field(default=4, ge=1)
    side: int = Field(default=56, ge=4)

    def _bind(self, images: Tensor) -> Alike:
        filters: Tensor | None = None
        parts = []
        for block in images.split(64):
            given = smaller(grey(block), self.side)
            if filters is None:
                filters = self._filters(*given.shape[-2:])
            given = given - given[..., :1, :1]  # so that an image of one grey has exactly no energy
            amplitude = torch.fft.ifft2(torch.fft.fft2(given) * filters).abs()
            parts.append(torch.nn.functional.adaptive_avg_pool2d(amplitude, self.grid).flatten(1).sqrt())
        features = torch.cat(parts).double()
        centred = features - features.mean(0)
        deviation = centred.square().mean(0).sqrt()
        varies = deviation > 1e-6 * features.abs().amax(0)
        scaled = torch.where(varies, centred / deviation.clamp_min(1e-300), torch.zeros_like(centred))
        return Alike(unit_rows(scaled))

    def _filters(self, h: int, w: int) -> Tensor:
        """One-sided Gabor filters in the Fourier domain: [frequencies x orientations, h, w]."""
        down, across = torch.fft.fftfreq(h)[:, None], torch.fft.fftfreq(w)[None]
        filters = []
        for frequency in self.frequencies:
            for step in range(self.orientations):
                angle = math.pi * step / self.orientations
                far = (across - frequency * math.cos(angle)) ** 2 + (down - frequency * math.sin(angle)) ** 2
                filters.append(torch.exp(-far / (2 * (BANDWIDTH * frequency) ** 2)))
        bank = torch.stack(filters)
        bank[:, 0, 0] = 0  # the mean grey is no edge
        return bank
