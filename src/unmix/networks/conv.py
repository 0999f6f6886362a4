"""Small convolutional networks of the disentanglement literature, and the decoder that mirrors them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from unmix.core.errors import UsageError
from unmix.networks.base import Decoder, Network, without_bias


def _halvings(shape: tuple[int, ...], most: int, kind: str) -> int:
    """How often an image [channels, side, side] is halved to reach side 4."""
    sides = [4 * 2**k for k in range(1, most + 1)]
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] not in sides:
        listed = ", ".join(map(str, sides))
        raise UsageError(f"{kind}: takes images [channels, side, side] with a side of {listed}, got {list(shape)}")
    return int(math.log2(shape[1] // 4))


class Conv(Network):
    """Convolutions that halve the image to 4 x 4, one that takes it to a point, and a linear layer.

    channels: of the halving convolutions (kernel 4, stride 2, padding 1); a side of 64 uses four of them, 32 the
    first three, and so on. hidden: channels of the last convolution (kernel 4). normalise: batch norm before each
    rectifier, or none.
    """

    equation: ClassVar[str] = "h = W relu(conv4(relu(conv4/2 ... relu(conv4/2(x))))) + b"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"

    channels: tuple[int, ...] = (32, 32, 64, 64)
    hidden: int = Field(default=256, ge=1)
    normalise: Literal["batch", "none"] = "none"

    def _build(self, shape: tuple[int, ...], width: int) -> nn.Module:
        used = self.channels[: _halvings(shape, len(self.channels), self.kind)]
        layers: list[nn.Module] = []
        for before, after in pairwise((shape[0], *used)):
            layers += self._rectified(nn.Conv2d(before, after, 4, 2, 1))
        layers += [*self._rectified(nn.Conv2d(used[-1], self.hidden, 4)), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(self.hidden, width))

    def _rectified(self, layer: nn.Conv2d) -> list[nn.Module]:
        if self.normalise == "none":
            return [layer, nn.ReLU()]
        return [without_bias(layer), nn.BatchNorm2d(layer.out_channels), nn.ReLU()]


class ConvDecoder(Decoder):
    """The mirror image of `Conv`: a linear layer, a point to 4 x 4, and convolutions that double the image.

    channels, hidden: those of the encoder that it mirrors.
    """

    equation: ClassVar[str] = "x = deconv4/2(relu(... relu(deconv4(relu(W h + b)))))"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"

    channels: tuple[int, ...] = (32, 32, 64, 64)
    hidden: int = Field(default=256, ge=1)

    def _build(self, width: int, shape: tuple[int, ...]) -> nn.Module:
        used = self.channels[: _halvings(shape, len(self.channels), self.kind)]
        layers: list[nn.Module] = [nn.Linear(width, self.hidden), nn.ReLU(), nn.Unflatten(1, (self.hidden, 1, 1))]
        layers += [nn.ConvTranspose2d(self.hidden, used[-1], 4)]
        for before, after in pairwise((*reversed(used), shape[0])):
            layers += [nn.ReLU(), nn.ConvTranspose2d(before, after, 4, 2, 1)]
        return nn.Sequential(*layers)
