"""TransitionWorld: a few latents that move by a given law, seen through a mixing."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.worlds import MIXINGS
from unmix.worlds.mixing import Map
from unmix.worlds.sequences import SequenceWorld

SHORT = {"linear": {"kind": "InvertibleMLP", "layers": 1}, "mlp": {"kind": "InvertibleMLP", "layers": 2}}


def _mixing(value: Any) -> Any:
    return MIXINGS.make(SHORT.get(value, value) if isinstance(value, str) else value)


class TransitionWorld(SequenceWorld):
    """Latents in sequences, x = g(z) + noise: the low-dimensional test bed of nonlinear ICA over time.

    latents: d. start: law of the first row: normal, N(0, I), on all of R^d; or uniform on [-1, 1]^d, which later rows
    do not leave. mixing: linear, mlp (two linear maps with leaky units between them), or a mixing of
    `unmix list mixings`; drawn from the seed. width: dimensions of x, at least d; None is d. noise: standard
    deviation of white noise on x. seed: fixes the mixing. transition: Laplace, or another law on a continuum; None
    for independent rows. length, gap: see `SequenceWorld`.
    """

    equation: ClassVar[str] = "x_t = g(z_t) + noise,  z_t ~ p(. | z_{t-1})"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"

    latents: int = Field(default=4, ge=1)
    start: Literal["normal", "uniform"] = "normal"
    mixing: Annotated[Any, BeforeValidator(_mixing)] = "linear"
    width: int | None = Field(default=None, ge=1)
    noise: float = Field(default=0.0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.width is not None and self.width < self.latents:
            raise ValueError(f"width={self.width} must be at least latents={self.latents}")
        if self.transition is not None:
            if self.transition.on_grid:
                raise ValueError(f"transition={self.transition.kind}: latents are a continuum here; give Laplace ...")
            self.transition.check(self.factor_kinds)
        return self

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(f"z{j}" for j in range(self.latents))

    @property
    def factor_kinds(self) -> tuple[Factor, ...]:
        low, high = (None, None) if self.start == "normal" else (-1.0, 1.0)
        return tuple(Factor(name, low=low, high=high) for name in self.factors)

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        stream = as_stream(rng).child("transition world")
        latents, order = self._sequences(n, self._start, self.factor_kinds, stream)
        x = self.render(latents)
        if self.noise:
            x = x + self.noise * torch.randn(x.shape, generator=stream.child("noise").torch())
        return Sample(x=x, z=torch.from_numpy(latents.astype(np.float32)), **order)

    def render(self, z: Any) -> Tensor:
        """x = g(z) without noise: [n, d] to [n, width], float32. Raises `UsageError` for another d."""
        z = torch.as_tensor(z).double()
        if z.ndim != 2 or z.shape[1] != self.latents:
            raise UsageError(f"z: must be [n, {self.latents}], got {list(z.shape)}")
        return self._map(z).float()

    @cached_property
    def _map(self) -> Map:
        return self.mixing.build(self.latents, self.width, Stream(self.seed, ("transition world", "mixing")))

    def _start(self, n: int, draw: np.random.Generator) -> np.ndarray:
        shape = (n, self.latents)
        return draw.standard_normal(shape) if self.start == "normal" else draw.uniform(-1, 1, shape)
