"""Supports: which latents fire together; forests of latents, shared draws, and pairs that never meet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unmix.core.errors import Failure
from unmix.core.seeds import Stream

RARE = 1e-4


def forest(latents: int, roots: int, branching: int, depth: int | None = None) -> np.ndarray:
    """Parent of each latent [N], -1 for none, of trees numbered breadth first until the latents are used up.

    Latents 0 to roots - 1 are roots, and latent j after them is child (j - roots) % branching of latent
    (j - roots) // branching. depth: levels below the roots; what is left over has no parent and no children.
    """
    numbers = np.arange(latents)
    parents = np.where(numbers < roots, -1, (numbers - roots) // max(1, branching))
    if depth is not None:
        inside, level = roots, roots
        for _ in range(depth):
            level *= branching
            inside += level
        parents[inside:] = -1
    return parents


def levels(parents: np.ndarray) -> list[np.ndarray]:
    """Latents with a parent, level by level from below the roots, so that a parent always comes first."""
    found: list[np.ndarray] = []
    current = np.flatnonzero(parents < 0)
    while True:
        current = np.flatnonzero(np.isin(parents, current))
        if not len(current):
            return found
        found.append(current)


def marginal(rates: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Rate of each latent [N] from its rate given that its parent fires: the product down the tree."""
    out = rates.copy()
    for level in levels(parents):
        out[level] = rates[level] * out[parents[level]]
    return out


def scores(draw: np.random.Generator, rows: int, loadings: np.ndarray | None, latents: int) -> np.ndarray:
    """Uniform draws [rows, N] of a Gaussian copula whose correlation is L L' off the diagonal; independent for None.

    loadings: L [N, r] with rows of norm below 1.
    """
    if loadings is None:
        return draw.random((rows, latents))
    from scipy.special import ndtr

    own = np.sqrt(1 - np.square(loadings).sum(1))
    return ndtr(
        draw.standard_normal((rows, loadings.shape[1])) @ loadings.T + own * draw.standard_normal((rows, latents))
    )


def block_loadings(latents: int, block: int, correlation: float) -> np.ndarray:
    """Loadings [N, blocks] that give latents of one block of consecutive numbers the same correlation."""
    columns = np.arange(latents) // block
    loadings = np.zeros((latents, int(columns[-1]) + 1))
    loadings[np.arange(latents), columns] = np.sqrt(correlation)
    return loadings


def firing(uniform: np.ndarray, rates: np.ndarray, parents: np.ndarray | None, exclusive: bool) -> np.ndarray:
    """Which latents fire [rows, N]: own draw below the rate, and the parent too.

    uniform: [rows, N]. rates: [N], of a child given its parent. exclusive: the children of one parent share the draw
    of the first of them and take turns in it, so that at most one fires; their rates must not sum to more than 1.
    """
    if parents is None:
        return uniform < rates
    low = np.zeros_like(rates)
    source = np.arange(len(rates))
    if exclusive:
        children = np.flatnonzero(parents >= 0)
        first = {int(p): int(c) for c, p in reversed(list(zip(children, parents[children], strict=True)))}
        total: dict[int, float] = {}
        for child in children:
            parent = int(parents[child])
            source[child] = first[parent]
            low[child] = total.get(parent, 0.0)
            total[parent] = low[child] + rates[child]
    own = uniform[:, source]
    fires = (own >= low) & (own < low + rates)
    for level in levels(parents):
        fires[:, level] &= fires[:, parents[level]]
    return fires


def inherit(keys: np.ndarray, parents: np.ndarray, exclusive: bool) -> np.ndarray:
    """Keys [rows, N] bounded by the parent's, so that the largest K are closed under parents.

    exclusive: of the children of one parent all but the one with the largest key, and what is below them, get -inf.
    """
    keys = keys.copy()
    for level in levels(parents):
        if exclusive:
            above = parents[level]
            order = np.argsort(above, kind="stable")
            starts = np.flatnonzero(np.r_[True, np.diff(above[order]) > 0])
            best = np.maximum.reduceat(keys[:, level[order]], starts, axis=1)
            group = np.searchsorted(above[order][starts], above)
            keys[:, level] = np.where(keys[:, level] == best[:, group], keys[:, level], -np.inf)
        keys[:, level] = np.minimum(keys[:, level], np.nextafter(keys[:, parents[level]], -np.inf))
    return keys


def banned_pairs(latents: int, share: float, parents: np.ndarray | None, rng: Stream) -> np.ndarray:
    """A share of all pairs [P, 2] of latents, drawn by rng; a latent and its ancestors are never a pair."""
    pairs = np.stack(np.triu_indices(latents, 1), 1)
    if parents is not None:
        pairs = pairs[~_related(parents)[pairs[:, 0], pairs[:, 1]]]
    count = round(share * len(pairs))
    return pairs[np.sort(rng.numpy().choice(len(pairs), count, replace=False))]


def meets(fires: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Whether a row [rows, N] has both latents of any pair [P, 2]: [rows]."""
    partners = np.zeros((fires.shape[1], fires.shape[1]), dtype=np.float32)
    partners[pairs[:, 0], pairs[:, 1]] = 1
    active = fires.astype(np.float32)
    return ((active @ partners) * active).sum(1) > 0


def rejected(
    n: int, sample: Callable[[int], np.ndarray], keep: Callable[[np.ndarray], np.ndarray], what: str
) -> np.ndarray:
    """n rows of `sample(count)` for which `keep(rows)` holds; raises `Failure` where hardly any does."""
    parts, found, tried = [], 0, 0
    while found < n:
        block = sample(min(65536, max(1024, 2 * (n - found))))
        good = block[keep(block)]
        parts.append(good)
        found, tried = found + len(good), tried + len(block)
        if tried > 65536 and found < RARE * tried:
            raise Failure(f"{what}: fewer than 1 row in {round(1 / RARE):,} is such; change banned, active or rates")
    return np.concatenate(parts)[:n]


def _related(parents: np.ndarray) -> np.ndarray:
    related = np.zeros((len(parents), len(parents)), dtype=bool)
    for level in levels(parents):
        related[level] = related[parents[level]]
        related[level, parents[level]] = True
    return related | related.T
