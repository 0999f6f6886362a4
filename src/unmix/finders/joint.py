"""Sparse coding by joint gradient descent on codes and dictionary, as in the amortisation-gap paper."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unmix.core import flops
from unmix.core.errors import UsageError, notice
from unmix.core.rows import Rows, gather
from unmix.core.scale import mean_and_scale
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.encoders.perrow import Exponentiated
from unmix.finders.base import Finder, require_no_offset
from unmix.finders.features import Features, assemble

MOST_ROWS = 65_536
USUAL = 1e3  # scales of rows for which the paper's settings may do, from the inverse on


class JointCoding(Finder):
    """Sparse coding as the paper runs it: Adam on the logarithms of all codes and on the dictionary together.

    Every row has codes z = exp(s) of its own that start at exp(-10); all rows are one batch, neither centred nor
    scaled, so that weight, first codes and steps are in the units of the rows, which should be about 1.
    It is here to reproduce the paper; `SparseCoding` is faster and finds more.
    width: number of atoms m. weight: the paper's w on the mean |z|. steps, lr: of Adam on codes and dictionary.
    read_steps, read_lr: of Adam on the codes of new rows, the dictionary fixed.
    """

    equation: ClassVar[str] = "min_{D, s} mean (x - exp(s) D)^2 + w mean exp(s),  |d_j| = 1"
    reference: ClassVar[str] = "O'Neill, Gumran, Klindt 2024, arXiv 2411.13117"

    width: int = Field(default=16, ge=1)
    weight: float = Field(default=0.01, ge=0)
    steps: int = Field(default=40_000, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    read_steps: int = Field(default=10_000, ge=1)
    read_lr: float = Field(default=3e-3, gt=0)

    def estimate(self, rows: Rows) -> dict[str, float]:
        n, d = rows.shape
        step = flops.sparse_coding_step(n, self.width, d)
        return {"flops": self.steps * step, "bytes": 4.0 * (4 * n * self.width + 4 * self.width * d)}

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        n, d = rows.shape
        if n > MOST_ROWS:
            raise UsageError(
                f"JointCoding: keeps the codes of every row, at most {MOST_ROWS}, got {n}; use SparseCoding, "
                "or fewer samples"
            )
        sample = gather(rows)
        mean, scale = mean_and_scale(sample)
        require_no_offset("JointCoding", mean, scale)
        if not 1 / USUAL < scale < USUAL:
            notice(f"JointCoding: the rows have a scale of {scale:.3g}; its steps and first codes are for about 1")
        x = sample.float().to(device)
        raw = torch.randn(self.width, d, generator=rng.child("atoms").torch()).to(device)
        logs = torch.full((n, self.width), -10.0, device=device)
        parameters = [logs.requires_grad_(), raw.requires_grad_()]
        optimiser = torch.optim.Adam(parameters, lr=self.lr, fused=device == "cpu")
        start = _resume(watch.restore(), parameters, optimiser)
        with torch.no_grad():
            for step in range(start, self.steps):
                error = self._gradients(x, logs, raw)
                optimiser.step()
                if step % 100 == 99 or step + 1 == self.steps:
                    fvu = error.square().sum() / (x - x.mean(0)).square().sum().clamp_min(1e-30)
                    watch.on_step(step + 1, self.steps, {"fvu": fvu})
                    watch.save(partial(_state, step + 1, parameters, optimiser))
            atoms = torch.nn.functional.normalize(raw.detach())
            last = float(
                self._gradients(x, logs, raw).square().sum() / (x - x.mean(0)).square().sum().clamp_min(1e-30)
            )
        reader = Exponentiated(weight=self.weight, steps=self.read_steps, lr=self.read_lr)
        spent = self.steps * flops.sparse_coding_step(n, self.width, d)
        return assemble(atoms, atoms.new_zeros(d), reader, None, flops=spent, fvu=last)

    def _gradients(self, x: Tensor, logs: Tensor, raw: Tensor) -> Tensor:
        """Fill in both gradients by hand, for autograd costs more than the work at this size; the error [n, d]."""
        n, d = x.shape
        norms = raw.norm(dim=1, keepdim=True).clamp_min(1e-12)
        atoms, codes = raw / norms, logs.exp()
        error = torch.addmm(x, codes, atoms, beta=-1)
        slope = torch.addmm(codes.new_full((1, 1), self.weight / logs.numel()), error, atoms.T, alpha=2 / (n * d))
        logs.grad = slope.mul_(codes)
        pull = (codes.T @ error).mul_(2 / (n * d))
        raw.grad = (pull - (pull * atoms).sum(1, keepdim=True) * atoms).div_(norms)
        return error


def _state(step: int, parameters: list[Tensor], optimiser: torch.optim.Adam) -> dict[str, Tensor]:
    state = {"step": torch.tensor(step)}
    for name, tensor in zip(("logs", "raw"), parameters, strict=True):
        state[name] = tensor.detach()
        state |= {f"adam.{part}.{name}": value for part, value in optimiser.state[tensor].items()}
    return state


def _resume(state: dict[str, Tensor] | None, parameters: list[Tensor], optimiser: torch.optim.Adam) -> int:
    if state is None:
        return 0
    with torch.no_grad():
        for name, tensor in zip(("logs", "raw"), parameters, strict=True):
            tensor.copy_(state[name])
            parts = ("step", "exp_avg", "exp_avg_sq")
            optimiser.state[tensor] = {part: state[f"adam.{part}.{name}"] for part in parts}
    return int(state["step"])
