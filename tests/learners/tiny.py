"""Tiny worlds for learners: classes on a sphere, pairs that move a little, and segments of a series."""

from __future__ import annotations

from typing import ClassVar

import torch

from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.worlds.base import World


def _mixed(z: torch.Tensor, d: int) -> torch.Tensor:
    generator = Stream(5).child("mixing").torch()
    first, second = (torch.linalg.qr(torch.randn(d, d, generator=generator))[0] for _ in range(2))
    return torch.nn.functional.leaky_relu(z @ first, 0.3) @ second


class Clusters(World):
    """Points around class vectors on a sphere, mixed; `instances` data, each of class index mod classes."""

    provides: ClassVar[frozenset[str]] = frozenset({"x", "z", "y", "index"})

    latents: int = 3
    classes: int = 10
    instances: int = 20
    concentration: float = 10.0
    seed: int = 0

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(f"z{i}" for i in range(self.latents))

    @property
    def directions(self) -> torch.Tensor:
        drawn = torch.randn(self.classes, self.latents, generator=Stream(self.seed).child("classes").torch())
        return torch.nn.functional.normalize(drawn)

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        draw = as_stream(rng).child("clusters").torch()
        index = torch.randint(self.instances, (n,), generator=draw)
        y = index % self.classes
        noise = torch.randn(n, self.latents, generator=draw) / self.concentration**0.5
        z = torch.nn.functional.normalize(self.directions[y] + noise)
        return Sample(x=_mixed(z, self.latents), z=z, y=y, index=index)


class Walks(World):
    """Sequences of `length` rows in which every latent moves by a Laplace step; y is the side of the first latent."""

    provides: ClassVar[frozenset[str]] = frozenset({"x", "z", "y", "group", "time"})

    latents: int = 3
    length: int = 2
    classes: int = 2

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(f"z{i}" for i in range(self.latents))

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        draw = as_stream(rng).child("walks").torch()
        count = max(1, n // self.length)
        sign = torch.rand(2, count, self.length, self.latents, generator=draw).log_().diff(dim=0)[0] * 0.1
        sign[:, 0] = torch.rand(count, self.latents, generator=draw) * 2 - 1
        z = sign.cumsum(1).flatten(0, 1)
        group = torch.arange(count).repeat_interleave(self.length)
        time = torch.arange(self.length).repeat(count)
        return Sample(x=_mixed(z, self.latents), z=z, y=(z[:, 0] > 0).long(), group=group, time=time)


class Segments(World):
    """Independent sources whose scales differ from segment to segment of a series; time is the number of the row."""

    provides: ClassVar[frozenset[str]] = frozenset({"x", "z", "time"})

    latents: int = 2
    segments: int = 8
    length: int = 64

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(f"z{i}" for i in range(self.latents))

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        draw = as_stream(rng).child("segments").torch()
        scales = 0.2 + torch.rand(self.segments, self.latents, generator=Stream(3).child("scales").torch())
        time = torch.randint(self.segments * self.length, (n,), generator=draw)
        z = torch.randn(n, self.latents, generator=draw) * scales[time // self.length]
        return Sample(x=_mixed(z, self.latents), z=z, time=time)
