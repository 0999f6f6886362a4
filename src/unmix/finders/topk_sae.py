"""The TopK sparse autoencoder, trained on sparse codes and sparse gradients."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core import parallel
from unmix.core.watch import Watch
from unmix.encoders.amortised import TopK
from unmix.encoders.base import Encoder
from unmix.finders.sparse import Given, SparseSAE

KEPT = 50  # states of a fit with split atoms that may be kept


class TopKSAE(SparseSAE):
    """A TopK sparse autoencoder: z = top_k(relu(W (h - b) + c)), h' = z D + b, trained on |h - h'|^2.

    width: number of atoms m. k: active codes in a row. steps, batch, lr: Adam with warm-up and a linear decay;
    data are centred and scaled for the training and both are folded away exactly. centre: what is taken off the rows,
    and where the decoder's bias starts: their geometric "median", their "mean", or "none".
    aux_k, dead_after: latents that have not fired for `dead_after` rows reconstruct the residual with their
    own aux_k largest activations (0 turns it off). Atoms have unit norm after every step.
    accumulate: slices that a batch is worked on in, one after the other. split: what torchrun's processes divide
    among themselves, the "rows" of each batch, or the "atoms" of a dictionary that outgrows one device. Neither
    changes the result.
    """

    equation: ClassVar[str] = "min |h - z D - b|^2,  z = top_k(relu(W (h - b) + c))"
    reference: ClassVar[str] = "Gao et al. 2024, arXiv 2406.04093"

    k: int = Field(default=32, ge=1)
    split: Literal["rows", "atoms"] = "rows"

    @model_validator(mode="after")
    def _possible(self) -> TopKSAE:
        if self.k > self.width:
            raise ValueError(f"k={self.k} must be at most the number of atoms, width={self.width}")
        if self.split == "atoms" and self.accumulate > 1:
            raise ValueError(f"accumulate={self.accumulate} must be 1 where atoms are split")
        return self

    def _active(self) -> float:
        return self.k

    def _trainer(self, given: Given, x: Tensor, start: Tensor | None, **options: Any) -> Any:
        if self.split == "atoms" and parallel.ranks() > 1:
            from unmix.kernels.sharded import ShardedTopKTrainer

            return ShardedTopKTrainer(*given, self.k, **options)
        from unmix.kernels.topk import TopKTrainer

        return TopKTrainer(*given, self.k, **options)

    def _check_slices(self, batch: int) -> None:
        if self.split == "rows":
            super()._check_slices(batch)

    def _keep(self, trainer: Any, done: int, watch: Watch) -> None:
        if self.split == "rows" or parallel.ranks() == 1:
            super()._keep(trainer, done, watch)
        elif done % max(1, self.steps // KEPT) == 0:
            state = trainer.whole_state()  # every process must ask, so it cannot be left to the first one's clock
            watch.save(lambda: {**state, "step": torch.tensor(done)})

    def _reader(self, trainer: Any, scale: float) -> tuple[Encoder, dict[str, Tensor]]:
        return TopK(k=self.k), {}
