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
from unmix.regimes.initialise import Downstream
from unmix.scores.identifiability.explained import explained, halves
from unmix.scores.identifiability.kinds import targets
from unmix.worlds.labelled import Labelled
from unmix.worlds.sprites import SpritesWorld

DECODED = "unmix.papers.cross_entropy.sprites:decoded"
# Without norms the convolutions need weights of variance 2 / fan-in, sqrt(6) times what torch draws, for the signal
# of a small shape to reach the end: as drawn, the shape was told in half of the cases after 600 steps, with this in
# 93 of a hundred.
WIDER = Downstream(alpha=6**0.5, layers="convolutions")
NETWORKS: dict[str, dict[str, Any]] = {
    "MLP": {"network": MLP(hidden=(256, 256, 256), activation="relu"), "lr": 2e-3},
    "Conv": {"network": Conv(), "lr": 1e-3, "init": WIDER},
}
RIDGES = (1e-6, 1e-4, 1e-2)  # times the mean square of the columns
# Pearson r as printed: from raw pixels, from the MLP's features, from those of the ResNet.
PUBLISHED = {"scale": (0.62, 0.98, 0.92), "x": (0.92, 0.97, 0.99), "y": (0.92, 0.97, 0.99)}


def world(small: bool) -> Labelled:
    """Sprites of 32 pixels (small) or 64, the shape as their class.

    Small ones have grey edges: in black and white the smallest shapes, five pixels wide, look alike when turned.
    """
    return Labelled(world=SpritesWorld(pixels=32, anti_alias=4) if small else SpritesWorld())


def parts(seeds: tuple[int, ...], small: bool, training: float) -> list[Part]:
    """A network of each kind; one seed in the small study."""
    found = []
    for seed in seeds[:1] if small else seeds:
        for name, fields in NETWORKS.items():
            count, batch = steps(800 if small else 4000, training), 256 if small else 512
            learner = Supervised(**fields, width=128, steps=count, batch=batch, head_rate=1.0, learn_beta=False)
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
    """r2 and r of every factor that is no category, by ridge regression from h [n, d] on a held-out half.

    r2 has an offset, and an angle counts by its cosine and sine; r (Pearson) has none, and leaves angles out.
    Without a ridge, pixels that hardly ever light up are fitted to single rows.
    """
    fit, held = (torch.from_numpy(part) for part in halves(np.arange(len(h)), Stream(seed).child("read-out")))
    h, z = h.double(), z.double()
    columns, owners, names = targets(z, factors)
    moved, mean = h - h[fit].mean(0), columns[fit].mean(0)
    error = (columns[held] - mean - moved[held] @ _ridge(moved[fit], columns[fit] - mean)).square()
    each = explained(error, columns[held], owners).each
    straight = [place for place, f in enumerate(factors) if f.kind in ("ordinal", "continuous")]
    bare = h[held] @ _ridge(h[fit], z[fit][:, straight])
    guess, truth = (part - part.mean(0) for part in (bare, z[held][:, straight]))
    r = (guess * truth).sum(0) / (guess.norm(dim=0) * truth.norm(dim=0)).clamp_min(1e-300)
    return {
        "r2": {name: float(value) for name, value in zip(names or (), each, strict=True)},
        "r": {factors[place].name: float(value) for place, value in zip(straight, r, strict=True)},
    }


def _ridge(h: Tensor, targets: Tensor) -> Tensor:
    """Coefficients [d, c] of ridge regression without offset; the ridge is the best on a quarter of the rows."""

    def fitted(rows: int, ridge: float) -> Tensor:
        gram = h[:rows].T @ h[:rows]
        gram.diagonal().add_(ridge * float(gram.diagonal().mean()) + 1e-300)
        return torch.linalg.solve(gram, h[:rows].T @ targets[:rows])

    rows = 3 * len(h) // 4
    errors = [float((targets[rows:] - h[rows:] @ fitted(rows, ridge)).square().sum()) for ridge in RIDGES]
    return fitted(len(h), RIDGES[int(np.argmin(errors))])
