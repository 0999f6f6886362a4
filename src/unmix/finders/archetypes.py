"""Archetypes: a dictionary whose atoms are mixtures of the data, so that none points where no data are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core import flops
from unmix.core.rows import Rows, gather
from unmix.core.scale import power_of_two
from unmix.core.seeds import Stream, untouched
from unmix.core.watch import Watch
from unmix.encoders.amortised import TopK
from unmix.finders.base import Finder, centre_and_scale, framed
from unmix.finders.descent import Descent
from unmix.finders.features import Features, assemble
from unmix.finders.training import Adam


class Archetypes(Finder):
    """A TopK autoencoder whose atoms are convex mixtures of candidates, D = W C + R, W >= 0, W 1 = 1, |r_j| <= delta.

    The candidates C [c, d] are centres of k-means on the rows, less the mean of the rows, so that every atom plus the
    bias lies in the convex hull of the rows (for delta = 0). Atoms keep their length; the codes are mixing weights.
    width: number of atoms m. k: active codes in a row. candidates: c, at most the number of rows; None takes 4 m.
    relaxation: delta as a share of the mean length of a candidate; 0 keeps the atoms in the hull.
    steps, batch, lr: Adam with warm-up and a linear decay; after each step W is clipped at 0 and its rows are divided
    by their sums. limit: rows used at most to find the candidates.
    """

    equation: ClassVar[str] = "min |h - z (W C + R) - b|^2,  z = top_k(relu(V (h - b) + c))"
    reference: ClassVar[str] = "Fel et al. 2025, arXiv 2502.12892"

    width: int = Field(default=1024, ge=1)
    k: int = Field(default=32, ge=1)
    candidates: int | None = Field(default=None, ge=1)
    relaxation: float = Field(default=0.0, ge=0)
    steps: int = Field(default=2000, ge=1)
    batch: int = Field(default=512, ge=1)
    lr: float = Field(default=3e-3, gt=0)
    limit: int = Field(default=65_536, ge=2)

    @model_validator(mode="after")
    def _possible(self) -> Archetypes:
        if self.k > self.width:
            raise ValueError(f"k={self.k} must be at most the number of atoms, width={self.width}")
        return self

    def _count(self, rows: Rows) -> int:
        return min(self.candidates or 4 * self.width, self.limit, rows.shape[0])

    def estimate(self, rows: Rows) -> dict[str, float]:
        d, count = rows.shape[1], self._count(rows)
        step = flops.dense_step(min(self.batch, rows.shape[0]), self.width, d)
        step += 2 * flops.product(self.width, count, d) + flops.adam(self.width * count)
        return {"flops": self.steps * step, "bytes": 4.0 * (8 * self.width * d + 5 * self.width * count)}

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        mean, scale = centre_and_scale(rows, rng)
        points = framed(self._candidates(rows, rng, mean, scale), mean, scale).to(device)
        mixture = _first_mixture(self.width, len(points), rng.child("mixture")).to(device)
        atoms = mixture @ points
        most = self.relaxation * points.norm(dim=1).mean()
        given = {"mixture": mixture, "weight": atoms / atoms.square().sum(1, keepdim=True).clamp_min(1e-6)}
        given |= {"shift": atoms.new_zeros(self.width)}
        if self.relaxation:
            given["rest"] = torch.zeros_like(atoms)
        adam, encoder = Adam(given), TopK(k=self.k)

        def dictionary(learnt: Mapping[str, Tensor]) -> Tensor:
            mixed = learnt["mixture"] @ points
            return mixed + learnt["rest"] if self.relaxation else mixed

        def constrain(learnt: Mapping[str, Tensor]) -> None:
            to_simplex(learnt["mixture"])
            if self.relaxation:
                length = learnt["rest"].norm(dim=1, keepdim=True)
                learnt["rest"].mul_((most / length.clamp_min(1e-30)).clamp_max(1))

        centre = mean.to(device)
        descent = Descent(rows, centre, scale, self.steps, self.batch, self.lr, rng.child("batches"), watch, device)
        fvu = descent.run(adam, lambda learnt, x: encoder._forward(learnt, x) @ dictionary(learnt), constrain)
        learnt = {name: tensor.detach() for name, tensor in adam.learnt.items()}
        # With x = (h - mean) / s and atoms s D, the codes of h are those of x.
        tensors = {"weight": learnt["weight"] / scale, "shift": learnt["shift"]}
        about = {"flops": self.estimate(rows)["flops"], "fvu": fvu, "candidates": len(points)}
        return assemble(dictionary(learnt) * scale, centre, encoder, tensors, **about)

    def _candidates(self, rows: Rows, rng: Stream, mean: Tensor, scale: float) -> Tensor:
        """Centres of k-means [c, d]: means of rows, or the rows themselves where there are no more of them."""
        sample = gather(rows, self.limit, rng.child("candidates"))
        count = self._count(rows)
        if count >= len(sample):
            return sample
        with untouched():
            from sklearn.cluster import MiniBatchKMeans
            from sklearn.exceptions import ConvergenceWarning

        seed, near = rng.child("centres").number % 2**32, power_of_two(scale)
        offset = mean if mean.dtype == torch.float64 else mean.new_zeros(())
        model = MiniBatchKMeans(count, n_init=1, batch_size=4096, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than candidates do no harm
            model.fit(((sample - offset) / near).float().numpy())
        return torch.from_numpy(model.cluster_centers_).float() * near + offset


def _first_mixture(m: int, c: int, rng: Stream) -> Tensor:
    """A candidate for each atom, no one twice; atoms beyond their number begin halfway between two."""
    draw = rng.numpy()
    mixture = torch.zeros(m, c)
    own = torch.from_numpy(draw.permutation(c)[:m])
    mixture[torch.arange(len(own)), own] = 1
    if m > c:
        pairs = torch.from_numpy(draw.integers(c, size=(m - c, 2)))
        mixture[c:].scatter_add_(1, pairs, torch.full((m - c, 2), 0.5))
    return mixture


@torch.no_grad()
def to_simplex(mixture: Tensor) -> None:
    """Clip W [m, c] at 0 and divide each row by its sum, in place; one without positive entries keeps its largest."""
    lost = (mixture <= 0).all(1)
    mixture[lost, mixture[lost].argmax(1)] = 1
    mixture.clamp_min_(0)
    mixture.div_(mixture.sum(1, keepdim=True))
