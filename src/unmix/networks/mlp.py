"""Fully connected networks."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from unmix.networks.base import Decoder, Network, without_bias


class MLP(Network):
    """Layers of units with a nonlinearity between them, the last one linear.

    hidden: widths of the hidden layers. activation: between layers. normalise: batch, layer or none, before each
    nonlinearity. slope: of the leaky units below zero. bias: of every linear layer,
    but those before a batch norm, which takes it off again.
    """

    equation: ClassVar[str] = "h = W_L s(N(W_{L-1} ... s(N(W_1 x + b_1)))) + b_L"
    reference: ClassVar[str] = "Rumelhart, Hinton, Williams 1986"

    hidden: tuple[int, ...] = (128, 128, 128)
    activation: Literal["relu", "leaky", "gelu", "tanh"] = "leaky"
    normalise: Literal["batch", "layer", "none"] = "batch"
    slope: float = Field(default=0.2, ge=0, lt=1)
    bias: bool = True

    def _build(self, shape: tuple[int, ...], width: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
        sizes = (math.prod(shape), *self.hidden)
        for before, after in pairwise(sizes):
            layer = nn.Linear(before, after, bias=self.bias)
            layers.append(without_bias(layer) if self.normalise == "batch" else layer)
            if self.normalise != "none":
                layers.append(nn.BatchNorm1d(after) if self.normalise == "batch" else nn.LayerNorm(after))
            layers.append(self._unit())
        return nn.Sequential(*layers, nn.Linear(sizes[-1], width, bias=self.bias))

    def _unit(self) -> nn.Module:
        units = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
        return nn.LeakyReLU(self.slope) if self.activation == "leaky" else units[self.activation]()


class MLPDecoder(Decoder):
    """The mirror image of `MLP`: layers of units from a representation to an observation of any shape.

    hidden, activation, normalise, slope, bias: as of `MLP`, in the order from the representation outwards.
    """

    equation: ClassVar[str] = "x = W_L s(N(W_{L-1} ... s(N(W_1 h + b_1)))) + b_L"
    reference: ClassVar[str] = "Rumelhart, Hinton, Williams 1986"

    hidden: tuple[int, ...] = (128, 128, 128)
    activation: Literal["relu", "leaky", "gelu", "tanh"] = "leaky"
    normalise: Literal["batch", "layer", "none"] = "none"
    slope: float = Field(default=0.2, ge=0, lt=1)
    bias: bool = True

    def _build(self, width: int, shape: tuple[int, ...]) -> nn.Module:
        flat = MLP(**{name: getattr(self, name) for name in MLP.model_fields})._build((width,), math.prod(shape))
        return flat if len(shape) == 1 else nn.Sequential(*flat.children(), nn.Unflatten(1, shape))
