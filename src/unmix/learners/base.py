"""Learner: the protocol of everything that learns a representation from a world."""

from __future__ import annotations

import copy
import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from unmix.core.errors import Failure, UsageError, notice
from unmix.core.recipe import Recipe
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.core.watch import Watch
from unmix.learners import parallel
from unmix.learners.loop import moved, schedule, train
from unmix.learners.representation import Representation
from unmix.networks import NETWORKS
from unmix.networks.base import Network
from unmix.networks.mlp import MLP
from unmix.regimes import INITIALISATIONS

PROBE = 8  # rows that an initialisation sees, to tell that it keeps the function


class Learner(Recipe):
    """Learns a representation: `fit(world)` gives a `Representation`, the same for the same world and rng.

    network: recipe of the encoder. width: number of columns d of the representation. steps: of the optimiser.
    batch: rows of a step. lr: learning rate. schedule: constant, cosine, warm-cosine or warm-decay. warm: share of
    the steps in which the two latter rise linearly. optimiser: adam, adamw, sgd, or muon (orthogonalised steps of the
    encoder's matrices and kernels, adamw for all else). momentum: of sgd. weight_decay: on matrices and kernels, not
    on biases, norms and scalars. head_rate: factor on the learning rate of everything but the encoder. accumulate:
    slices that a batch is cut into, one after another, to save memory. clip: largest norm of the gradient, None for
    no limit. precision: of the networks; losses are float32 always. init: recipe of how the encoder's scale is shared
    between its layers at the start (`unmix list initialisations`), None for as it is drawn. couples: the loss
    compares rows of a batch with one another. A subclass writes `_build` and `_loss`.

    Batch norm takes its statistics from one slice of a batch, under torchrun from the rows of all processes: several
    processes give the weights of one, several slices give others. Running statistics move once a slice.
    """

    couples: ClassVar[bool] = False

    network: Annotated[Any, BeforeValidator(NETWORKS.make)] = MLP()
    width: int = Field(default=5, ge=1)
    steps: int = Field(default=2000, ge=1)
    batch: int = Field(default=1024, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    schedule: Literal["constant", "cosine", "warm-cosine", "warm-decay"] = "cosine"
    warm: float = Field(default=0.05, ge=0, lt=1)
    optimiser: Literal["adam", "adamw", "sgd", "muon"] = "adam"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    head_rate: float = Field(default=1.0, gt=0)
    accumulate: int = Field(default=1, ge=1)
    clip: float | None = Field(default=None, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    init: Annotated[Any, BeforeValidator(lambda value: None if value is None else INITIALISATIONS.make(value))] = None

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values; without `init` where there is none."""
        # Digests from before there were initialisations stay what they were.
        return {name: value for name, value in super().as_dict().items() if name != "init" or value is not None}

    def fit(
        self,
        world: Any,
        rng: int | Stream = 0,
        watch: Watch | None = None,
        device: str = "cpu",
        start: Representation | None = None,
    ) -> Representation:
        """A representation of the world's observations; global random state is not touched.

        start: a representation to go on from, of the same network, shape and width; its parts are taken over where
        they fit, `init` is left out, and `about` keeps its digest. Under torchrun every process calls this and gets
        the same result. Raises `UsageError` for a world without what the learner needs, a start that cannot
        be used, or a checkpoint of other work; `Failure` that names the step where the loss is not finite.
        """
        parallel.join(device)
        stream, watch = as_stream(rng).child(self.kind), watch or Watch()
        begun = time.perf_counter()
        shape, modules = self._prepared(world, stream, device, start)
        trace = train(self, modules, world, stream, watch, device, "" if start is None else start.digest)
        watch.done()
        facts = {
            **self._facts(world, as_stream(rng)),
            "seconds": round(time.perf_counter() - begun, 3),
            "processes": parallel.ranks(),
            **({} if start is None else {"start": start.digest}),
        }
        return self._result(modules, shape, trace, facts)

    def untrained(self, world: Any, rng: int | Stream = 0, device: str = "cpu") -> Representation:
        """The representation that `fit` with this rng starts from, as a baseline."""
        stream = as_stream(rng).child(self.kind)
        shape, modules = self._prepared(world, stream, device, None)
        return self._result(modules, shape, [], {**self._facts(world, as_stream(rng)), "steps": 0})

    def refusal(self, world: Any) -> str | None:
        """Why this learner cannot learn from a world, as a sentence, or None; a batch is drawn to see.

        Where there is an `init`, or slices of one row, the modules are built as well.
        """
        stream = Stream(0).child("refusal")
        try:
            if self.init is None and self.batch // self.accumulate // parallel.ranks() > 1:
                self._check(world, _first(world, self.batch, stream))
            else:
                self._prepared(world, stream, "cpu", None)
        except (UsageError, Failure) as error:
            return str(error)
        return None

    def flops(self, world: Any) -> float:
        """Floating-point operations of one step's products and convolutions, forwards and backwards, counted."""
        from torch.utils.flop_counter import FlopCounterMode

        stream = Stream(0).child("flops")
        _, modules = self._prepared(world, stream, "cpu", None)
        sample = moved(_first(world, self.batch, stream), "cpu")
        with FlopCounterMode(display=False) as counter:
            self._loss(modules, sample, stream)[0].backward()
        return float(counter.get_total_flops())

    def rate(self, step: int) -> float:
        """Learning rate in step `step`, from 0."""
        return self.lr * schedule(self.schedule, step, self.steps, self.warm)

    def _prepared(
        self, world: Any, stream: Stream, device: str, start: Representation | None
    ) -> tuple[tuple[int, ...], nn.ModuleDict]:
        sample = _first(world, self.batch, stream.child("first"))
        self._check(world, sample)
        shape = tuple(sample.x.shape[1:])
        modules = self._build(shape, world, stream.child("modules")).to(device)
        if self.init is not None and start is None:
            try:
                self.init.apply(modules["encoder"], moved(Sample(x=sample.x[:PROBE]), device).x)
            except (UsageError, Failure) as error:
                raise type(error)(f"{self.kind}.init={self.init.kind}: {error}") from None
        if len(sample) // self.accumulate // parallel.ranks() < 2:
            _one_row(modules["encoder"], moved(sample.take(np.arange(1)), device).x, self.kind)
        if start is not None:
            self._startable(start, shape)
            with torch.no_grad():
                self._take(modules, start)
        return shape, modules

    def _check(self, world: Any, sample: Sample) -> None:
        needed = self._needed() | {"x"}
        if missing := sorted(needed - sample.provides):
            raise UsageError(
                f"{self.kind}: needs {', '.join(sorted(needed))}; "
                f"{world.kind} gives {', '.join(sorted(sample.provides))}, not {', '.join(missing)}"
            )
        if self.couples and len(sample) < 2:
            raise UsageError(f"{self.kind}.batch={self.batch}: compares rows of a batch; give 2 or more")
        if not bool(torch.isfinite(moved(Sample(x=sample.x), "cpu").x).all()):
            raise UsageError(f"{self.kind}: x of {world.kind} is not finite; drop or repair such rows first")

    def _startable(self, start: Representation, shape: tuple[int, ...]) -> None:
        if not isinstance(start, Representation):
            raise UsageError(f"{self.kind}: start must be a Representation, got {type(start).__name__}")
        wanted, given = (self._network(), shape, self.width), (start.network, start.shape, start.width)
        for name, ours, theirs in zip(("network", "shape", "width"), wanted, given, strict=True):
            if ours != theirs:
                raise UsageError(f"{self.kind}: start has {name} {theirs}, this learner has {ours}; give the same")

    def _facts(self, world: Any, rng: Stream) -> dict[str, Any]:
        return {"learner": self.as_dict(), "world": world.as_dict(), "seed": rng.seed, "steps": self.steps}

    def _result(
        self, modules: nn.ModuleDict, shape: tuple[int, ...], trace: list[dict[str, Any]], facts: dict[str, Any]
    ) -> Representation:
        parts = {name: tensor.detach().clone() for name, tensor in self._parts(modules).items()}
        return Representation(modules["encoder"].eval(), self._network(), shape, self.width, parts, trace, facts)

    def _needed(self) -> frozenset[str]:
        """Fields of a sample that this recipe cannot do without."""
        return self.needs

    def _network(self) -> Network:
        """The recipe that builds `modules["encoder"]`, whose output is the representation."""
        return self.network

    def _groups(self, modules: nn.ModuleDict) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser, each with its `rate`, a factor on the learning rate.

        `matrices` says which of them muon turns.
        """
        groups = []
        for name, module in modules.items():
            learnt = [p for p in module.parameters() if p.requires_grad]
            rate = 1.0 if name == "encoder" else self.head_rate
            for decay, wanted in ((self.weight_decay, True), (0.0, False)):
                chosen = [p for p in learnt if (p.ndim > 1) == wanted]
                turned = wanted and name == "encoder"
                groups.append({"params": chosen, "rate": rate, "weight_decay": decay, "matrices": turned})
        return groups

    def _drawn(self, modules: nn.ModuleDict, shape: tuple[int, ...]) -> list[str]:
        """What each of several processes draws for itself, so that their numbers are not those of one."""
        amounts = [getattr(part, name, 0) for part in modules.modules() for name in ("p", "drop_prob", "dropout")]
        return ["dropout"] if any(isinstance(amount, float) and amount > 0 for amount in amounts) else []

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        """A module's output in float32, computed in the learner's precision."""
        if self.precision == "float32":
            return module(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            made = module(x)
        return made.float()

    def _parts(self, modules: nn.ModuleDict) -> Mapping[str, Tensor]:
        """What the result keeps beside the encoder: by default every tensor of the other modules, as MODULE.NAME."""
        return {name: t for name, t in modules.state_dict().items() if not name.startswith("encoder.")}

    def _take(self, modules: nn.ModuleDict, start: Representation) -> None:
        """Begin from a representation: its encoder, and its parts where they have this learner's names and shapes."""
        modules["encoder"].load_state_dict(start.module.state_dict())
        for name, own in modules.state_dict().items():
            if name in start.parts and start.parts[name].shape == own.shape:
                own.copy_(start.parts[name])

    def _after_step(self, modules: nn.ModuleDict, step: int) -> None:
        """Called after step `step` (from 0) without gradients; for constraints and slow copies of modules."""

    @abstractmethod
    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        """The modules: "encoder" [n, *shape] -> [n, width], and whatever else is trained or kept."""

    @abstractmethod
    def _loss(self, modules: nn.ModuleDict, batch: Sample, rng: Stream) -> tuple[Tensor, Mapping[str, Any]]:
        """Mean loss over the batch's rows, a scalar with its graph, and named numbers for the log.

        batch: tensors on the device. Every draw comes from rng; noise for rows from `parallel.normal`, so that
        several processes draw what one would. Modules are called through `_run`.
        """


def _first(world: Any, batch: int, rng: Stream) -> Sample:
    """The first batch of a world, to see what it gives; raises `UsageError` where it gives nothing."""
    for _, sample in world.batches(batch, 1, rng):
        if len(sample) < batch:
            notice(f"batch={batch}: {world.kind} has {len(sample)} rows, which every step takes all of")
        return sample
    raise UsageError(f"{world.kind}: gives no batch of {batch} rows; give a smaller batch")


def _one_row(encoder: nn.Module, x: Tensor, kind: str) -> None:
    """Raise `UsageError` where an encoder cannot train on a single row, for batch norm has no variance to take."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copy.deepcopy(encoder).train()(x)
    except ValueError as error:
        raise UsageError(
            f"{kind}.batch: slices of one row, of which batch norm has no variance; give two rows or more to each "
            f"slice and process, or a network without batch norm ({' '.join(str(error).split())[:80]})"
        ) from None


def count_of(world: Any, field: str, given: int | None, kind: str) -> int:
    """Number of classes of a label field (y or index): as given, as the world says, or counted over its data.

    Raises `UsageError` where there is no telling.
    """
    if given is not None:
        return given
    said = getattr(world, {"y": "classes", "index": "instances"}[field], None)
    if isinstance(said, int):
        return said
    if world.size is None:
        raise UsageError(f"{kind}: {world.kind} does not say how many values {field} has; give classes=")
    if field == "index":
        return int(world.size)
    labels = moved(Sample(y=world.sample(world.size).y), "cpu").y
    return int(labels.max()) + 1
