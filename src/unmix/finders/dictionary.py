"""Sparse dictionary learning: exact sparse inference in turns with block coordinate descent of the atoms."""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core import flops
from unmix.core.errors import Failure, notice
from unmix.core.rows import Rows, gather
from unmix.core.scale import kept
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.encoders.base import Encoder
from unmix.encoders.greedy import Omp
from unmix.encoders.iterative import Fista
from unmix.finders.alternation import Alternation, batch_count, batches
from unmix.finders.base import Finder, centre_and_scale, framed, require_no_offset
from unmix.finders.features import Features, assemble

BEGUN = 0.1  # how near to the wanted number of codes a fit begins


class SparseCoding(Finder):
    """Sparse coding by turns: exact sparse inference of a batch, then block coordinate descent of the atoms.

    width: number of atoms m. penalty: lambda in the units of the rows; or active: the mean number of active
    codes, by a penalty that adapts during the fit. Give one of the two. read_penalty: lambda of the encoder that is
    returned, where it should be another (a smaller one shrinks the codes less); the penalty of the fit goes there
    over the last fifth of the steps. None keeps that of the fit.
    inference: "lasso" (the l1 problem) or "omp" (round(active) atoms a row) in the fit. positive: codes >= 0.
    bias: "learnt" with the atoms, from the mean of the rows on; "mean" stays there; "zero" is for rows that are known
    to be sums of atoms and nothing else.
    passes: passes over the rows. batch: most rows between two updates of the atoms; where all rows are one batch,
    each pass is one full alternation. memory: passes that the statistics of the atoms' update remember. tolerance:
    relative duality gap of the inference during the fit, which begins from the codes of the pass before.
    restarts: fits from other first atoms; the one with the least objective on the rows is kept, and `about` holds the
    objectives of all. With active, all are compared at the penalty on which the first one ended.
    Atoms begin as rows. Atoms that are rarely used, or have a cosine above `copies` with another, are replaced by
    what is left of the rows that are reconstructed worst: once in `every` batches, until a fifth of the steps is
    left. copies=0.5, every=1 finds most where the true atoms are known to have little in common.
    eased: until then the penalty is the universal threshold of what is not explained yet, where that is larger than
    `penalty`; a pass over many rows then finds more. With few rows, many passes and many active codes it finds less.
    A start replaces the
    first atoms of the first fit, and gives it its bias.
    On the paper's worlds with 1,024 rows, penalty=0.1, read_penalty=0.02, passes=300, restarts=3 recovers dictionary
    and codes for (N, M, K) of (16, 8, 3), (64, 32, 3) and (128, 32, 9), as the tests say.
    """

    equation: ClassVar[str] = "min_{D, b} sum_n min_{z >= 0} 1/2 |h_n - b - z D|^2 + lambda |z|_1,  |d_j| = 1"
    reference: ClassVar[str] = "Mairal et al. 2009, arXiv 0908.0050"
    continues: ClassVar[bool] = True

    width: int = Field(default=1024, ge=1)
    penalty: float | None = Field(default=None, ge=0)
    active: float | None = Field(default=None, gt=0)
    read_penalty: float | None = Field(default=None, ge=0)
    inference: Literal["lasso", "omp"] = "lasso"
    positive: bool = True
    bias: Literal["learnt", "mean", "zero"] = "learnt"
    passes: int = Field(default=5, ge=1)
    batch: int = Field(default=2048, ge=1)
    memory: float = Field(default=1.0, gt=0)
    tolerance: float = Field(default=1e-3, gt=0)
    copies: float = Field(default=0.95, gt=0, le=1)
    every: int = Field(default=5, ge=1)
    eased: bool = False
    restarts: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> SparseCoding:
        if (self.penalty is None) == (self.active is None):
            raise ValueError("give one of penalty and active")
        if self.active is not None and self.active > self.width:
            raise ValueError(f"active={self.active} must be at most the number of atoms, width={self.width}")
        if self.inference == "omp" and self.active is None:
            raise ValueError("inference='omp' needs active, the number of atoms in a row")
        if self.eased and self.penalty is None:
            raise ValueError("eased is of the penalty; with active the penalty adapts by itself")
        if self.inference == "omp" and self.read_penalty is not None:
            raise ValueError("read_penalty is of the l1 problem; leave it out with inference='omp'")
        return self

    def estimate(self, rows: Rows) -> dict[str, float]:
        n, d = rows.shape
        active = self.active or min(32, self.width)
        row = flops.product(1, d, self.width) + 8 * active * self.width
        spent = self.restarts * self.passes * n * row
        return {"flops": spent, "bytes": 4.0 * (3 * self.width**2 + 4 * self.width * d)}

    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str, start: Features | None = None) -> Features:
        mean, scale = centre_and_scale(rows, rng)
        centre = mean.to(device)
        if start is not None:
            centre = kept(start.bias, scale, start.bias.dtype)
        elif self.bias == "zero":
            require_no_offset("SparseCoding.bias='zero'", mean, scale)
            centre = torch.zeros_like(centre, dtype=torch.float32)
        run = _Run(rows, centre, scale, watch, device)
        run.restore(watch.restore())
        while len(run.tried) < self.restarts:
            draw = rng.child(f"restart {len(run.tried)}")
            self._restart(run, draw, None if run.tried else start)
        about: dict[str, Any] = {name: float(run.best[name]) for name in ("fvu", "l0")}
        if self.restarts > 1:
            about |= {"objectives": run.tried, "restart": run.tried.index(min(run.tried))}
        reader = self._reader(float(run.best["penalty"]) * scale)
        bias = centre + run.best["bias"] * scale
        return assemble(run.best["atoms"], bias, reader, None, flops=run.spent, **about)

    def _restart(self, run: _Run, draw: Stream, start: Features | None) -> None:
        """One fit; it becomes the best where its objective is the least so far."""
        steps = self.passes * batch_count(run.rows, self.batch)
        learner = self._learner(run, draw, start)
        facts: dict[str, Tensor] = {}
        run.penalty = learner.penalty
        if run.state is not None:
            learner.load_state(run.state)
            facts = {name: run.state[name] for name in ("fvu", "l0")}
            run.penalty, run.state = float(run.state["penalty"]), None
        last = math.ceil(0.8 * steps)
        blocks = batches(run.rows, self.batch, self.passes, draw.child("batches"), learner.steps, run.device)
        for step, place, h in blocks:
            falls = self.read_penalty is not None and step >= last
            if self.read_penalty is not None and falls:
                share = (step + 1 - last) / (steps - last)
                learner.penalty = run.penalty + share * (self.read_penalty / run.scale - run.penalty)
            facts = learner.step(run.scaled(h), place, draw.child(f"replace {step}") if step < last else None)
            facts = {name: facts[name] for name in ("fvu", "l0")}
            if self.active is not None and not falls:
                run.penalty = learner.penalty = run.penalty * self._steer(float(facts["l0"]), step, steps)
            run.watch.on_step(len(run.tried) * steps + step + 1, self.restarts * steps, facts)
            run.watch.save(functools.partial(_state, run, learner, facts))
        if self.active is not None and self.inference == "lasso":
            run.penalty = learner.penalty = self._penalty(run, learner, draw, 0.02)
        if not run.tried:
            run.common = run.penalty
        objective = self._objective(run, learner, draw) if self.restarts > 1 else 0.0
        if not run.tried or objective < min(run.tried):
            penalty = torch.tensor(run.penalty, dtype=torch.float64)
            run.best = {"atoms": learner.atoms, "bias": learner.bias, "penalty": penalty, **facts}
        run.tried.append(objective)
        run.spent += learner.spent

    def _learner(self, run: _Run, draw: Stream, start: Features | None) -> Alternation:
        """The alternation before its first step."""
        pursuit = self.inference == "omp"
        learner = Alternation(
            self._first_atoms(run, draw) if start is None else start.atoms,
            penalty=(self.penalty or 0.0) / run.scale,
            k=max(1, round(self.active or 1)) if pursuit else None,
            bias=self.bias == "learnt",
            positive=self.positive,
            tolerance=self.tolerance,
            window=self.memory * batch_count(run.rows, self.batch),
            patient=start is not None,
            copies=self.copies,
            every=self.every,
            eased=self.eased and start is None and self.active is None,
        )
        if pursuit or self.active is None or run.state is not None:
            return learner
        if run.tried:
            learner.penalty = run.common
        elif start is not None and isinstance(start.encoder.recipe, Fista):
            learner.penalty = start.encoder.recipe.penalty / run.scale
        else:
            learner.penalty = self._penalty(run, learner, draw, BEGUN)
        return learner

    def _penalty(self, run: _Run, learner: Alternation, draw: Stream, near: float) -> float:
        """The penalty with a mean of `active` codes, to a share `near`, by bisection of its logarithm on some rows.

        From above, because a small penalty makes dense codes, and those take long to solve for.
        """
        x = run.scaled(gather(run.rows, 1024, draw.child("penalty")).to(run.device))
        wanted = self.active or 1.0
        most = high = ((x - learner.bias) @ learner.atoms.T).abs().max().item()
        low = high / 2

        def found(penalty: float) -> float:
            learner.penalty = penalty
            return learner.codes(x, tolerance=1e-4)[0].l0().double().mean().item()

        while (count := found(low)) < (1 - near) * wanted:
            if low <= 1e-6 * most:
                raise Failure(
                    f"SparseCoding: even a penalty of {low * run.scale:.3g} gives {count:.3g} active codes a row, "
                    f"{wanted:.3g} were asked for; ask for fewer or use more atoms"
                )
            high, low = low, low / 2
        for _ in range(20):
            if count <= (1 + near) * wanted:
                break
            middle = math.sqrt(low * high)
            if (between := found(middle)) >= (1 - near) * wanted:
                low, count = middle, between
            else:
                high = middle
        if count > (1 + near) * wanted and near < BEGUN:
            notice(
                f"SparseCoding.active={wanted:g}: {count:.3g} active codes a row is the nearest that a penalty gives"
            )
        return low

    def _first_atoms(self, run: _Run, draw: Stream) -> Tensor:
        """Rows as first atoms, without the centre; a little noise keeps copies of one row apart."""
        n, d = run.rows.shape
        chosen = run.scaled(gather(run.rows, min(self.width, n), draw.child("atoms")).to(run.device))
        order = draw.child("order").numpy().permutation(self.width)
        noise = torch.randn(self.width, d, generator=draw.child("noise").torch()).to(run.device)
        first = torch.cat([chosen, noise[len(chosen) :]])[torch.from_numpy(order).to(run.device)] + 0.01 * noise
        return torch.nn.functional.normalize(first)

    def _steer(self, active: float, step: int, steps: int) -> float:
        """Factor on the penalty after a batch with a mean of `active` codes."""
        ratio = max(active, 0.1) / (self.active or 1)
        return min(max(ratio, 0.5), 2.0) ** (0.2 if step < steps / 2 else 0.05)

    def _objective(self, run: _Run, learner: Alternation, draw: Stream) -> float:
        """Mean objective on all rows, in their units, at the penalty at which all fits are compared."""
        learner.penalty = run.common
        blocks = batches(run.rows, self.batch, 1, draw.child("batches"), device=run.device)
        total = sum(float(learner.codes(run.scaled(h), place)[1].double().sum()) for _, place, h in blocks)
        return total / run.rows.shape[0] * run.scale**2

    def _reader(self, penalty: float) -> Encoder:
        if self.inference == "omp":
            return Omp(k=max(1, round(self.active or 1)), positive=self.positive)
        return Fista(penalty=penalty if self.read_penalty is None else self.read_penalty, positive=self.positive)


class _Run:
    """A fit of several restarts: where the rows lie, what the restarts before found, and what a watch kept."""

    def __init__(self, rows: Rows, centre: Tensor, scale: float, watch: Watch, device: str) -> None:
        self.rows, self.centre, self.scale, self.watch, self.device = rows, centre, scale, watch, device
        self.best: dict[str, Tensor] = {}
        self.tried: list[float] = []
        self.penalty = self.common = 0.0  # of the present fit before it falls, and of the first one in the end
        self.spent = 0.0
        self.state: dict[str, Tensor] | None = None

    def scaled(self, h: Tensor) -> Tensor:
        """Rows about the centre, in units of the scale."""
        return framed(h, self.centre, self.scale)

    def restore(self, state: dict[str, Tensor] | None) -> None:
        """Take up the restarts that an interrupted run had finished; its last one goes on from `state`."""
        self.state = state
        if state is not None:
            self.best = {
                n.removeprefix("best."): t.to(self.device) for n, t in state.items() if n.startswith("best.")
            }
            self.spent, self.common, *self.tried = state["run"].tolist()


def _state(run: _Run, learner: Alternation, facts: dict[str, Tensor]) -> dict[str, Tensor]:
    best = {f"best.{name}": tensor for name, tensor in run.best.items()}
    numbers = torch.tensor([run.spent, run.common, *run.tried], dtype=torch.float64)
    penalty = torch.tensor(run.penalty, dtype=torch.float64)
    return {**learner.state(), **facts, **best, "run": numbers, "penalty": penalty}
