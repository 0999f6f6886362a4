"""Classic linear factorisations, through scikit-learn: PCA, FastICA, NMF."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
from pydantic import Field

from unmix.core.errors import Failure, UsageError
from unmix.core.rows import Rows, gather
from unmix.core.seeds import Stream, untouched
from unmix.core.watch import Watch
from unmix.encoders.amortised import Linear
from unmix.encoders.iterative import Fista
from unmix.finders.base import Finder
from unmix.finders.features import Features, assemble


class _Classic(Finder):
    """Shared by the factorisations: the number of components and the rows they are fitted on."""

    width: int = Field(16, ge=1)
    limit: int = Field(200_000, ge=2)

    def _rows(self, rows: Rows, rng: Stream) -> Any:
        n, d = rows.shape
        if self.width > min(n, d):
            raise UsageError(f"{self.kind}.width={self.width}: at most min(rows, dimensions) = {min(n, d)}")
        return gather(rows, self.limit, rng.child("rows")).double().numpy()


class PCA(_Classic):
    """Principal components: signed codes z = (h - mean) D^T, D orthonormal.

    width: number of components. limit: rows used at most, drawn by rng.
    """

    equation: ClassVar[str] = "D = top eigenvectors of cov(h)"
    reference: ClassVar[str] = "scikit-learn, sklearn.decomposition.PCA"
    seeded: ClassVar[bool] = False

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        with untouched():
            from sklearn.decomposition import PCA as Model

        model = Model(self.width, svd_solver="full").fit(self._rows(rows, rng))
        atoms = torch.from_numpy(model.components_).float()
        weights = {"weight": atoms.clone(), "shift": torch.zeros(self.width), "threshold": torch.zeros(())}
        ratio = [round(float(value), 8) for value in model.explained_variance_ratio_]
        about = {"explained_variance_ratio": ratio}
        return assemble(atoms, torch.from_numpy(model.mean_).float(), Linear(rectify=False), weights, **about)


class FastICA(_Classic):
    """Independent components of the whitened rows; signed codes, atoms of unit norm.

    width: number of components. limit: rows used at most, drawn by rng.
    max_iterations, tolerance: of the fixed point; not reaching it is a Failure.
    """

    equation: ClassVar[str] = "z = W (h - mean), with rows of W that make E[log cosh z] extreme"
    reference: ClassVar[str] = "scikit-learn, sklearn.decomposition.FastICA; Hyvarinen 1999"

    max_iterations: int = Field(1000, ge=1)
    tolerance: float = Field(1e-4, gt=0)

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        with untouched():
            from sklearn.decomposition import FastICA as Model
            from sklearn.exceptions import ConvergenceWarning

        model = Model(
            self.width,
            whiten="unit-variance",
            max_iter=self.max_iterations,
            tol=self.tolerance,
            random_state=rng.child("start").number % 2**32,
        )
        array = self._rows(rows, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(array)
            except ConvergenceWarning:
                raise Failure(
                    f"FastICA: no convergence in {self.max_iterations} iterations; raise max_iterations or tolerance"
                ) from None
        norms = torch.from_numpy(model.mixing_).norm(dim=0).clamp_min(1e-12)
        atoms = (torch.from_numpy(model.mixing_) / norms).T.float().contiguous()
        weight = (torch.from_numpy(model.components_) * norms[:, None]).float()
        tensors = {"weight": weight, "shift": torch.zeros(self.width), "threshold": torch.zeros(())}
        return assemble(atoms, torch.from_numpy(model.mean_).float(), Linear(rectify=False), tensors)


class NMF(_Classic):
    """Non-negative factors of non-negative rows; codes by non-negative least squares on the atoms.

    width: number of factors. limit: rows used at most, drawn by rng.
    max_iterations: of the coordinate descent.
    """

    equation: ClassVar[str] = "min |h - z D|^2, z >= 0, D >= 0"
    reference: ClassVar[str] = "scikit-learn, sklearn.decomposition.NMF; Lee, Seung 1999"
    nonnegative: ClassVar[bool] = True

    max_iterations: int = Field(400, ge=1)

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        with untouched():
            from sklearn.decomposition import NMF as Model
            from sklearn.exceptions import ConvergenceWarning

        seed = rng.child("start").number % 2**32
        model = Model(self.width, init="nndsvda", max_iter=self.max_iterations, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(self._rows(rows, rng))
        atoms = torch.nn.functional.normalize(torch.from_numpy(model.components_).float())
        converged = bool(model.n_iter_ < self.max_iterations)
        return assemble(atoms, atoms.new_zeros(rows.shape[1]), Fista(penalty=0.0), converged=converged)
