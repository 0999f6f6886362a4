"""Mutual information of binned codes with labels, by counting, for all pairs and many reweightings at once."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from unmix.core.errors import UsageError

Backend = Literal["auto", "plain", "numba"]


def mutual_information(
    bins: Any, labels: Any, weights: Any | None = None, backend: Backend = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """Plug-in mutual information [r, m, f] in nats and entropy of the labels [r, f], for r weightings of the rows.

    I = sum_bc p(b, c) log p(b, c) / (p(b) p(c)), H = -sum_c p(c) log p(c), p counted with the weights.
    bins: [m, g, n] whole numbers from 0, g = 1 or one binning of every code for each of the f labels. labels: [f, n]
    whole numbers from 0. weights: [r, n] whole numbers (how often each row counts), None for one weighting by 1.
    Raises `UsageError` for shapes that do not fit, negative numbers or an unknown backend.
    """
    if backend not in ("auto", "plain", "numba"):
        raise UsageError(f"backend: {backend!r} is not one of 'auto', 'plain', 'numba'")
    labels = _whole(labels, "labels", 2)
    bins = _whole(bins, "bins", 3)
    n = labels.shape[1]
    weights = np.ones((1, n), np.int32) if weights is None else np.ascontiguousarray(weights, dtype=np.int32)
    if bins.shape[2] != n or weights.shape[1:] != (n,) or bins.shape[1] not in (1, len(labels)):
        raise UsageError(f"bins {bins.shape}, labels {labels.shape}, weights {weights.shape}: do not fit")
    shape = (len(weights), len(bins), len(labels))
    information, entropy = np.zeros(shape), np.zeros((shape[0], shape[2]))
    if n and len(bins) and len(labels):
        if backend == "plain":
            _plain(bins, labels, weights, information, entropy)
        else:
            from unmix.kernels._information_compiled import count

            sizes = (int(bins.max()) + 1, int(labels.max()) + 1)
            count(bins, labels, weights, *sizes, information, entropy)
    return information, entropy


def _whole(values: Any, name: str, ndim: int) -> np.ndarray:
    array = np.ascontiguousarray(values, dtype=np.int16)
    if array.ndim != ndim or (array.size and array.min() < 0):
        raise UsageError(f"{name}: expected {ndim} dimensions of whole numbers from 0, got {array.shape}")
    return array


def _plain(bins: Any, labels: Any, weights: Any, information: np.ndarray, entropy: np.ndarray) -> None:
    for r, weight in enumerate(weights):
        for j, label in enumerate(labels):
            size = int(label.max()) + 1
            entropy[r, j] = _entropy(np.bincount(label, weight))
            for i in range(len(bins)):
                bin_ = bins[i, j if bins.shape[1] > 1 else 0].astype(np.int64)
                joint = np.bincount(bin_ * size + label, weight, (int(bin_.max()) + 1) * size).reshape(-1, size)
                known = _entropy(joint.sum(1)) + _entropy(joint.sum(0)) - _entropy(joint.ravel())
                information[r, i, j] = max(0.0, known)


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())
