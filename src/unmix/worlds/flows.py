"""Mixings with an exact inverse in closed form: a coupling flow and a spiral."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.worlds.mixing import Mixing, frame

Maps = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


class CouplingFlow(Mixing):
    """Affine coupling layers with random networks and a rotation after each; D > d by orthonormal columns at the end.

    layers: number of coupling layers; every second one swaps the halves. hidden: tanh units of the random network
    that gives scale and shift of one half from the other. strength: bound on the logarithm of the scales, and size of
    the shifts; 0 is a rotation.
    """

    equation: ClassVar[str] = "(a, b) -> (a, b exp(strength tanh(s(a))) + strength t(a)), then a rotation"
    reference: ClassVar[str] = "Dinh, Sohl-Dickstein, Bengio 2017, arXiv 1605.08803"

    layers: int = Field(default=4, ge=1)
    hidden: int = Field(default=16, ge=1)
    strength: float = Field(default=0.5, ge=0)

    def _build(self, d: int, width: int, rng: Stream) -> Maps:
        if d < 2:
            raise UsageError(f"CouplingFlow: latents={d}: needs at least 2, one half moves the other")
        cut, strength = d // 2, self.strength
        steps = []
        for number in range(self.layers):
            stream = rng.child(f"layer {number}")
            sizes = (cut, d - cut) if number % 2 == 0 else (d - cut, cut)
            steps.append((_network(*sizes, self.hidden, stream), frame(d, d, stream.child("rotation")), sizes[0]))
        embed = frame(d, width, rng.child("embedding")) if width > d else None

        def moved(network: list[Tensor], a: Tensor) -> tuple[Tensor, Tensor]:
            first, bias, scale, shift = (tensor.to(a.dtype) for tensor in network)
            units = torch.tanh(a @ first + bias)
            return strength * torch.tanh(units @ scale), strength * (units @ shift)

        def forward(z: Tensor) -> Tensor:
            for network, rotation, half in steps:
                a, b = z[..., :half], z[..., half:]
                scale, shift = moved(network, a)
                z = torch.cat([a, b * scale.exp() + shift], -1) @ rotation.to(z.dtype)
            return z if embed is None else z @ embed.to(z.dtype)

        def backward(x: Tensor) -> Tensor:
            z = x if embed is None else x @ embed.T.to(x.dtype)
            for network, rotation, half in reversed(steps):
                z = z @ rotation.T.to(z.dtype)
                a, b = z[..., :half], z[..., half:]
                scale, shift = moved(network, a)
                z = torch.cat([a, (b - shift) * (-scale).exp()], -1)
            return z

        return forward, backward


class Spiral(Mixing):
    """Neighbouring coordinates turned by an angle that grows with their radius; D > d by orthonormal columns.

    Pairs (0, 1), (2, 3), ... are turned first, then (1, 2), (3, 4), ... and so on in turn: volume and every pair's
    radius are kept, so the inverse turns back. turns: turns per unit of radius. sweeps: how often all pairs of one
    kind are turned.
    """

    equation: ClassVar[str] = "(a, b) -> R(2 pi turns r) (a, b),  r = |(a, b)|"
    reference: ClassVar[str] = "unmix"

    turns: float = 0.25
    sweeps: int = Field(default=2, ge=1)

    def _build(self, d: int, width: int, rng: Stream) -> Maps:
        if d < 2:
            raise UsageError(f"Spiral: latents={d}: needs at least 2, coordinates are turned in pairs")
        firsts = [list(range(sweep % 2 if d > 2 else 0, d - 1, 2)) for sweep in range(self.sweeps)]
        embed = frame(d, width, rng.child("embedding")) if width > d else None
        turn = 2 * math.pi * self.turns

        def turned(z: Tensor, first: list[int], sign: float) -> Tensor:
            columns = list(z.unbind(-1))
            for i in first:
                a, b = columns[i], columns[i + 1]
                # The square root has no derivative at 0, where nothing is turned anyway.
                angle = sign * turn * (a * a + b * b).clamp_min(1e-30).sqrt()
                cos, sin = angle.cos(), angle.sin()
                columns[i], columns[i + 1] = a * cos - b * sin, a * sin + b * cos
            return torch.stack(columns, -1)

        def forward(z: Tensor) -> Tensor:
            for first in firsts:
                z = turned(z, first, 1.0)
            return z if embed is None else z @ embed.to(z.dtype)

        def backward(x: Tensor) -> Tensor:
            z = x if embed is None else x @ embed.T.to(x.dtype)
            for first in reversed(firsts):
                z = turned(z, first, -1.0)
            return z

        return forward, backward


def _network(inputs: int, outputs: int, hidden: int, rng: Stream) -> list[Tensor]:
    """First layer, its bias, and the read-outs of scale and shift; Gaussian, float64."""
    generator = rng.torch()

    def gaussian(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64) / math.sqrt(rows)

    first, bias = 2 * gaussian(inputs, hidden), gaussian(1, hidden)[0]
    return [first, bias, gaussian(hidden, outputs), gaussian(hidden, outputs)]
