"""Training steps of BatchTopK and JumpReLU autoencoders on sparse codes and sparse gradients."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from unmix.core import parallel
from unmix.core.errors import UsageError
from unmix.kernels.lists import Lists
from unmix.kernels.topk_trainer import checked_k
from unmix.kernels.trainer import SparseTrainer

_SAMPLE = 256
_AVERAGE = 0.05  # share of the newest batch in the running threshold
_SPARE = 1.25  # candidates to look at, over codes to keep


class BatchTopKTrainer(SparseTrainer):
    """Trains z = the b k largest of relu((x - b) W' + c) of the whole batch; everything else as in `SparseTrainer`.

    k: mean number of active codes in a row. `threshold` is the running mean, over about 20 batches, of the least code
    that was kept: what replaces the batch when rows are encoded. Ties go to the first row and the lowest index.
    Only pre-activations above a level learnt from the batch before are looked at; where they are fewer than b k, the
    level is lowered and the batch done again, so that the selection is exact.
    Source: Bussmann, Leask, Nanda 2024, arXiv 2412.06410.
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
        self.threshold = torch.zeros((), dtype=torch.float64)
        self.level = torch.tensor(-1.0, dtype=torch.float64)

    def state(self) -> dict[str, Tensor]:
        """As in `SparseTrainer`, with the threshold and the level."""
        return super().state() | {"threshold": self.threshold, "level": self.level}

    def _codes(self, inputs: Tensor, norms: Tensor | None, dead: Tensor) -> tuple[Lists, Lists | None]:
        bias, spare = self._parameters["encoder_bias"], self._spare(inputs, dead)
        wanted = self.k * len(inputs) * parallel.ranks()
        level = float(self.level) if self.steps else self._guess(inputs)
        found = _Found(self._above(inputs, dead, bias, level, spare))
        while found.count < wanted and level > 0:
            level = 0.7 * level if level > 0.4 * float(self.level) else 0.0
            found = _Found(self._above(inputs, dead, bias, level, spare))
        least = found.largest(wanted) if found.count > wanted else level
        lists = found.gather(least, wanted) if found.count > wanted else found.lists.gather()
        share = max(1 / (self.steps + 1), _AVERAGE)
        self.threshold.mul_(1 - share).add_(share * least)
        if found.count > 1.6 * wanted:
            level = found.largest(round(_SPARE * wanted))
        elif found.count < 1.1 * wanted:
            level *= 0.97
        self.level.fill_(level)
        return Lists(*lists), spare

    def _guess(self, inputs: Tensor) -> float:
        """A level that about 1.4 k pre-activations of a row reach, from some of the rows."""
        some = inputs[:: -(-len(inputs) // _SAMPLE)]
        before = torch.addmm(self._parameters["encoder_bias"], some, self._parameters["weight"].T).relu_().flatten()
        least = before.topk(min(len(before), round(1.4 * self.k * len(some))), sorted=False).values.min()
        return float(parallel.mean(least))


class _Found:
    """Entries above a level in the rows of all processes; `lists` are those of the own rows."""

    def __init__(self, lists: Any) -> None:
        self.lists = lists
        self.values = parallel.collected(lists.gather()[2]) if parallel.ranks() > 1 else None
        self.count = len(lists) if self.values is None else len(self.values)

    def largest(self, rank: int) -> float:
        """The value of that rank, from 1 for the largest."""
        if self.values is None:
            return self.lists.largest(rank)
        return float(self.values.topk(rank, sorted=False).values.min())

    def gather(self, least: float, wanted: int) -> tuple[Tensor, ...]:
        """The own entries that are at least `least`, in all `wanted`; among several processes all ties are kept."""
        return self.lists.gather(least, wanted if self.values is None else len(self.lists))


class JumpReLUTrainer(SparseTrainer):
    """Trains z = a [a > t] with a = (x - b) W' + c and a threshold t_j for each latent.

    The loss of `SparseTrainer` has one more term, penalty * mean_i |z_i|_0; with `active` given it is
    penalty * (mean_i |z_i|_0 / active - 1)^2. Gradients of the threshold are straight through, by a rectangle
    of the given bandwidth e about it: d z_j / d t_j = -(t_j / e) [|a_j - t_j| < e / 2] and
    d [a_j > t_j] / d t_j = -(1 / e) [|a_j - t_j| < e / 2]; those of a are as for fixed thresholds.
    The learnt vector is log_threshold, log t [m].

    threshold [m] > 0: at the start. penalty may be changed between steps. bandwidth and threshold are in units of a.
    Source: Rajamanoharan et al. 2024, arXiv 2407.14435.
    """

    vectors: ClassVar[tuple[str, ...]] = ("log_threshold",)

    def __init__(
        self,
        weight: Tensor,
        encoder_bias: Tensor,
        atoms: Tensor,
        decoder_bias: Tensor,
        threshold: Tensor,
        bandwidth: float,
        penalty: float,
        active: float | None = None,
        lr: float = 1e-3,
        **options: Any,
    ) -> None:
        if not bool((threshold > 0).all()):
            raise UsageError("threshold: must be positive everywhere")
        for name, value in (("bandwidth", bandwidth), ("active", 1.0 if active is None else active)):
            if not value > 0:
                raise UsageError(f"{name}: must be positive, got {value}")
        given = (weight, encoder_bias, atoms, decoder_bias)
        super().__init__(*given, lr, log_threshold=threshold.log(), **options)
        self.bandwidth, self.penalty, self.active = bandwidth, penalty, active

    def threshold(self) -> Tensor:
        """Thresholds as they are now [m]."""
        return self._parameters["log_threshold"].exp()

    def _codes(self, inputs: Tensor, norms: Tensor | None, dead: Tensor) -> tuple[Lists, Lists | None]:
        threshold, spare = self.threshold(), self._spare(inputs, dead)
        shift = self._parameters["encoder_bias"] - (threshold - self.bandwidth / 2)
        pointers, indices, before = self._above(inputs, dead, shift, 0.0, spare).gather()
        self._before = before
        # Those below the threshold teach nothing but the threshold: they stay in the lists with value 0.
        if not self.compiled:
            return Lists(pointers, indices, torch.where(before > threshold[indices], before, 0)), spare
        from unmix.kernels._jump_compiled import jump_codes

        values = torch.empty_like(before)
        jump_codes(indices.numpy(), before.numpy(), threshold.numpy(), values.numpy())
        return Lists(pointers, indices, values), spare

    def _own_gradients(self, codes: Lists) -> dict[str, Tensor]:
        b, threshold = codes.batch, self.threshold()
        weight = self.penalty
        if self.active is not None:
            count = parallel.count(int((codes.values != 0).sum()), threshold.device)
            weight *= 2 * (count / b / self.active - 1) / self.active
        gradient = torch.zeros_like(threshold)
        if self.compiled:
            from unmix.kernels._jump_compiled import jump_slopes

            given = (t.numpy() for t in (codes.indices, self._before, codes.slopes, threshold))
            jump_slopes(*given, self.bandwidth, codes.scale, weight / b, gradient.numpy())
            return {"log_threshold": gradient}
        places = ((self._before - threshold[codes.indices]).abs() < self.bandwidth / 2).nonzero().squeeze(1)
        latents = codes.indices[places]
        own = threshold[latents]
        slope = (codes.slopes[places] * own * codes.scale + weight / b) * own / -self.bandwidth
        return {"log_threshold": gradient.index_add_(0, latents, slope)}
