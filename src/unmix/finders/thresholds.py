"""Autoencoders read by thresholds, BatchTopK and JumpReLU, trained on sparse codes and sparse gradients."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.encoders.base import Encoder
from unmix.encoders.thresholds import BatchTopK, JumpReLU
from unmix.finders.sparse import Given, SparseSAE


class BatchTopKSAE(SparseSAE):
    """A BatchTopK sparse autoencoder: the k n largest codes of each batch of n rows are kept while it is trained.

    width: number of atoms m. k: mean number of active codes in a row. Rows are read with one threshold, the running
    mean of what cut the last batches, so that the codes of a row do not depend on its batch. steps, batch, lr: Adam
    with warm-up and a linear decay; data are centred and scaled for the training and both are folded away exactly.
    centre: what is taken off the rows, and where the decoder's bias starts: their geometric "median", their "mean",
    or "none". aux_k, dead_after: latents that have not fired for `dead_after` rows reconstruct the residual with
    their own aux_k largest activations (0 turns it off). Atoms have unit norm after every step. accumulate: 1, for a
    batch is one whole.
    """

    equation: ClassVar[str] = "min |h - z D - b|^2,  z = the k n largest of the batch's relu(W (h - b) + c)"
    reference: ClassVar[str] = "Bussmann, Leask, Nanda 2024, arXiv 2412.06410"

    k: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> BatchTopKSAE:
        if self.k > self.width:
            raise ValueError(f"k={self.k} must be at most the number of atoms, width={self.width}")
        return self

    def _active(self) -> float:
        return self.k

    def _trainer(self, given: Given, x: Tensor, start: Tensor | None, **options: Any) -> Any:
        from unmix.kernels.threshold import BatchTopKTrainer

        return BatchTopKTrainer(*given, self.k, **options)

    def _check_slices(self, batch: int) -> None:
        if self.accumulate > 1:
            raise UsageError(
                f"BatchTopKSAE.accumulate={self.accumulate}: codes are chosen in the whole batch; give 1"
            )
        super()._check_slices(batch)

    def _reader(self, trainer: Any, scale: float) -> tuple[Encoder, dict[str, Tensor]]:
        threshold = trainer.threshold * scale
        return BatchTopK(k=self.k), {"threshold": threshold.to(trainer.parameters()["weight"])}


class JumpReLUSAE(SparseSAE):
    """A JumpReLU sparse autoencoder: z_j = a_j [a_j > t_j], the thresholds t learnt straight through.

    Its loss is the unexplained share of the variance + penalty * mean |z|_0, or, where active is given,
    + penalty * (mean |z|_0 / active - 1)^2. The penalty warms up linearly over a first share `warm_up` of the steps.

    width: number of atoms m. penalty: above; what one more active code is worth, or the weight of missing the target,
    1 where only active is given. active: mean number of active codes to reach. bandwidth: of the rectangle through
    which thresholds learn, in units of the root mean square of the entries of the rows.
    steps, batch, lr: Adam with warm-up and a linear decay; data are centred and scaled for the training and both are
    folded away exactly. centre: what is taken off the rows, and where the decoder's bias starts: their geometric
    "median", their "mean", or "none". aux_k, dead_after: latents that have not fired for `dead_after` rows
    reconstruct the residual with their own aux_k largest activations (0 turns it off). Atoms have unit
    norm after every step. accumulate: slices that a batch is worked on in, one after the other; 1 with active.
    """

    equation: ClassVar[str] = "min |h - z D - b|^2 + lambda |z|_0,  z_j = a_j [ a_j > t_j ],  a = W (h - b) + c"
    reference: ClassVar[str] = "Rajamanoharan et al. 2024, arXiv 2407.14435"

    penalty: float | None = Field(default=None, ge=0)
    active: float | None = Field(default=None, gt=0)
    bandwidth: float = Field(default=0.2, gt=0)
    warm_up: float = Field(default=0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _possible(self) -> JumpReLUSAE:
        if self.penalty is None and self.active is None:
            raise ValueError("give penalty, or active, or both")
        if self.active is not None and self.active > self.width:
            raise ValueError(f"active={self.active} must be at most the number of atoms, width={self.width}")
        return self

    def _active(self) -> float:
        return min(self.width / 4, 32.0) if self.active is None else self.active

    def _trainer(self, given: Given, x: Tensor, start: Tensor | None, **options: Any) -> Any:
        from unmix.kernels.threshold import JumpReLUTrainer

        weight, shift, _, bias = given
        if start is None or not bool((start > 0).all()):
            # From where about twice the wanted number is active: near 0 half of all latents would be.
            before = torch.addmm(shift, x - bias, weight.T).flatten()
            wanted = min(len(before), round(2 * self._active() * len(x)))
            start = before.topk(max(1, wanted), sorted=False).values.min().clamp_min(0.1 * self.bandwidth)
        threshold = start.expand(self.width).contiguous()
        return JumpReLUTrainer(*given, threshold, self.bandwidth, 0.0, self.active, **options)

    def _check_slices(self, batch: int) -> None:
        if self.accumulate > 1 and self.active is not None:
            raise UsageError(f"JumpReLUSAE.accumulate={self.accumulate}: active is of the whole batch; give 1")
        super()._check_slices(batch)

    def _before_step(self, trainer: Any, step: int, d: int) -> None:
        full = 1.0 if self.penalty is None else self.penalty
        trainer.penalty = full * d * min(1.0, (step + 1) / max(1.0, self.warm_up * self.steps))

    def _reader(self, trainer: Any, scale: float) -> tuple[Encoder, dict[str, Tensor]]:
        return JumpReLU(bandwidth=self.bandwidth), {"threshold": trainer.threshold() * scale}
