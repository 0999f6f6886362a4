"""Baselines of one view: which turn a picture was given, and the picture itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn
from torch.nn import functional

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners.views import ViewLearner
from unmix.networks import DECODERS
from unmix.networks.base import Decoder
from unmix.networks.conv import ConvDecoder
from unmix.networks.mirror import mirror
from unmix.networks.mlp import MLPDecoder


def turned(x: Tensor) -> tuple[Tensor, Tensor]:
    """Images [n, channels, side, side] in four turns, [4 n, ...], those of one turn together, and the turns [4 n]."""
    turns = torch.arange(4, device=x.device).repeat_interleave(len(x))
    return torch.cat([torch.rot90(x, turn, (2, 3)) for turn in range(4)]), turns


class Rotation(ViewLearner):
    """A network and a linear head trained to tell by how many quarters a square picture was turned.

    Each step sees every row of the batch in all four turns. The log's `turns` is the share told right. The result's
    parts are the head's weight and bias.
    """

    equation: ClassVar[str] = "L = mean over rows and turns k of -log softmax(W f(turn_k T(x)) + b)_k"
    reference: ClassVar[str] = "Gidaris, Singh, Komodakis 2018, arXiv 1803.07728"
    needs: ClassVar[frozenset[str]] = frozenset({"x"})

    def _check(self, world: Any, sample: Sample) -> None:
        super()._check(world, sample)
        shape = tuple(sample.x.shape[1:])
        if len(shape) != 3 or shape[1] != shape[2]:
            raise UsageError(
                f"{self.kind}: turns square images [channels, side, side], {world.kind} has {list(shape)}"
            )

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        modules = super()._build(shape, world, rng)
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(rng.child("head").number)
            modules["head"] = nn.Linear(self.width, 4)
        return modules

    def _objective(
        self, modules: nn.ModuleDict, batch: Sample, rng: Stream
    ) -> tuple[Tensor, Tensor, Mapping[str, Any]]:
        x, turns = turned(self._view(batch.x, rng))
        h = self._run(modules["encoder"], x)
        logits = self._run(modules["head"], h)
        right = (logits.argmax(1) == turns).float().mean()
        return functional.cross_entropy(logits, turns), h[: len(batch)], {"turns": right}


class Reconstruction(ViewLearner):
    """An autoencoder: a network and a decoder trained to give back the view that it saw.

    decoder: recipe of the decoder; None is the mirror of the encoder, and where there is none `ConvDecoder` for
    square images with a side of 8, 16, 32 or 64 and `MLPDecoder` for anything else. The result's parts
    are the decoder's tensors.
    """

    equation: ClassVar[str] = "L = mean |g(f(T(x))) - T(x)|^2 over rows and entries"
    reference: ClassVar[str] = "Hinton, Salakhutdinov 2006, Reducing the dimensionality of data with neural networks"
    needs: ClassVar[frozenset[str]] = frozenset({"x"})

    decoder: Annotated[Any, BeforeValidator(lambda given: None if given is None else DECODERS.make(given))] = None

    def _decoder(self, shape: tuple[int, ...]) -> Decoder:
        if self.decoder is not None:
            return self.decoder
        square = len(shape) == 3 and shape[1] == shape[2] and shape[1] in (8, 16, 32, 64)
        return mirror(self.network) or (ConvDecoder() if square else MLPDecoder())

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        modules = super()._build(shape, world, rng)
        modules["decoder"] = self._decoder(shape).build(self.width, shape, rng.child("decoder"))
        return modules

    def _objective(
        self, modules: nn.ModuleDict, batch: Sample, rng: Stream
    ) -> tuple[Tensor, Tensor, Mapping[str, Any]]:
        view = self._view(batch.x, rng)
        h = self._run(modules["encoder"], view)
        return functional.mse_loss(self._run(modules["decoder"], h), view), h, {}
