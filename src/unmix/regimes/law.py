"""The conservation law of gradient descent: what it must do to the balance of every pair, and whether it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.regimes.jacobian import Forward
from unmix.regimes.pairs import Pair, find_pairs, given_pairs
from unmix.regimes.running import copied
from unmix.regimes.sides import Part, Sides, sides

ROWS = 8  # of the probe, to find pairs on
SHARE = 0.02  # of the way that a balance went to and fro, which gradients of reduced precision may be off by
ROUNDING = 1000  # units in the last place of a unit's squares
BROKEN = "gradients clipped number by number, a penalty on weights in the loss, or units that are not homogeneous"


class Law:
    """The balance of every legal pair, or of those given, and what gradient descent must do to it, exactly.

    A step of size h changes delta = |out|^2 - |in|^2 by h^2 (|G_out|^2 - |G_in|^2) - 2 h decay delta, G with the
    decay in it: what is of first order in h cancels, since the loss stays when scale moves through the pair. A pair
    whose layers all stand still keeps its balance; one of which only a part is moved has no such law, whether it
    takes no gradient, is not in the optimiser or has rate zero.
    """

    def __init__(
        self, module: nn.Module, probe: Tensor, forward: Forward, given: Sequence[Pair | str] | None
    ) -> None:
        why: list[str] = []
        followed = _found(module, probe, forward, why) if given is None else given_pairs(module, given)
        self.pairs: list[tuple[Pair, Sides]] = [(pair, sides(module, pair)) for pair in followed]
        self.now: list[Tensor] = []
        self.start: list[Tensor] = []
        self.predicted: list[Tensor] = []
        self.travelled: list[Tensor] = []
        none = f"does not apply: no pair of layers with homogeneous units between {' '.join(why[:1])}".strip()
        self.refusal = "" if self.pairs else none

    def measure(self) -> None:
        """Take the balances as they are now."""
        self.now = [both.sums(both.outgoing) - both.sums(both.incoming) for _, both in self.pairs]
        if not self.start:
            self.start = self.now
            self.predicted = [torch.zeros_like(delta) for delta in self.now]
            self.travelled = [torch.zeros_like(delta) for delta in self.now]

    def predict(self, optimiser: Any) -> None:
        """Add what the coming step must change, whose gradients lie in the module."""
        if self.refusal or (refusal := _not_plain(optimiser)):
            self.refusal = self.refusal or refusal
            return
        settings = {id(p): group for group in optimiser.param_groups for p in group["params"]}
        for number, (pair, both) in enumerate(self.pairs):
            groups = [_moving(tensor, settings) for tensor in both.tensors()]
            if not any(groups):
                continue
            if not all(groups):
                self.refusal = f"does not apply: not all of {pair.name} is moved (a frozen layer)"
                return
            rates = {(float(g["lr"]), float(g["weight_decay"])) for g in groups if g is not None}
            if len(rates) > 1:
                self.refusal = f"does not apply: {pair.name} has several learning rates or decays"
                return
            h, decay = rates.pop()
            out, into = (self._squares(both, parts, decay) for parts in (both.outgoing, both.incoming))
            along = sum(self._along(both, parts).abs() for parts in (both.outgoing, both.incoming))
            self.predicted[number] = self.predicted[number] + h**2 * (out - into) - 2 * h * decay * self.now[number]
            self.travelled[number] = self.travelled[number] + 2 * h * along

    def facts(self) -> dict[str, Any]:
        """The balances, how far they are from what the law says, and whether it holds, for a record."""
        balance = {
            pair.name: {
                "mean": float(delta.mean()),
                "variance": float(delta.var(unbiased=False)),
                "least": float(delta.min()),
                "largest": float(delta.max()),
            }
            for (pair, _), delta in zip(self.pairs, self.now, strict=True)
        }
        if self.refusal:
            return {"balance": balance, "drift": None, "conservation": self.refusal}
        beyond = [(n - s - p).abs() for n, s, p in zip(self.now, self.start, self.predicted, strict=True)]
        told = "applies"
        for (pair, both), gone, travelled in zip(self.pairs, beyond, self.travelled, strict=True):
            fine = torch.finfo(both.tensors()[0].dtype).eps * ROUNDING
            size = both.sums(both.outgoing) + both.sums(both.incoming)
            if not bool((gone <= SHARE * travelled + fine * size).all()):
                told = f"does not hold: {pair.name} went {float(gone.max()):.2g} beyond the law ({BROKEN})"
                break
        return {"balance": balance, "drift": max(float(gone.max()) for gone in beyond), "conservation": told}

    def state(self) -> dict[str, Tensor]:
        """What was noted since the start, for a checkpoint."""
        kept = {"start": self.start, "predicted": self.predicted, "travelled": self.travelled}
        return {f"{number}.{name}": t for name, tensors in kept.items() for number, t in enumerate(tensors)}

    def take(self, state: dict[str, Tensor]) -> None:
        """Go on from what a checkpoint noted."""
        self.start, self.predicted, self.travelled = (
            [state[f"{number}.{name}"] for number in range(len(self.pairs))]
            for name in ("start", "predicted", "travelled")
        )

    @staticmethod
    def _squares(both: Sides, parts: list[Part], decay: float) -> Tensor:
        return both.sums(parts, [(_gradient(p.tensor) + decay * p.tensor.detach().double()).square() for p in parts])

    @staticmethod
    def _along(both: Sides, parts: list[Part]) -> Tensor:
        return both.sums(parts, [_gradient(p.tensor) * p.tensor.detach().double() for p in parts])


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad.detach().to_dense().double()


def _moving(tensor: Tensor, settings: dict[int, Any]) -> Any:
    """The optimiser's group of a tensor that it will move, or None."""
    group = settings.get(id(tensor))
    return None if group is None or tensor.grad is None or float(group["lr"]) == 0 else group


def _not_plain(optimiser: Any) -> str:
    """Why the law of gradient descent does not hold for an optimiser, or nothing."""
    kind = type(optimiser).__name__
    if type(optimiser) is not torch.optim.SGD:
        adaptive = "eps" in getattr(optimiser, "defaults", {})
        return f"does not apply: {kind} {'divides by the size of gradients' if adaptive else 'is no plain descent'}"
    if any(group["momentum"] for group in optimiser.param_groups):
        return "does not apply: momentum"
    return ""


def _found(module: nn.Module, probe: Tensor, forward: Forward, why: list[str]) -> list[Pair]:
    """The legal pairs of a module, part by part where it is made of several; what could not be run goes to `why`."""
    probe = probe[:ROWS]
    if not isinstance(module, nn.ModuleDict):
        return _legal(module, "", probe, forward, why)
    made = []
    for name, part in module.items():
        given: Tensor | None = probe if name == "encoder" else None
        if name == "head" and "encoder" in module:
            given = _through(module["encoder"], probe)
        made += _legal(part, f"{name}.", given, None, why)
    return made


def _legal(part: nn.Module, at: str, probe: Tensor | None, forward: Forward | None, why: list[str]) -> list[Pair]:
    try:
        pairs = find_pairs(part, probe, forward)
    except UsageError as error:  # a part that cannot be run by itself
        why.append(f"({error})")
        return []
    return [replace(p, first=f"{at}{p.first}", second=f"{at}{p.second}") for p in pairs if p.legal]


def _through(encoder: nn.Module, probe: Tensor) -> Tensor | None:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        made = copied(encoder).eval()(probe)
    return made if isinstance(made, Tensor) else None
