"""The training step of a TopK sparse autoencoder on sparse codes; no dense code or gradient of one is ever made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.kernels._compiled import (
    Backend,
    array,
    check_matrix,
    compiled_wanted,
    own_threads,
    parts_for,
    run_parts,
    run_queue,
)
from unmix.kernels._topk_plain import Pass, adam_plain, gradients_plain, normalise, select_and_decode_plain

_NAMES = ("weight", "encoder_bias", "atoms", "decoder_bias")
_BLOCK = 64 << 20  # most bytes of pre-activations between the encoder product and the selection, for each thread
_ROWS = 512  # fewer rows make the product slower, more leave the cache
_DEVICE_BLOCK = 1 << 30


class TopKTrainer:
    """Trains z = top_k(relu((x - b) W' + c)), x' = z D + b by exact Adam on sparse gradients.

    loss = mean_i |x_i - x'_i|^2 + aux_coefficient * mean_i |r_i - z~_i D|^2, a sum over the d columns and a mean over
    the rows; r = x - x' is detached, and z~ are the top min(aux_k, dead) codes among the latents that have not fired
    for more than `dead_after` rows. The second term reaches W, c and D of those latents and never b; it is absent
    when aux_k is 0 or nothing is dead. Atoms (the rows of D) have unit norm after every step.

    weight W [m, d], encoder_bias c [m], atoms D [m, d], decoder_bias b [d], k active latents; lr, betas, eps as in
    torch.optim.Adam (lr may be given to each step). orthogonal: the part of each atom's gradient along the atom is
    removed before Adam. backend: "numba" (CPU), "torch" (any device) or "auto". The tensors given are not changed.
    Source: Gao et al. 2024, arXiv 2406.04093. Raises `UsageError` where shapes or numbers do not fit.
    """

    def __init__(
        self,
        weight: Tensor,
        encoder_bias: Tensor,
        atoms: Tensor,
        decoder_bias: Tensor,
        k: int,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        aux_k: int = 0,
        aux_coefficient: float = 1 / 32,
        dead_after: int = 100_000,
        orthogonal: bool = False,
        backend: Backend = "auto",
    ) -> None:
        check_matrix("weight", weight)
        m, d = weight.shape
        for name, tensor, shape in (
            ("encoder_bias", encoder_bias, (m,)),
            ("atoms", atoms, (m, d)),
            ("decoder_bias", decoder_bias, (d,)),
        ):
            if tensor.shape != shape or tensor.dtype != weight.dtype or tensor.device != weight.device:
                raise UsageError(
                    f"{name}: must be {list(shape)} {weight.dtype} on {weight.device} like weight, "
                    f"got {list(tensor.shape)} {tensor.dtype} on {tensor.device}"
                )
        if not 1 <= k <= m:
            raise UsageError(f"k: must be between 1 and the number of latents {m}, got {k}")
        if not 0 <= aux_k <= m:
            raise UsageError(f"aux_k: must be between 0 and the number of latents {m}, got {aux_k}")
        self.k, self.lr, self.betas, self.eps = k, lr, betas, eps
        self.aux_k, self.aux_coefficient, self.dead_after = aux_k, aux_coefficient, dead_after
        self.orthogonal = orthogonal
        self.compiled = compiled_wanted(backend, weight)
        given = (weight, encoder_bias, atoms, decoder_bias)
        self._parameters = {n: t.detach().clone().contiguous() for n, t in zip(_NAMES, given, strict=True)}
        normalise(self._parameters["atoms"])
        self._first = {name: torch.zeros_like(tensor) for name, tensor in self._parameters.items()}
        self._second = {name: torch.zeros_like(tensor) for name, tensor in self._parameters.items()}
        self.idle = torch.zeros(m, dtype=torch.int64, device=weight.device)
        self.steps = 0
        self._buffers: dict[str, Tensor] = {}

    def parameters(self) -> dict[str, Tensor]:
        """weight [m, d], encoder_bias [m], atoms [m, d], decoder_bias [d], as they are now."""
        return dict(self._parameters)

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as tensors; resuming gives the same bits on the same backend."""
        state = dict(self._parameters)
        state |= {f"adam.first.{name}": tensor for name, tensor in self._first.items()}
        state |= {f"adam.second.{name}": tensor for name, tensor in self._second.items()}
        return state | {"idle": self.idle, "steps": torch.tensor(self.steps)}

    def load_state(self, state: Mapping[str, Tensor | int]) -> None:
        """Go on from `state()`; raises `UsageError` where a part is missing or of another shape."""
        own = self.state()
        for name, tensor in own.items():
            if name not in state:
                raise UsageError(f"state: {name!r} is missing; give what state() returned")
            shape = torch.as_tensor(state[name]).shape
            if shape != tensor.shape:
                raise UsageError(f"state: {name!r} must be {list(tensor.shape)}, got {list(shape)}")
        for name, tensor in own.items():
            tensor.copy_(torch.as_tensor(state[name]))
        self.steps = int(state["steps"])

    @torch.no_grad()
    def step(self, x: Tensor, lr: float | None = None) -> dict[str, Any]:
        """One Adam step on a batch x [b, d].

        Returns loss (the first term), fvu (its share of the batch's variance) and aux_loss, tensors without
        dimensions, and dead, the number of latents that were idle before the step (0 when aux_k is 0).
        Raises `UsageError` for an empty batch or one of another width or dtype.
        """
        weight = self._parameters["weight"]
        check_matrix("x", x, weight.shape[1])
        if len(x) == 0 or x.dtype != weight.dtype:
            raise UsageError(f"x: must hold at least one row of {weight.dtype}, got {list(x.shape)} {x.dtype}")
        x = x.detach()
        if self.compiled:
            with own_threads():
                return self._step(x, lr)
        return self._step(x, lr)

    def _step(self, x: Tensor, lr: float | None) -> dict[str, Any]:
        weight, bias, atoms, shift = (self._parameters[name] for name in _NAMES)
        b = len(x)
        dead = (self.idle > self.dead_after).nonzero().squeeze(1) if self.aux_k else self.idle[:0]
        inputs = torch.sub(x, shift, out=self._buffer("inputs", *x.shape))
        errors = self._buffer("errors", 2 * b if len(dead) else b, x.shape[1])
        passes = [self._forward(inputs, weight, bias, atoms, inputs, self.k, errors[:b], 2.0 / b)]
        loss = passes[0].losses.mean()
        if len(dead):
            own = (weight[dead], bias[dead], atoms[dead])
            scale = 2.0 * self.aux_coefficient / b
            found = self._forward(inputs, *own, errors[:b].neg(), min(self.aux_k, len(dead)), errors[b:], scale)
            found.indices = dead[found.indices]
            passes.append(found)
        self.steps += 1
        update = self._update_compiled if self.compiled else self._update_plain
        fired = update(inputs, errors, passes, self.lr if lr is None else lr)
        self.idle.add_(b).masked_fill_(fired, 0)
        variance = passes[0].spread.mean().clamp_min(torch.finfo(x.dtype).tiny)
        aux = passes[1].losses.mean() if len(dead) else torch.zeros_like(loss)
        return {"loss": loss, "fvu": loss / variance, "aux_loss": aux, "dead": len(dead)}

    def _buffer(self, name: str, *shape: int) -> Tensor:
        """Memory kept from step to step: fresh pages cost as much as a pass over them."""
        like = self._parameters["weight"]
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = like.new_empty(size)
        return self._buffers[name][:size].view(shape)

    def _forward(
        self,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        atoms: Tensor,
        target: Tensor,
        k: int,
        error: Tensor,
        scale: float,
    ) -> Pass:
        """Codes of the inputs, error = z D - target (filled in) and its product with the atoms of active codes."""
        b, m = len(inputs), len(weight)
        found = Pass(
            inputs.new_empty(b, k),
            torch.empty(b, k, dtype=torch.int64, device=inputs.device),
            inputs.new_empty(b, k),
            inputs.new_empty(b),
            inputs.new_empty(b),
            scale,
        )
        centre = target.mean(0)

        def rows_of(rows: slice) -> tuple[Tensor, ...]:
            into = (found.values, found.indices, found.slopes, error, found.losses, found.spread)
            return tuple(tensor[rows] for tensor in into)

        if not self.compiled:
            budget = _BLOCK if inputs.device.type == "cpu" else _DEVICE_BLOCK
            height = max(64, budget // (inputs.element_size() * m))
            for start in range(0, b, height):
                rows = slice(start, min(b, start + height))
                before = torch.addmm(bias, inputs[rows], weight.T)
                select_and_decode_plain(before, k, atoms, target[rows], centre, *rows_of(rows))
            return found
        from unmix.kernels._topk_compiled import select_and_decode

        parts = parts_for(b, 64)
        height = min(-(-b // parts), max(64, min(_ROWS, _BLOCK // (inputs.element_size() * m))))
        blocks = self._buffer("blocks", parts, height, m)
        bias_array, atoms_array, centre_array = array(bias), array(atoms), array(centre)

        def work(slot: int, start: int) -> None:
            rows = slice(start, min(b, start + height))
            before = torch.mm(inputs[rows], weight.T, out=blocks[slot, : rows.stop - start])
            given = (before.numpy(), bias_array, k, atoms_array, array(target[rows]), centre_array)
            select_and_decode(0, 1, *given, *(tensor.numpy() for tensor in rows_of(rows)))

        run_queue(work, range(0, b, height), parts)
        return found

    def _update_compiled(self, inputs: Tensor, errors: Tensor, passes: list[Pass], lr: float) -> Tensor:
        from unmix.kernels._topk_compiled import count_latents, sort_by_latent, update_bias, update_latents

        p, first, second = self._parameters, self._first, self._second
        m, b = len(p["weight"]), len(inputs)
        lists = [(array(part.values), array(part.indices), array(part.slopes)) for part in passes]
        starts, fired = np.zeros(m + 1, np.int64), np.zeros((len(passes), m), np.bool_)
        for part, (values, indices, _) in zip(fired, lists, strict=True):
            count_latents(values, indices, starts, part)
        np.cumsum(starts, out=starts)
        size, places = int(starts[-1]), starts.copy()
        rows = np.empty(size, np.int64)
        code, slope = np.empty(size, lists[0][0].dtype), np.empty(size, lists[0][0].dtype)
        bias_slope = np.zeros(m, lists[0][0].dtype)
        for number, (values, indices, slopes) in enumerate(lists):
            scale = bias_slope.dtype.type(passes[number].scale)
            sort_by_latent(values, indices, slopes, scale, number * b, places, rows, code, slope, bias_slope)
            if number == 0:
                shift_slope = self._shift_slope(errors[:b], passes[0].scale, torch.from_numpy(bias_slope.copy()))
        beta1, beta2 = self.betas
        corrections = lr / (1 - beta1**self.steps), 1 / (1 - beta2**self.steps) ** 0.5
        settings = np.array([beta1, beta2, *corrections, self.eps], bias_slope.dtype)
        shift = (t["decoder_bias"].numpy() for t in (p, first, second))
        update_bias(*shift, shift_slope.numpy(), settings)
        names = ("weight", "atoms", "encoder_bias")
        tensors = [tensor for name in names for tensor in (p[name], first[name], second[name])]
        # Parts of equal work: an entry costs two rows, a latent without entries about three times that.
        parts = parts_for(m)
        work = starts + 3 * np.arange(m + 1)
        bounds = np.searchsorted(work, np.linspace(0, work[-1], parts + 1)).astype(np.int64)
        lists = (starts, rows, code, slope, array(inputs), array(errors), bounds)
        tensors = (tensor.numpy() for tensor in tensors)
        run_parts(update_latents, parts, *lists, self.orthogonal, settings, bias_slope, *tensors)
        return torch.from_numpy(fired[0])

    def _update_plain(self, inputs: Tensor, errors: Tensor, passes: list[Pass], lr: float) -> Tensor:
        p = self._parameters
        b = len(inputs)
        gradients, own_slope, fired = gradients_plain(inputs, errors, passes, len(p["weight"]))
        if self.orthogonal:
            share = (gradients["atoms"] * p["atoms"]).sum(1, keepdim=True)
            gradients["atoms"].addcmul_(share, p["atoms"], value=-1)
        gradients["decoder_bias"] = self._shift_slope(errors[:b], passes[0].scale, own_slope)
        parts = (p, gradients, self._first, self._second)
        adam_plain(*([part[name] for name in _NAMES] for part in parts), self, lr)
        normalise(p["atoms"])
        return fired

    def _shift_slope(self, error: Tensor, scale: float, slope: Tensor) -> Tensor:
        """Gradient of the decoder's bias, which enters x' and, through x - b, the encoder; rows are summed first."""
        return (error.sum(0) * scale).sub_(slope @ self._parameters["weight"])
