"""Codes turned on their side: for each feature its rows, and the features that fire together with it."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError


class Turned:
    """Codes by feature.

    codes: n rows of m features. Dense codes are read in place; the other layouts are sorted by feature once.
    Raises `UsageError` for NaN or infinite codes.
    """

    def __init__(self, codes: Codes) -> None:
        codes = codes.to("cpu")
        if not torch.isfinite(codes.values).all():
            raise UsageError("codes: hold NaN or infinite values; fit or encode again before writing an atlas")
        self.shape = codes.shape
        self._matrix: Tensor | None = None
        if codes.indices is None:
            self._matrix = codes.values.detach().float()
            self._pairs = self._dense_pairs(self._matrix)
        else:
            rows, columns, values = codes.nonzero()
            place = (rows.numpy(), columns.numpy())
            self._rows = sparse.csr_matrix((values.detach().float().numpy(), place), shape=self.shape)
            self._rows.eliminate_zeros()
            self._columns = self._rows.tocsc()
            self._columns.sort_indices()
            self._fires = sparse.csr_matrix(
                (np.ones(self._rows.nnz, np.float32), self._rows.indices, self._rows.indptr), shape=self.shape
            )

    @staticmethod
    def _dense_pairs(matrix: Tensor) -> np.ndarray:
        pairs = torch.zeros(matrix.shape[1], matrix.shape[1], dtype=torch.float64)
        for block in matrix.split(16384):
            fires = (block != 0).float()
            pairs += (fires.T @ fires).double()  # exact: a block's counts stay below 2^24
        return pairs.numpy()

    def features(self, first: int, last: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each feature from `first` up to `last`: rows where it fires, ascending, and its values there."""
        if self._matrix is not None:
            block = self._matrix[:, first:last].T.contiguous().numpy()
            return [((rows := np.flatnonzero(line)), line[rows]) for line in block]
        part = self._columns[:, first:last]
        cuts = zip(part.indptr[:-1], part.indptr[1:], strict=True)
        return [(part.indices[a:b].astype(np.int64), part.data[a:b]) for a, b in cuts]

    def counts(self) -> np.ndarray:
        """Number of rows in which each feature fires: [m]."""
        if self._matrix is not None:
            return self._pairs.diagonal().astype(np.int64)
        return np.diff(self._columns.indptr).astype(np.int64)

    def together(self, first: int, last: int) -> np.ndarray:
        """In how many rows each feature from `first` up to `last` fires with every other: [last - first, m]."""
        if self._matrix is not None:
            return self._pairs[first:last]
        block = self._columns[:, first:last].T.tocsr()
        block.data = np.ones_like(block.data)
        return (block @ self._fires).toarray()


def companions(
    both: np.ndarray, feature: int, counts: np.ndarray, rows: int, limit: int
) -> list[tuple[int, float, float, int]]:
    """Features that fire with one feature more often than by chance, by Jaccard index, best first.

    J = |A and B| / |A or B|,  lift = n |A and B| / (|A| |B|) > 1.
    both: [m] rows in which both fire; counts: [m] rows of each. Returns (feature, Jaccard, lift, rows together).
    """
    mine = counts[feature]
    union = np.maximum(mine + counts - both, 1)
    lift = rows * both / np.maximum(float(mine) * counts, 1)
    jaccard = np.where((both > 0) & (lift > 1), both / union, 0)
    jaccard[feature] = 0
    best = np.argsort(-jaccard, kind="stable")[:limit]
    return [(int(g), float(jaccard[g]), float(lift[g]), int(both[g])) for g in best if jaccard[g] > 0]


def nearest(directions: Tensor, first: int, last: int, limit: int) -> list[list[tuple[int, float]]]:
    """Features whose atoms have the highest cosine with those from `first` up to `last`, best first.

    directions: [m, d] atoms of unit length (zero where an atom is zero: such atoms are near nothing).
    """
    cosines = directions[first:last] @ directions.T
    cosines[torch.arange(last - first), torch.arange(first, last)] = -torch.inf
    alive = directions.abs().amax(1) > 0
    cosines[:, ~alive] = -torch.inf
    cosines[~alive[first:last]] = -torch.inf
    values, which = cosines.topk(min(limit, len(directions)), dim=1)
    pairs = zip(which.tolist(), values.tolist(), strict=True)
    return [[(g, c) for g, c in zip(*pair, strict=True) if np.isfinite(c)] for pair in pairs]
