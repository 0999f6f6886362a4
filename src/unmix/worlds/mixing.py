"""Mixings: injective maps from latents to observations, and what can be measured of any of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe
from unmix.core.seeds import Stream
from unmix.worlds import dictionaries


@dataclass(frozen=True)
class Map:
    """A mixing with its numbers: x = forward(z) with z [n, d] and x [n, D], and its inverse on the image.

    sphere: the latents lie on the unit sphere; then only directions along the sphere count.
    """

    latents: int
    width: int
    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]
    sphere: bool = False

    def __call__(self, z: Tensor) -> Tensor:
        """Observations [n, D] of latents [n, d], in the precision of z. Raises `UsageError` for another width."""
        if z.shape[-1] != self.latents:
            raise UsageError(f"z: expected [n, {self.latents}], got shape {list(z.shape)}")
        return self.forward(z)

    def inverse(self, x: Tensor) -> Tensor:
        """Latents [n, d] of observations [n, D] that this mixing made."""
        if x.shape[-1] != self.width:
            raise UsageError(f"x: expected [n, {self.width}], got shape {list(x.shape)}")
        return self.backward(x)

    def jacobian(self, z: Tensor) -> Tensor:
        """dx / dz at every row of z: [n, D, d], float64."""
        return torch.func.vmap(torch.func.jacfwd(self.forward))(z.double())

    def singular_values(self, z: Tensor) -> Tensor:
        """Singular values of the Jacobian at every row of z, descending; along the sphere where there is one.

        [n, d], or [n, d - 1] on the sphere; float64.
        """
        jacobian = self.jacobian(z)
        if self.sphere:
            z = z.double()
            jacobian = jacobian - (jacobian @ z[:, :, None]) * z[:, None, :]
        return torch.linalg.svdvals(jacobian)[:, : self.latents - 1 if self.sphere else self.latents]

    def condition_number(self, z: Tensor) -> Tensor:
        """Largest over smallest singular value of the Jacobian at every row of z: [n], float64."""
        values = self.singular_values(z)
        return values[:, 0] / values[:, -1].clamp_min(1e-300)

    def collisions(self, z: Tensor, pairs: int = 64, steps: int = 30) -> int:
        """How many of `pairs` latents share their observation with another latent; 0 where the mixing is injective.

        Candidates are the rows whose nearest neighbour among the observations is farthest in the latents, relative to
        the distance of the observations; from there the other latent is sought by Gauss-Newton. A collision found is
        one; none found is no proof.
        """
        z = z.double()
        x = self.forward(z)
        apart = torch.cdist(x, x).fill_diagonal_(math.inf)
        near = apart.argmin(1)
        ratio = apart[torch.arange(len(z)), near] / (z - z[near]).norm(dim=1).clamp_min(1e-300)
        rows = ratio.argsort()[:pairs]
        target, start, other = x[rows], z[rows], z[near[rows]].clone()
        for _ in range(steps):
            left = target - self.forward(other)
            move = torch.linalg.lstsq(self.jacobian(other), left[:, :, None], driver="gelsd").solution[:, :, 0]
            size = move.norm(dim=1, keepdim=True)
            other = other + move * (0.3 / size.clamp_min(0.3))
            if self.sphere:
                other = torch.nn.functional.normalize(other)
        error, scale = (self.forward(other) - target).norm(dim=1), x.std(0).norm()
        return int(((error < 1e-9 * scale) & ((other - start).norm(dim=1) > 1e-2)).sum())


class Mixing(Recipe):
    """The recipe of an injective map from R^d to R^D, D >= d; its one verb is `build`."""

    def build(self, latents: int, width: int | None, rng: Stream, sphere: bool = False) -> Map:
        """The map from [n, latents] to [n, width]; width None is latents. The same map for the same rng.

        sphere: the latents lie on the unit sphere. Raises `UsageError` where width is smaller than latents.
        """
        width = width or latents
        if width < latents:
            raise UsageError(f"width={width}: must be at least latents={latents}, else the mixing is not injective")
        return Map(latents, width, *self._build(latents, width, rng.child(self.kind)), sphere)

    @abstractmethod
    def _build(
        self, d: int, width: int, rng: Stream
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The map and its inverse; both take one row or many, and keep the precision of their argument."""


class InvertibleMLP(Mixing):
    """Linear layers with leaky rectifiers between them; one layer is a linear map.

    layers: number of linear layers; the first one goes from d to D dimensions, the others are square. slope: of the
    rectifiers below zero. condition: condition number that every layer gets by setting its singular values to a
    geometric sequence; None keeps the best conditioned of `draws` matrices with uniform entries in (-1, 1) and
    outgoing weights of norm 1 for each input (the published choice, with 25,000 draws).
    """

    equation: ClassVar[str] = "x = W_L s(W_{L-1} ... s(W_1 z)),  s(t) = max(t, slope t)"
    reference: ClassVar[str] = "Hyvarinen, Morioka 2016, arXiv 1605.06336; Reizinger et al. 2025, arXiv 2410.21869"

    layers: int = Field(default=3, ge=1)
    slope: float = Field(default=0.2, gt=0, lt=1)
    condition: float | None = Field(default=None, ge=1)
    draws: int = Field(default=1000, ge=1)

    def weights(self, d: int, width: int, rng: Stream) -> list[Tensor]:
        """The layers' matrices, applied to rows from the right: [d, D], then [D, D]; float64."""
        sizes = [d] + [width] * self.layers
        return [self._layer(sizes[i], sizes[i + 1], rng.child(f"layer {i}")) for i in range(self.layers)]

    def _build(
        self, d: int, width: int, rng: Stream
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        weights = self.weights(d, width, rng)
        single = [w.float() for w in weights]
        inverses = [torch.linalg.pinv(w) for w in reversed(weights)]
        slope = self.slope

        def forward(z: Tensor) -> Tensor:
            for number, w in enumerate(single if z.dtype == torch.float32 else weights):
                z = (torch.nn.functional.leaky_relu(z, slope) if number else z) @ w
            return z

        def backward(x: Tensor) -> Tensor:
            for number, w in enumerate(inverses):
                x = (torch.nn.functional.leaky_relu(x, 1 / slope) if number else x) @ w.to(x.dtype)
            return x

        return forward, backward

    def _layer(self, rows: int, columns: int, rng: Stream) -> Tensor:
        generator = rng.torch()
        best, least = torch.empty(0), math.inf
        left, block = self.draws if self.condition is None else 1, max(1, (1 << 20) // (rows * columns))
        while left > 0:
            some = torch.rand(min(left, block), rows, columns, generator=generator, dtype=torch.float64) * 2 - 1
            some = torch.nn.functional.normalize(some, dim=2)
            values = torch.linalg.svdvals(some)
            conditions = values[:, 0] / values[:, -1]
            if not len(best) or conditions.min() < least:
                best, least = some[conditions.argmin()].clone(), float(conditions.min())
            left -= len(some)
        if self.condition is None:
            return best
        u, _, v = torch.linalg.svd(best, full_matrices=False)
        values = torch.logspace(0, -math.log10(self.condition), rows, dtype=torch.float64)
        return (u * (values / values.square().mean().sqrt())) @ v


class Orthogonal(Mixing):
    """A random rotation, or orthonormal columns where there are more observed dimensions than latents."""

    equation: ClassVar[str] = "x = Q z,  Q'Q = I"
    reference: ClassVar[str] = "unmix"

    def _build(
        self, d: int, width: int, rng: Stream
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        q = frame(d, width, rng)
        return (lambda z: z @ q.to(z.dtype)), (lambda x: x @ q.T.to(x.dtype))


def frame(d: int, width: int, rng: Stream) -> Tensor:
    """d orthonormal rows [d, D], float64, from a random rotation."""
    rows = dictionaries.orthogonal(d, width, rng).double()
    return torch.linalg.qr(rows.T)[0].T
