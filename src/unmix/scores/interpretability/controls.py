"""Controls beside a score: shuffled activations, random pools, shuffled data, brightness and colour."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.scores.interpretability.base import EVEN, matrix
from unmix.scores.interpretability.sets import nearest, pairwise
from unmix.scores.similarity.colour import Brightness, MeanColour


def shuffled(activations: Any, rng: int | Stream = 0) -> Tensor:
    """The same activations [n, m] on other images: rows in a random order, the same for all features."""
    given = matrix(activations)
    return given[torch.from_numpy(as_stream(rng).child("shuffled").numpy().permutation(len(given)))]


def shuffled_neurons(rows: Any, rng: int | Stream = 0) -> Tensor:
    """Rows [n, d] with every neuron in an order of its own: its values stay, what neurons share is gone."""
    given = matrix(rows)
    draw = as_stream(rng).child("shuffled neurons").numpy()
    order = np.stack([draw.permutation(len(given)) for _ in range(given.shape[1])], 1)
    return given.gather(0, torch.from_numpy(order))


def random_directions(width: int, d: int, rng: int | Stream = 0) -> Tensor:
    """Gaussian directions of unit norm: [width, d]; each follows the feature nearest to it, so none is at chance."""
    draw = as_stream(rng).child("random directions").torch()
    return torch.nn.functional.normalize(torch.randn(width, d, generator=draw))


def random_pools(rows: Any, width: int, size: int | None = None, rng: int | Stream = 0) -> Tensor:
    """Means of rows of random images, less the mean of all: what k-means would give if its clusters were arbitrary.

    width directions [width, d], each from `size` images without replacement; None is n / width, at least 1.
    Raises `UsageError` for more than there are.
    """
    given = matrix(rows)
    size = max(1, round(len(given) / width)) if size is None else size
    if not 1 <= size <= len(given):
        raise UsageError(f"size={size}: there are {len(given)} rows")
    draw = as_stream(rng).child("random pools").numpy()
    chosen = np.stack([draw.permutation(len(given))[:size] for _ in range(width)])
    return torch.nn.functional.normalize(given[torch.from_numpy(chosen)].mean(1) - given.mean(0))


def correlation_between(activations: Any) -> float:
    """Mean over features of the largest |correlation| with another feature: 1 where each has a copy; NaN for one."""
    given = matrix(activations).double()
    centred = given - given.mean(0)
    norm = centred.norm(dim=0)
    alive = norm > 1e-12 * len(given) ** 0.5 * given.abs().amax(0)
    unit = centred[:, alive] / norm[alive]
    if unit.shape[1] < 2:
        return math.nan
    return float(nearest(unit.T.contiguous(), absolute=True).mean())


def covariates(sets: Tensor, images: Any, rng: int | Stream = 0, draws: int = 1000) -> dict[str, float]:
    """Mean z of the index by brightness and by mean colour alone, on the same sets of images.

    Where these are as large as the index itself, a feature may be no more than bright or red. Gives brightness_z and
    colour_z, against random sets of the same size; NaN where the images do not differ in it.
    sets: [m, k] exciting images of features that vary. images: as `Similarity.bind` takes them.
    """
    found = {}
    stream = as_stream(rng).child("covariates")
    for name, recipe in (("brightness_z", Brightness()), ("colour_z", MeanColour())):
        alike, _, group = recipe.bind(images).different
        null = pairwise(random_sets(len(alike), draws, sets.shape[1], stream), alike)
        spread = float(null.std())
        mean = float(pairwise(torch.from_numpy(group)[sets], alike).mean()) if len(sets) else math.nan
        found[name] = (mean - float(null.mean())) / spread if spread > EVEN * float(null.abs().max()) else math.nan
    return found


def random_sets(n: int, draws: int, count: int, rng: Stream) -> Tensor:
    """Sets of `count` different images out of n: [draws, count]."""
    draw = rng.child("random sets").numpy()
    return torch.from_numpy(np.stack([draw.choice(n, count, replace=False) for _ in range(draws)]))
