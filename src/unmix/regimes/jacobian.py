"""Jacobians of a network's outputs with respect to its parameters, sample by sample; the network is left alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.regimes.derivable import consistent
from unmix.regimes.running import copied

Forward = Callable[[nn.Module, Tensor], Tensor]
KNOWN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding, nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d)


def frozen_copy(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy in evaluation mode, so that dropout is off, no buffer moves and no gradient is left behind."""
    twin = copied(model, dtype).eval()
    for module in twin.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    return twin


def learnt(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that take gradients, tied ones once. Raises `UsageError` where there is none, or a complex one."""
    found: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise UsageError("model: no parameter takes gradients")
    if wrong := [name for name, p in found.items() if p.is_complex()]:
        raise UsageError(f"model: {wrong[0]} is complex; derivatives are taken by real parameters")
    return found


def outputs(model: nn.Module, x: Tensor, forward: Forward | None) -> Tensor:
    """The network's outputs, flat [n, c], by operations that torch can derive in every way.

    Raises `UsageError` where it gives no tensor of real numbers with a row for each of x.
    """
    with consistent(model):
        made = model(x) if forward is None else forward(model, x)
    if not isinstance(made, Tensor):
        kind = type(made).__name__
        raise UsageError(f"model: it gives a {kind}; say which tensor is meant: forward=lambda model, x: model(x)[0]")
    if not made.is_floating_point():
        raise UsageError(f"model: its outputs are {made.dtype}; a kernel needs real numbers")
    if made.shape[:1] != x.shape[:1] and len(x) > 1:
        raise UsageError(f"model: outputs {tuple(made.shape)} have no row for each of the {len(x)} inputs")
    return made.reshape(len(x), -1)


class Transformed:
    """Jacobians by torch.func: vmap over samples of a vector-Jacobian product for each output; any module."""

    model: nn.Module
    forward: Forward | None
    parameters: dict[str, Tensor]

    def __init__(self, model: nn.Module, forward: Forward | None) -> None:
        self.model, self.forward = model, forward
        self.parameters = learnt(model)

    def function(self, x: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
        """Outputs [n, c] at x as a function of (some of) the parameters."""

        def call(some: dict[str, Tensor]) -> Tensor:
            # Whoever does not take part is a constant here, and no leaf of autograd.
            rest = {name: p.detach() for name, p in self.parameters.items()}
            with _in_place_of(self.model, self.parameters, {**rest, **some}):
                return outputs(self.model, x, self.forward)

        return call

    def jacobian(self, x: Tensor, names: list[str], total: bool = False) -> dict[str, Tensor]:
        """{name: [n, c, *shape]}; total: of the sum of outputs, c = 1."""
        some = {name: self.parameters[name].detach() for name in names}

        def one(row: Tensor) -> dict[str, Tensor]:
            def call(values: dict[str, Tensor]) -> Tensor:
                made = self.function(row[None])(values)[0]
                return made.sum()[None] if total else made

            return torch.func.jacrev(call)(some)

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # one by one is right, too
            return torch.func.vmap(one)(x)

    def work(self, x: Tensor, names: list[str]) -> int:
        """Numbers held for one sample beside its Jacobian, roughly."""
        sizes: list[int] = []
        leaves = [m for m in self.model.modules() if not any(m.children()) and not _scripted(m)]
        handles = [m.register_forward_hook(lambda _m, _given, end: sizes.append(_numbers(end))) for m in leaves]
        try:
            c = outputs_of(self, x)
        finally:
            for handle in handles:
                handle.remove()
        return 8 * x[0].numel() + (c + 2) * sum(sizes) + sum(self.parameters[n].numel() for n in names) * c


class Layered:
    """Jacobians layer by layer: one backward pass per output to the layers' outputs, then products with their inputs.

    Knows linear, convolutional, embedding and normalisation layers; `unknown` says whether that is all there is.
    """

    model: nn.Module
    forward: Forward | None
    parameters: dict[str, Tensor]
    name_of: dict[int, str]

    def __init__(self, model: nn.Module, forward: Forward | None) -> None:
        self.model, self.forward = model, forward
        self.parameters = learnt(model)
        self.name_of = {id(p): name for name, p in self.parameters.items()}

    def unknown(self) -> str:
        """A parameter that belongs to no layer that is known, in words, or nothing."""
        covered = {id(p) for m in self.model.modules() if type(m) in KNOWN for p in m.parameters(recurse=False)}
        missing = [name for name, p in self.parameters.items() if id(p) not in covered]
        return f"{missing[0]} belongs to no known layer" if missing else ""

    def jacobian(self, x: Tensor, names: list[str], total: bool = False) -> dict[str, Tensor]:
        """{name: [n, c, *shape]}; total: of the sum of outputs, c = 1."""
        calls, deltas = self.deltas(x, names, total)
        made: dict[str, Tensor] = {}
        for (module, given), delta in zip(calls, deltas, strict=True):
            for part, value in _layer(module, given, delta, self._wanted(module, names)).items():
                name = self.name_of[id(getattr(module, part))]
                made[name] = made[name] + value if name in made else value
        c = deltas[0].shape[1] if deltas else 1
        for name in names:
            if name not in made:
                made[name] = x.new_zeros(len(x), c, *self.parameters[name].shape)
        return made

    def deltas(self, x: Tensor, names: list[str], total: bool) -> tuple[list[tuple[nn.Module, Tensor]], list[Tensor]]:
        """Calls of the layers with these parameters, each with its input, and d f / d (layer output) [n, c, ...]."""
        with self._recorded(names) as calls:
            made = outputs(self.model, x, self.forward)
        sums = [made.sum()] if total else [made[:, o].sum() for o in range(made.shape[1])]
        ends = [end for _, _, end in calls]
        rows = [torch.autograd.grad(s, ends, retain_graph=True, allow_unused=True) for s in sums]
        stacked = [
            torch.stack([torch.zeros_like(end) if row[i] is None else row[i] for row in rows], dim=1)
            for i, end in enumerate(ends)
        ]
        return [(module, given) for module, given, _ in calls], stacked

    def work(self, x: Tensor, names: list[str]) -> int:
        """Numbers held for one sample beside its Jacobian, roughly."""
        with self._recorded(names) as calls, torch.no_grad():
            c = outputs(self.model, x[:1], self.forward).shape[1]
        held = sum(end.numel() * (2 * c + 3) + given.numel() for _, given, end in calls)
        widest = [_unfolded(module, given, end) for module, given, end in calls]
        return held + max(widest, default=0)

    def _wanted(self, module: nn.Module, names: list[str]) -> set[str]:
        held = {part: self.name_of.get(id(p)) for part, p in module.named_parameters(recurse=False)}
        return {part for part, name in held.items() if name in names}

    @contextmanager
    def _recorded(self, names: list[str]) -> Iterator[list[tuple[nn.Module, Tensor, Tensor]]]:
        calls: list[tuple[nn.Module, Tensor, Tensor]] = []

        def note(module: nn.Module, given: Any, end: Tensor) -> None:
            calls.append((module, given[0].detach(), end))

        wanted = [m for m in self.model.modules() if type(m) in KNOWN and self._wanted(m, names)]
        handles = [m.register_forward_hook(note) for m in wanted]
        try:
            yield calls
        finally:
            for handle in handles:
                handle.remove()


class Rowwise:
    """Jacobians by plain autograd, one backward pass for each sample and output; whatever autograd can derive."""

    model: nn.Module
    forward: Forward | None
    parameters: dict[str, Tensor]

    def __init__(self, model: nn.Module, forward: Forward | None) -> None:
        self.model, self.forward = model, forward
        self.parameters = learnt(model)

    def jacobian(self, x: Tensor, names: list[str], total: bool = False) -> dict[str, Tensor]:
        """{name: [n, c, *shape]}; total: of the sum of outputs, c = 1."""
        some = [self.parameters[name] for name in names]
        made: dict[str, list[Tensor]] = {name: [] for name in names}
        for row in x.split(1):
            given = outputs(self.model, row, self.forward)[0]
            found = [
                torch.autograd.grad(value, some, retain_graph=True, allow_unused=True)
                for value in ([given.sum()] if total else given)
            ]
            for place, (name, p) in enumerate(zip(names, some, strict=True)):
                parts = [torch.zeros_like(p) if g[place] is None else g[place].to_dense() for g in found]
                made[name].append(torch.stack(parts))
        return {name: torch.stack(parts) for name, parts in made.items()}

    def work(self, x: Tensor, names: list[str]) -> int:
        """Numbers held for one sample beside its Jacobian, roughly."""
        return Transformed(self.model, self.forward).work(x, names)


@contextmanager
def _in_place_of(model: nn.Module, parameters: dict[str, Tensor], values: dict[str, Tensor]) -> Iterator[None]:
    """Other tensors where the parameters are, wherever each is held.

    torch.func.functional_call leaves the values in a layer that has two names in the model.
    """
    name_of = {id(p): name for name, p in parameters.items()}
    held = [(m._parameters, key, p) for m in model.modules() for key, p in m._parameters.items() if id(p) in name_of]
    try:
        for places, key, p in held:
            places[key] = values[name_of[id(p)]]  # type: ignore[assignment]
        yield
    finally:
        for places, key, p in held:
            places[key] = p


def _scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)  # takes no hooks


def _numbers(made: Any) -> int:
    """How many numbers a module's output holds, where it is a tensor or a tuple of tensors."""
    if isinstance(made, (tuple, list)):
        return sum(map(_numbers, made))
    return made.numel() if isinstance(made, Tensor) else 0


def outputs_of(source: Layered | Transformed | Rowwise, x: Tensor) -> int:
    """Number of outputs c of one sample."""
    with torch.no_grad():
        return outputs(source.model, x[:1], source.forward).shape[1]


def _layer(module: nn.Module, given: Tensor, delta: Tensor, wanted: set[str]) -> dict[str, Tensor]:
    """Jacobians of one call's parameters {part: [n, c, *shape]} from its input [n, ...] and delta [n, c, ...]."""
    n, c = delta.shape[:2]
    made: dict[str, Tensor] = {}
    if isinstance(module, nn.Linear):
        d, a = delta.reshape(n, c, -1, module.out_features), given.reshape(n, -1, module.in_features)
        if "weight" in wanted:
            made["weight"] = _products(d.transpose(2, 3), a)
        if "bias" in wanted:
            made["bias"] = d.sum(2)
    elif isinstance(module, nn.Embedding):
        d, index = delta.reshape(n, c, -1, module.embedding_dim), given.reshape(n, 1, -1, 1).long()
        if module.padding_idx is not None:
            d = d * (index != module.padding_idx)
        weight = delta.new_zeros(n, c, *module.weight.shape)
        made["weight"] = weight.scatter_add_(2, index.expand(n, c, -1, module.embedding_dim), d)
    elif isinstance(module, (nn.Conv1d, nn.Conv2d)):
        d = delta.reshape(n, c, module.out_channels, -1)
        if "weight" in wanted:
            groups = module.groups
            a = _patches(module, given).reshape(n, groups, -1, d.shape[-1]).transpose(2, 3)
            parts = d.reshape(n, c, groups, module.out_channels // groups, -1)
            pieces = [_products(parts[:, :, g], a[:, g]) for g in range(groups)]
            whole = pieces[0] if groups == 1 else torch.cat(pieces, dim=2)
            made["weight"] = whole.reshape(n, c, *module.weight.shape)
        if "bias" in wanted:
            made["bias"] = d.sum(3)
    else:
        scaled = _normalised(module, given)
        if isinstance(module, nn.LayerNorm):
            shape = module.normalized_shape
            d = delta.reshape(n, c, -1, *shape)
            plain = scaled.reshape(n, 1, -1, *shape)
            made = {"weight": (d * plain).sum(2), "bias": d.sum(2)}
        else:
            d = delta.reshape(n, c, delta.shape[2], -1)
            made = {"weight": (d * scaled.reshape(n, 1, delta.shape[2], -1)).sum(3), "bias": d.sum(3)}
        made = {part: value for part, value in made.items() if part in wanted}
    return made


def _products(d: Tensor, a: Tensor) -> Tensor:
    """[n, c, out, S] times [n, S, in]: [n, c, out, in]."""
    n, c, out, places = d.shape
    if places == 1:
        return d * a[:, None]
    return torch.bmm(d.reshape(n, c * out, places), a).reshape(n, c, out, a.shape[-1])


def _patches(module: nn.Conv1d | nn.Conv2d, given: Tensor) -> Tensor:
    """[n, in * window, places] of a convolution's input."""
    flat = isinstance(module, nn.Conv1d)
    if flat:
        given = given[:, :, None]
    padding: tuple[int, ...]
    size, stride, dilation = (
        (1, *v) if flat else tuple(v) for v in (module.kernel_size, module.stride, module.dilation)
    )
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        wide = module._reversed_padding_repeated_twice
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        given = nn.functional.pad(given[:, :, 0] if flat else given, wide, mode=mode)
        given, padding = (given[:, :, None] if flat else given), (0, 0)
    else:
        padding = (0, *module.padding) if flat else tuple(module.padding)
    if size == (1, 1) and padding == (0, 0):
        return given[:, :, :: stride[0], :: stride[1]].flatten(2)
    return nn.functional.unfold(given, size, dilation, padding, stride)


def _unfolded(module: nn.Module, given: Tensor, end: Tensor) -> int:
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return module.weight[0].numel() * module.groups * end[0, 0].numel()
    return 0


def _normalised(module: Any, given: Tensor) -> Tensor:
    if isinstance(module, nn.LayerNorm):
        return nn.functional.layer_norm(given, module.normalized_shape, eps=module.eps)
    if module.running_mean is None:
        raise UsageError("model: batch normalisation without running statistics couples samples; it has no kernel")
    return nn.functional.batch_norm(given, module.running_mean, module.running_var, eps=module.eps)
