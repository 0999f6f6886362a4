"""The training step of a TopK sparse autoencoder on sparse codes; no dense code or gradient of one is ever made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.kernels._compiled import array, run_parts
from unmix.kernels._topk_plain import select
from unmix.kernels.lists import Lists, parts_of, rectangular
from unmix.kernels.trainer import SparseTrainer

_SAMPLE = 256


class TopKTrainer(SparseTrainer):
    """Trains z = top_k(relu((x - b) W' + c)), x' = z D + b; everything else is as in `SparseTrainer`.

    k: active latents in a row. Source: Gao et al. 2024, arXiv 2406.04093.

    The compiled version keeps only the pre-activations above `screen` times the norm of their row, a share learnt
    from the batch before; a row with fewer than k of them is done again without a screen, so that codes are exact.
    """

    def __init__(
        self,
        weight: Tensor,
        encoder_bias: Tensor,
        atoms: Tensor,
        decoder_bias: Tensor,
        k: int,
        lr: float = 1e-3,
        **options: Any,
    ) -> None:
        super().__init__(weight, encoder_bias, atoms, decoder_bias, lr, **options)
        self.k = checked_k(k, len(weight))
        self.screen = torch.tensor(-1.0, dtype=torch.float64)

    def state(self) -> dict[str, Tensor]:
        """As in `SparseTrainer`, with the screen: rows done again differ in their last bits."""
        return super().state() | {"screen": self.screen}

    def _codes(self, inputs: Tensor, norms: Tensor | None, dead: Tensor) -> tuple[Lists, Lists | None]:
        b = len(inputs)
        values = inputs.new_empty(b, self.k)
        indices = torch.empty(b, self.k, dtype=torch.int64, device=inputs.device)
        spare = self._spare(inputs, dead)
        if norms is None:
            for rows, before in self._blocks(inputs, dead, spare):
                # Positive ties between different latents do not happen in training, and inactive slots teach nothing.
                values[rows], indices[rows] = select(before, self.k, exact=False)
            return rectangular(values, indices), spare
        from unmix.kernels._screen_compiled import largest_of_rows

        sizes = norms.clamp_min(torch.finfo(norms.dtype).tiny)
        if self.screen < 0:
            some = torch.arange(0, b, -(-b // _SAMPLE))
            self._learn(self._select(inputs, some, values, indices) / sizes[some])
        level, least = sizes * float(self.screen), torch.empty_like(norms)
        for found in self._collect(inputs, dead, self._parameters["encoder_bias"], level, spare):
            given = found.pointers, found.columns, found.values, self.k
            into = (t[found.rows].numpy() for t in (values, indices, least))
            run_parts(largest_of_rows, parts_of(len(level[found.rows]), 4 * self.k), *given, *into)
        missed = (least < 0).nonzero().squeeze(1)
        for some in missed.split(_SAMPLE):
            least[some] = self._select(inputs, some, values, indices)
        self._learn(least / sizes)
        return rectangular(values, indices), spare

    def _select(self, inputs: Tensor, rows: Tensor, values: Tensor, indices: Tensor) -> Tensor:
        """Fill the codes of these rows without a screen; returns the least of each."""
        from unmix.kernels._topk_compiled import select_rows

        before = torch.mm(inputs[rows], self._parameters["weight"].T)
        found, chosen = values.new_empty(len(rows), self.k), indices.new_empty(len(rows), self.k)
        given = before.numpy(), array(self._parameters["encoder_bias"]), self.k
        run_parts(select_rows, parts_of(*before.shape), *given, found.numpy(), chosen.numpy())
        values[rows], indices[rows] = found, chosen
        return found.amin(1)

    def _learn(self, shares: Tensor) -> None:
        """The screen for the next batch: somewhat below the least share, but not far below those of most rows."""
        few = shares.kthvalue(1 + len(shares) // 100).values
        self.screen.copy_(torch.maximum(0.98 * shares.amin(), 0.8 * few).clamp_min(0))


def checked_k(k: int, m: int) -> int:
    """k, or `UsageError` where it is not in 1..m."""
    if not 1 <= k <= m:
        raise UsageError(f"k: must be between 1 and the number of latents {m}, got {k}")
    return k
