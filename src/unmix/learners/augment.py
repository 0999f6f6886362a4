"""Augmentations: random views of observations, a batch at a time, the same for the same stream."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe, Table
from unmix.core.seeds import Stream, untouched

AUGMENTATIONS = Table(
    "augmentation",
    {"Augment": "unmix.learners.augment:Augment", "Noise": "unmix.learners.augment:Noise"},
    "unmix.core.recipe:Recipe",
)


class Augment(Recipe):
    """Random views of images [n, channels, height, width] with values in [0, 1], computed by kornia.

    crop: least share of the area of a random crop, which is scaled back; 1 for none. flip: probability of a mirror
    image. rotate: largest rotation in degrees. shift: largest translation as a share of the side. colour: strength of
    brightness, contrast and saturation changes, half of it that of the hue; of images without three channels
    brightness and contrast alone. colour_share, gray, blur, erase:
    probabilities of a colour change, of gray, of a Gaussian blur (sigma .1 to 2) and of an erased rectangle.
    Raises `UsageError` where kornia is not installed or rows are no images.
    """

    equation: ClassVar[str] = "x' = T(x), T drawn anew for every row"
    reference: ClassVar[str] = "Riba et al. 2019, arXiv 1910.02190 (kornia)"

    crop: float = Field(default=0.2, gt=0, le=1)
    flip: float = Field(default=0.5, ge=0, le=1)
    rotate: float = Field(default=0.0, ge=0, le=180)
    shift: float = Field(default=0.0, ge=0, lt=1)
    colour: float = Field(default=0.4, ge=0, le=1)
    colour_share: float = Field(default=0.3, ge=0, le=1)
    gray: float = Field(default=0.2, ge=0, le=1)
    blur: float = Field(default=0.2, ge=0, le=1)
    erase: float = Field(default=0.25, ge=0, le=1)

    def __call__(self, x: Tensor, rng: Stream) -> Tensor:
        """A view of every row, [n, channels, height, width]; global random state is not touched."""
        if x.ndim != 4:
            raise UsageError(f"Augment: takes images [n, channels, height, width], got {list(x.shape)}")
        steps = self._steps(tuple(x.shape[1:]))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(rng.number)
            for step in steps:
                x = step(x)
        return x

    def _steps(self, shape: tuple[int, ...]) -> list[Any]:
        kornia = _kornia()
        steps: list[Any] = []
        if self.crop < 1:
            steps.append(kornia.RandomResizedCrop(shape[1:], scale=(self.crop, 1.0), p=1.0))
        if self.flip:
            steps.append(kornia.RandomHorizontalFlip(p=self.flip))
        if self.rotate or self.shift:
            steps.append(kornia.RandomAffine(self.rotate, (self.shift, self.shift), p=1.0))
        if self.colour and self.colour_share:
            low, high = 1 - self.colour, 1 + self.colour
            if shape[0] == 3:
                amounts = (self.colour, self.colour, self.colour, self.colour / 2)
                steps.append(kornia.ColorJitter(*amounts, p=self.colour_share))
            else:
                steps.append(kornia.RandomBrightness((low, high), p=self.colour_share))
                steps.append(kornia.RandomContrast((low, high), p=self.colour_share))
        if self.gray and shape[0] == 3:
            steps.append(kornia.RandomGrayscale(p=self.gray))
        if self.blur:
            steps.append(kornia.RandomGaussianBlur((3, 3), (0.1, 2.0), p=self.blur))
        if self.erase:
            steps.append(kornia.RandomErasing(p=self.erase))
        return steps


class Noise(Recipe):
    """Normal noise on observations of any shape, where nothing better is known.

    scale: its standard deviation.
    """

    equation: ClassVar[str] = "x' = x + scale n,  n ~ N(0, 1)"
    reference: ClassVar[str] = "Bishop 1995, Training with noise is equivalent to Tikhonov regularization"

    scale: float = Field(default=0.1, ge=0)

    def __call__(self, x: Tensor, rng: Stream) -> Tensor:
        """A view of every row, of the shape of x."""
        return x + self.scale * torch.randn(x.shape, generator=rng.torch()).to(x)


def _kornia() -> Any:
    try:
        with untouched(), torch.random.fork_rng(devices=[]):
            import kornia.augmentation as found
    except ModuleNotFoundError:
        raise UsageError('augment: needs kornia; pip install "unmix[images]", or give augment=none') from None
    return found
