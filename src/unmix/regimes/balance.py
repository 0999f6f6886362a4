"""Balance of a torch model: move scale between its layers and keep the function, or say where that cannot be."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmix.core.errors import Failure, UsageError
from unmix.regimes.exact.neuron import rescale_squared
from unmix.regimes.jacobian import frozen_copy
from unmix.regimes.pairs import ATTENTION, Pair, find_pairs, given_pairs, sides

ADAM = (
    "scaling weights and scaling learning rates are the same for SGD only: Adam divides by the gradient's size, "
    "so a learning rate of its own for each layer does not stand in for the balance"
)


UNSEEN = "pairs given by hand are taken at their word: give a probe to see whether the function is kept"


@dataclass
class Report:
    """What was done to a model: the pairs moved with their factors r [h], the pairs left with the reason.

    preserved: whether the function is kept; False where scale was moved without compensation. before, after: balance
    delta = |outgoing|^2 - |incoming|^2 of every unit [h] of each pair, legal or not. notes: what to know.
    """

    moved: dict[str, Tensor] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    preserved: bool = True
    before: dict[str, np.ndarray] = field(default_factory=dict)
    after: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    kept: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    factors: dict[str, float] = field(default_factory=dict, repr=False)

    def undo(self, model: nn.Module) -> None:
        """Put the weights back, bit for bit. Raises `UsageError` where they have moved since."""
        held = dict(model.named_parameters())
        for name, (_, after) in self.kept.items():
            if name not in held or not torch.equal(held[name].detach(), after):
                raise UsageError(f"undo: {name} has changed since; it can be undone only before training")
        with torch.no_grad():
            for name, (before, _) in self.kept.items():
                held[name].copy_(before)

    def __str__(self) -> str:
        lines = [f"moved  {name}" for name in self.moved]
        lines += [f"scaled {name} by {factor:.4g}, not compensated" for name, factor in self.factors.items()]
        lines += [f"left   {name}: {why}" for name, why in self.left.items()]
        lines.append("the function is kept" if self.preserved else "the function is NOT kept")
        return "\n".join([*lines, *self.notes])


def balance(
    model: nn.Module,
    *,
    alpha: float | None = None,
    delta: float | None = None,
    probe: Tensor | None = None,
    pairs: Sequence[Pair | str] | None = None,
) -> Report:
    """Rescale every legal pair of layers of a model in place, keeping the function.

    alpha: what a first layer gives is divided by alpha and what the second takes multiplied; alpha > 1 is upstream
    (small first layer). In a chain the factors of the layers between cancel: the first layer over alpha, the
    read-out times alpha. delta: each unit is rescaled until |outgoing|^2 - |incoming|^2 = delta, pair after pair
    until all agree. probe: rows to run before and after; outputs must agree to 1e-4 of their size. pairs: by hand,
    instead of those that are found, such as "block.q -> block.k query-key 4" (`pairs.given_pairs`); give a probe
    with them, as they are taken at their word.
    Biases of a first layer count as incoming. Raises `UsageError` where both or neither is given, where no pair is
    legal, or for units without weights; `Failure` where delta cannot be reached or the probe disagrees.
    Source: Kunin et al. 2024, arXiv 2406.06158, sections 3 and 6.
    """
    if (alpha is None) == (delta is None):
        raise UsageError("balance: give alpha (a factor, above 1 upstream) or delta (a balance), one of them")
    if alpha is not None and not (alpha > 0 and np.isfinite(alpha)):
        raise UsageError(f"alpha={alpha}: must be positive")
    found = find_pairs(model) if pairs is None else given_pairs(model, pairs)
    legal = [pair for pair in found if pair.legal]
    unseen = () if pairs is None or probe is not None else (UNSEEN,)
    report = Report(
        left={p.name: p.why for p in found if not p.legal},
        before=unit_balance(model, pairs=pairs),
        notes=(ADAM, *unseen),
    )
    if not legal:
        reasons = "; ".join(f"{name}: {why}" for name, why in report.left.items())
        raise UsageError(f"balance: no pair of layers can be rescaled ({reasons or 'no two follow each other'})")
    expected = None if probe is None else _run(model, probe)
    originals = {name: p.detach().clone() for name, p in model.named_parameters()}
    try:
        report.moved = _by_alpha(model, legal, alpha) if alpha is not None else _by_delta(model, legal, delta or 0.0)
        if probe is not None and expected is not None:
            made = _run(model, probe)
            if float((made - expected).abs().max()) > 1e-4 * float(expected.abs().max()) + 1e-6:
                hidden = "this model hides a path that fx does not see" if pairs is None else "a pair does not hold"
                raise Failure(f"balance: the probe's outputs changed; {hidden}")
    except (UsageError, Failure):
        _restore(model, originals)
        raise
    return _finished(model, report, originals, pairs)


def scale_layers(model: nn.Module, alpha: float, kinds: tuple[type[nn.Module], ...], first: bool = False) -> Report:
    """Divide the weights of some layers by alpha without compensation, in place: the function changes.

    kinds: classes of layers, such as nn.Embedding or nn.Conv2d. first: only the first of them. Tied weights are
    divided once. Raises `UsageError` where the model has none of them.
    """
    if not (alpha > 0 and np.isfinite(alpha)):
        raise UsageError(f"alpha={alpha}: must be positive")
    chosen = {id(m.weight): f"{n}.weight" for n, m in model.named_modules() if isinstance(m, kinds)}
    if not chosen:
        raise UsageError(f"the model has no {' or '.join(k.__name__ for k in kinds)} to scale")
    if first:
        chosen = dict([next(iter(chosen.items()))])
    report = Report(before=unit_balance(model), preserved=alpha == 1, notes=(ADAM,))
    originals = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if id(parameter) in chosen:
                parameter.div_(alpha)
                report.factors[name] = 1 / alpha
    return _finished(model, report, originals)


def sgd_groups(
    model: nn.Module, alpha: float, lr: float, weight_decay: float = 0.0, optimiser: str = "sgd"
) -> list[dict[str, Any]]:
    """Parameter groups for SGD that learn the model as it is, as one rescaled by `balance(model, alpha=...)` would.

    Dividing w by alpha and keeping the rate is the same path of functions as keeping w with the rate times alpha^2:
    each group's rate is lr r^2 with r the factor its tensors would be divided by, and its decay weight_decay / r^2,
    so that the shrinkage is the same. Equivalent for SGD with or without momentum; not for Adam, for which this
    warns. Raises `UsageError` where a tensor is in pairs that pull apart, as in attention, whose parts share one
    tensor.
    """
    if optimiser.lower() != "sgd":
        warnings.warn(ADAM, UserWarning, stacklevel=2)
    twin = frozen_copy(model)
    names = {id(p): name for name, p in twin.named_parameters()}
    factor = dict.fromkeys(names.values(), 1.0)
    for pair in find_pairs(twin):
        if not pair.legal:
            continue
        both = sides(twin, pair)
        if pair.first == pair.second or pair.first_rows or pair.second_rows:
            raise UsageError(f"sgd_groups: {pair.name} shares one tensor, which takes one rate; rescale the weights")
        for tensor, _ in both.incoming:
            factor[names[id(tensor)]] *= alpha
        for tensor, _ in both.outgoing:
            factor[names[id(tensor)]] /= alpha
    groups: dict[float, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        r2 = round(factor[name] ** 2, 12)
        group = groups.setdefault(r2, {"params": [], "lr": lr * r2, "weight_decay": weight_decay / r2})
        group["params"].append(parameter)
    return list(groups.values())


def unit_balance(
    model: nn.Module, rates: Mapping[str, float] | None = None, pairs: Sequence[Pair | str] | None = None
) -> dict[str, np.ndarray]:
    """Balance of every unit [h] of each pair, delta = eta_in |outgoing|^2 - eta_out |incoming|^2, by the pair's name.

    rates: learning rates by parameter name (the pair's first tensors count), 1 where not given. pairs: by hand,
    instead of those that are found. Pairs that are not legal are there too: their delta is a number, not a conserved
    one.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    made = {}
    for pair in find_pairs(model) if pairs is None else given_pairs(model, pairs):
        if not _measurable(model, pair):
            continue
        both = sides(model, pair)
        eta_in, eta_out = ((rates or {}).get(names[id(s[0][0])], 1.0) for s in (both.incoming, both.outgoing))
        made[pair.name] = (eta_in * both.squares(both.outgoing) - eta_out * both.squares(both.incoming)).numpy()
    return made


def histogram(balances: Mapping[str, np.ndarray], bins: int = 40) -> dict[str, Any]:
    """Counts of units by balance on common edges [bins + 1], with the mean and variance of each pair."""
    if not balances or bins < 1:
        raise UsageError("histogram: no units, or bins below 1")
    everything = np.concatenate(list(balances.values()))
    edges = np.histogram_bin_edges(everything, bins)
    pairs = {
        name: {"counts": np.histogram(v, edges)[0], "mean": float(v.mean()), "variance": float(v.var())}
        for name, v in balances.items()
    }
    return {"edges": edges, "pairs": pairs}


def symmetrise(model: nn.Module) -> Report:
    """Make the outputs zero in place: the second half of the last pair's units copies the first with opposite sign.

    The function is zero, the kernel is not: f = sum_k a_k s(w_k.x) - sum_k a_k s(w_k.x); a bias after the last layer
    is set to zero. Raises `UsageError` where the last pair is not legal or has an odd number of units.
    Source: Chizat, Oyallon, Bach 2019, arXiv 1812.07956.
    """
    pairs = [p for p in find_pairs(model) if p.kind not in ATTENTION]
    layers = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]
    if not pairs or not pairs[-1].legal or pairs[-1].second != layers[-1]:
        why = pairs[-1].why if pairs else "there is none"
        raise UsageError(f"symmetrise: needs a last pair of layers with homogeneous units between ({why})")
    second: Any = model.get_submodule(pairs[-1].second)
    both = sides(model, pairs[-1])
    if both.units % 2:
        raise UsageError(f"symmetrise: {pairs[-1].first} has {both.units} units; give an even number")
    report, half = Report(before=unit_balance(model), preserved=False), both.units // 2
    originals = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for tensor, view in (*both.incoming, *both.outgoing):
            seen, sign = view(tensor), -1.0 if tensor is second.weight else 1.0
            seen[:, half:] = sign * seen[:, :half]
        if second.bias is not None:
            second.bias.zero_()
    report.notes = (f"{pairs[-1].first}: units {half} to {both.units - 1} copy the first half, with opposite signs",)
    return _finished(model, report, originals)


def _by_alpha(model: nn.Module, pairs: list[Pair], alpha: float) -> dict[str, Tensor]:
    moved = {}
    for pair in pairs:
        both = sides(model, pair)
        r = torch.full((both.units,), float(alpha), dtype=torch.float64)
        both.scale(r)
        moved[pair.name] = r
    return moved


def _by_delta(model: nn.Module, pairs: list[Pair], delta: float, sweeps: int = 500) -> dict[str, Tensor]:
    parts = [(pair, sides(model, pair)) for pair in pairs]
    moved = {pair.name: torch.ones(both.units, dtype=torch.float64) for pair, both in parts}
    for _ in range(sweeps):
        worst = 0.0
        for pair, both in parts:
            a2, w2 = (both.squares(s).numpy() for s in (both.outgoing, both.incoming))
            r = torch.from_numpy(np.sqrt(rescale_squared(a2, w2, np.full(len(a2), float(delta)))))
            both.scale(r)
            moved[pair.name] *= r
            worst = max(worst, float((r - 1).abs().max()))
        if worst < 1e-6:
            return moved
    raise Failure(f"balance: delta={delta} was not reached in {sweeps} sweeps (last factor off 1 by {worst:.2g})")


def _measurable(model: nn.Module, pair: Pair) -> bool:
    if pair.legal:
        return True
    first: Any = model.get_submodule(pair.first)
    second: Any = model.get_submodule(pair.second)
    if pair.kind in ATTENTION or getattr(second, "groups", 1) > 1:
        return False
    units = first.embedding_dim if isinstance(first, nn.Embedding) else first.weight.shape[0]
    return bool(second.weight.shape[1] % units == 0)


def _run(model: nn.Module, probe: Tensor) -> Tensor:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return frozen_copy(model)(probe)


def _restore(model: nn.Module, originals: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(originals[name])


def _finished(
    model: nn.Module, report: Report, originals: dict[str, Tensor], pairs: Sequence[Pair | str] | None = None
) -> Report:
    report.after = unit_balance(model, pairs=pairs)
    report.kept = {
        name: (originals[name], p.detach().clone())
        for name, p in model.named_parameters()
        if not torch.equal(originals[name], p.detach())
    }
    return report
