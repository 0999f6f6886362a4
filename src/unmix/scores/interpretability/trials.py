"""Scores from trials: which of two images excites the feature, and which image does not belong to the others."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.scores.interpretability.base import Found, Judged, judged, scored
from unmix.scores.interpretability.ties import Sets, extreme_sets, resting
from unmix.scores.similarity.base import Alike

Sampling = Literal["quantile", "ranks"]
_CHUNK = 1 << 15  # trials at once
_DRAWN = 1 << 22  # random numbers at once


def machine_interpretability(
    activations: Any,
    alike: Alike,
    trials: int = 20,
    references: int = 9,
    alpha: float | None = 0.16,
    quantile: float = 0.25,
    sampling: Sampling = "quantile",
    rng: int | Stream = 0,
    draws: int = 64,
) -> Judged:
    """Machine interpretability score: how surely a judge tells a most from a least exciting image, by references.

    MIS = (1/N) sum_n sigmoid(alpha [D(q+_n) - D(q-_n)]), D(q) = mean_k s(q, e+_k) - mean_k s(q, e-_k); alpha None
    takes the share of trials with a positive difference, ties half. sampling: "quantile" draws references + 1 images
    for each trial from the top and the bottom `quantile` of the images, the least extreme is the query, as the
    authors' code does; "ranks" takes the trials + trials x references most extreme ones, the `trials` most extreme of
    them as queries and rank trials + r trials + t as reference r of trial t, as in the experiments with people.
    activations: [n, m]. The null are `draws` features with random activations. Ties are broken anew in every trial.
    Features with fewer active images than the top pool holds are left out. Detail: exhausted [m], features with fewer
    active images than N (K + 1); tied_least [m], among how many images of equal activation the last of the bottom
    pool are drawn (of a sparse feature the silent ones).
    alpha was fitted for DreamSim; for another similarity fit it again, or compare with alpha None.
    Raises `UsageError` where there are too few images.
    Source: Zimmermann, Klindt, Brendel 2024; trials: Borowski et al. 2021, arXiv 2010.12606.
    """
    given = scored(activations, alike)
    n = len(given.activations)
    pool = math.ceil(n * quantile) if sampling == "quantile" else trials * (references + 1)
    if not 0 < quantile <= 0.5 or (sampling == "quantile" and pool < references + 1) or 2 * pool > n + 1:
        raise UsageError(
            f"machine_interpretability: {n} images are too few for quantile={quantile}, trials={trials}, "
            f"references={references}; two pools of at least {max(pool, references + 1)} images must fit"
        )
    needed = trials * (references + 1)

    def measure(a: Tensor, stream: Stream) -> Found:
        sides, tied = [], []
        for name in ("top", "bottom"):
            own = stream.child(name)
            sets = extreme_sets(a, pool, own, least=name == "bottom")
            ranks = _ranks(a.shape[1], trials, references, pool, sampling, stream.child(f"{name} trials"))
            sides.append(_shown(a, sets, ranks, own)[0])
            tied.append(sets.tied.numpy())
        order = 0 if sampling == "ranks" else -1
        (plus, e_plus), (minus, e_minus) = (_query(side, order) for side in sides)
        judge = given.alike
        difference = (
            _near(judge, plus, e_plus) - _near(judge, plus, e_minus)
            - _near(judge, minus, e_plus) + _near(judge, minus, e_minus)
        )  # fmt: skip
        each = _hard(difference) if alpha is None else torch.sigmoid(alpha * difference)
        detail = {"exhausted": _active(a).numpy() < needed, "tied_least": tied[1]}
        return _over_trials(each, tied[0], detail)

    return judged("machine_interpretability", measure, given, as_stream(rng), draws, pool, n)


def two_choices(
    activations: Any,
    alike: Alike,
    trials: int = 20,
    references: int = 9,
    pool: int = 20,
    rng: int | Stream = 0,
    draws: int = 64,
) -> Judged:
    """One-sided choice of two: is an exciting image nearer to other exciting ones than a random image is?

    (1/N) sum_n [mean_k s(q+_n, e_k) > mean_k s(q_n, e_k)], ties half: chance 1/2. Each trial draws references + 1 of
    the `pool` most exciting images, the least exciting is the query; q is drawn from all images outside the pool.
    Unlike the two-sided score it does not ask for least exciting images, which sparse features do not have. A feature
    with fewer active images has a pool of these; with fewer than references + 1 it is left out. Ties are broken anew
    in every trial. activations: [n, m]. Raises `UsageError` where there are too few images.
    Source: Klindt et al. 2023, arXiv 2310.11431 (choices by similarity); Borowski et al. 2021, arXiv 2010.12606.
    """
    given = scored(activations, alike)
    n = len(given.activations)
    if not references + 1 <= pool < n:
        raise UsageError(
            f"two_choices: pool={pool} must be at least references + 1 = {references + 1} and below the {n} images"
        )

    def measure(a: Tensor, stream: Stream) -> Found:
        sets = extreme_sets(a, pool, stream)
        sizes = _active(a).clamp(references + 1, pool)
        ranks = _ranks(a.shape[1], trials, references, pool, "quantile", stream.child("trials"), sizes)
        shown, foil = _shown(a, sets, ranks, stream, stream.child("foils"))
        query, refs = _query(shown, -1)
        each = _hard(_near(given.alike, query, refs) - _near(given.alike, foil, refs))
        return _over_trials(each, sets.tied.numpy())

    return judged("two_choices", measure, given, as_stream(rng), draws, references + 1, pool)


def intruder(
    activations: Any,
    alike: Alike,
    count: int = 5,
    trials: int = 20,
    pool: int = 10,
    rng: int | Stream = 0,
    draws: int = 64,
) -> Judged:
    """Intruder: is the one image that does not excite the feature the least similar to the others?

    Each trial has `count` of the `pool` most exciting images and one drawn from all others; it is found where its
    mean similarity to the rest is the smallest of all: chance 1 / (count + 1). A feature with fewer active images has
    a pool of these; with fewer than `count` it is left out. Ties are broken anew in every trial.
    activations: [n, m]. Raises `UsageError` where there are too few images.
    Source: Chang et al. 2009 (word intrusion); Klindt et al. 2025, arXiv 2503.01824.
    """
    given = scored(activations, alike)
    n = len(given.activations)
    if not 2 <= count <= pool < n:
        raise UsageError(f"intruder: count={count} must be 2 to pool={pool}, and the pool below {n} images")

    def measure(a: Tensor, stream: Stream) -> Found:
        sets = extreme_sets(a, pool, stream)
        sizes = _active(a).clamp(count, pool)
        ranks = _ranks(a.shape[1], trials, count - 1, pool, "quantile", stream.child("trials"), sizes)
        members, foil = _shown(a, sets, ranks, stream, stream.child("foils"))
        shown = torch.cat([members, foil[..., None]], 2).flatten(0, 1)
        within = given.alike.within(shown).double()
        near = within.sum(2) - within.diagonal(dim1=1, dim2=2)
        others = near[:, :-1].amin(1)
        # Where others are as far off, the intruder is one guess among the equal ones.
        ties = (near[:, :-1] == near[:, -1:]).sum(1)
        each = torch.where(near[:, -1] < others, 1.0, torch.where(near[:, -1] == others, 1.0 / (1 + ties), 0.0))
        return _over_trials(each.view(a.shape[1], trials).double(), sets.tied.numpy())

    return judged("intruder", measure, given, as_stream(rng), draws, count, pool)


def _active(a: Tensor) -> Tensor:
    """On how many images each feature is above where it rests: [m]."""
    return (a > resting(a)).sum(0)


def _ranks(
    m: int, trials: int, references: int, pool: int, sampling: Sampling, rng: Stream, sizes: Tensor | None = None
) -> Tensor:
    """Ranks [m, trials, references + 1] in a pool, rising in each trial where they are drawn; below sizes [m]."""
    if sampling == "ranks":
        query = torch.arange(trials)[:, None]
        refs = trials + torch.arange(references)[None] * trials + query
        return torch.cat([query, refs], 1).expand(m, -1, -1)
    draw, height = rng.torch(), max(1, _DRAWN // (trials * pool))
    parts = []
    for start in range(0, m, height):
        drawn = torch.rand(min(height, m - start), trials, pool, generator=draw)
        if sizes is not None:
            drawn[(torch.arange(pool) >= sizes[start : start + height, None])[:, None].expand_as(drawn)] = -1
        parts.append(drawn.topk(references + 1, dim=2).indices)
    return torch.cat(parts).sort(dim=2).values


def _shown(a: Tensor, sets: Sets, ranks: Tensor, rng: Stream, foils: Stream | None = None) -> tuple[Tensor, Tensor]:
    """Images [m, trials, k] at ranks [m, trials, k] of each feature's set, ties in an order of their own in every
    trial; and with a stream for them foils [m, trials], images from outside the set."""
    trials = ranks.shape[1]
    shown = sets.rows.gather(1, ranks.flatten(1)).view(ranks.shape)
    foil = shown[..., 0] if foils is None else _outside(sets.rows, len(a), trials, foils)
    for j, orders in sets.orders(a, trials, rng):
        shown[j] = orders.gather(1, ranks[j])
        if foils is not None:
            foil[j] = _outside(orders, len(a), 1, foils.child(j))[:, 0]
    return shown, foil


def _query(side: Tensor, place: int) -> tuple[Tensor, Tensor]:
    """The query [m, trials] and the references [m, trials, k] of sides [m, trials, k + 1]."""
    return (side[..., 0], side[..., 1:]) if place == 0 else (side[..., -1], side[..., :-1])


def _near(alike: Alike, query: Tensor, references: Tensor) -> Tensor:
    """Mean similarity of each query [m, trials] to its references [m, trials, k]: [m, trials] float64."""
    one, many = query.reshape(-1, 1), references.flatten(0, 1)
    parts = [
        alike.between(a, b).double().mean((1, 2)) for a, b in zip(one.split(_CHUNK), many.split(_CHUNK), strict=True)
    ]
    return torch.cat(parts).view(query.shape)


def _outside(rows: Tensor, n: int, trials: int, rng: Stream) -> Tensor:
    """Images [m, trials] drawn from those that are not in rows [m, k] of their feature."""
    m, k = rows.shape
    place = (torch.rand(m, trials, generator=rng.torch(), dtype=torch.float64) * (n - k)).long()
    # Members before the place-th outsider are those with inside <= place.
    inside = rows.sort(dim=1).values - torch.arange(k)
    return place + torch.searchsorted(inside.contiguous(), place, right=True)


def _hard(difference: Tensor) -> Tensor:
    return (difference > 0).double() + 0.5 * (difference == 0).double()


def _over_trials(each: Tensor, tied: np.ndarray, detail: dict[str, Any] | None = None) -> Found:
    """Mean over the trials [m, trials], and the standard error over them."""
    error = each.std(1) / math.sqrt(each.shape[1]) if each.shape[1] > 1 else torch.full((len(each),), math.nan)
    return Found(each.mean(1).numpy(), error.double().numpy(), tied, None, detail or {})
