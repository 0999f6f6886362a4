"""Clusters as features: the centre of a cluster is an atom, and a row's code is on the nearest one."""

from __future__ import annotations

import warnings
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unmix.core.errors import UsageError, notice
from unmix.core.rows import Rows, gather
from unmix.core.scale import kept, mean_and_scale, power_of_two
from unmix.core.seeds import Stream, untouched
from unmix.core.watch import Watch
from unmix.encoders.amortised import TopK
from unmix.encoders.greedy import Nearest
from unmix.finders.base import Finder, centre_and_scale, framed, require_no_offset
from unmix.finders.features import Features, assemble


class KMeans(Finder):
    """K-means: atoms are the centres less the mean of the rows, the code of a row is its nearest centre.

    width: number of clusters. starts: restarts, the best inertia is kept. limit: rows used at most.
    """

    equation: ClassVar[str] = "min sum_n |h_n - b - d_{c(n)}|^2"
    reference: ClassVar[str] = "scikit-learn, sklearn.cluster.KMeans"

    width: int = Field(default=16, ge=1)
    starts: int = Field(default=3, ge=1)
    limit: int = Field(default=200_000, ge=2)

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        with untouched():
            from sklearn.cluster import KMeans as Model
            from sklearn.exceptions import ConvergenceWarning

        if self.width > rows.shape[0]:
            raise UsageError(f"KMeans.width={self.width}: at most the number of rows, {rows.shape[0]}")
        sample = gather(rows, self.limit, rng.child("rows"))
        mean, scale = mean_and_scale(sample)
        near = power_of_two(scale)
        array = sample.double()
        seed = rng.child("start").number % 2**32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than clusters: some are equal
            model = Model(self.width, n_init=self.starts, random_state=seed).fit((array / near).numpy())
        centres = torch.from_numpy(model.cluster_centers_)
        if (found := len(set(model.labels_.tolist()))) < self.width:
            notice(f"KMeans: only {found} of {self.width} clusters have rows, for no more rows differ")
        atoms = (centres * near - mean).float()
        inertia = float(model.inertia_) * near**2
        return assemble(atoms, kept(mean, scale, sample.dtype), Nearest(), inertia=inertia)


class SphericalKMeans(Finder):
    """K-means by angle: unit atoms, a row belongs to the atom of largest cosine, its code is its length there.

    Rows are taken about their mean and count alike, whatever their length; an atom is the direction of the sum of its
    unit rows. Atoms that lose all rows take the rows that fit worst.
    width: number of atoms. centre: False takes rows about 0, where a row of zeros means that nothing is there; about
    the mean, an atom weighs all that it does not show against what it shows. starts: restarts, the best mean cosine
    is kept. iterations: at most; it ends when no row changes its atom. limit: rows used at most.
    """

    equation: ClassVar[str] = "max sum_n max_j <d_j, (h_n - b) / |h_n - b|>,  |d_j| = 1;  z_j = relu(<d_j, h - b>)"
    reference: ClassVar[str] = "Dhillon, Modha 2001"
    # `centre` came later: runs that were stored before it keep their digests.
    running: ClassVar[tuple[str, ...]] = (*Finder.running, "centre")

    width: int = Field(default=16, ge=1)
    centre: bool = True
    starts: int = Field(default=3, ge=1)
    iterations: int = Field(default=100, ge=1)
    limit: int = Field(default=200_000, ge=2)

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        if self.width > rows.shape[0]:
            raise UsageError(f"SphericalKMeans.width={self.width}: at most the number of rows, {rows.shape[0]}")
        mean, scale = centre_and_scale(rows, rng)
        if not self.centre:
            require_no_offset("SphericalKMeans", mean, scale)
            mean = torch.zeros_like(mean, dtype=torch.float32)
        x = framed(gather(rows, self.limit, rng.child("rows")).to(device), mean.to(device), scale)
        x = torch.nn.functional.normalize(x[x.norm(dim=1) > 1e-6])
        found = [self._start(x, rng.child(f"start {number}")) for number in range(self.starts)]
        atoms, cosine, converged = max(found, key=lambda start: start[1])
        tensors = {"weight": atoms.clone(), "shift": atoms.new_zeros(self.width)}
        return assemble(atoms, mean.to(device), TopK(k=1), tensors, cosine=cosine, converged=converged)

    def _start(self, x: Tensor, rng: Stream) -> tuple[Tensor, float, bool]:
        """Atoms [m, d], the mean cosine of unit rows x [n, d] with their own atom, and whether no row changes it."""
        atoms, settled = self._first(x, rng), False
        nearest, cosine = _nearest(x, atoms)
        for _ in range(self.iterations):
            sums = torch.zeros_like(atoms).index_add_(0, nearest, x)
            size = sums.norm(dim=1, keepdim=True)
            atoms = torch.where(size > 1e-6, sums / size.clamp_min(1e-30), atoms)
            empty = (torch.bincount(nearest, minlength=self.width) == 0).nonzero().squeeze(1)[: len(x)]
            atoms[empty] = x[cosine.topk(len(empty), largest=False).indices]
            before, (nearest, cosine) = nearest, _nearest(x, atoms)
            if settled := torch.equal(before, nearest):
                break
        return atoms, float(cosine.double().mean()), settled

    def _first(self, x: Tensor, rng: Stream) -> Tensor:
        """Some rows: of four drawn by their angle to those before, the one that leaves least (greedy k-means++)."""
        draw = rng.numpy()
        x = x[torch.from_numpy(draw.permutation(len(x))[: 32 * self.width]).to(x.device)]
        chosen, far = [0], 1 - x @ x[0]
        for chances in draw.random((self.width - 1, 4)):
            sums = far.clamp_min(1e-9).double().cumsum(0)
            tried = torch.searchsorted(sums, torch.from_numpy(chances).to(sums) * sums[-1]).clamp_max(len(x) - 1)
            left = torch.minimum(far[:, None], 1 - x @ x[tried].T)
            best = int(left.sum(0).argmin())
            chosen.append(int(tried[best]))
            far = left[:, best]
        return x[chosen]


def _nearest(x: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
    """The atom of largest cosine of each unit row, and that cosine: each [n]."""
    height = max(1, (16 << 20) // len(atoms))
    parts = [(block @ atoms.T).max(1) for block in x.split(height)]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])
