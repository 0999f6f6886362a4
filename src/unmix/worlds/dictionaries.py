"""Dictionaries: true atoms of a given kind, unit norm, from a seed."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream


def gaussian(latents: int, width: int, rng: Stream) -> Tensor:
    """Rows of a Gaussian matrix brought to unit norm: [N, M]."""
    return torch.nn.functional.normalize(torch.randn(latents, width, generator=rng.torch()))


def orthogonal(latents: int, width: int, rng: Stream) -> Tensor:
    """Rows of a random rotation: [N, M], N <= M."""
    return torch.linalg.qr(torch.randn(width, width, generator=rng.torch()))[0][:latents]


def mutual_coherence(atoms: Tensor) -> float:
    """Largest |cosine| between two different atoms [N, M]; 0 for a single atom."""
    unit = torch.nn.functional.normalize(atoms.double())
    return float((unit @ unit.T).abs().fill_diagonal_(0).max())


@functools.lru_cache(maxsize=8)
def coherent(latents: int, width: int, coherence: float, rng: Stream) -> Tensor:
    """Gaussian atoms turned towards one direction u until the largest |cosine| is `coherence`: [N, M].

    d_j ~ sqrt(1 - w) g_j + sqrt(w) u, w found by bisection. Raises `UsageError` where the Gaussian atoms are
    already more alike than that.
    """
    first = gaussian(latents + 1, width, rng).double()
    atoms, common = first[:-1], first[-1]
    least = mutual_coherence(atoms)
    if coherence < least:
        raise UsageError(
            f"coherence={coherence}: {latents} Gaussian atoms of width {width} with this seed have {least:.3f} "
            "already; give more, or a larger width"
        )
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        mixed = _mixed(atoms, common, middle)
        low, high = (middle, high) if mutual_coherence(mixed) < coherence else (low, middle)
    return _mixed(atoms, common, low).float()


def family(parents: np.ndarray, width: int, similarity: float, rng: Stream) -> Tensor:
    """Atoms of a forest [N, M]: the cosine of a child with its parent is `similarity`, its rest points anywhere.

    parents: [N], -1 for a root, a parent before its children.
    """
    fresh = gaussian(len(parents), width, rng).double()
    atoms = fresh.clone()
    rest = (1 - similarity**2) ** 0.5
    for child in np.flatnonzero(parents >= 0):
        above = atoms[parents[child]]
        own = torch.nn.functional.normalize(fresh[child] - (fresh[child] @ above) * above, dim=0)
        atoms[child] = similarity * above + rest * own
    return torch.nn.functional.normalize(atoms).float()


@functools.lru_cache(maxsize=2)
def spread(latents: int, width: int, rng: Stream, rounds: int = 2) -> Tensor:
    """Gaussian atoms made a nearly tight frame, which minimises sum_ij cos_ij^2: [N, M].

    Each round takes A (A' A)^(-1/2), whose columns are orthogonal, and brings the rows back to unit norm.
    """
    atoms = gaussian(latents, width, rng)
    for _ in range(rounds if latents > width else 0):
        values, vectors = torch.linalg.eigh((atoms.T @ atoms).double())
        root = (vectors * values.rsqrt()) @ vectors.T
        atoms = torch.nn.functional.normalize(atoms @ root.float())
    return atoms


def _mixed(atoms: Tensor, common: Tensor, weight: float) -> Tensor:
    return torch.nn.functional.normalize((1 - weight) ** 0.5 * atoms + weight**0.5 * common)
