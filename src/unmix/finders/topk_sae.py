"""The TopK sparse autoencoder, trained on sparse codes and sparse gradients."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor

from unmix.encoders.amortised import TopK
from unmix.encoders.base import Encoder
from unmix.finders.sparse import SparseSAE


class TopKSAE(SparseSAE):
    """A TopK sparse autoencoder: z = top_k(relu(W (h - b) + c)), h' = z D + b, trained on |h - h'|^2.

    width: number of atoms m. k: active codes in a row. steps, batch, lr: Adam with warm-up and a linear decay;
    data are centred and scaled for the training and both are folded away exactly. centre: what is taken off the rows,
    and where the decoder's bias starts: their geometric "median", their "mean", or "none".
    aux_k, dead_after: latents that have not fired for `dead_after` rows reconstruct the residual with their
    own aux_k largest activations (0 turns it off). Atoms have unit norm after every step.
    """

    equation: ClassVar[str] = "min |h - z D - b|^2,  z = top_k(relu(W (h - b) + c))"
    reference: ClassVar[str] = "Gao et al. 2024, arXiv 2406.04093"

    k: int = Field(32, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> TopKSAE:
        if self.k > self.width:
            raise ValueError(f"k={self.k} must be at most the number of atoms, width={self.width}")
        return self

    def _active(self) -> float:
        return self.k

    def _trainer(self, given: tuple[Tensor, ...], x: Tensor, start: Tensor | None, **options: Any) -> Any:
        from unmix.kernels.topk import TopKTrainer

        return TopKTrainer(*given, self.k, **options)

    def _reader(self, trainer: Any, scale: float) -> tuple[Encoder, dict[str, Tensor]]:
        return TopK(k=self.k), {}
