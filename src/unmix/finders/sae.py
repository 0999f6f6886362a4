"""Sparse autoencoders: a dictionary learnt together with an amortised encoder."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from unmix.core import flops
from unmix.core.errors import UsageError
from unmix.core.loop import minibatches, warm_then_decay
from unmix.core.rows import Rows
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.encoders import ENCODERS
from unmix.encoders.amortised import MLP, Amortised, Linear
from unmix.finders.base import Finder, centre_and_scale
from unmix.finders.features import Features, assemble
from unmix.finders.penalties import SparsityWeight


class SAE(Finder):
    """A sparse autoencoder with an l1 penalty: 1/2 |h - z D - b|^2 + penalty |z|_1, z from `encoder`.

    width: number of atoms m. encoder: Linear or MLP, trained together with the dictionary.
    penalty: lambda of the textbook objective in the units of the rows; or active: the mean number of active
    codes to reach, by a penalty that adapts during training. Give one of the two.
    steps, batch, lr: Adam with warm-up and a linear decay, on centred and scaled rows.
    """

    equation: ClassVar[str] = "min 1/2 |h - z D - b|^2 + lambda |z|_1,  z = relu(W (h - b) + c),  |d_j| = 1"
    reference: ClassVar[str] = "Cunningham et al. 2023, arXiv 2309.08600"

    width: int = Field(1024, ge=1)
    penalty: float | None = Field(None, ge=0)
    active: float | None = Field(None, gt=0)
    encoder: Annotated[Any, BeforeValidator(ENCODERS.make)] = Field(default_factory=Linear)
    steps: int = Field(4000, ge=1)
    batch: int = Field(1024, ge=1)
    lr: float = Field(1e-3, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> SAE:
        if (self.penalty is None) == (self.active is None):
            raise ValueError("give one of penalty and active")
        if self.active is not None and self.active > self.width:
            raise ValueError(f"active={self.active} must be at most the number of atoms, width={self.width}")
        if not isinstance(self.encoder, (Linear, MLP)) or not getattr(self.encoder, "rectify", True):
            raise ValueError(f"encoder={self.encoder.kind} must be a rectified Linear or an MLP")
        return self

    def estimate(self, rows: Rows) -> dict[str, float]:
        batch, d = min(self.batch, rows.shape[0]), rows.shape[1]
        step = flops.dense_step(batch, self.width, d)
        return {"flops": self.steps * step, "bytes": 4.0 * (8 * self.width * d + 6 * batch * self.width)}

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        mean, scale = centre_and_scale(rows, rng)
        d = rows.shape[1]
        draw = rng.child("atoms").torch()
        atoms = torch.nn.functional.normalize(torch.randn(self.width, d, generator=draw)).to(device)
        encoder: Amortised = self.encoder
        learnt = {"atoms": atoms, "bias": atoms.new_zeros(d), **encoder._start(atoms, rng.child("weights"))}
        threshold = learnt.pop("threshold")
        learnt = {name: tensor.clone().requires_grad_() for name, tensor in learnt.items()}
        optimiser = torch.optim.Adam(learnt.values(), lr=self.lr, fused=device == "cpu")
        sparsity = SparsityWeight(self.active)
        if self.penalty is not None:
            sparsity.weight = self.penalty / scale
        start = _resume(watch.restore(), learnt, optimiser, sparsity)
        centre = mean.to(device)
        for step, h in minibatches(rows, self.batch, self.steps, rng.child("batches"), start, device):
            x = (h - centre) / scale - learnt["bias"]
            codes = encoder._forward(learnt, x)
            error = (x - codes @ learnt["atoms"]).square().sum(1)
            loss = error.mean() / 2 + sparsity.weight * codes.sum(1).mean()
            optimiser.param_groups[0]["lr"] = self.lr * warm_then_decay(step, self.steps)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                learnt["atoms"].div_(learnt["atoms"].norm(dim=1, keepdim=True).clamp_min(1e-12))
            sparsity.update(codes)
            facts = {"loss": loss.detach(), "fvu": error.detach().mean() / x.detach().square().sum(1).mean()}
            watch.on_step(step + 1, self.steps, facts)
            watch.save(lambda step=step: _state(step + 1, learnt, optimiser, sparsity))
        fitted = {name: tensor.detach() for name, tensor in learnt.items()}
        for name in ("shift", "out_shift"):
            if name in fitted:
                fitted[name] = fitted[name] * scale
        bias = centre + fitted.pop("bias") * scale
        batch = min(self.batch, rows.shape[0])
        return assemble(
            fitted.pop("atoms"),
            bias,
            encoder,
            {**fitted, "threshold": threshold},
            flops=self.steps * flops.dense_step(batch, self.width, d),
            fvu=float(facts["fvu"]),
            penalty=sparsity.weight * scale,
        )


def _state(
    step: int, learnt: dict[str, Tensor], optimiser: torch.optim.Adam, sparsity: SparsityWeight
) -> dict[str, Tensor]:
    state = {f"learnt.{name}": tensor.detach() for name, tensor in learnt.items()}
    for name, tensor in learnt.items():
        for part, value in optimiser.state[tensor].items():
            state[f"adam.{part}.{name}"] = value
    return {**state, "step": torch.tensor(step), "weight": torch.tensor(sparsity.weight, dtype=torch.float64)}


def _resume(
    state: dict[str, Tensor] | None,
    learnt: dict[str, Tensor],
    optimiser: torch.optim.Adam,
    sparsity: SparsityWeight,
) -> int:
    if state is None:
        return 0
    if {f"learnt.{name}" for name in learnt} - state.keys():
        raise UsageError("checkpoint: made by another recipe; remove it to start again")
    with torch.no_grad():
        for name, tensor in learnt.items():
            tensor.copy_(state[f"learnt.{name}"])
            optimiser.state[tensor] = {
                part: state[f"adam.{part}.{name}"] for part in ("step", "exp_avg", "exp_avg_sq")
            }
    sparsity.weight = float(state["weight"])
    return int(state["step"])
