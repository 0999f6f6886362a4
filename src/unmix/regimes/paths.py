"""Which layers follow which in a run of a model, read off the graph that autograd keeps, and what lies between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from unmix.regimes.probes import Input
from unmix.regimes.running import quiet, tensors_in
from unmix.regimes.sides import EMBEDDINGS, LAYERS

BENT = {
    "Gelu", "Silu", "Tanh", "Sigmoid", "Elu", "Celu", "Softplus", "Softmax", "LogSoftmax", "LogSigmoid", "Hardtanh",
    "Hardsigmoid", "Hardswish", "Mish", "Softshrink", "Hardshrink", "Exp", "Log", "Sin", "Cos", "Erf",
}  # fmt: skip
SCORES = "attention's scores are not homogeneous"
FAR = 2  # sums of paths behind which no layer is looked for


@dataclass(frozen=True)
class Path:
    """A layer whose outputs reach another's inputs in a run: what was met on the way, in words."""

    first: str
    second: str
    met: tuple[str, ...] = ()
    bent: bool = False
    branches: bool = False


@dataclass
class Run:
    """What was recorded of one run: the paths between layers, how often each layer ran, and which parameters'
    numbers matter for the outputs.
    """

    paths: list[Path] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    felt: set[str] = field(default_factory=set)


def recorded(twin: nn.Module, given: Input, dtype: torch.dtype | None = None) -> Run:
    """Run a copy of a model, whose parameters then take gradients, and read off which layers follow which."""
    for parameter in twin.parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(True)
    run, calls, names, graph = Run(), [], {}, {}

    def note(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, made: Any) -> None:
            starts = [t.grad_fn for t in tensors_in((args, kwargs)) if t.grad_fn is not None]
            ends = [t.grad_fn for t in tensors_in(made) if t.grad_fn is not None and t.grad_fn not in starts]
            names.update({end: f"{name} ({type(module).__name__})" for end in ends})
            if isinstance(module, (*LAYERS, *EMBEDDINGS)):
                run.calls[name] = run.calls.get(name, 0) + 1
                graph.update(dict.fromkeys(ends, name))
                calls.append((name, module, starts))

        return hook

    for name, module in twin.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        if isinstance(module, (*LAYERS, *EMBEDDINGS)) or not any(module.children()):
            module.register_forward_hook(note(name, module), with_kwargs=True)
    with quiet(twin, dtype), torch.enable_grad():
        outputs = [t for t in given.call(twin.eval(), dtype) if t.grad_fn is not None]
        run.felt = _felt(twin, outputs)
    users = _users([t.grad_fn for t in outputs])
    for second, module, starts in calls:
        if isinstance(module, LAYERS):
            for start in starts:
                run.paths += _back(start, second, graph, names, users)
    return run


def _felt(twin: nn.Module, outputs: list[torch.Tensor]) -> set[str]:
    """The parameters that some mixture of the finite outputs depends on."""
    held = {name: p for name, p in twin.named_parameters() if p.requires_grad}
    draw = torch.Generator().manual_seed(0)
    total: Any = 0.0
    for made in outputs:
        weights = torch.randn(made.shape, generator=draw, dtype=torch.float64).to(made.device)
        seen = torch.where(torch.isfinite(made), made, torch.zeros_like(made))
        total = total + (seen.abs() if made.is_complex() else seen).mul(weights).sum()
    if not held or not isinstance(total, torch.Tensor):
        return set()
    gradients = torch.autograd.grad(total, list(held.values()), retain_graph=True, allow_unused=True)
    return {
        name
        for name, g in zip(held, gradients, strict=True)
        if g is not None and bool((g.coalesce().values() if g.is_sparse else g).ne(0).any())
    }


def _users(roots: list[Any]) -> dict[Any, set[Any]]:
    """By the node of a graph, the nodes that take its result."""
    found: dict[Any, set[Any]] = {root: set() for root in roots}
    todo = list(roots)
    while todo:
        node = todo.pop()
        for parent, _ in node.next_functions:
            if parent is None:
                continue
            if parent not in found:
                found[parent] = set()
                todo.append(parent)
            found[parent].add(node)
    return found


def _back(start: Any, second: str, graph: dict[Any, str], names: dict[Any, str], users: Any) -> Iterator[Path]:
    """The layers whose outputs reach a layer's input `start`, and what lies between."""
    todo: list[tuple[Any, tuple[str, ...], bool, bool, int]] = [(start, (), False, False, 0)]
    seen = set()
    while todo:
        node, met, bent, branches, sums = todo.pop(0)
        if node in seen or _leaf(node):
            continue
        seen.add(node)
        branches = branches or len(users.get(node, ())) > 1
        if node in graph:
            yield Path(graph[node], second, met, bent, branches)
            continue
        kind = node.name().partition("Backward")[0]
        at = names.get(node, kind.lower())
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        if "Norm" in kind:
            met, bent = (*met, f"{at} normalises: what comes before it has no scale"), True
        elif kind in BENT:
            met, bent = (*met, f"{at} is not homogeneous"), True
        elif kind == "Add" and sum(not _leaf(parent) for parent in parents) > 1:
            sums += 1
            met, bent = (*met, "another path is added (a residual connection)"), bent or len(_behind(node, graph)) > 1
        if sums < FAR:
            for place, (parent, _) in enumerate(node.next_functions):
                if parent is not None:
                    # Of what attention takes, only the values come out with their scale.
                    score = kind.startswith("ScaledDotProduct") and place < 2
                    todo.append((parent, (*met, SCORES) if score else met, bent or score, branches, sums))


def _behind(node: Any, graph: dict[Any, str]) -> set[str]:
    """The layers whose outputs reach a node without passing another layer; "" for parameters of no layer."""
    found, todo, seen = set(), [node], set()
    while todo:
        at = todo.pop()
        if at in seen:
            continue
        seen.add(at)
        if at in graph:
            found.add(graph[at])
        elif _leaf(at):
            found.add("")
        else:
            todo += [parent for parent, _ in at.next_functions if parent is not None]
    return found


def _leaf(node: Any) -> bool:
    return type(node).__name__ == "AccumulateGrad"
