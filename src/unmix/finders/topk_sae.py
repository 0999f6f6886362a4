"""The TopK sparse autoencoder, trained on sparse codes and sparse gradients."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator

from unmix.core import flops
from unmix.core.loop import minibatches, warm_then_decay
from unmix.core.rows import Rows
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.encoders.amortised import TopK
from unmix.finders.base import Finder, centre_and_scale
from unmix.finders.features import Features, assemble


class TopKSAE(Finder):
    """A TopK sparse autoencoder: z = top_k(relu(W (h - b) + c)), h' = z D + b, trained on |h - h'|^2.

    width: number of atoms m. k: active codes in a row. steps, batch, lr: Adam with warm-up and a linear decay;
    data are centred and scaled for the training and the scale is folded away exactly.
    aux_k, dead_after: latents that have not fired for `dead_after` rows reconstruct the residual with their
    own aux_k largest activations (0 turns it off). Atoms have unit norm after every step.
    """

    equation: ClassVar[str] = "min |h - z D - b|^2,  z = top_k(relu(W (h - b) + c))"
    reference: ClassVar[str] = "Gao et al. 2024, arXiv 2406.04093"

    width: int = Field(1024, ge=1)
    k: int = Field(32, ge=1)
    steps: int = Field(2000, ge=1)
    batch: int = Field(512, ge=1)
    lr: float = Field(3e-3, gt=0)
    aux_k: int = Field(64, ge=0)
    dead_after: int = Field(100_000, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> TopKSAE:
        if self.k > self.width:
            raise ValueError(f"k={self.k} must be at most the number of atoms, width={self.width}")
        return self

    def estimate(self, rows: Rows) -> dict[str, float]:
        batch, d = min(self.batch, rows.shape[0]), rows.shape[1]
        step = flops.topk_step(batch, self.width, d, self.k)
        return {"flops": self.steps * step, "bytes": 4.0 * (6 * self.width * d + 2 * batch * (d + self.k))}

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features:
        from unmix.kernels.topk import TopKTrainer

        mean, scale = centre_and_scale(rows, rng)
        d = rows.shape[1]
        draw = rng.child("atoms").torch()
        atoms = torch.nn.functional.normalize(torch.randn(self.width, d, generator=draw)).to(device)
        trainer = TopKTrainer(
            atoms.clone(),
            atoms.new_zeros(self.width),
            atoms,
            atoms.new_zeros(d),
            self.k,
            lr=self.lr,
            aux_k=min(self.aux_k, self.width),
            dead_after=self.dead_after,
        )
        start = 0
        if (state := watch.restore()) is not None:
            start = int(state.pop("step"))
            trainer.load_state(state)
        centre = mean.to(device)
        for step, h in minibatches(rows, self.batch, self.steps, rng.child("batches"), start, device):
            facts = trainer.step((h - centre) / scale, lr=self.lr * warm_then_decay(step, self.steps))
            watch.on_step(step + 1, self.steps, facts)
            watch.save(lambda step=step: {**trainer.state(), "step": torch.tensor(step + 1)})
        fitted = trainer.parameters()
        # With x = (h - mean) / s, codes in units of h are s times the codes in units of x; relu and top-k commute.
        tensors = {"weight": fitted["weight"], "shift": fitted["encoder_bias"] * scale}
        batch = min(self.batch, rows.shape[0])
        return assemble(
            fitted["atoms"],
            centre + fitted["decoder_bias"] * scale,
            TopK(k=self.k),
            tensors,
            flops=self.steps * flops.topk_step(batch, self.width, d, self.k),
            fvu=float(facts["fvu"]),
        )
