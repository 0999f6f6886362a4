"""Balance of a torch model: move scale between its layers and keep the function, or say where that cannot be."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmix.core.errors import Failure, UsageError
from unmix.regimes.exact.neuron import rescale_squared
from unmix.regimes.pairs import Pair, find_pairs, given_pairs, measurable, tried_pairs
from unmix.regimes.probes import Probe
from unmix.regimes.running import unwrapped
from unmix.regimes.sides import ATTENTION, EMBEDDINGS, LAYERS, Part, Sides, obstacle, sides
from unmix.regimes.trials import Trial

ADAM = (
    "scaling weights and scaling learning rates are the same for SGD only: Adam divides by the gradient's size, "
    "so a learning rate of its own for each layer does not stand in for the balance"
)
SHOWN = 8  # reasons in one message


@dataclass
class Report:
    """What was done to a model: the pairs moved with their factors r [h]; what was left with the reason, pairs by
    their name and matrices that are in no pair by theirs.

    preserved: whether the function is kept, as outputs before and after say. before, after: balance
    delta = |outgoing|^2 - |incoming|^2 of every unit [h] of each pair, legal or not. notes: what to know.
    """

    moved: dict[str, Tensor] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    preserved: bool = False
    before: dict[str, np.ndarray] = field(default_factory=dict)
    after: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    kept: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    factors: dict[str, float] = field(default_factory=dict, repr=False)

    def undo(self, model: nn.Module) -> None:
        """Put the weights back, bit for bit. Raises `UsageError` where they have moved since."""
        held = dict(unwrapped(model).named_parameters())
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
    probe: Probe = None,
    pairs: Sequence[Pair | str] | None = None,
) -> Report:
    """Rescale every legal pair of layers of a model in place, keeping the function.

    alpha: what a first layer gives is divided by alpha and what the second takes multiplied; alpha > 1 is upstream
    (small first layer). In a chain the factors of the layers between cancel: the first layer over alpha, the
    read-out times alpha. delta: each unit is rescaled until |outgoing|^2 - |incoming|^2 = delta, pair after pair
    until all agree; units without incoming or outgoing weights stay. probe: what to run the model on: a tensor, a
    tuple of arguments or a mapping of named ones; made from what the layers take where none is given. pairs: by hand,
    instead of those that are found, such as "block.q -> block.k query-key 4" (`pairs.given_pairs`).
    Every pair is tried on copies of the model first; then every finite output before and after must agree, in
    evaluation mode and in the mode that the model is in (dropout drawn alike), else all weights are put back.
    Biases of a first layer count as incoming. Raises `UsageError` where both or neither of alpha and delta is given,
    where the model cannot be run or no pair is legal; `Failure` where delta cannot be reached, a pair given by hand
    does not hold, or the outputs differ. Whatever is raised, the weights are then as they were, bit for bit.
    Source: Kunin et al. 2024, arXiv 2406.06158, sections 3 and 6.
    """
    if (alpha is None) == (delta is None):
        raise UsageError("balance: give alpha (a factor, above 1 upstream) or delta (a balance), one of them")
    if alpha is not None and not (alpha > 0 and np.isfinite(alpha)):
        raise UsageError(f"alpha={alpha}: must be positive")
    if delta is not None and not np.isfinite(delta):
        raise UsageError(f"delta={delta}: must be finite")
    model = unwrapped(model)
    given = None if pairs is None else given_pairs(model, pairs)
    trial = Trial(model, probe)
    found = tried_pairs(model, trial) if given is None else _held(trial, given)
    legal = [pair for pair in found if pair.legal]
    left = {p.name: p.why for p in found if not p.legal} | ({} if given else _unpaired(model, found, trial))
    if not legal:
        raise UsageError(f"balance: no pair of layers can be rescaled ({_told(left) or 'no two follow each other'})")
    modes = "evaluation mode" + (" and its own" if any(m.training for m in model.modules()) else "")
    compared = f"outputs were compared on {trial.input.text}, in {modes}"
    report = Report(left=left, before=_balances(model, found), notes=(ADAM, compared))
    before = trial.now()
    moved = _Moved(model, legal)
    report.moved, stayed = moved.by_alpha(alpha) if alpha is not None else moved.by_delta(delta or 0.0)
    report.notes += stayed
    with _kept(model, report, moved.tensors()):
        moved.write()
        if trial.changed(before, trial.now()):
            raise Failure(
                f"balance: the outputs on {trial.input.text} changed, so that the weights were put back; "
                "weights out of the range of their type, or kept a second time outside the model's layers"
            )
        report.preserved = True
        report.after = _balances(model, found)
    return report


def scale_layers(model: nn.Module, alpha: float, kinds: tuple[type[nn.Module], ...], first: bool = False) -> Report:
    """Divide the weights of some layers by alpha without compensation, in place: the function changes.

    kinds: classes of layers, such as nn.Embedding or nn.Conv2d. first: only the first of them. Tied weights are
    divided once. Raises `UsageError` where the model has none of them, or where their weights are computed from
    others (weight norm).
    """
    if not (alpha > 0 and np.isfinite(alpha)):
        raise UsageError(f"alpha={alpha}: must be positive")
    model = unwrapped(model)
    chosen = {n: m for n, m in model.named_modules() if isinstance(m, kinds)}
    if not chosen:
        raise UsageError(f"the model has no {' or '.join(k.__name__ for k in kinds)} to scale")
    if first:
        chosen = dict([next(iter(chosen.items()))])
    if why := next((why for name in chosen if (why := obstacle(model, name))), ""):
        raise UsageError(f"scale_layers: {why}")
    weights = {id(m.weight) for m in chosen.values()}
    scaled = {name: p for name, p in model.named_parameters() if id(p) in weights}
    report = Report(before=_if_any(model), preserved=alpha == 1, notes=(ADAM,))
    with _kept(model, report, list(scaled.values())), torch.no_grad():
        for name, parameter in scaled.items():
            parameter.div_(alpha)
            report.factors[name] = 1 / alpha
        report.after = _if_any(model)
    return report


def sgd_groups(
    model: nn.Module,
    alpha: float,
    lr: float,
    weight_decay: float = 0.0,
    optimiser: str = "sgd",
    probe: Probe = None,
) -> list[dict[str, Any]]:
    """Parameter groups for SGD that learn the model as it is, as one rescaled by `balance(model, alpha=...)` would.

    Dividing w by alpha and keeping the rate is the same path of functions as keeping w with the rate times alpha^2:
    each group's rate is lr r^2 with r the factor its tensors would be divided by, and its decay weight_decay / r^2,
    so that the shrinkage is the same. probe: as in `balance`. Equivalent for SGD with or without momentum; not for
    Adam, for which this warns. Raises `UsageError` where a tensor is in pairs that pull apart, as in attention, whose
    parts share one tensor.
    """
    if optimiser.lower() != "sgd":
        warnings.warn(ADAM, UserWarning, stacklevel=2)
    model = unwrapped(model)
    names = {id(p): name for name, p in model.named_parameters()}
    factor = dict.fromkeys(names.values(), 1.0)
    for pair in find_pairs(model, probe):
        if not pair.legal:
            continue
        both = sides(model, pair)
        if pair.first == pair.second or pair.first_rows or pair.second_rows:
            raise UsageError(f"sgd_groups: {pair.name} shares one tensor, which takes one rate; rescale the weights")
        for part in both.incoming:
            factor[names[id(part.tensor)]] *= alpha
        for part in both.outgoing:
            factor[names[id(part.tensor)]] /= alpha
    groups: dict[float, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        r2 = round(factor[name] ** 2, 12)
        group = groups.setdefault(r2, {"params": [], "lr": lr * r2, "weight_decay": weight_decay / r2})
        group["params"].append(parameter)
    return list(groups.values())


def unit_balance(
    model: nn.Module,
    rates: Mapping[str, float] | None = None,
    pairs: Sequence[Pair | str] | None = None,
    probe: Probe = None,
) -> dict[str, np.ndarray]:
    """Balance of every unit [h] of each pair, delta = eta_in |outgoing|^2 - eta_out |incoming|^2, by the pair's name.

    rates: learning rates by parameter name (the pair's first tensors count), 1 where not given. pairs: by hand,
    instead of those that are found. probe: what to run the model on to find them, as in `balance`. Pairs that are not
    legal are there too where their weights can be told: their delta is a number, not a conserved one.
    """
    model = unwrapped(model)
    return _balances(model, find_pairs(model, probe) if pairs is None else given_pairs(model, pairs), rates)


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


def symmetrise(model: nn.Module, probe: Probe = None) -> Report:
    """Make the outputs zero in place: the second half of the last pair's units copies the first with opposite sign.

    The function is zero, the kernel is not: f = sum_k a_k s(w_k.x) - sum_k a_k s(w_k.x); a bias after the last layer
    is set to zero. probe: as in `balance`. Raises `UsageError` where the last pair is not legal or has an odd number
    of units; `Failure` where the model gives something else beside what its last layer gives.
    Source: Chizat, Oyallon, Bach 2019, arXiv 1812.07956.
    """
    model = unwrapped(model)
    trial = Trial(model, probe)
    pairs = [p for p in tried_pairs(model, trial) if p.kind not in ATTENTION]
    layers = [n for n, m in model.named_modules() if isinstance(m, LAYERS)]
    if not pairs or not pairs[-1].legal or pairs[-1].second != layers[-1]:
        why = pairs[-1].why if pairs else "there is none"
        raise UsageError(f"symmetrise: needs a last pair of layers with homogeneous units between ({why})")
    second: Any = model.get_submodule(pairs[-1].second)
    both = sides(model, pairs[-1])
    if both.units % 2:
        raise UsageError(f"symmetrise: {pairs[-1].first} has {both.units} units; give an even number")
    half, size = both.units // 2, max(float(t.abs().max()) for t in trial.now() if t.numel())
    report = Report(before=_balances(model, pairs))
    tensors = both.tensors() + ([] if second.bias is None else [second.bias])
    with _kept(model, report, tensors), torch.no_grad():
        for part in (*both.incoming, *both.outgoing):
            # Numbers in the order of their units, and within a unit as they lie, so that those of two units match.
            order = part.unit.expand_as(part.tensor).reshape(-1).argsort(stable=True).view(both.units, -1)
            flat = part.tensor.reshape(-1).clone()
            sign = -1.0 if part.tensor is second.weight else 1.0
            flat[order[half:]] = sign * flat[order[:half]]
            part.tensor.copy_(flat.view_as(part.tensor))
        if second.bias is not None:
            second.bias.zero_()
        if not any(float(t.abs().max()) <= 1e-4 * size for t in trial.now() if t.numel()):
            raise Failure("symmetrise: the outputs do not vanish, as the model adds something behind its last layer")
        report.after = _balances(model, pairs)
    report.notes = (f"{pairs[-1].first}: units {half} to {both.units - 1} copy the first half, with opposite signs",)
    return report


class _Moved:
    """The tensors of some pairs in float64 copies, moved there first and written back rounded once."""

    def __init__(self, model: nn.Module, pairs: list[Pair]) -> None:
        self.held: dict[int, tuple[Tensor, Tensor]] = {}
        self.pairs = [(pair, self._doubled(sides(model, pair))) for pair in pairs]

    def _doubled(self, both: Sides) -> Sides:
        for tensor in both.tensors():
            self.held.setdefault(id(tensor), (tensor, tensor.detach().double().clone()))
        incoming, outgoing = (
            [Part(self.held[id(part.tensor)][1], part.unit) for part in parts]
            for parts in (both.incoming, both.outgoing)
        )
        return Sides(both.units, incoming, outgoing)

    def tensors(self) -> list[Tensor]:
        return [tensor for tensor, _ in self.held.values()]

    def write(self) -> None:
        with torch.no_grad():
            for tensor, wide in self.held.values():
                tensor.copy_(wide)

    def by_alpha(self, alpha: float) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        moved = {}
        for pair, both in self.pairs:
            moved[pair.name] = torch.full((both.units,), float(alpha), dtype=torch.float64)
            both.scale(moved[pair.name])
        return moved, ()

    def by_delta(self, delta: float, sweeps: int = 500) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        moved = {pair.name: torch.ones(both.units, dtype=torch.float64) for pair, both in self.pairs}
        stayed = {}
        for _ in range(sweeps):
            worst = 0.0
            for pair, both in self.pairs:
                a2, w2 = both.sums(both.outgoing).numpy(), both.sums(both.incoming).numpy()
                some, r = (a2 > 0) & (w2 > 0), torch.ones(both.units, dtype=torch.float64)
                r[some] = torch.from_numpy(
                    np.sqrt(rescale_squared(a2[some], w2[some], np.full(some.sum(), float(delta))))
                )
                both.scale(r)
                moved[pair.name] *= r
                stayed[pair.name] = int((~some).sum())
                worst = max(worst, float((r - 1).abs().max()))
            if worst < 1e-6:
                return moved, tuple(
                    f"{name}: {count} units without incoming or outgoing weights stay as they are"
                    for name, count in stayed.items()
                    if count
                )
        raise Failure(f"balance: delta={delta} was not reached in {sweeps} sweeps (last factor off 1 by {worst:.2g})")


@contextmanager
def _kept(model: nn.Module, report: Report, tensors: Sequence[Tensor]) -> Iterator[None]:
    """Note in the report what the tensors were and became, or put them back where anything is raised."""
    names = {id(p): name for name, p in model.named_parameters()}
    originals = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for tensor, original in originals:
                tensor.copy_(original)
        raise
    report.kept = {
        names[id(tensor)]: (original, tensor.detach().clone())
        for tensor, original in originals
        if not torch.equal(original, tensor.detach())
    }


def _held(trial: Trial, pairs: list[Pair]) -> list[Pair]:
    """Pairs given by hand, which must hold."""
    failing = [pair for pair, _ in trial.failing(pairs)]
    turned = {pair.name: replace(pair, interleaved=True) for pair in failing if pair.kind not in ATTENTION}
    if wrong := [p.name for p in failing if p.name not in turned or not trial.holds([turned[p.name]])]:
        raise Failure(f"balance: a pair does not hold, the outputs on {trial.input.text} change: {', '.join(wrong)}")
    return [turned.get(pair.name, pair) for pair in pairs]


def _unpaired(model: nn.Module, pairs: list[Pair], trial: Trial) -> dict[str, str]:
    """The parameters of two axes and more that are in none of the pairs, each with the reason."""
    ends = {name for pair in pairs for name in (pair.first, pair.second)}
    left = {}
    for at, module in model.named_modules():
        for part, held in module._parameters.items():
            name = f"{at}.{part}".strip(".")
            # The read-out of torch's attention is a module of its own inside it.
            if held is None or held.ndim < 2 or at in ends or at.rpartition(".")[0] in ends:
                continue
            owner, computed, _ = f".{at}".partition(".parametrizations")
            if computed:
                left[name] = obstacle(model, owner.strip("."))
            elif not isinstance(module, (*LAYERS, *EMBEDDINGS)):
                left[name] = f"{type(module).__name__} is not a layer whose units can be rescaled one by one"
            elif at not in trial.run.calls:
                left[name] = obstacle(model, at) or "its layer was not seen to run"
            else:
                left[name] = obstacle(model, at) or "no layer that it could be paired with comes before or after it"
    return left


def _told(left: Mapping[str, str]) -> str:
    told = [f"{name}: {why}" for name, why in left.items()]
    return "; ".join(told[:SHOWN]) + (f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else "")


def _balances(
    model: nn.Module, pairs: Sequence[Pair], rates: Mapping[str, float] | None = None
) -> dict[str, np.ndarray]:
    names = {id(p): name for name, p in model.named_parameters()}
    made = {}
    for pair in pairs:
        if measurable(model, pair):
            both = sides(model, pair)
            eta_in, eta_out = (
                (rates or {}).get(names[id(parts[0].tensor)], 1.0) for parts in (both.incoming, both.outgoing)
            )
            made[pair.name] = (eta_in * both.sums(both.outgoing) - eta_out * both.sums(both.incoming)).numpy()
    return made


def _if_any(model: nn.Module) -> dict[str, np.ndarray]:
    """The balances of a model, none where it cannot be run on an input that is made for it."""
    try:
        return unit_balance(model)
    except UsageError:
        return {}
