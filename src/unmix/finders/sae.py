"""Sparse autoencoders: a dictionary learnt together with an amortised encoder, under a penalty."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from unmix.core import flops, parallel
from unmix.core.adam import Adam
from unmix.core.errors import Failure, UsageError, notice
from unmix.core.loop import minibatches, warm_then_decay
from unmix.core.rows import Rows, gather
from unmix.core.scale import unit
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.encoders import ENCODERS
from unmix.encoders.amortised import Amortised, Linear, Parts
from unmix.finders.backward import LAYERS, l1_gradients
from unmix.finders.base import Finder, framed
from unmix.finders.centres import Centre, frame
from unmix.finders.features import Features, assemble
from unmix.finders.penalties import PENALTIES, SparsityWeight
from unmix.finders.training import auxiliary_error, remove_radial, resample, to_unit_norm

WHOLE = ("BatchTopK", "JumpReLU")  # encoders for which a batch is one whole
AUXILIARY = 1 / 32  # weight of the error that dead latents are trained on (arXiv 2406.04093)


class SAE(Finder):
    """A sparse autoencoder: a dictionary and an amortised encoder, trained together by Adam under a penalty.

    width: number of atoms m. encoder: any amortised encoder; what it is decides the architecture (Linear, MLP, Lista,
    Gated with its auxiliary loss, JumpReLU, or TopK, BatchTopK, AbsTopK and Matryoshka, sparse by their k).
    sparsity: the penalty, summed over latents: "l1", |z|; "tanh", tanh(4 z / s) with s the scale of the rows; or
    "l0", the count of active latents, with a gradient to the thresholds of an encoder that has some (JumpReLU).

    Its coefficient is one of three; encoders that are sparse by their k need none, and take no active.
    penalty: lambda of 1/2 |h - z D - b|^2 + lambda * penalty, in the units of the rows (of their squares, where the
    penalty has no units). weight: w of mean squared error over the d columns + w * mean penalty over the m latents,
    which is lambda = w d / (2 m) (arXiv 2411.13117). active: mean number of active codes, reached by a lambda that
    adapts during training; thresholds of an encoder's own start at twice as many and end, by one factor on all of
    them, at exactly as many on training rows.

    steps, batch, lr: of Adam. schedule: "ramp" warms up and decays linearly at the end, "constant" does not.
    centre: what is taken off the rows, and where the decoder's bias starts: their "mean", their geometric "median",
    or "none". scaled: rows are divided by their root mean square. Both are folded away exactly on return.
    bias: the decoder's bias is learnt; without it the bias stays at the centre.
    frozen: the atoms stay as they start, at random or as in `start`; only encoder and bias learn.
    orthogonal: the part of an atom's gradient along the atom is removed. Atoms have unit norm after every step.
    revive: what happens to latents that have not fired for dead_after rows: "resample", they are pointed at rows that
    are reconstructed badly (at their own atoms, where those are frozen); "aux", their aux_k largest activations learn
    to reconstruct the residual, which helps latents that are only never chosen; or "none".
    accumulate: slices that a batch is worked on in, one after the other; the result is the same.
    """

    equation: ClassVar[str] = "min 1/2 |h - z D - b|^2 + lambda |z|_1,  z = encoder(h - b),  |d_j| = 1"
    reference: ClassVar[str] = "Cunningham et al. 2023, arXiv 2309.08600; Gao et al. 2024, arXiv 2406.04093"
    continues: ClassVar[bool] = True

    width: int = Field(default=1024, ge=1)
    encoder: Annotated[Any, BeforeValidator(ENCODERS.make)] = Field(default_factory=Linear)
    sparsity: Literal["l1", "tanh", "l0"] = "l1"
    penalty: float | None = Field(default=None, ge=0)
    weight: float | None = Field(default=None, ge=0)
    active: float | None = Field(default=None, gt=0)
    steps: int = Field(default=4000, ge=1)
    batch: int = Field(default=1024, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    schedule: Literal["ramp", "constant"] = "ramp"
    centre: Centre = "mean"
    scaled: bool = True
    bias: bool = True
    frozen: bool = False
    orthogonal: bool = False
    revive: Literal["resample", "aux", "none"] = "resample"
    dead_after: int = Field(default=100_000, ge=1)
    aux_k: int = Field(default=64, ge=1)
    accumulate: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> SAE:
        encoder, given = self.encoder, [self.penalty, self.weight, self.active]
        if not isinstance(encoder, Amortised) or not getattr(encoder, "rectify", True):
            raise ValueError(f"encoder={encoder.kind} must be amortised and rectified, such as Linear, TopK or Gated")
        if getattr(encoder, "active", None) is not None:
            raise ValueError(f"encoder={encoder}: active is for fits on rows; give active to the SAE itself")
        if given.count(None) < 2:
            raise ValueError("give one of penalty, weight and active")
        if encoder.sparsity == "k" and self.active is not None:
            raise ValueError(f"encoder={encoder} is sparse by its k; leave active out")
        if encoder.sparsity != "k" and given.count(None) == 3:
            raise ValueError("give one of penalty, weight and active")
        if self.active is not None and self.active > self.width:
            raise ValueError(f"active={self.active} must be at most the number of atoms, width={self.width}")
        if self.sparsity == "l0" and "threshold" not in encoder.latents:
            raise ValueError(f"sparsity='l0' needs an encoder with thresholds of its own, not {encoder.kind}")
        encoder._check(self.width, 1)
        return self

    def estimate(self, rows: Rows) -> dict[str, float]:
        batch, d = min(self.batch, rows.shape[0]), rows.shape[1]
        held = 4.0 * (8 * self.width * d + 6 * batch * self.width)
        return {"flops": self.steps * self._step_flops(batch, d), "bytes": held}

    def _step_flops(self, batch: int, d: int) -> float:
        """One step on a batch: encoder and decoder forward and backward, Adam."""
        encoder, hidden = self.encoder, getattr(self.encoder, "hidden", None)
        if type(encoder) in LAYERS:
            return flops.autoencoder_step(batch, self.width, d, hidden, frozen=self.frozen)
        # Beside the plain ones the gradient goes through the encoder's input as well, to the decoder's bias.
        encoding, decoding = encoder._flops(self.width, d), flops.product(1, self.width, d)
        passes = (2 + self.bias) * encoding + (2 + (not self.frozen) + 2 * encoder.side_decodings) * decoding
        return batch * passes + flops.adam((encoding + decoding) / 2)

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str, start: Features | None = None) -> Features:
        encoder: Amortised = self.encoder
        self._check_slices(min(self.batch, rows.shape[0]))
        middle, scale = frame(rows, rng, self.centre, self.scaled)
        centre = middle.to(device)
        tensors = self._begin(rng, start, centre, scale)
        aim = self.active if "threshold" in encoder.latents else None
        if aim is not None and start is None:
            # From 0 the thresholds would need most of the steps to where about as many codes are active as wanted.
            first = framed(gather(rows, 4096, rng.child("begin")).to(device), centre, scale)
            begun = {**tensors, "threshold": torch.ones_like(tensors["threshold"])}
            tensors = encoder._calibrated(begun, first, min(self.width, 2 * aim))
        still = {*encoder._fixed(), *([] if self.bias else ["bias"]), *(["atoms"] if self.frozen else [])}
        adam = Adam({name: tensor for name, tensor in tensors.items() if name not in still})
        tensors |= adam.learnt
        sparsity = SparsityWeight(self.active, self.steps, 0.1 if self.sparsity == "l1" else 1e-3)
        units = scale if self.sparsity == "l1" else scale**2
        if (coefficient := self._coefficient(len(centre))) is not None:
            sparsity.weight = coefficient / units
        idle = torch.zeros(self.width, dtype=torch.int64, device=device)
        done = _resume(watch.restore(), adam, sparsity, idle)
        last, given = None, centre
        facts: dict[str, float] = {}
        for step, h in minibatches(rows, self.batch, self.steps, rng.child("batches"), done, device):
            if h is not last:
                last, given = h, framed(h, centre, scale)
            x = given - tensors["bias"]
            self._step(step, x, tensors, adam, sparsity, idle, rng)
            if not facts or step % max(1, self.steps // 200) == 0 or step + 1 == self.steps:
                facts = self._facts(x, tensors, sparsity.weight)
            watch.on_step(step + 1, self.steps, facts)
            watch.save(partial(_state, step + 1, adam, sparsity, idle))
        fitted = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        if not all(tensor.isfinite().all() for tensor in fitted.values()):
            raise Failure(f"SAE.lr={self.lr}: the training diverged; use a smaller lr")
        sample = framed(gather(rows, 4096, rng.child("finish")).to(device), centre, scale) - fitted["bias"]
        fitted = encoder._finished(fitted, sample)
        if aim is not None:
            fitted = encoder._calibrated(fitted, sample, aim)
            facts = self._facts(sample, fitted, sparsity.weight)
        if sparsity.at_bound:
            notice(
                f"SAE.active={self.active:g}: the penalty ended at {sparsity.weight * units:.3g}, a bound of its "
                f"search, with {facts['l0']:.3g} active codes a row; ask for another number, or give more steps"
            )
        atoms, bias = fitted.pop("atoms"), centre + fitted.pop("bias") * scale
        own = {name: tensor * scale if name in encoder.units else tensor for name, tensor in fitted.items()}
        spent = self.steps * self._step_flops(min(self.batch, rows.shape[0]), len(centre))
        return assemble(atoms, bias, encoder, own, flops=spent, **facts, penalty=sparsity.weight * units)

    def _step(
        self,
        step: int,
        x: Tensor,
        tensors: dict[str, Tensor],
        adam: Adam,
        sparsity: SparsityWeight,
        idle: Tensor,
        rng: Stream,
    ) -> None:
        """One step on x [b, d], the scaled rows less the bias."""
        encoder: Amortised = self.encoder
        dead = (idle > self.dead_after).nonzero().squeeze(1) if self.revive != "none" else idle[:0]
        if self.accumulate == 1 and parallel.ranks() == 1:
            codes = self._gradients(x, tensors, adam, sparsity.weight, dead)
        else:
            codes = self._in_slices(x, tensors, adam, sparsity.weight, dead)
        if self.orthogonal and not self.frozen:
            gradient = tensors["atoms"].grad
            assert gradient is not None
            remove_radial(gradient, tensors["atoms"])
        adam.step(self.lr * (warm_then_decay(step, self.steps) if self.schedule == "ramp" else 1.0))
        if not self.frozen:
            to_unit_norm(tensors["atoms"])
        sparsity.update(codes)
        if self.revive != "none":
            idle.add_(len(x)).masked_fill_(parallel.either((codes != 0).any(0)), 0)
        if len(dead) and self.revive == "resample" and step < 0.8 * self.steps:
            draw = rng.child(f"resample {step}")
            codes = parallel.collected(codes)
            idle[resample(encoder, tensors, adam, x.detach(), codes, dead, draw)] = 0

    def _gradients(self, x: Tensor, tensors: dict[str, Tensor], adam: Adam, weight: float, dead: Tensor) -> Tensor:
        """Fill the gradients of the mean loss over rows x [n, d]; the codes [n, m]."""
        encoder: Amortised = self.encoder
        helped = len(dead) > 0 and self.revive == "aux"
        if type(encoder) in LAYERS and self.sparsity == "l1" and not helped:
            return l1_gradients(encoder, tensors, x, weight)
        parts = encoder._objective(tensors, x)
        codes, loss = parts.codes.detach(), self._loss(parts, weight)
        if helped:
            loss = loss + AUXILIARY * auxiliary_error(encoder, tensors, x, codes, dead, self.aux_k).mean()
        adam.backward(loss)
        return codes

    def _in_slices(self, x: Tensor, tensors: dict[str, Tensor], adam: Adam, weight: float, dead: Tensor) -> Tensor:
        """The same for a batch, in this process's slices and summed over processes; the codes of the own rows."""
        slices = parallel.slices(len(x), self.accumulate)
        summed, codes = torch.zeros_like(adam.gradient), []
        for part in slices:
            codes.append(self._gradients(x[part], tensors, adam, weight, dead))
            summed += adam.gradient
        adam.gradient.copy_(parallel.mean(summed / len(slices)))
        return torch.cat(codes)

    def _check_slices(self, batch: int) -> None:
        """Raise `UsageError` where a batch cannot be cut for `accumulate` and the processes."""
        cut, kind = self.accumulate * parallel.ranks(), self.encoder.kind
        if cut > 1 and kind in WHOLE:
            raise UsageError(f"SAE.encoder={kind}: looks at a whole batch, not at {cut} slices of one; use {kind}SAE")
        parallel.slices(batch, self.accumulate)

    @torch.no_grad()
    def _facts(self, x: Tensor, tensors: dict[str, Tensor], weight: float) -> dict[str, float]:
        """Loss, share of the batch's variance that is not explained, and active codes in a row, after a step."""
        parts = self.encoder._objective(tensors, x)
        spread = (x - x.mean(0)).square().sum().clamp_min(1e-30)
        left = (x - parts.codes @ tensors["atoms"]).square().sum()
        count = parts.codes.count_nonzero() / len(x)
        return {"loss": self._loss(parts, weight).item(), "fvu": (left / spread).item(), "l0": count.item()}

    def _coefficient(self, d: int) -> float | None:
        """lambda of the textbook objective in the units of the rows, 0 where none is given; None where it adapts."""
        if self.active is not None:
            return None
        return (self.penalty or 0.0) if self.weight is None else self.weight * d / (2 * self.width)

    def _loss(self, parts: Parts, weight: float) -> Tensor:
        loss = parts.error.mean()
        if not weight:
            return loss
        penalty = parts.count if self.sparsity == "l0" else PENALTIES[self.sparsity](parts.activity)
        assert penalty is not None
        return loss + weight * penalty.mean()

    def _begin(self, rng: Stream, start: Features | None, centre: Tensor, scale: float) -> dict[str, Tensor]:
        """Atoms, bias and the encoder's tensors before the first step, in the units of the training."""
        draw = rng.child("atoms").torch()
        atoms = torch.nn.functional.normalize(torch.randn(self.width, len(centre), generator=draw)).to(centre.device)
        weights = rng.child("weights")
        if start is None:
            return {"atoms": atoms, "bias": atoms.new_zeros(len(centre)), **self.encoder._start(atoms, weights)}
        norms = start.atoms.norm(dim=1)
        atoms = torch.where(norms[:, None] > 0, unit(start.atoms), atoms)
        own, held = self.encoder._start(atoms, weights), start.encoder.tensors
        if start.encoder.recipe.kind == self.encoder.kind and all(
            name in held and held[name].shape == tensor.shape for name, tensor in own.items()
        ):
            own = {name: held[name] / scale if name in self.encoder.units else held[name] for name in own}
            own = _with_norms(self.encoder, own, norms)
        return {"atoms": atoms, "bias": framed(start.bias, centre, scale), **own}


def _with_norms(encoder: Amortised, own: dict[str, Tensor], norms: Tensor) -> dict[str, Tensor]:
    """The encoder's tensors when atoms of these norms [m] are brought to unit norm: codes are that much larger."""
    matrix, *rest = encoder.latents
    factor = torch.where(norms > 0, norms, 1)
    for name in {matrix, *(name for name in rest if name in encoder.units)} & own.keys():
        rows = own[name].movedim(encoder.axis, 0)
        own[name] = (rows * factor.view(-1, *([1] * (rows.ndim - 1)))).movedim(0, encoder.axis)
    return own


def _state(step: int, adam: Adam, sparsity: SparsityWeight, idle: Tensor) -> dict[str, Tensor]:
    return {**adam.state(), "step": torch.tensor(step), "weight": sparsity.state(), "idle": idle}


def _resume(state: Mapping[str, Tensor] | None, adam: Adam, sparsity: SparsityWeight, idle: Tensor) -> int:
    """Take up the kept state; returns the steps that are done."""
    if state is None:
        return 0
    adam.load(state)
    sparsity.load(state["weight"])
    idle.copy_(state["idle"])
    return int(state["step"])
