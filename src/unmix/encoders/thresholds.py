"""Amortised encoders with thresholds: one that stands for a whole batch, or one for each latent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.loop import minibatches, warm_then_decay
from unmix.core.rows import Rows, gather
from unmix.core.scale import size_of
from unmix.core.seeds import Stream
from unmix.encoders.amortised import Amortised, Parts, half_squared, largest_of_batch
from unmix.encoders.base import BoundEncoder


class _Thresholded(Amortised):
    """A linear read-out of which only what is above a threshold is kept: z = relu(a) [a > t], a = W (h - b) + c."""

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        from unmix.kernels.threshold import encode_above

        held = bound.tensors
        values, indices, pointers = encode_above(x, held["weight"], held["shift"], held["threshold"])
        return Codes(values, indices, len(bound.atoms), pointers)


class BatchTopK(_Thresholded):
    """The k n largest codes of a batch of n rows while it is trained, all codes above one threshold afterwards.

    k: mean number of active codes in a row. The threshold is what cut the batches of the training, so a row has the
    same codes alone and in any batch; it can be learnt on rows only, whatever `init` is.
    """

    equation: ClassVar[str] = "z = a [ a > t ],  a = relu(W (h - b) + c);  in training t is the k n-th largest"
    reference: ClassVar[str] = "Bussmann, Leask, Nanda 2024, arXiv 2412.06410"
    sparsity: ClassVar[str | None] = "k"
    readout: ClassVar[Mapping[str, str]] = {"weight": "m d", "shift": "m", "threshold": ""}

    k: int = Field(default=32, ge=1)

    @property
    def needs_rows(self) -> bool:
        """Its threshold is learnt on rows, or taken over with a read-out that has one."""
        return True

    def _wanted(self) -> float | None:
        return float(self.k)

    def _prepare(self, atoms: Tensor, bias: Tensor, rows: Rows | None, rng: Stream) -> dict[str, Tensor]:
        if rows is None:
            raise UsageError("BatchTopK has a threshold that is learnt: give rows to fit it on")
        return super()._prepare(atoms, bias, rows, rng)

    def _adopt(self, readout: Mapping[str, Tensor], atoms: Tensor) -> dict[str, Tensor] | None:
        threshold = readout.get("threshold")
        usable = threshold is not None and threshold.ndim == 0 and bool(threshold > 0)
        return super()._adopt(readout, atoms) if usable else None

    def _start(self, atoms: Tensor, rng: Stream) -> dict[str, Tensor]:
        return {**super()._start(atoms, rng), "threshold": atoms.new_zeros(())}

    def _forward(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return largest_of_batch(self._before(tensors, x).relu(), self.k)

    @torch.no_grad()
    def _calibrated(self, tensors: dict[str, Tensor], x: Tensor, wanted: float) -> dict[str, Tensor]:
        level = _between(self._before(tensors, x).flatten(), round(wanted * len(x)))
        return {**tensors, "threshold": level.clamp_min(0)}


class JumpReLU(_Thresholded):
    """A threshold for each latent, learnt straight through: z_j = a_j [a_j > t_j], a = relu(W (h - b) + c).

    Gradients of the thresholds come from the codes within bandwidth / 2 of them:
    d z_j / d t_j = -(t_j / e) [|a_j - t_j| < e / 2], d [a_j > t_j] / d t_j = -(1 / e) [|a_j - t_j| < e / 2], with
    e = bandwidth times the root mean square of the entries of the rows.

    bandwidth: above. active: mean number of active codes of the fit on rows, reached by a penalty
    (mean L0 / active - 1)^2 on top of the unexplained variance and made exact by one factor on all thresholds in the
    end; None keeps those that the fit without a penalty gives.
    """

    equation: ClassVar[str] = "z_j = a_j [ a_j > t_j ],  a = relu(W (h - b) + c)"
    reference: ClassVar[str] = "Rajamanoharan et al. 2024, arXiv 2407.14435"
    sparsity: ClassVar[str | None] = "active"
    readout: ClassVar[Mapping[str, str]] = {"weight": "m d", "shift": "m", "threshold": "m"}
    latents: ClassVar[tuple[str, ...]] = ("weight", "shift", "threshold")

    active: float | None = Field(default=None, gt=0)
    bandwidth: float = Field(default=0.2, gt=0)

    def _wanted(self) -> float | None:
        return self.active

    def _fixed(self) -> frozenset[str]:
        return frozenset()

    def _start(self, atoms: Tensor, rng: Stream) -> dict[str, Tensor]:
        return {**super()._start(atoms, rng), "threshold": atoms.new_zeros(len(atoms))}

    def _jump(self, tensors: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and gates, each [n, m], with their straight-through gradients."""
        width = self.bandwidth * float(x.detach().square().mean().sqrt()) if len(x) else 1.0
        return jump(self._before(tensors, x), tensors["threshold"], width or 1.0)

    def _forward(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return self._jump(tensors, x)[0]

    def _objective(self, tensors: Mapping[str, Tensor], x: Tensor, wanted: float | None = None) -> Parts:
        codes, gates = self._jump(tensors, x)
        return Parts(codes, half_squared(x - codes @ tensors["atoms"]), codes, gates.sum(1))

    def _fit(
        self, tensors: dict[str, Tensor], atoms: Tensor, bias: Tensor, rows: Rows, rng: Stream
    ) -> dict[str, Tensor]:
        sample = (gather(rows, 4096, rng).to(atoms.device) - bias).to(atoms.dtype)
        scale = _root_mean_square(sample)
        if self.active is not None:
            # Thresholds start where about twice as many codes are active: from 0 they would need most of the steps.
            begun = self._calibrated(
                {**tensors, "threshold": torch.ones_like(tensors["threshold"])}, sample, 2 * self.active
            )
            tensors = {**tensors, "threshold": begun["threshold"]}
        # Learnt as multiples of the rows' scale, so that a step of Adam means the same for rows of any size.
        learnt = {n: (t / scale if n in self.units else t).clone().requires_grad_() for n, t in tensors.items()}
        optimiser = torch.optim.Adam(learnt.values(), lr=self.lr, fused=atoms.device.type == "cpu")
        for step, h in minibatches(rows, self.batch, self.steps, rng, device=str(atoms.device)):
            x = (h - bias).to(atoms.dtype) / scale
            parts = self._objective({**learnt, "atoms": atoms}, x)
            loss = parts.error.sum() / (x.square().sum() / 2).clamp_min(1e-12)
            if self.active is not None and parts.count is not None:
                loss = loss + (parts.count.mean() / self.active - 1).square()
            optimiser.param_groups[0]["lr"] = self.lr * warm_then_decay(step, self.steps)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        fitted = {n: t.detach() * scale if n in self.units else t.detach() for n, t in learnt.items()}
        return fitted if self.active is None else self._calibrated(fitted, sample, self.active)

    @torch.no_grad()
    def _calibrated(self, tensors: dict[str, Tensor], x: Tensor, wanted: float) -> dict[str, Tensor]:
        threshold = tensors["threshold"]
        mean = threshold.abs().mean()
        threshold = threshold.clamp_min(torch.where(mean > 0, 1e-3 * mean, 1))
        factor = _between((self._before(tensors, x) / threshold).flatten(), round(wanted * len(x)))
        return {**tensors, "threshold": threshold * factor.clamp_min(0)}


def _root_mean_square(x: Tensor) -> Tensor:
    """Of all entries, in their dtype; 1 where all are 0."""
    found = x.square().mean().sqrt()
    if not 1e-12 < found < math.inf and (size := size_of(x)):
        return size * (x / size).square().mean().sqrt()  # squares of such numbers vanish or overflow
    return torch.where(found > 0, found, 1)


def _between(values: Tensor, count: int) -> Tensor:
    """A level that the `count` largest of the values are above: in the middle, so that rounding does not matter."""
    place = max(1, len(values) - count)
    return (values.kthvalue(place).values + values.kthvalue(min(len(values), place + 1)).values) / 2


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(before: Tensor, threshold: Tensor, width: float) -> tuple[Tensor, Tensor]:
        gates = (before > threshold) & (before > 0)
        return before * gates, gates.to(before.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.width = inputs[2]

    @staticmethod
    def backward(ctx: Any, slope: Tensor, gate_slope: Tensor) -> tuple[Tensor, Tensor, None]:
        before, threshold = ctx.saved_tensors
        near = (before - threshold).abs() < ctx.width / 2
        pull = torch.where(near, slope * threshold + gate_slope, 0).sum(0) / -ctx.width
        return slope * ((before > threshold) & (before > 0)), pull, None


def jump(before: Tensor, threshold: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Codes a [a > t] and gates [a > t] of a = before [n, m], t = threshold [m], both with a > 0.

    Gradients of the thresholds are straight through, by a rectangle of that width about them (arXiv 2407.14435).
    """
    return _Jump.apply(before, threshold, width)
