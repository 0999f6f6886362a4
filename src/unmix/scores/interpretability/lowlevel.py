"""Low-level measures of images, luminance and the like: what a feature's images have in common without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.seeds import Stream
from unmix.scores.interpretability.base import EVEN, Judged, scored
from unmix.scores.interpretability.sets import pairwise
from unmix.scores.interpretability.ties import extreme_sets
from unmix.scores.similarity.base import Alike
from unmix.scores.similarity.images import as_images, grey, smaller

SIDE = 64  # images are reduced to that longer side first
DRAWS = 64  # sets of other images that are alike in a measure
LEVEL = 1.645  # deviations above these from which a feature is more than they: one-sided, p < .05
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True, eq=False)
class Baselines:
    """Each of m features beside sets of other images that are like its own in one low-level measure.

    name: [m] the measure whose sets are most alike ("" where no measure varies, or the feature has no value). value:
    [m] mean similarity of the pairs in these sets. beyond: [m] how far the feature is above them, in their standard
    deviations. explained: [m] features that are above random images, and not above these.
    """

    name: np.ndarray
    value: np.ndarray
    beyond: np.ndarray
    explained: np.ndarray


def measures(images: Any) -> dict[str, np.ndarray]:
    """Low-level measures of n images, name -> [n] float64, of those that vary.

    luminance: mean grey value. contrast: standard deviation of the grey values. red, green, blue: mean of the channel
    less the mean of all. saturation: mean of (largest - smallest) / largest channel. edges: mean length of the
    gradient. frequency: mean spatial frequency in cycles a pixel, weighted by amplitude. Of images with one channel
    there are no colours. images: as `Similarity.bind` takes them.
    """
    parts: dict[str, list[Tensor]] = {}
    for block in as_images(images).split(256):
        for name, values in _measured(smaller(block, SIDE).double()).items():
            parts.setdefault(name, []).append(values)
    whole = {name: torch.cat(values).numpy() for name, values in parts.items()}
    return {name: x for name, x in whole.items() if np.ptp(x) > EVEN * np.abs(x).max(initial=0)}


def baselines(
    activations: Any, alike: Alike, images: Any, judged: Judged, rng: Stream, draws: int = DRAWS
) -> Baselines:
    """The interpretability index of features beside that of other images with the same luminance, contrast and so on.

    For each measure each image of a set is replaced by one near it in the order of the measure, `draws` times; what
    is as alike then is so by the measure. activations: [n, m]. images: the n images. judged: what
    `interpretability_index` made of them with the same similarity.
    """
    given, m = scored(activations, alike), len(judged.values)
    own = getattr(images, "images", images)[given.numbers]
    sets = extreme_sets(given.activations, judged.detail["rows"].shape[1], rng)
    rows = sets.rows[:, None].repeat(1, draws, 1)
    for j, orders in sets.orders(given.activations, draws, rng):
        rows[j] = orders
    name, best, beyond = np.full(m, "", object), np.full(m, -np.inf), np.full(m, np.nan)
    for measure, values in measures(own).items():
        drawn = pairwise(_alike_in(values, rows, rng.child(measure)).flatten(0, 1), given.alike).view(m, draws)
        mean, spread = drawn.mean(1).numpy(), drawn.std(1).numpy()
        spread = np.where(spread > EVEN * np.abs(mean), spread, np.nan)
        better = judged.counted & (mean > best)
        name[better], best[better] = measure, mean[better]
        beyond[better] = ((judged.values - mean) / spread)[better]
    value = np.where(np.isfinite(best), best, np.nan)
    return Baselines(name, value, beyond, (judged.q < 0.05) & (beyond < LEVEL))


def _alike_in(values: np.ndarray, rows: Tensor, rng: Stream) -> Tensor:
    """Sets of images [..., k] near those of `rows` [..., k] in the order of values [n], all different in each set."""
    n, k = len(values), rows.shape[-1]
    order = torch.from_numpy(np.lexsort((rng.numpy().random(n), values)))
    rank = torch.empty_like(order)
    rank[order] = torch.arange(n)
    reach = max(k, n // 100)
    step = torch.randint(1, reach + 1, rows.shape, generator=rng.child("steps").torch())
    side = torch.randint(0, 2, rows.shape, generator=rng.child("sides").torch()) * 2 - 1
    near = (rank[rows] + step * side).sort(dim=-1).values - torch.arange(k)
    # Ranks that rise by one at least: what is left of them without that rises by nothing at least.
    near = near.cummax(dim=-1).values.clamp(0, n - k)
    return order[near + torch.arange(k)]


def _measured(x: Tensor) -> dict[str, Tensor]:
    """Measures of images [n, c, h, w]: name -> [n]."""
    flat = grey(x)[:, 0]
    down, across = (torch.zeros_like(flat) for _ in range(2))
    down[:, :-1], across[:, :, :-1] = flat.diff(dim=1), flat.diff(dim=2)
    amplitude = torch.fft.fft2(flat - flat.mean((1, 2), keepdim=True)).abs()
    h, w = flat.shape[1:]
    frequency = (torch.fft.fftfreq(h)[:, None] ** 2 + torch.fft.fftfreq(w)[None] ** 2).sqrt().double()
    found = {
        "luminance": flat.mean((1, 2)),
        "contrast": flat.std((1, 2), correction=0),
        "edges": (down.square() + across.square()).sqrt().mean((1, 2)),
        "frequency": (amplitude * frequency).sum((1, 2)) / amplitude.sum((1, 2)).clamp_min(1e-300),
    }
    if x.shape[1] == 3:
        found |= {name: x[:, place].mean((1, 2)) - found["luminance"] for place, name in enumerate(COLOURS)}
        high, low = x.amax(1), x.amin(1)
        found["saturation"] = torch.where(high > 0, (high - low) / high.clamp_min(1e-300), 0.0).mean((1, 2))
    return found
