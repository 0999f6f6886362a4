"""The one training loop of all learners: steps, schedules, checkpoints, several processes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unmix.core.digest import digest
from unmix.core.errors import Failure, UsageError, notice
from unmix.core.loop import warm_then_decay
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.learners import parallel
from unmix.learners.muon import Muon

if TYPE_CHECKING:
    from unmix.learners.base import Learner

LOGGED = 100
ANOTHER = "checkpoint: made by another recipe, world or seed; remove it to start again"


def train(
    learner: Learner, modules: nn.ModuleDict, world: Any, rng: Stream, watch: Watch, device: str, begun: str = ""
) -> list[dict[str, Any]]:
    """All steps of a learner, in place; the trace: step, lr, loss and the learner's facts, about a hundred times.

    begun: digest of what the modules started from. A step draws `batch` rows, cuts them into `accumulate` slices
    (under torchrun each process takes its own share of every slice), sums the slices' gradients and moves once.
    Raises `Failure` that names the step where the loss or a weight is not finite, and `UsageError` for a checkpoint
    of other work or a batch that cannot be cut.
    """
    state = _State(learner, modules, digest([learner.as_dict(), world.digest, rng.number, begun]))
    done = state.load(watch.restore(), device)
    if not parallel.agree(done, device):
        raise Failure("checkpoint: the processes see different ones; give them one folder")
    parts = learner.accumulate
    if learner.couples and parts > 1:
        raise UsageError(f"{learner.kind}.accumulate={parts}: its loss compares all rows of a batch; give 1")
    stride = max(1, learner.steps // LOGGED)
    modules.train()
    batches = world.batches(learner.batch, learner.steps, rng.child("batches"), done)
    with torch.random.fork_rng(devices=[]):
        for step, sample in batches:
            draw = rng.child(f"step {step}")
            if parallel.ranks() > 1 and step == done:
                _tell_draws(learner._drawn(modules, tuple(sample.x.shape[1:])), learner.kind)
            own = draw.child(f"process {parallel.rank()}") if parallel.rank() else draw
            torch.default_generator.manual_seed(own.number)
            optimiser = state.at(step)
            loss, facts = _gradients(learner, modules, sample, draw, parts, device)
            parallel.average(modules)
            if not bool(torch.isfinite(loss)):
                raise Failure(
                    f"{learner.kind}: the loss is {float(loss)} at step {step + 1} of {learner.steps}; "
                    f"nothing was kept; give a smaller lr (it is {learner.lr:g}) or clip=1"
                )
            if learner.clip is not None:
                norm = nn.utils.clip_grad_norm_(modules.parameters(), learner.clip)
                facts = {**facts, "gradient": norm}
            if parallel.rank() == 0:
                watch.before_step(step + 1, modules, optimiser)
            optimiser.step()
            with torch.no_grad():
                learner._after_step(modules, step)
            facts = {"loss": loss, **facts}
            if (step + 1) % stride == 0 or step + 1 == learner.steps:
                state.trace.append({"step": step + 1, "lr": learner.rate(step), **_plain(facts)})
            if parallel.rank() == 0:
                watch.on_step(step + 1, learner.steps, facts)
            state.save(watch, step + 1, device)
    for name, tensor in modules.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise Failure(f"{learner.kind}: {name} is not finite after the last step; nothing was kept")
    return state.trace


def _tell_draws(drawn: list[str], kind: str) -> None:
    if drawn and not parallel.rank():
        told = f"{kind}: each of {parallel.ranks()} processes draws its own {' and '.join(drawn)}"
        notice(f"{told}: the law is that of one process, the numbers are not")


def schedule(name: str, step: int, steps: int, warm: float) -> float:
    """Factor on the learning rate in step `step` (from 0) of `steps`; warm is the share of steps that rise linearly.

    constant: 1. cosine: (1 + cos(pi t)) / 2 over all steps. warm-cosine: a linear rise, then a cosine to 0 over the
    rest. warm-decay: a linear rise, flat, a linear fall over the last quarter.
    """
    if name == "constant":
        return 1.0
    if name == "warm-decay":
        return warm_then_decay(step, steps, warm)
    rise = warm * steps if name == "warm-cosine" else 0.0
    if step + 1 < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise))) if step > rise else 1.0


def moved(sample: Sample, device: str) -> Sample:
    """The sample as tensors on a device: x, h, z and real targets y float32 (float64 stays), all numbers int64."""
    label = None if sample.y is not None and _is_real(sample.y) else torch.long
    kinds = {"x": None, "h": None, "z": None, "y": label, "index": torch.long, "group": torch.long}
    made: dict[str, Any] = {"items": None, "split": None, "repeats": None}
    for name, dtype in {**kinds, "time": torch.long}.items():
        value = getattr(sample, name)
        if value is not None and hasattr(value, "shape"):
            made[name] = _tensor(value, dtype).to(device)
    return replace(sample, **made)


def _is_real(value: Any) -> bool:
    return value.is_floating_point() if isinstance(value, Tensor) else np.asarray(value).dtype.kind == "f"


def _tensor(value: Any, dtype: torch.dtype | None) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
    if dtype is not None:
        return tensor.to(dtype)
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def cut(sample: Sample, parts: int, number: int) -> Sample:
    """Slice `number` of `parts` equal ones, whole sequences in each; raises `UsageError` where that cannot be."""
    if parts == 1:
        return sample
    n = len(sample)
    begin, end = number * n // parts, (number + 1) * n // parts
    if n % parts:
        raise UsageError(f"batch={n}: not to be cut into {parts} equal slices; give a multiple of {parts}")
    if sample.group is not None:
        group = sample.group
        if any(0 < edge < n and bool(group[edge - 1] == group[edge]) for edge in (begin, end)):
            raise UsageError(f"batch={n}: {parts} equal slices cut a sequence in two; give whole sequences to each")
    return sample.take(np.arange(begin, end))


def _gradients(
    learner: Learner, modules: nn.ModuleDict, sample: Sample, rng: Stream, parts: int, device: str
) -> tuple[Tensor, Mapping[str, Any]]:
    """Fill in the gradients of the mean loss over the batch; the loss (over all processes) and the facts."""
    for parameter in modules.parameters():
        parameter.grad = None
    total = torch.zeros((), device=device)
    facts: Mapping[str, Any] = {}
    ranks = parallel.ranks()
    for number in range(parts):
        draw = rng if parts == 1 else rng.child(number)
        # Slice after slice is shared out, so that all processes together have the rows that one would have.
        own = cut(sample, parts * ranks, number * ranks + parallel.rank())
        with parallel.synchronised():
            loss, facts = learner._loss(modules, moved(own, device), draw)
        (loss if parts == 1 else loss / parts).backward()
        total = total + loss.detach() / parts
    return parallel.mean(total), facts


class _State:
    """What a resumed run needs: modules, optimiser, step and trace, and whose they are."""

    def __init__(self, learner: Learner, modules: nn.ModuleDict, whose: str) -> None:
        self.learner, self.modules = learner, modules
        self.trace: list[dict[str, Any]] = []
        self.whose = torch.tensor(list(whose.encode()), dtype=torch.uint8)
        self.groups = [group for group in learner._groups(modules) if group["params"]]
        self.optimiser = _optimiser(learner, [{**group, "lr": learner.lr} for group in self.groups])

    def at(self, step: int) -> torch.optim.Optimizer:
        """The optimiser with the learning rates of a step."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.learner.rate(step) * group["rate"]
        return self.optimiser

    def save(self, watch: Watch, step: int, device: str) -> None:
        """Offer the state to the first process's watch; where modules are sharded, all processes make it together."""
        together = parallel.ranks() > 1 and any(getattr(part, "sharded", False) for part in self.modules.modules())
        asked = False

        def made() -> dict[str, Tensor]:
            nonlocal asked
            asked = True
            if together:
                parallel.tell(True, device)
            return self.tensors(step)

        if parallel.rank() == 0:
            watch.save(made)
            if together and not asked:
                parallel.tell(False, device)
        elif together and parallel.tell(False, device):
            self.tensors(step)

    def tensors(self, step: int) -> dict[str, Tensor]:
        """Everything as named tensors; they are written before the next step moves them."""
        trace = torch.frombuffer(bytearray(json.dumps(self.trace).encode()), dtype=torch.uint8)
        made = {"step": torch.tensor(step), "whose": self.whose, "trace": trace}
        made |= {f"modules.{name}": tensor for name, tensor in self.modules.state_dict().items()}
        for number, values in self.optimiser.state_dict()["state"].items():
            made |= {f"optimiser.{number}.{name}": torch.as_tensor(v) for name, v in values.items() if v is not None}
        return made

    def load(self, state: Mapping[str, Tensor] | None, device: str) -> int:
        """Go on from `tensors()`; the number of steps done."""
        if state is None:
            return 0
        if "whose" not in state or not torch.equal(state["whose"].cpu(), self.whose):
            raise UsageError(ANOTHER)
        found = {name: t for name, t in state.items() if name.startswith("modules.")}
        self.modules.load_state_dict({name.removeprefix("modules."): tensor for name, tensor in found.items()})
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            if name.startswith("optimiser."):
                _, number, part = name.split(".", 2)
                moments.setdefault(int(number), {})[part] = tensor.clone()
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.trace.extend(json.loads(bytes(state["trace"].tolist())))
        return int(state["step"])


def _optimiser(learner: Learner, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    made: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": torch.optim.SGD,
    }
    if learner.optimiser == "muon":
        return Muon(groups, learner.lr)
    own = {"momentum": learner.momentum} if learner.optimiser == "sgd" else {}
    return made[learner.optimiser](groups, lr=learner.lr, fused=True, **own)


def _plain(facts: Mapping[str, Any]) -> dict[str, float | None]:
    numbers = {name: float(value) for name, value in facts.items()}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}
