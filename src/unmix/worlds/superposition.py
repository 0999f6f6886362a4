"""SuperpositionWorld: images with known features, and neurons that are fewer than the features."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.worlds import dictionaries
from unmix.worlds.base import DictionaryWorld


class SuperpositionWorld(DictionaryWorld):
    """Images that are sums of patterns, and activations in which more features than neurons are superposed.

    h = z W + noise (the activations, what finders are given), x = sum_k z_k pattern_k + grain; z_k is 0 or, with
    probability `rate`, uniform on [.5, 1.5]. Neurons answer to several features each where latents > width.
    latents: K features. width: D neurons. rate: how often a feature is there. dictionary: rows of W; "gaussian" of
    unit norm, or "identity", one neuron a feature (no superposition; then latents = width). noise: deviation of what
    is added to every neuron. grain: deviation of what is added to every pixel. side: of the square images, in three
    channels. patterns: "noise", every pixel Gaussian; or "gabor", one grating a feature in a colour of its own, to
    look at. Both have a root mean square of 1. seed: fixes W and the patterns.
    """

    equation: ClassVar[str] = "h = z W + noise,  x = z P + grain,  z_k = Bernoulli(rate) U(.5, 1.5)"
    reference: ClassVar[str] = "Klindt et al. 2023, arXiv 2310.11431; Elhage et al. 2022, arXiv 2209.10652"
    provides: ClassVar[frozenset[str]] = frozenset({"x", "h", "z", "atoms"})

    latents: int = Field(default=32, ge=1)
    width: int = Field(default=16, ge=1)
    rate: float = Field(default=0.06, gt=0, le=1)
    dictionary: Literal["gaussian", "identity"] = "gaussian"
    noise: float = Field(default=0.01, ge=0)
    grain: float = Field(default=0.3, ge=0)
    side: int = Field(default=16, ge=4)
    patterns: Literal["noise", "gabor"] = "noise"
    seed: int = 0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.dictionary == "identity" and self.latents != self.width:
            raise ValueError(f"dictionary='identity' needs latents = width, got {self.latents} and {self.width}")
        return self

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(f"z{j}" for j in range(self.latents))

    @property
    def atoms(self) -> Tensor:
        if self.dictionary == "identity":
            return torch.eye(self.width)
        return dictionaries.gaussian(self.latents, self.width, self._stream("dictionary"))

    @property
    def images(self) -> Tensor:
        """The pattern of every feature: [latents, 3, side, side], root mean square 1."""
        draw = self._stream("patterns").torch()
        if self.patterns == "noise":
            found = torch.randn(self.latents, 3, self.side, self.side, generator=draw)
        else:
            found = self._gabors(draw)
        return found / found.square().mean((1, 2, 3), keepdim=True).sqrt()

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        """n images x with the activations h that they cause, and the features z that are in them."""
        stream = as_stream(rng).child("superposition")
        shape = (n, self.latents)
        there = torch.rand(shape, generator=stream.child("there").torch()) < self.rate
        z = there * (0.5 + torch.rand(shape, generator=stream.child("size").torch()))
        h = z @ self.atoms
        h = h + self.noise * torch.randn(h.shape, generator=stream.child("noise").torch())
        x = (z @ self.images.flatten(1)).view(n, 3, self.side, self.side)
        x = x + self.grain * torch.randn(x.shape, generator=stream.child("grain").torch())
        return Sample(x=x, h=h, z=z)

    def _gabors(self, draw: torch.Generator) -> Tensor:
        turn, phase, size, down, across = torch.rand(5, self.latents, 1, 1, generator=draw)
        colour = torch.randn(self.latents, 3, 1, 1, generator=draw)
        place = (torch.arange(self.side) + 0.5) / self.side
        y, x = place[:, None] - (0.25 + 0.5 * down), place[None] - (0.25 + 0.5 * across)
        along = x * torch.cos(torch.pi * turn) + y * torch.sin(torch.pi * turn)
        wave = torch.cos(2 * torch.pi * ((2 + 3 * size) * along + phase))
        return colour * (wave * torch.exp(-(x**2 + y**2) / (2 * 0.15**2)))[:, None]

    def _stream(self, name: str) -> Stream:
        return Stream(self.seed, ("superposition", name))
