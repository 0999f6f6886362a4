"""Sprites: a network that learns their shape, and how far the other factors can be read out linearly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.factors import Factor
from unmix.core.seeds import Stream
from unmix.learners.supervised import Supervised
from unmix.networks.conv import Conv
from unmix.networks.mlp import MLP
from unmix.papers.cross_entropy.grids import steps
from unmix.papers.parts import Part
from unmix.scores.identifiability.explained import explained, halves
from unmix.scores.identifiability.kinds import targets
from unmix.scores.identifiability.linear import LeastSquares
from unmix.worlds.labelled import Labelled
from unmix.worlds.sprites import SpritesWorld

DECODED = "unmix.papers.cross_entropy.sprites:decoded"
NETWORKS = {"MLP": MLP(hidden=(256, 256, 256), activation="relu"), "Conv": Conv()}
# Pearson r as printed: from raw pixels, from the MLP's features, from those of the ResNet.
PUBLISHED = {"scale": (0.62, 0.98, 0.92), "x": (0.92, 0.97, 0.99), "y": (0.92, 0.97, 0.99)}


def world(small: bool) -> Labelled:
    """Sprites of 32 pixels (small) or 64, the shape as their class."""
    return Labelled(world=SpritesWorld(pixels=32 if small else 64))


def parts(seeds: tuple[int, ...], small: bool, training: float) -> list[Part]:
    """A network of each kind; one seed in the small study."""
    found = []
    for seed in seeds[:1] if small else seeds:
        for name, network in NETWORKS.items():
            count, batch = steps(1200 if small else 5000, training), 256 if small else 512
            learner = Supervised(
                network=network, width=128, steps=count, batch=batch, lr=2e-3, head_rate=1.0, learn_beta=False
            )
            settings = {"world": world(small).as_dict(), "learner": learner.as_dict(), "seed": seed, "network": name}
            found.append(Part(DECODED, {**settings, "rows": 6000 if small else 20_000}))
    return found


def decoded(world: Any, learner: Any, seed: int, network: str, rows: int) -> dict[str, Any]:
    """Train on the shape; then read every other factor out of pixels, untrained and trained features.

    accuracy is that of the trained network on `rows` new rows; every source has what `read_out` gives.
    """
    from unmix.learners import LEARNERS
    from unmix.worlds import WORLDS

    made, recipe = WORLDS.make(world), LEARNERS.make(learner)
    learnt = recipe.fit(made, seed)
    sample = made.held_out.sample(rows, Stream(seed).child("test"))
    h = learnt(sample.x)
    logits = h @ learnt.parts["weights"].T
    sources = {"pixels": sample.x.flatten(1), "untrained": recipe.untrained(made, seed)(sample.x), "trained": h}
    found: dict[str, Any] = {"network": network, "accuracy": float((logits.argmax(1) == sample.y).double().mean())}
    for name, columns in sources.items():
        found[name] = {**read_out(columns, sample.z, made.factor_kinds, seed), "columns": columns.shape[1]}
    return found


def read_out(h: Tensor, z: Tensor, factors: Sequence[Factor], seed: int) -> dict[str, dict[str, float]]:
    """r2 and r of every factor that is no category, by least squares from h [n, d] on a held-out half.

    r2 has an offset, and an angle counts by its cosine and sine; r (Pearson) has none, and leaves angles out.
    """
    fit, held = (torch.from_numpy(part) for part in halves(np.arange(len(h)), Stream(seed).child("read-out")))
    h, z = h.double(), z.double()
    columns, owners, names = targets(z, factors)
    slope, offset = LeastSquares(h[fit]).coefficients(columns[fit])
    error = (columns[held] - h[held] @ slope - offset).square()
    each = explained(error, columns[held], owners).each
    straight = [place for place, f in enumerate(factors) if f.kind in ("ordinal", "continuous")]
    bare, _ = LeastSquares(h[fit], intercept=False).coefficients(z[fit][:, straight])
    guess, truth = (part - part.mean(0) for part in (h[held] @ bare, z[held][:, straight]))
    r = (guess * truth).sum(0) / (guess.norm(dim=0) * truth.norm(dim=0)).clamp_min(1e-300)
    return {
        "r2": {name: float(value) for name, value in zip(names or (), each, strict=True)},
        "r": {factors[place].name: float(value) for place, value in zip(straight, r, strict=True)},
    }
