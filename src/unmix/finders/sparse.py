"""What the autoencoders trained on sparse codes share: the loop, continuing, and folding centre and scale away."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from unmix.core import flops, parallel
from unmix.core.loop import minibatches, warm_then_decay
from unmix.core.rows import Rows
from unmix.core.scale import unit
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.encoders.base import Encoder
from unmix.finders.base import Finder, framed
from unmix.finders.centres import Centre, frame
from unmix.finders.features import Features, assemble

if TYPE_CHECKING:
    from unmix.kernels.trainer import SparseTrainer

Given: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]


class SparseSAE(Finder):
    """An autoencoder h' = z D + b trained on |h - h'|^2 with sparse codes and sparse gradients.

    width: number of atoms m. steps, batch, lr: Adam with warm-up and a linear decay.
    centre: what is taken off the rows, and where the decoder's bias starts: their geometric "median", their "mean",
    or "none"; rows are scaled as well for the training. Both are folded away exactly.
    aux_k, dead_after: latents that have not fired for `dead_after` rows reconstruct the residual with their
    own aux_k largest activations (0 turns it off). Atoms have unit norm after every step.
    accumulate: slices that a batch is worked on in, one after the other; the result is the same.
    """

    continues: ClassVar[bool] = True

    width: int = Field(default=1024, ge=1)
    steps: int = Field(default=2000, ge=1)
    batch: int = Field(default=512, ge=1)
    lr: float = Field(default=3e-3, gt=0)
    centre: Centre = "median"
    aux_k: int = Field(default=64, ge=0)
    dead_after: int = Field(default=100_000, ge=1)
    accumulate: int = Field(default=1, ge=1)

    @abstractmethod
    def _active(self) -> float:
        """About how many codes are active in a row."""

    @abstractmethod
    def _trainer(self, given: Given, x: Tensor, start: Tensor | None, **options: Any) -> SparseTrainer:
        """A trainer from given weight, encoder bias, atoms and decoder bias; x are some rows in its units.

        start: thresholds of features that are gone on from, scalar or [m], in the same units.
        """

    @abstractmethod
    def _reader(self, trainer: Any, scale: float) -> tuple[Encoder, dict[str, Tensor]]:
        """The encoder, and its tensors beside weight and shift in the units of the rows."""

    def _before_step(self, trainer: Any, step: int, d: int) -> None:
        """What changes from step to step."""

    def estimate(self, rows: Rows) -> dict[str, float]:
        batch, d = min(self.batch, rows.shape[0]), rows.shape[1]
        held = 6 * self.width * d + 2 * batch * (d + self._active())
        return {"flops": self.steps * self._step_flops(rows), "bytes": 4.0 * held}

    def _step_flops(self, rows: Rows) -> float:
        return flops.topk_step(min(self.batch, rows.shape[0]), self.width, rows.shape[1], round(self._active()))

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str, start: Features | None = None) -> Features:
        self._check_slices(min(self.batch, rows.shape[0]))
        middle, scale = frame(rows, rng, self.centre)
        centre = middle.to(device)
        d = rows.shape[1]
        given, threshold = self._begin(rng, centre, scale, start)
        count = min(rows.shape[0], max(64, min(4096, (1 << 24) // self.width)))
        chosen = rng.child("first thresholds").numpy().choice(rows.shape[0], count, replace=False)
        sample = framed(rows.take(chosen).to(device), centre, scale)
        options = {"lr": self.lr, "aux_k": min(self.aux_k, self.width), "dead_after": self.dead_after}
        options["accumulate"] = self.accumulate
        trainer = self._trainer(given, sample, threshold, **options)
        done = 0
        if (state := watch.restore()) is not None:
            done = int(state.pop("step"))
            trainer.load_state(state)
        for step, h in minibatches(rows, self.batch, self.steps, rng.child("batches"), done, device):
            self._before_step(trainer, step, d)
            x = framed(h, centre, scale)
            facts = trainer.step(x, lr=self.lr * warm_then_decay(step, self.steps))
            watch.on_step(step + 1, self.steps, facts)
            self._keep(trainer, step + 1, watch)
        fitted = trainer.parameters()
        encoder, own = self._reader(trainer, scale)
        # With x = (h - centre) / s, codes in units of h are s times the codes in units of x.
        tensors = {"weight": fitted["weight"], "shift": fitted["encoder_bias"] * scale, **own}
        about = {"fvu": float(facts["fvu"]), "l0": float(facts["l0"]), "dead": int(facts["dead"])}
        bias = centre.to(fitted["decoder_bias"].device) + fitted["decoder_bias"] * scale
        spent = self.steps * self._step_flops(rows)
        return assemble(fitted["atoms"], bias, encoder, tensors, flops=spent, **about)

    def _check_slices(self, batch: int) -> None:
        """Raise `UsageError` where a batch cannot be cut for `accumulate` and the processes."""
        parallel.slices(batch, self.accumulate)

    def _keep(self, trainer: SparseTrainer, done: int, watch: Watch) -> None:
        watch.save(lambda: {**trainer.state(), "step": torch.tensor(done)})

    def _begin(
        self, rng: Stream, centre: Tensor, scale: float, start: Features | None
    ) -> tuple[Given, Tensor | None]:
        """Weight, encoder bias, atoms and decoder bias before the first step; thresholds of `start` if it has any."""
        draw = rng.child("atoms").torch()
        atoms = torch.nn.functional.normalize(torch.randn(self.width, len(centre), generator=draw)).to(centre.device)
        zeros = atoms.new_zeros(self.width)
        if start is None:
            return (atoms, zeros, atoms, zeros.new_zeros(len(centre))), None
        norms = start.atoms.norm(dim=1)
        atoms = torch.where(norms[:, None] > 0, unit(start.atoms), atoms)
        grown = torch.where(norms > 0, norms, 1)  # codes of atoms brought to unit norm are that much larger
        held = start.encoder.readout or {}
        weight, shift, threshold = (held.get(name) for name in ("weight", "shift", "threshold"))
        weight = atoms if weight is None else weight * grown[:, None]
        shift = zeros if shift is None else shift * grown / scale
        threshold = None if threshold is None else threshold * grown / scale
        return (weight, shift, atoms, framed(start.bias, centre, scale)), threshold
