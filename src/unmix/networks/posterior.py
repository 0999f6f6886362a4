"""The encoder of a variational autoencoder: a network with twice the outputs, of which the means are the result."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator
from torch import Tensor, nn

from unmix.networks import NETWORKS
from unmix.networks.base import Network
from unmix.networks.mlp import MLP


class PosteriorMean(Network):
    """The mean of q(z | x) = N(mean, diag exp(logvar)), where another network gives mean and logvar.

    network: the network inside, built with 2 width outputs, means first.
    """

    equation: ClassVar[str] = "(mean, logvar) = f(x),  h = mean"
    reference: ClassVar[str] = "Kingma, Welling 2014, arXiv 1312.6114"

    network: Annotated[Any, BeforeValidator(NETWORKS.make)] = MLP()

    @property
    def code(self) -> str | None:
        """As of the network inside."""
        return self.network.code

    def _build(self, shape: tuple[int, ...], width: int) -> nn.Module:
        return Posterior(self.network._build(shape, 2 * width), width)


class Posterior(nn.Module):
    """Means [n, width] of x; `inside` gives means and log-variances [n, 2 width]."""

    def __init__(self, inside: nn.Module, width: int) -> None:
        super().__init__()
        self.inside, self.width = inside, width

    def forward(self, x: Tensor) -> Tensor:
        """[n, width]."""
        return self.inside(x)[:, : self.width]
