"""Controls: dictionaries that learnt nothing; every finder should beat them."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from unmix.core.rows import Rows, gather
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.encoders.greedy import Omp
from unmix.finders.base import Finder
from unmix.finders.features import Features, assemble


class RandomAtoms(Finder):
    """Gaussian atoms of unit norm around the mean of the rows, read by non-negative OMP: the chance level.

    width: number of atoms. k: active codes in a row.
    """

    equation: ClassVar[str] = "d_j ~ N(0, I) / |.|"
    reference: ClassVar[str] = "control"

    width: int = Field(1024, ge=1)
    k: int = Field(32, ge=1)

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        atoms = torch.randn(self.width, rows.shape[1], generator=rng.child("atoms").torch())
        mean = gather(rows, 65536, rng.child("rows")).double().mean(0).float()
        return assemble(torch.nn.functional.normalize(atoms), mean, Omp(k=min(self.k, self.width)))


class DataAtoms(Finder):
    """Rows themselves, less their mean and at unit norm, as atoms, read by non-negative OMP.

    width: number of atoms, at most the number of rows. k: active codes in a row.
    """

    equation: ClassVar[str] = "d_j = (h_n(j) - mean) / |.|"
    reference: ClassVar[str] = "control; a dictionary of activations as in arXiv 2505.17769"

    width: int = Field(1024, ge=1)
    k: int = Field(32, ge=1)

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        mean = gather(rows, 65536, rng.child("rows")).double().mean(0).float()
        atoms = gather(rows, self.width, rng.child("atoms")).float() - mean
        return assemble(torch.nn.functional.normalize(atoms), mean, Omp(k=min(self.k, len(atoms))))
