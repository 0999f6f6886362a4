"""Networks around another network."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.networks import NETWORKS
from unmix.networks.base import Network
from unmix.networks.mlp import MLP


class OnSphere(Network):
    """Another network whose outputs are scaled to unit norm.

    network: the network inside.
    """

    equation: ClassVar[str] = "h = f(x) / |f(x)|"
    reference: ClassVar[str] = "Wang, Isola 2020, arXiv 2005.10242"

    network: Annotated[Any, BeforeValidator(NETWORKS.make)] = MLP()

    @property
    def code(self) -> str | None:
        """As of the network inside."""
        return self.network.code

    def _build(self, shape: tuple[int, ...], width: int) -> nn.Module:
        if width < 2:
            raise UsageError(f"OnSphere: width={width}: a sphere needs at least 2 columns")
        return nn.Sequential(self.network._build(shape, width), _Unit())


class _Unit(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        """Rows [n, d] of unit norm; a zero row stays zero."""
        return torch.nn.functional.normalize(h)
