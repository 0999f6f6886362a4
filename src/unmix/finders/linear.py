"""Classic factorisations, through scikit-learn: PCA, FastICA, NMF, online dictionary learning."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unmix.core.errors import Failure, UsageError
from unmix.core.rows import Rows, gather
from unmix.core.scale import kept, mean_and_scale, power_of_two
from unmix.core.seeds import Stream, untouched
from unmix.core.watch import Watch
from unmix.encoders.amortised import Linear
from unmix.encoders.iterative import Fista
from unmix.finders.base import Finder, centre_and_scale, require_no_offset
from unmix.finders.features import Features, assemble

FAR = 1e3


class _Classic(Finder):
    """Shared by the factorisations: the number of components and the rows they are fitted on."""

    width: int = Field(default=16, ge=1)
    limit: int = Field(default=200_000, ge=2)

    def _rows(self, rows: Rows, rng: Stream) -> _Sample:
        n, d = rows.shape
        if self.width > min(n, d):
            raise UsageError(f"{self.kind}.width={self.width}: at most min(rows, dimensions) = {min(n, d)}")
        return _Sample.of(gather(rows, self.limit, rng.child("rows")))


class _Sample(NamedTuple):
    """Rows for scikit-learn, which has thresholds of its own: in units near their scale where that is far from 1.

    array: [n, d] float64, the rows over `near`, a power of two, so that nothing is rounded. mean, scale: of the rows.
    dtype: theirs.
    """

    array: np.ndarray
    near: float
    mean: Tensor
    scale: float
    dtype: torch.dtype

    @staticmethod
    def of(sample: Tensor) -> _Sample:
        mean, scale = mean_and_scale(sample)
        near = 1.0 if 1 / FAR < scale < FAR else power_of_two(scale)
        return _Sample((sample.double() / near).numpy(), near, mean, scale, sample.dtype)

    @property
    def bias(self) -> Tensor:
        """The mean, as it is taken off rows of this dtype."""
        return kept(self.mean, self.scale, self.dtype)


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

        sample = self._rows(rows, rng)
        model = Model(self.width, svd_solver="full").fit(sample.array)
        atoms = torch.from_numpy(model.components_).float()
        weights = {"weight": atoms.clone(), "shift": torch.zeros(self.width), "threshold": torch.zeros(())}
        ratio = [round(float(value), 8) for value in model.explained_variance_ratio_]
        about = {"explained_variance_ratio": ratio}
        return assemble(atoms, sample.bias, Linear(rectify=False), weights, **about)


class FastICA(_Classic):
    """Independent components of the whitened rows; signed codes, atoms of unit norm.

    width: number of components, at most the rank of the centred rows: rows with an average reference (all sum to 0),
    or with columns that are linear in others, have fewer independent components than columns.
    limit: rows used at most, drawn by rng. max_iterations, tolerance: of the fixed point; Failure where not reached.
    """

    equation: ClassVar[str] = "z = W (h - mean), with rows of W that make E[log cosh z] extreme"
    reference: ClassVar[str] = "scikit-learn, sklearn.decomposition.FastICA; Hyvarinen 1999"

    max_iterations: int = Field(default=1000, ge=1)
    tolerance: float = Field(default=1e-4, gt=0)

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
        sample = self._rows(rows, rng)
        self._require_rank(sample)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(sample.array)
            except ConvergenceWarning:
                raise Failure(
                    f"FastICA: no convergence in {self.max_iterations} iterations; raise max_iterations or tolerance"
                ) from None
        norms = torch.from_numpy(model.mixing_).norm(dim=0)
        atoms = (torch.from_numpy(model.mixing_) / norms).T.float().contiguous()
        weight = (torch.from_numpy(model.components_) * norms[:, None]).float()
        tensors = {"weight": weight, "shift": torch.zeros(self.width), "threshold": torch.zeros(())}
        return assemble(atoms, sample.bias, Linear(rectify=False), tensors)

    def _require_rank(self, sample: _Sample) -> None:
        """Raise `UsageError` where a component would be made of rounding."""
        triangle = np.linalg.qr(sample.array - sample.array.mean(0), mode="r")
        values = np.linalg.svd(triangle, compute_uv=False)
        rounding = 8 * torch.finfo(sample.dtype).eps * np.linalg.norm(sample.array)
        if self.width > (rank := int((values > rounding).sum())):
            raise UsageError(
                f"FastICA.width={self.width}: the rows have rank {rank} (some columns are linear in others, as after "
                f"an average reference); give width={rank} or less"
            )


class NMF(_Classic):
    """Non-negative factors of non-negative rows; codes by non-negative least squares on the atoms.

    width: number of factors. limit: rows used at most, drawn by rng.
    max_iterations: of the coordinate descent. Where it begins depends on the scale of the rows, which is
    brought near 1 where it is below 1e-3 or above 1e3; other scales may end in another optimum.
    """

    equation: ClassVar[str] = "min |h - z D|^2, z >= 0, D >= 0"
    reference: ClassVar[str] = "scikit-learn, sklearn.decomposition.NMF; Lee, Seung 1999"
    nonnegative: ClassVar[bool] = True

    max_iterations: int = Field(default=400, ge=1)

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        with untouched():
            from sklearn.decomposition import NMF as Model
            from sklearn.exceptions import ConvergenceWarning

        sample = self._rows(rows, rng)
        require_no_offset("NMF", sample.mean, sample.scale)
        seed = rng.child("start").number % 2**32
        model = Model(self.width, init="nndsvda", max_iter=self.max_iterations, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(sample.array)
        atoms = torch.nn.functional.normalize(torch.from_numpy(model.components_).float())
        converged = bool(model.n_iter_ < self.max_iterations)
        return assemble(atoms, atoms.new_zeros(rows.shape[1]), Fista(penalty=0.0), converged=converged)


class MiniBatchDictionary(_Classic):
    """scikit-learn's online dictionary learning; codes solve the same l1 problem on the atoms.

    Here as a reference: `SparseCoding` solves this problem faster and replaces atoms that are not used.
    width: number of atoms, more than dimensions if wanted. penalty: lambda in the units of the rows, which are taken
    about their mean. positive: codes are not negative. passes, batch: passes over the rows, rows of a step.
    limit: rows used at most, drawn by rng.
    """

    equation: ClassVar[str] = "min_D sum_n min_{z >= 0} 1/2 |h_n - b - z D|^2 + lambda |z|_1,  |d_j| <= 1"
    reference: ClassVar[str] = "scikit-learn, sklearn.decomposition.MiniBatchDictionaryLearning; arXiv 0908.0050"

    penalty: float = Field(default=0.1, gt=0)
    positive: bool = True
    passes: int = Field(default=10, ge=1)
    batch: int = Field(default=256, ge=1)

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        with untouched():
            from sklearn.decomposition import MiniBatchDictionaryLearning as Model
            from sklearn.exceptions import ConvergenceWarning

        _, scale = centre_and_scale(rows, rng)
        sample = gather(rows, self.limit, rng.child("rows"))
        mean, _ = mean_and_scale(sample)
        model = Model(
            self.width,
            alpha=self.penalty / scale,
            max_iter=self.passes,
            batch_size=min(self.batch, len(sample)),
            fit_algorithm="cd",
            positive_code=self.positive,
            random_state=rng.child("start").number % 2**32,
        )
        with warnings.catch_warnings(), _numpy_untouched():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(((sample.double() - mean) / scale).numpy())
        atoms = torch.from_numpy(model.components_).float()
        encoder = Fista(penalty=self.penalty, positive=self.positive)
        return assemble(atoms, kept(mean, scale, sample.dtype), encoder, steps=int(model.n_steps_))


@contextlib.contextmanager
def _numpy_untouched() -> Iterator[None]:
    """numpy's global random state as it was: coordinate descent draws a seed from it that it does not use."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
