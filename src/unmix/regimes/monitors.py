"""RegimeWatch: looks on at training and says, step by step, whether it is lazy or rich."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unmix.core.errors import UsageError, notice
from unmix.core.watch import Watch
from unmix.regimes import measures
from unmix.regimes.choosing import chosen
from unmix.regimes.jacobian import Forward, frozen_copy
from unmix.regimes.kernel import tangent_kernel
from unmix.regimes.law import Law
from unmix.regimes.pairs import Pair

RELU = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ReLU6)
OWN = "watch."  # the watch's own tensors in a checkpoint


class RegimeWatch(Watch):
    """A watch of learning regimes; `records` holds a dict for each look, the first before any step.

    probe: rows x [n, ...] that are looked at. targets: y of the probe, for the alignment of kernel and target. every:
    steps between looks (the balance is followed in every step). kernel: whether to take the tangent kernel of the
    probe (its trace over outputs) at each look. memory: its bound in bytes. forward: called with (module, x);
    without, a module with parts "encoder" and maybe "head" is run through both, any other is called. inner: a watch
    to pass everything on. pairs: of layers whose balance is followed, by hand and instead of those that are found,
    named as in the module that is watched: "encoder.q -> encoder.k query-key 4" (`pairs.given_pairs`). They are taken
    at their word; for one that is no such pair the law does not hold.

    A record has: step; balance (mean, variance, least and largest of every unit, by pair); drift, the largest change
    of a unit's balance beyond the exact law of gradient descent, sum_t h_t^2 (|g_out|^2 - |g_in|^2) (and decay),
    None where that law does not apply; conservation, "applies", or "does not apply" or "does not hold" with the
    reason; hamming, motion, relative motion, kernel distance, alignment, effective rank, layer shares of the kernel,
    cka of the encoder, roughness of filters, verdict. What cannot be had is None.
    """

    probe: Tensor
    targets: Tensor | None
    every: int
    kernel: bool
    memory: int
    inner: Watch
    pairs: Sequence[Pair | str] | None

    def __init__(
        self,
        probe: Tensor,
        targets: Tensor | None = None,
        every: int = 100,
        kernel: bool = True,
        memory: int = 2**28,
        forward: Forward | None = None,
        inner: Watch | None = None,
        pairs: Sequence[Pair | str] | None = None,
    ) -> None:
        if len(probe) < 2 or every < 1 or (targets is not None and len(targets) != len(probe)):
            raise UsageError(f"RegimeWatch: {len(probe)} probe rows (2 or more, as many targets), every={every}")
        self.probe, self.targets, self.every = probe, targets, every
        self.kernel, self.memory, self.inner, self.pairs = kernel, memory, inner or Watch(), pairs
        self.forward: Forward = forward or _run
        self.records: list[dict[str, Any]] = []
        self._start: _Look | None = None
        self._law: Law | None = None
        self._module: Any = None
        self._kept: dict[str, Tensor] = {}
        self._first: dict[str, Tensor] = {}

    def before_step(self, step: int, module: Any, optimiser: Any) -> None:
        """Look at the module as it is before step `step`, whose gradients lie in it."""
        self.inner.before_step(step, module, optimiser)
        if self._law is None:
            self._law = Law(module, self.probe, self.forward, self.pairs)
            self._begin(module)
        self._law.measure()
        if self._start is None or (step - 1) % self.every == 0:
            self._record(step - 1, module)
        self._law.predict(optimiser)
        self._module = module

    def on_step(self, step: int, total: int, facts: Mapping[str, Any]) -> None:
        """Look once more after the last step."""
        self.inner.on_step(step, total, facts)
        if step == total and self._law is not None:
            self._law.measure()
            self._record(step, self._module)

    def save(self, state: Callable[[], dict[str, Tensor]]) -> None:
        """Keep, beside the learner's state, where the module started and what was seen, so that a resume goes on."""
        self.inner.save(lambda: {**state(), **self._tensors()})

    def restore(self) -> dict[str, Tensor] | None:
        found = self.inner.restore()
        if found is None:
            return None
        self._kept = {name.removeprefix(OWN): t for name, t in found.items() if name.startswith(OWN)}
        return {name: tensor for name, tensor in found.items() if not name.startswith(OWN)}

    def done(self) -> None:
        self.inner.done()

    def _tensors(self) -> dict[str, Tensor]:
        if self._law is None:
            return {}
        told = json.dumps({"records": self.records, "refusal": self._law.refusal}).encode()
        made = {f"{OWN}start.{name}": tensor for name, tensor in self._first.items()}
        made |= {f"{OWN}law.{name}": tensor for name, tensor in self._law.state().items()}
        return made | {f"{OWN}told": torch.frombuffer(bytearray(told), dtype=torch.uint8)}

    def _begin(self, module: nn.Module) -> None:
        """Note where the module starts, or take up what an interrupted run had noted."""
        assert self._law is not None
        if "told" not in self._kept:
            self._first = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
            return
        told = json.loads(bytes(self._kept["told"].tolist()))
        self.records, self._law.refusal = told["records"], told["refusal"]
        if (followed := list(self.records[0]["balance"])) != (now := [pair.name for pair, _ in self._law.pairs]):
            raise UsageError(f"RegimeWatch: the checkpoint followed the pairs {followed}, this watch {now}")
        self._first = {n.removeprefix("start."): t for n, t in self._kept.items() if n.startswith("start.")}
        self._law.take({n.removeprefix("law."): t for n, t in self._kept.items() if n.startswith("law.")})
        twin = copy.deepcopy(module)
        twin.load_state_dict(self._first)
        self._start = _Look.of(self, twin)

    def _record(self, step: int, module: nn.Module) -> None:
        assert self._law is not None
        look = _Look.of(self, module)
        if self._start is None:
            self._start = look
        start, made = self._start, {"step": step, **self._law.facts()}
        gone = sum(float((look.weights[n] - w).square().sum()) for n, w in start.weights.items()) ** 0.5
        size = sum(float(w.square().sum()) for w in start.weights.values()) ** 0.5
        made |= {"motion": gone, "relative motion": gone / size if size else None}
        seen = look.on is not None and start.on is not None
        made["hamming"] = measures.hamming(look.on, start.on) if seen else None  # type: ignore[arg-type]
        made["cka"] = None if look.h is None or start.h is None else measures.cka(look.h, start.h)
        made["roughness"] = {name: float(measures.roughness(w).mean()) for name, w in look.filters.items()} or None
        for name in ("kernel distance", "alignment", "effective rank", "layer shares", "verdict"):
            made[name] = None
        if look.kernel is not None and start.kernel is not None and bool(look.kernel.any()):
            made["kernel distance"] = measures.kernel_distance(look.kernel, start.kernel)
            made["effective rank"] = measures.effective_rank(look.kernel)
            made["layer shares"] = look.shares
            if self.targets is not None:
                made["alignment"] = measures.alignment(look.kernel, self.targets)
            if made["relative motion"] is not None:
                made["verdict"] = measures.verdict(made["kernel distance"], made["hamming"], made["relative motion"])
        self.records.append(made)


class _Look:
    """A module at one moment: weights, patterns of its units, representation, kernel of the probe."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.filters: dict[str, Tensor] = {}
        self.on: Tensor | None = None
        self.h: Tensor | None = None
        self.kernel: Tensor | None = None
        self.shares: dict[str, float] | None = None

    @staticmethod
    def of(watch: RegimeWatch, module: nn.Module) -> _Look:
        look, twin = _Look(), frozen_copy(module)
        look.weights = {n: p.detach() for n, p in twin.named_parameters() if p.requires_grad}
        look.filters = {
            f"{n}.weight": m.weight.detach()
            for n, m in twin.named_modules()
            if isinstance(m, nn.Conv2d) and min(m.kernel_size) >= 3
        }
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _patterns(twin) as patterns:
            watch.forward(twin, watch.probe)
        look.on = torch.cat(patterns, dim=1) if patterns else None
        if isinstance(module, nn.ModuleDict) and "encoder" in module:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                look.h = twin["encoder"](watch.probe)  # type: ignore[index]
        if watch.kernel:
            try:
                look.kernel = tangent_kernel(
                    twin, watch.probe, reduce="trace", memory=watch.memory, forward=watch.forward
                )
                look.shares = _shares(twin, watch)
            except UsageError as error:
                watch.kernel = False
                notice(f"RegimeWatch: the kernel is not followed: {error}")
        return look


def _run(module: nn.Module, x: Tensor) -> Tensor:
    if isinstance(module, nn.ModuleDict):
        if "encoder" not in module:
            raise UsageError(f"RegimeWatch: modules {', '.join(module)} have no encoder; give forward=")
        h = module["encoder"](x)
        return module["head"](h) if "head" in module else h
    return module(x)


@contextmanager
def _patterns(module: nn.Module) -> Any:
    """Which units are on [n, units], collected from every ReLU-like module that runs."""
    found: list[Tensor] = []
    handles = [
        m.register_forward_hook(lambda _, given, end: found.append((given[0] > 0).flatten(1)))
        for m in module.modules()
        if isinstance(m, RELU)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _shares(module: nn.Module, watch: RegimeWatch) -> dict[str, float]:
    """Share of the kernel's trace [sum to 1] that belongs to each parameter."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        source = chosen(module, watch.forward, watch.probe)
    total = {}
    for name in source.parameters:
        size = 0.0
        for row in watch.probe.split(8):
            with torch.random.fork_rng(devices=[]):
                size += float(source.jacobian(row, [name])[name].detach().square().sum())
        total[name] = size
    whole = sum(total.values())
    return {name: size / whole if whole else 0.0 for name, size in total.items()}
