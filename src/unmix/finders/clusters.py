"""Clusters as features: the centre of a cluster is an atom, the nearest one is the code."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from unmix.core.errors import UsageError
from unmix.core.rows import Rows, gather
from unmix.core.seeds import Stream, untouched
from unmix.core.watch import Watch
from unmix.encoders.greedy import Nearest
from unmix.finders.base import Finder
from unmix.finders.features import Features, assemble


class KMeans(Finder):
    """K-means: atoms are the centres less the mean of the rows, the code of a row is its nearest centre.

    width: number of clusters. starts: restarts, the best inertia is kept. limit: rows used at most.
    """

    equation: ClassVar[str] = "min sum_n |h_n - b - d_{c(n)}|^2"
    reference: ClassVar[str] = "scikit-learn, sklearn.cluster.KMeans"

    width: int = Field(16, ge=1)
    starts: int = Field(3, ge=1)
    limit: int = Field(200_000, ge=2)

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        with untouched():
            from sklearn.cluster import KMeans as Model

        if self.width > rows.shape[0]:
            raise UsageError(f"KMeans.width={self.width}: at most the number of rows, {rows.shape[0]}")
        array = gather(rows, self.limit, rng.child("rows")).double()
        seed = rng.child("start").number % 2**32
        model = Model(self.width, n_init=self.starts, random_state=seed).fit(array.numpy())
        mean = array.mean(0)
        atoms = (torch.from_numpy(model.cluster_centers_) - mean).float()
        return assemble(atoms, mean.float(), Nearest(), inertia=float(model.inertia_))
