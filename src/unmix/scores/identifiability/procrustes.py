"""Procrustes: R2 of the latents after the best rotation of a representation, with and without a scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unmix.core.factors import Factor
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import members
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.identifiability.explained import (
    Explained,
    baselines,
    explained,
    halves,
    moderate,
    shuffle,
    with_chance,
)
from unmix.scores.identifiability.kinds import require_numbers
from unmix.scores.identifiability.linear import require_same_width
from unmix.scores.influence import tell_of_rows


def procrustes(
    h: Any,
    latents: Any,
    rng: int | Stream = 0,
    scaled: bool = False,
    centred: bool = False,
    group: Any = None,
    factors: Sequence[Factor] | None = None,
    x: Any = None,
    untrained: Any = None,
) -> Outcome:
    """Mean over latents of the held-out R2 after a rotation (or reflection) of h that was fitted on the other half.

    z ~ s h Q with Q = argmin |z - h Q|, orthogonal (the polar factor of h' z), and s = 1, or with `scaled`
    s = tr(Q' h' z) / |h|^2. Columns of zeros are added to an h that is narrower than z.
    h: [n, d], d <= f. latents: `Codes` or [n, f]. centred: takes the fitted half's means off both; the theory of the
    sphere has none. group, factors, x, untrained: as in `r2`; a baseline that is wider than z has no value.
    Detail: minimum, minimum_interval, per_dimension [f], worst, rotation [d, f], scale, baselines.
    Raises `UsageError` for d > f, factors that are no numbers, and as `r2`. Source: Schoenemann 1966.
    """
    name = "procrustes_scaled" if scaled else "procrustes"
    require_numbers(name, factors)
    a, z = moderate(name, 4, h=h, latents=latents)
    require_same_width(name, a, z)
    stream, member = as_stream(rng), members(group, len(a))
    fit, held = (torch.from_numpy(part) for part in halves(member, stream))
    owners = np.arange(z.shape[1])

    def score(source: Tensor, truth: Tensor, **draw: Any) -> tuple[Explained, Tensor, float]:
        means = [part[fit].mean(0) if centred else torch.zeros_like(part[0]) for part in (source, truth)]
        rotation, scale = _rotation(source[fit] - means[0], truth[fit] - means[1], scaled)
        error = (truth[held] - means[1] - scale * (source[held] - means[0]) @ rotation).square()
        return explained(error, truth[held], owners, **draw), rotation, scale

    value, rotation, scale = score(a, z, rng=stream, group=member[held.numpy()])

    def beside(source: Tensor) -> dict[str, float] | None:
        if source.shape[1] > z.shape[1]:
            return None
        found = score(source, z)[0]
        return {"value": found.value, "minimum": found.minimum}

    def again(kept: np.ndarray) -> float:
        inside = None if group is None else member[kept]
        return procrustes(a[kept], z[kept], rng, scaled, centred, inside).value

    tell_of_rows(name, value.value, {"h": a, "latents": z}, again)
    detail = {
        "names": [factor.name for factor in factors] if factors else None,
        "rotation": rotation.numpy(),
        "scale": scale,
        "baselines": baselines(name, latents, beside, x=x, untrained=untrained),
    }
    return with_chance(value, lambda order: score(a, shuffle(z, order))[0], len(a), stream, detail)


class Procrustes(Score):
    """Latents as a rotation of h, at the scale it has: mean R2 on held-out rows.

    centred: takes means off first.
    """

    name: ClassVar[str] = "procrustes"
    equation: ClassVar[str] = "(1/f) sum_j 1 - |z_j - (h Q)_j|^2 / |z_j - mean z_j|^2, Q' Q = I, held-out rows"
    reference: ClassVar[str] = "arXiv 2410.21869, theorem on C1 and C2; Schoenemann 1966"
    needs: ClassVar[frozenset[str]] = frozenset({"h", "z"})
    scaled: ClassVar[bool] = False

    centred: bool = False

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        rest = (inputs.group, inputs.factors, inputs.x, inputs.untrained)
        return procrustes(inputs.h, inputs.z, rng, type(self).scaled, self.centred, *rest)


class ProcrustesScaled(Procrustes):
    """Latents as a rotation of h times one fitted scale: mean R2 on held-out rows.

    centred: takes means off first.
    """

    name: ClassVar[str] = "procrustes_scaled"
    equation: ClassVar[str] = "(1/f) sum_j 1 - |z_j - s (h Q)_j|^2 / |z_j - mean z_j|^2, Q' Q = I, held-out rows"
    reference: ClassVar[str] = "arXiv 2410.21869, theorem on C3; Schoenemann 1966"
    scaled: ClassVar[bool] = True


def _rotation(source: Tensor, truth: Tensor, scaled: bool) -> tuple[Tensor, float]:
    """The rotation [d, f] that takes source [n, d] closest to truth [n, f], d <= f, and its scale."""
    d, f = source.shape[1], truth.shape[1]
    cross = torch.zeros(f, f, dtype=truth.dtype)
    cross[:d] = source.T @ truth
    left, singular, right = torch.linalg.svd(cross)
    length = float(source.square().sum())
    return (left @ right)[:d], float(singular.sum()) / length if scaled and length else 1.0
