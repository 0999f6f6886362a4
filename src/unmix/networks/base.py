"""Network: the protocol of everything that builds a torch module."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import nn

from unmix.core.recipe import Recipe
from unmix.core.seeds import Stream, as_stream


class Network(Recipe):
    """The recipe of a module; its one verb is `build`."""

    def build(self, shape: tuple[int, ...], width: int, rng: int | Stream = 0) -> nn.Module:
        """A module from observations [n, *shape] to [n, width]; the same weights for the same rng.

        torch draws initial weights from its global state: it is set for the draw and put back afterwards.
        Raises `UsageError` for a shape that this network cannot take.
        """
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(as_stream(rng).child(self.kind).number)
            return self._build(shape, width)

    @abstractmethod
    def _build(self, shape: tuple[int, ...], width: int) -> nn.Module: ...


class Decoder(Recipe):
    """The recipe of a module from representations back to observations; its one verb is `build`."""

    def build(self, width: int, shape: tuple[int, ...], rng: int | Stream = 0) -> nn.Module:
        """A module from [n, width] to [n, *shape]; the same weights for the same rng.

        Raises `UsageError` for a shape that this decoder cannot make.
        """
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(as_stream(rng).child(self.kind).number)
            return self._build(width, shape)

    @abstractmethod
    def _build(self, width: int, shape: tuple[int, ...]) -> nn.Module: ...


def without_bias(layer: nn.Module) -> nn.Module:
    """A layer before a batch norm, which takes any bias off again: left in, it would be moved by rounding alone.

    It is drawn with its bias all the same, so that the layers after it are drawn as if it had one.
    """
    layer.register_parameter("bias", None)
    return layer


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module and all below it in eval mode inside the block, each in its own mode again afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
