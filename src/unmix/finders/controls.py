"""Controls: dictionaries that learnt nothing; every finder should beat them."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator

from unmix.core import flops
from unmix.core.rows import Rows, gather
from unmix.core.scale import unit
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.encoders.amortised import TopK
from unmix.encoders.greedy import Omp
from unmix.finders.base import Finder, centre_and_scale
from unmix.finders.descent import Descent
from unmix.finders.features import Features, assemble
from unmix.finders.training import Adam


class RandomAtoms(Finder):
    """Gaussian atoms of unit norm around the mean of the rows, read by non-negative OMP: the chance level.

    width: number of atoms. k: active codes in a row.
    """

    equation: ClassVar[str] = "d_j ~ N(0, I) / |.|"
    reference: ClassVar[str] = "control"
    control: ClassVar[bool] = True

    width: int = Field(default=1024, ge=1)
    k: int = Field(default=32, ge=1)

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        atoms = torch.randn(self.width, rows.shape[1], generator=rng.child("atoms").torch())
        mean, _ = centre_and_scale(rows, rng, name="rows")
        return assemble(torch.nn.functional.normalize(atoms), mean, Omp(k=min(self.k, self.width)))


class DataAtoms(Finder):
    """Rows themselves, less their mean and at unit norm, as atoms, read by non-negative OMP.

    width: number of atoms, at most the number of rows. k: active codes in a row.
    """

    equation: ClassVar[str] = "d_j = (h_n(j) - mean) / |.|"
    reference: ClassVar[str] = "control; a dictionary of activations as in arXiv 2505.17769"
    control: ClassVar[bool] = True

    width: int = Field(default=1024, ge=1)
    k: int = Field(default=32, ge=1)

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        mean, _ = centre_and_scale(rows, rng, name="rows")
        atoms = (gather(rows, self.width, rng.child("atoms")) - mean).float()
        return assemble(unit(atoms), mean, Omp(k=min(self.k, len(atoms))))


class _RandomDecoder(Finder):
    """Shared by the autoencoders with random atoms of unit norm: their sizes."""

    control: ClassVar[bool] = True

    width: int = Field(default=1024, ge=1)
    k: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> _RandomDecoder:
        if self.k > self.width:
            raise ValueError(f"k={self.k} must be at most the number of atoms, width={self.width}")
        return self

    def _atoms(self, d: int, rng: Stream) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(self.width, d, generator=rng.child("atoms").torch()))


class UntrainedSAE(_RandomDecoder):
    """A TopK autoencoder as it is before its first step: random atoms, the encoder tied to them.

    width: number of atoms. k: active codes in a row.
    """

    equation: ClassVar[str] = "z = top_k(relu(D (h - mean))),  d_j ~ N(0, I) / |.|"
    reference: ClassVar[str] = "control"

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        atoms = self._atoms(rows.shape[1], rng)
        mean, _ = centre_and_scale(rows, rng, name="rows")
        tensors = {"weight": atoms.clone(), "shift": torch.zeros(self.width)}
        return assemble(atoms, mean, TopK(k=self.k), tensors)


class FrozenDecoder(_RandomDecoder):
    """A TopK autoencoder whose decoder stays random: the encoder and the bias are trained, the atoms are not.

    What such features score, a trained dictionary must beat before its atoms mean anything.
    width: number of atoms. k: active codes in a row. steps, batch, lr: Adam with warm-up and a linear decay, on
    centred and scaled rows.
    """

    equation: ClassVar[str] = "min_{W, c, b} |h - z D - b|^2,  z = top_k(relu(W (h - b) + c)),  D random"
    reference: ClassVar[str] = "Korznikov et al. 2026, arXiv 2602.14111"

    steps: int = Field(default=2000, ge=1)
    batch: int = Field(default=512, ge=1)
    lr: float = Field(default=3e-3, gt=0)

    def estimate(self, rows: Rows) -> dict[str, float]:
        batch, d = min(self.batch, rows.shape[0]), rows.shape[1]
        # Against a whole autoencoder, the product that gives the gradient of the atoms is missing.
        step = 4 * flops.product(batch, d, self.width) + flops.adam(self.width * d)
        return {"flops": self.steps * step, "bytes": 4.0 * (5 * self.width * d + 4 * batch * self.width)}

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        mean, scale = centre_and_scale(rows, rng)
        centre, atoms, encoder = mean.to(device), self._atoms(rows.shape[1], rng).to(device), TopK(k=self.k)
        given = {"weight": atoms, "shift": atoms.new_zeros(self.width), "bias": atoms.new_zeros(len(centre))}
        adam = Adam(given)
        descent = Descent(rows, centre, scale, self.steps, self.batch, self.lr, rng.child("batches"), watch, device)
        fvu = descent.run(
            adam, lambda learnt, x: encoder._forward(learnt, x - learnt["bias"]) @ atoms + learnt["bias"]
        )
        learnt = {name: tensor.detach() for name, tensor in adam.learnt.items()}
        # With x = (h - mean) / s, codes in units of h are s times the codes in units of x.
        tensors = {"weight": learnt["weight"], "shift": learnt["shift"] * scale}
        bias = centre + learnt["bias"] * scale
        return assemble(atoms, bias, encoder, tensors, flops=self.estimate(rows)["flops"], fvu=fvu)
