"""What all training steps on sparse codes share: parameters, reconstruction, sparse gradients, Adam, dead latents."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unmix.core import parallel
from unmix.core.errors import UsageError
from unmix.kernels._compiled import (
    Backend,
    array,
    check_matrix,
    compiled_wanted,
    own_threads,
    run_parts,
)
from unmix.kernels._step_plain import adam_plain, gradients_plain, normalise, reconstruct_plain
from unmix.kernels._topk_plain import collect, select
from unmix.kernels.lists import Lists, Pass, parts_of, rectangular
from unmix.kernels.screen import CompiledLists, Found, PlainLists, Space, blocks_plain, collect_compiled, slabs


class SparseTrainer(ABC):
    """Trains x' = z D + b by exact Adam on sparse gradients; how z follows from x is the subclass's.

    loss = mean_i |x_i - x'_i|^2 + aux_coefficient * mean_i |r_i - z~_i D|^2, a sum over the d columns and a mean over
    the rows; r = x - x' is detached, and z~ are the top min(aux_k, dead) of relu((x - b) W' + c) among the latents
    that have not fired for more than `dead_after` rows. The second term reaches W, c and D of those latents and never
    b; it is absent when aux_k is 0 or nothing is dead. Atoms (the rows of D) have unit norm after every step.

    weight W [m, d], encoder_bias c [m], atoms D [m, d], decoder_bias b [d]; lr, betas, eps as in torch.optim.Adam (lr
    may be given to each step). orthogonal: the part of each atom's gradient along the atom is removed before Adam.
    accumulate: slices that a batch is worked on in, to save memory; under torchrun each process has its share of the
    rows, and gradients are summed over both.
    backend: "numba" (CPU), "torch" (any device) or "auto". The tensors given are not changed.
    Source: Gao et al. 2024, arXiv 2406.04093. Raises `UsageError` where shapes or numbers do not fit.
    """

    vectors: ClassVar[tuple[str, ...]] = ()  # further learnt vectors [m] of a subclass

    def __init__(
        self,
        weight: Tensor,
        encoder_bias: Tensor,
        atoms: Tensor,
        decoder_bias: Tensor,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        aux_k: int = 0,
        aux_coefficient: float = 1 / 32,
        dead_after: int = 100_000,
        orthogonal: bool = False,
        accumulate: int = 1,
        backend: Backend = "auto",
        **vectors: Tensor,
    ) -> None:
        check_matrix("weight", weight)
        m, d = weight.shape
        given = {
            "weight": weight,
            "encoder_bias": encoder_bias,
            "atoms": atoms,
            "decoder_bias": decoder_bias,
        } | vectors
        shapes = {"weight": (m, d), "atoms": (m, d), "decoder_bias": (d,)}
        for name, tensor in given.items():
            shape = shapes.get(name, (m,))
            if tensor.shape != shape or tensor.dtype != weight.dtype or tensor.device != weight.device:
                raise UsageError(
                    f"{name}: must be {list(shape)} {weight.dtype} on {weight.device} like weight, "
                    f"got {list(tensor.shape)} {tensor.dtype} on {tensor.device}"
                )
        if not 0 <= aux_k <= m:
            raise UsageError(f"aux_k: must be between 0 and the number of latents {m}, got {aux_k}")
        self.lr, self.betas, self.eps = lr, betas, eps
        self.aux_k, self.aux_coefficient, self.dead_after = aux_k, aux_coefficient, dead_after
        self.orthogonal, self.accumulate = orthogonal, accumulate
        self.sliced = accumulate > 1 or parallel.ranks() > 1
        self.compiled = compiled_wanted(backend, weight)
        self._parameters = {name: tensor.detach().clone().contiguous() for name, tensor in given.items()}
        normalise(self._parameters["atoms"])
        self._first = {name: torch.zeros_like(tensor) for name, tensor in self._parameters.items()}
        self._second = {name: torch.zeros_like(tensor) for name, tensor in self._parameters.items()}
        self.idle = torch.zeros(m, dtype=torch.int64, device=weight.device)
        self.steps = 0
        self._space = Space()

    def parameters(self) -> dict[str, Tensor]:
        """weight [m, d], encoder_bias [m], atoms [m, d], decoder_bias [d] and further vectors, as they are now."""
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

        Returns loss (the first term), fvu (its share of the batch's variance), aux_loss and l0 (mean number of active
        codes), tensors without dimensions, and dead, the number of latents that were idle before the step (0 when
        aux_k is 0). Raises `UsageError` for an empty batch or one of another width or dtype.
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
        b, lr = len(x), self.lr if lr is None else lr
        dead = (self.idle > self.dead_after).nonzero().squeeze(1) if self.aux_k else self.idle[:0]
        if self.sliced:
            sums, gradients, fired = self._in_slices(x, dead)
            self.steps += 1
            self._move(gradients, lr)
            loss, aux, l0 = sums
            inputs = x
        else:
            done = self._pass(x, dead, b)
            self.steps += 1
            fired = self._update(done, lr)
            loss, aux, l0, inputs = done.loss, done.aux, done.active, done.inputs
        self.idle.add_(b).masked_fill_(fired, 0)
        variance = self._spread(inputs).mean().clamp_min(torch.finfo(x.dtype).tiny)
        return {"loss": loss, "fvu": loss / variance, "aux_loss": aux, "l0": l0, "dead": len(dead)}

    def _pass(self, x: Tensor, dead: Tensor, b: int) -> Pass:
        """Codes, errors and losses of rows x, of a batch of b rows."""
        n, atoms = len(x), self._parameters["atoms"]
        inputs, norms = self._centred(x)
        codes, spare = self._codes(inputs, norms, dead)
        errors = self._buffer("errors", n if spare is None else 2 * n, x.shape[1])
        codes.scale = 2.0 / b
        loss, total = self._reconstruct(codes, atoms, inputs, -1, errors[:n])
        passes, aux = [codes], torch.zeros_like(loss)
        if spare is not None:
            spare.scale = 2.0 * self.aux_coefficient / b
            aux, _ = self._reconstruct(spare, atoms, errors[:n], 1, errors[n:])
            passes.append(spare)
        return Pass(inputs, errors, passes, total * codes.scale, loss, aux, (codes.values != 0).sum() / n)

    def _update(self, done: Pass, lr: float) -> Tensor:
        """Adam on all parameters after a pass over the whole batch; which latents fired [m]."""
        if self.compiled:
            return self._update_compiled(done, lr)
        gradients, fired = self._gradients(done)
        self._move(gradients, lr)
        return fired

    def _in_slices(self, x: Tensor, dead: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Loss, auxiliary loss and active codes [3] of a batch, its gradients, and which latents fired [m].

        Summed over this process's slices of the batch and over the processes.
        """
        rows = parallel.slices(len(x), self.accumulate)
        share = 1 / (len(rows) * parallel.ranks())
        sums, fired = x.new_zeros(3), torch.zeros_like(self.idle, dtype=torch.bool)
        gradients: dict[str, Tensor] = {}
        for part in rows:
            done = self._pass(x[part], dead, len(x))
            found, own = self._gradients(done)
            gradients = {name: gradients[name].add_(g) if gradients else g for name, g in found.items()}
            sums += share * torch.stack([done.loss, done.aux, done.active.to(x.dtype)])
            fired |= own
        for tensor in (sums, *gradients.values()):
            parallel.total(tensor)
        return sums, gradients, parallel.either(fired)

    @abstractmethod
    def _codes(self, inputs: Tensor, norms: Tensor | None, dead: Tensor) -> tuple[Lists, Lists | None]:
        """Codes of the inputs x - b [b, d], and the spare codes of the dead latents [count], None where none is.

        norms [b] of the inputs are given in the compiled version.
        """

    def _own_gradients(self, codes: Lists) -> dict[str, Tensor]:
        """Gradient of each of `vectors`; the slopes are there."""
        return {}

    def _buffer(self, name: str, *shape: int) -> Tensor:
        like = self._parameters["weight"]
        if like.device.type != "cpu":
            return like.new_empty(shape)
        return self._space.take(name, math.prod(shape), like.dtype).view(shape)

    def _centred(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        shift, inputs = self._parameters["decoder_bias"], self._buffer("inputs", *x.shape)
        if not self.compiled:
            return torch.sub(x, shift, out=inputs), None
        from unmix.kernels._step_compiled import centre_rows

        norms = x.new_empty(len(x))
        run_parts(centre_rows, parts_of(*x.shape), array(x), array(shift), inputs.numpy(), norms.numpy())
        return inputs, norms

    def _collect(
        self, inputs: Tensor, dead: Tensor, shift: Tensor, level: Tensor, spare: Lists | None
    ) -> Iterator[Found]:
        """Entries of the pre-activations with entry - c + shift > level of the row, slab by slab (compiled)."""
        from unmix.kernels._topk_compiled import select_rows

        weight, bias = self._parameters["weight"], self._parameters["encoder_bias"]
        for rows in slabs(len(inputs), len(dead)):
            n = rows.stop - rows.start
            before = None if spare is None else self._buffer("spare", n, len(dead))
            yield collect_compiled(inputs, rows, weight, bias, shift, level, self._space, dead, before)
            if spare is not None and before is not None:
                into = spare.values.view(len(inputs), -1)[rows], spare.indices.view(len(inputs), -1)[rows]
                given = before.numpy(), np.zeros(len(dead), before.numpy().dtype), into[0].shape[1]
                run_parts(select_rows, parts_of(n, len(dead)), *given, *(t.numpy() for t in into))
                into[1].copy_(dead[into[1]])

    def _blocks(self, inputs: Tensor, dead: Tensor, spare: Lists | None) -> Iterator[tuple[slice, Tensor]]:
        """Pre-activations of one block of rows after the other, the spare codes being picked (plain)."""
        weight, bias = self._parameters["weight"], self._parameters["encoder_bias"]
        for rows, before in blocks_plain(inputs, weight, bias):
            if spare is not None and spare.each is not None:
                values, places = select(before[:, dead], spare.each, exact=False)
                spare.values.view(len(inputs), -1)[rows] = values
                spare.indices.view(len(inputs), -1)[rows] = dead[places]
            yield rows, before

    def _above(self, inputs: Tensor, dead: Tensor, shift: Tensor, level: float, spare: Lists | None) -> Any:
        """Lists of the pre-activations with entry - c + shift > level."""
        if self.compiled:
            return CompiledLists(
                list(self._collect(inputs, dead, shift, inputs.new_full((len(inputs),), level), spare))
            )
        floor = level + self._parameters["encoder_bias"] - shift
        return PlainLists([collect(before, floor) for _, before in self._blocks(inputs, dead, spare)])

    def _spare(self, inputs: Tensor, dead: Tensor) -> Lists | None:
        """Lists for the codes of dead latents, to be filled."""
        b, k = len(inputs), min(self.aux_k, len(dead))
        if not k:
            return None
        return rectangular(inputs.new_empty(b, k), torch.empty(b, k, dtype=torch.int64, device=inputs.device))

    def _reconstruct(
        self, codes: Lists, atoms: Tensor, base: Tensor, sign: int, error: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fill error = z D + sign base and the slopes; gives mean_i |error_i|^2 and sum_i error_i [d]."""
        if not self.compiled:
            return reconstruct_plain(codes, atoms, base, sign, error).mean(), error.sum(0)
        from unmix.kernels._step_compiled import reconstruct_rows

        losses, parts = error.new_empty(len(error)), parts_of(*error.shape)
        totals = np.zeros((parts, error.shape[1]))
        given = (array(t) for t in (codes.pointers, codes.indices, codes.values, atoms, base))
        filled = (t.numpy() for t in (codes.slopes, error, losses))
        run_parts(reconstruct_rows, parts, *given, losses.numpy().dtype.type(sign), *filled, totals)
        return losses.mean(), torch.from_numpy(totals.sum(0)).to(error.dtype)

    def _spread(self, rows: Tensor) -> Tensor:
        """Squared distance of each row from the mean row [b]."""
        centre = rows.mean(0)
        if not self.compiled:
            return (rows - centre).square_().sum(1)
        from unmix.kernels._step_compiled import spread_rows

        spread = rows.new_empty(len(rows))
        run_parts(spread_rows, parts_of(*rows.shape), array(rows), array(centre), spread.numpy())
        return spread

    def _update_compiled(self, done: Pass, lr: float) -> Tensor:
        from unmix.kernels._step_compiled import count_latents, sort_by_latent, update_bias, update_latents

        p, first, second = self._parameters, self._first, self._second
        inputs, errors, passes, total = done.inputs, done.errors, done.passes, done.total
        m, b = len(p["weight"]), len(inputs)
        lists = [tuple(array(t) for t in (c.pointers, c.values, c.indices, c.slopes)) for c in passes]
        starts, fired = np.zeros(m + 1, np.int64), np.zeros((len(passes), m), np.bool_)
        for part, (_, values, indices, _) in zip(fired, lists, strict=True):
            count_latents(values, indices, starts, part)
        np.cumsum(starts, out=starts)
        size, places = int(starts[-1]), starts.copy()
        dtype = lists[0][1].dtype
        rows = np.empty(size, np.int64)
        code, slope, bias_slope = np.empty(size, dtype), np.empty(size, dtype), np.zeros(m, dtype)
        own_slope = bias_slope
        for number, given in enumerate(lists):
            scale = dtype.type(passes[number].scale)
            sort_by_latent(*given, scale, number * b, places, rows, code, slope, bias_slope)
            if number == 0 and len(lists) > 1:
                own_slope = bias_slope.copy()
        # Parts of equal work: an entry costs two rows, a latent without entries about three times that.
        parts = parts_of(m, inputs.shape[1])
        work = starts + 3 * np.arange(m + 1)
        bounds = np.searchsorted(work, np.linspace(0, work[-1], parts + 1)).astype(np.int64)
        pulls = np.zeros((parts, inputs.shape[1]))
        beta1, beta2 = self.betas
        rate, scale = 1 / (1 - beta1**self.steps), 1 / (1 - beta2**self.steps) ** 0.5

        settings = np.array([beta1, beta2, lr * rate, scale, self.eps], dtype)
        own = self._own_gradients(passes[0])
        names = ("weight", "atoms", "encoder_bias")
        tensors = (tensor.numpy() for name in names for tensor in (p[name], first[name], second[name]))
        given = (starts, rows, code, slope, array(inputs), array(errors), bounds, self.orthogonal, settings)
        run_parts(update_latents, parts, *given, bias_slope, own_slope, pulls, *tensors)
        # The decoder's bias enters x' and, through x - b, the encoder.
        own["decoder_bias"] = total - torch.from_numpy(pulls.sum(0)).to(total.dtype)
        for name, gradient in own.items():
            update_bias(*(t[name].numpy() for t in (p, first, second)), array(gradient), settings)
        return torch.from_numpy(fired[0])

    def _gradients(self, done: Pass) -> tuple[dict[str, Tensor], Tensor]:
        """Gradients of all parameters, dense, and which latents fired [m]."""
        weight = self._parameters["weight"]
        gradients, own_slope, fired = gradients_plain(done.inputs, done.errors, done.passes, len(weight))
        gradients["decoder_bias"] = done.total - self._pulled(own_slope @ weight)
        return gradients | self._own_gradients(done.passes[0]), fired

    def _pulled(self, pull: Tensor) -> Tensor:
        """The part of the gradient of b that comes through the encoder [d], from that of the latents held here."""
        return pull

    def _move(self, gradients: dict[str, Tensor], lr: float) -> None:
        """Adam on all parameters, in plain torch."""
        p = self._parameters
        if self.orthogonal:
            share = (gradients["atoms"] * p["atoms"]).sum(1, keepdim=True)
            gradients["atoms"].addcmul_(share, p["atoms"], value=-1)
        own, slopes, first, second = (
            [part[name] for name in gradients] for part in (p, gradients, self._first, self._second)
        )
        adam_plain(own, slopes, first, second, self, lr)
        normalise(p["atoms"])
