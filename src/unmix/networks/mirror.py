"""The decoder that mirrors an encoder."""

from __future__ import annotations

from unmix.networks.base import Decoder, Network
from unmix.networks.conv import Conv, ConvDecoder
from unmix.networks.mlp import MLP, MLPDecoder


def mirror(network: Network) -> Decoder | None:
    """The decoder that mirrors a network, `MLPDecoder` of `MLP` and `ConvDecoder` of `Conv`; None of any other."""
    if isinstance(network, MLP):
        hidden = tuple(reversed(network.hidden))
        return MLPDecoder(hidden=hidden, activation=network.activation, slope=network.slope, bias=network.bias)
    if isinstance(network, Conv):
        return ConvDecoder(channels=network.channels, hidden=network.hidden)
    return None
