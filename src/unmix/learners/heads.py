"""Heads with as many classes as data: exact, fused with their optimiser, or moving only the rows of a batch."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unmix.core.errors import Failure
from unmix.core.seeds import Stream
from unmix.kernels.index_loss import AdamWSteps, adamw_, index_cross_entropy, index_cross_entropy_step
from unmix.learners.losses import smoothing_floor


class IndexHead(nn.Module):
    """Weights [N, d], one row for each datum, as a parameter; the loss is exact and made by chunks of classes."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def loss(
        self, h: Tensor, y: Tensor, smoothing: float, shares: Tensor | None, rng: Stream
    ) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of features h [n, d] with labels y [n] or [n, k], and its excess over its floor."""
        loss = index_cross_entropy(h, self.weights, y, smoothing, shares)
        return loss, loss.detach() - smoothing_floor(len(self.weights), smoothing)

    def stepped(self) -> None:
        """Called after every step."""

    def settled(self) -> Tensor:
        """The weights as they are after all steps."""
        return self.weights


class _Moving(IndexHead):
    """A head that moves its own rows by AdamW; `lrs` are the learning rates of all steps."""

    def __init__(self, weights: Tensor, lrs: Sequence[float], weight_decay: float) -> None:
        nn.Module.__init__(self)
        self.steps = AdamWSteps(torch.tensor(lrs, dtype=torch.float64), weight_decay)
        self.register_buffer("weights", weights)
        self.register_buffer("first", torch.zeros_like(weights))
        self.register_buffer("second", torch.zeros_like(weights))
        self.register_buffer("taken", torch.zeros((), dtype=torch.long))

    def stepped(self) -> None:
        self.taken += 1


class FusedHead(_Moving):
    """As `IndexHead`, but the backward pass moves the weights chunk by chunk: there is no gradient [N, d]."""

    def loss(
        self, h: Tensor, y: Tensor, smoothing: float, shares: Tensor | None, rng: Stream
    ) -> tuple[Tensor, Tensor]:
        step = self.steps[int(self.taken)]
        loss = index_cross_entropy_step(h, self.weights, self.first, self.second, y, step, smoothing, shares)
        return loss, loss.detach() - smoothing_floor(len(self.weights), smoothing)


class RowHead(_Moving):
    """Cross-entropy over the rows of a batch alone, each label once, and `negatives` more drawn at random.

    It is another loss than that over all rows. Rows that a batch does not use are left alone and catch up when they
    are next used, to what dense AdamW on this loss makes of them. With negatives it approximates the loss over all
    rows: each negative stands for (N - u) / negatives of the rows that the batch's u labels leave.
    """

    def __init__(self, weights: Tensor, lrs: Sequence[float], weight_decay: float, negatives: int = 0) -> None:
        super().__init__(weights, lrs, weight_decay)
        self.negatives = negatives
        self.register_buffer("done", torch.zeros(len(weights), dtype=torch.long))

    def loss(
        self, h: Tensor, y: Tensor, smoothing: float, shares: Tensor | None, rng: Stream
    ) -> tuple[Tensor, Tensor]:
        rows, place = torch.unique(y, return_inverse=True)
        own = len(rows)
        if self.negatives:
            rows = torch.cat([rows, self._others(rows, rng)])
        tables = [table[rows] for table in (self.weights, self.first, self.second)]
        now = int(self.taken)
        self.steps.replay_(*tables, self.done[rows], now)
        self._put(rows, tables, now)
        if h.requires_grad:
            tables[0].requires_grad_().register_hook(lambda gradient: self._move(rows, tables, gradient, now))
        weights = tables[0]
        if len(rows) > own:
            # A negative's logit is raised by the logarithm of the number of rows that it stands for.
            more = weights.new_zeros(len(rows), 1)
            more[own:] = math.log((len(self.weights) - own) / (len(rows) - own))
            h, weights = torch.cat([h, h.new_ones(len(h), 1)], 1), torch.cat([weights, more], 1)
        loss = index_cross_entropy(h, weights, place, smoothing, shares)
        return loss, loss.detach() - smoothing_floor(len(rows), smoothing)

    def _others(self, rows: Tensor, rng: Stream) -> Tensor:
        """Rows that no label of the batch names, without repeats; fewer where there are fewer."""
        draw = rng.child("negatives").numpy()
        count, used = len(self.weights), rows.cpu().numpy()
        wanted = min(count, self.negatives + len(used))
        drawn = torch.from_numpy(draw.choice(count, wanted, replace=False))
        return drawn[~torch.isin(drawn, rows.cpu())][: self.negatives].to(rows.device)

    def _move(self, rows: Tensor, tables: list[Tensor], gradient: Tensor, now: int) -> None:
        weights, first, second = (table.detach() for table in tables)
        adamw_(weights, gradient.contiguous(), first, second, self.steps[now])
        self._put(rows, [weights, first, second], now + 1)

    def _put(self, rows: Tensor, tables: Sequence[Tensor], step: int) -> None:
        for table, values in zip((self.weights, self.first, self.second), tables, strict=True):
            table[rows] = values.detach()
        self.done[rows] = step

    def settled(self) -> Tensor:
        """The weights as they are after all steps; rows that were left behind catch up in a copy."""
        tables = [table.clone() for table in (self.weights, self.first, self.second)]
        self.steps.replay_(*tables, self.done, int(self.taken))
        return tables[0]


def require_memory(kind: str, classes: int, width: int) -> None:
    """Raise `Failure` where a head, its gradient and two moments cannot fit into this machine's memory."""
    needed = 4 * 4 * classes * width
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system says
        return
    if needed > there:
        raise Failure(
            f"{kind}: a head of {classes:,} rows of width {width} takes {needed / 1e9:.1f} GB with its optimiser, "
            f"this machine has {there / 1e9:.1f} GB; give a smaller width or fewer data"
        )
