"""Sparse dictionary learning: inference by an exact solver, atoms by block coordinate descent."""

from __future__ import annotations

import functools
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core import flops
from unmix.core.codes import Codes
from unmix.core.loop import minibatches
from unmix.core.rows import Rows, gather
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.encoders.base import Encoder
from unmix.encoders.greedy import Omp
from unmix.encoders.iterative import Fista
from unmix.encoders.matched import at_sparsity
from unmix.finders.base import Finder, centre_and_scale
from unmix.finders.features import Features, _Dictionary, assemble


class SparseCoding(Finder):
    """Sparse coding by alternation: exact sparse inference of a batch, then block coordinate descent of the atoms.

    width: number of atoms m. penalty: lambda in the units of the rows; or active: the mean number of active
    codes, by a penalty that adapts during the fit. Give one of the two.
    inference: "lasso" (the l1 problem) or "omp" (round(active) atoms a row, non-negative) in the alternation.
    passes: passes over the rows. batch: rows between two updates of the atoms. memory: passes that the statistics of
    the atoms' update remember. tolerance: relative duality gap of the inference during the fit.
    Atoms that are not used, or are copies of another, are replaced by rows that are reconstructed worst.
    """

    equation: ClassVar[str] = "min_D sum_n min_{z >= 0} 1/2 |x_n - z D|^2 + lambda |z|_1,  |d_j| = 1"
    reference: ClassVar[str] = "Mairal et al. 2009, arXiv 0908.0050"
    continues: ClassVar[bool] = True

    width: int = Field(1024, ge=1)
    penalty: float | None = Field(None, ge=0)
    active: float | None = Field(None, gt=0)
    inference: Literal["lasso", "omp"] = "lasso"
    passes: int = Field(5, ge=1)
    batch: int = Field(2048, ge=1)
    memory: float = Field(1.0, gt=0)
    tolerance: float = Field(1e-3, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> SparseCoding:
        if (self.penalty is None) == (self.active is None):
            raise ValueError("give one of penalty and active")
        if self.active is not None and self.active > self.width:
            raise ValueError(f"active={self.active} must be at most the number of atoms, width={self.width}")
        if self.inference == "omp" and self.active is None:
            raise ValueError("inference='omp' needs active, the number of atoms in a row")
        return self

    def estimate(self, rows: Rows) -> dict[str, float]:
        n, d = rows.shape
        active = self.active or min(32, self.width)
        row = flops.product(1, d, self.width) + 8 * active * self.width
        return {"flops": self.passes * n * row, "bytes": 4.0 * (3 * self.width**2 + 4 * self.width * d)}

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str, start: Features | None = None) -> Features:
        from unmix.kernels.update import gram_statistics, update_atoms

        mean, scale = centre_and_scale(rows, rng)
        n, d = rows.shape
        centre = mean.to(device)
        batch = min(self.batch, n)
        steps = self.passes * (n // batch)
        atoms = self._first_atoms(rows, centre, rng, device) if start is None else start.atoms
        bias = atoms.new_zeros(d)
        encoder = self._first_encoder(rows, atoms, mean, scale, rng)
        a, b = atoms.new_zeros(self.width, self.width), atoms.new_zeros(self.width, d)
        spent, done = 0.0, 0
        if (state := watch.restore()) is not None:
            atoms, a, b, done = (
                state["atoms"].to(device),
                state["a"].to(device),
                state["b"].to(device),
                int(state["step"]),
            )
            spent = float(state["spent"])
            if "penalty" in state:
                encoder = encoder.but(penalty=float(state["penalty"]))
        for step, h in minibatches(rows, batch, steps, rng.child("batches"), done, device):
            x = (h - centre) / scale
            codes = encoder.bind(_Dictionary(atoms, bias))(x)
            fade = self._fade(step, batch, n)
            za, zx = gram_statistics(codes.ragged(), x)
            a, b = a.mul_(fade).add_(za), b.mul_(fade).add_(zx)
            atoms = update_atoms(atoms, a, b)
            error = (x - codes.decode(atoms)).square().sum(1)
            if step < 0.8 * steps:
                atoms = self._reseed(atoms, a, b, x, error, rng.child(f"reseed {step}"))
            active = codes.l0().double().mean().item()
            encoder = self._steer(encoder, active, step, steps)
            spent += _spent(codes, encoder, atoms) + flops.product(self.width, self.width, d)
            facts = {"fvu": error.mean() / x.square().sum(1).mean(), "l0": active}
            watch.on_step(step + 1, steps, facts)
            watch.save(functools.partial(_keep, step + 1, atoms, a, b, spent, encoder))
        final = self._final_encoder(encoder, scale)
        facts = {name: float(value) for name, value in facts.items()}
        return assemble(atoms, centre, final, None, flops=spent, **facts)

    def _first_atoms(self, rows: Rows, centre: Tensor, rng: Stream, device: str) -> Tensor:
        """Rows as first atoms, without their mean; a little noise keeps copies of one row apart."""
        draw = rng.child("atoms")
        count = min(self.width, rows.shape[0])
        chosen = gather(rows, count, draw).to(device).float() - centre
        noise = torch.randn(self.width, rows.shape[1], generator=draw.child("noise").torch()).to(device)
        size = chosen.square().mean().sqrt()
        first = torch.cat([chosen, size * noise[count:]]) + 0.01 * size * noise
        return torch.nn.functional.normalize(first)

    def _first_encoder(self, rows: Rows, atoms: Tensor, mean: Tensor, scale: float, rng: Stream) -> Encoder:
        if self.inference == "omp":
            return Omp(k=max(1, round(self.active or 1)))
        if self.penalty is not None:
            return Fista(penalty=self.penalty / scale, tolerance=self.tolerance)
        sample = (gather(rows, 1024, rng.child("penalty")).float() - mean) / scale
        start = Fista(penalty=1.0, tolerance=self.tolerance)
        cold = _Dictionary(atoms.cpu(), mean.new_zeros(len(mean)))
        found = at_sparsity(start, cold, sample, float(self.active or 1), rng, 0.1)
        return found

    def _fade(self, step: int, batch: int, n: int) -> float:
        """Weight of the past: statistics remember about `memory` passes, less in the beginning."""
        window = max(1.0, min(self.memory * n / batch, (step + 1) / 2))
        return 1.0 - 1.0 / window

    def _steer(self, encoder: Encoder, active: float, step: int, steps: int) -> Encoder:
        if self.active is None or not isinstance(encoder, Fista):
            return encoder
        ratio = max(active, 0.1) / self.active
        rate = 0.2 if step < steps / 2 else 0.05
        return encoder.but(penalty=encoder.penalty * min(max(ratio, 0.5), 2.0) ** rate)

    def _reseed(self, atoms: Tensor, a: Tensor, b: Tensor, x: Tensor, error: Tensor, rng: Stream) -> Tensor:
        """Replace unused atoms, and the less used of two copies, by the rows reconstructed worst."""
        use = a.diagonal()
        poor = use < 1e-4 * use.mean()
        close = (atoms @ atoms.T).fill_diagonal_(0)
        first, second = (close > 0.98).nonzero(as_tuple=True)
        poor[torch.where(use[first] < use[second], first, second)] = True
        where = poor.nonzero().squeeze(1)[: max(1, len(x) // 8)]
        if not len(where):
            return atoms
        worst = error.topk(min(len(x), 4 * len(where))).indices
        order = torch.from_numpy(rng.numpy().permutation(len(worst))[: len(where)]).to(worst.device)
        where = where[: len(order)]
        atoms = atoms.clone()
        atoms[where] = torch.nn.functional.normalize(x[worst[order]])
        a[where], a[:, where], b[where] = 0, 0, 0
        return atoms

    def _final_encoder(self, encoder: Encoder, scale: float) -> Encoder:
        if isinstance(encoder, Fista):
            return Fista(penalty=encoder.penalty * scale)
        return encoder


def _spent(codes: Codes, encoder: Encoder, atoms: Tensor) -> float:
    if codes.cost is not None:
        return float(codes.cost.sum())
    return len(codes) * encoder._flops(*atoms.shape)


def _keep(step: int, atoms: Tensor, a: Tensor, b: Tensor, spent: float, encoder: Encoder) -> dict[str, Tensor]:
    state = {
        "atoms": atoms,
        "a": a,
        "b": b,
        "step": torch.tensor(step),
        "spent": torch.tensor(spent, dtype=torch.float64),
    }
    if isinstance(encoder, Fista):
        state["penalty"] = torch.tensor(encoder.penalty, dtype=torch.float64)
    return state
