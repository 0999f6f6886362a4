"""LatentWorld: what worlds with continuous latents and an injective mixing share."""

from __future__ import annotations

import functools
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.seeds import Stream
from unmix.worlds import MIXINGS
from unmix.worlds.base import World
from unmix.worlds.conditionals import Conditional
from unmix.worlds.mixing import InvertibleMLP, Map


class LatentWorld(World):
    """Continuous latents on the sphere, in the box [-1, 1]^d or in R^d, seen through an injective mixing.

    latents: d, dimensions of z. space: sphere (unit norm), box or euclidean. conditional: how latents scatter, with
    density up to a constant; on the sphere vmf exp(k <v, z>), laplace exp(-k |z - v|), generalised-normal
    exp(-k |z - v|^shape), projected-normal, projected-laplace and projected-generalised-normal (v + e brought to unit
    norm, e with independent entries), anisotropic exp(-sum r_i (z_i - v_i)^2); elsewhere normal
    exp(-k/2 sum |z_i - v_i|^2), laplace exp(-k sum |z_i - v_i|), generalised-normal exp(-k sum |z_i - v_i|^shape).
    concentration: k. shape: exponent of the generalised normal. anisotropy: largest over smallest r_i of the
    anisotropic one, whose geometric mean is k/2. cap: largest angle to v in radians (vmf, laplace and
    generalised-normal on the sphere), None is no bound.
    mixing: from latents to observations (`unmix list mixings`). width: D, observed dimensions, at least d; None is d.
    seed: fixes the mixing and what else belongs to the world.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"x", "z"})

    latents: int = Field(default=5, ge=1)
    space: Literal["sphere", "box", "euclidean"] = "sphere"
    conditional: str = "vmf"
    concentration: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    shape: float = Field(default=1.5, gt=0, le=10)
    anisotropy: float = Field(default=4.0, ge=1)
    cap: float | None = Field(default=None, gt=0, le=np.pi)
    mixing: Annotated[Any, BeforeValidator(MIXINGS.make)] = InvertibleMLP()
    width: int | None = Field(default=None, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.scatter  # noqa: B018 - raises where space, conditional and cap do not go together
        if self.space == "sphere" and self.latents < 2:
            raise ValueError(f"latents={self.latents}: a sphere needs at least 2")
        if self.width is not None and self.width < self.latents:
            raise ValueError(f"width={self.width} must be at least latents={self.latents}")
        return self

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(f"z{j}" for j in range(self.latents))

    @property
    def factor_kinds(self) -> tuple[Factor, ...]:
        low, high = (None, None) if self.space == "euclidean" else (-1.0, 1.0)
        return tuple(Factor(name, low=low, high=high) for name in self.factors)

    @property
    def scatter(self) -> Conditional:
        """The conditional distribution with its numbers."""
        return Conditional(self.conditional, self.space, self.concentration, self.shape, self.anisotropy, self.cap)

    @property
    def map(self) -> Map:
        """The mixing with its numbers: `map(z)`, `map.inverse(x)`, `map.condition_number(z)`."""
        return _map(self.mixing, self.latents, self.width, self.seed, self.space == "sphere")

    def render(self, z: Any) -> Tensor:
        """Observations [n, D] of chosen latents [n, d], float32. Raises `UsageError` for another shape or NaN."""
        z = torch.as_tensor(z, dtype=torch.float32)
        if z.ndim != 2 or not torch.isfinite(z).all():
            raise UsageError(f"z: expected finite numbers [n, {self.latents}], got shape {list(z.shape)}")
        return self.map(z)


@functools.lru_cache(maxsize=16)
def _map(mixing: Any, latents: int, width: int | None, seed: int, sphere: bool) -> Map:
    return mixing.build(latents, width, Stream(seed, ("latent world", "mixing")), sphere)
