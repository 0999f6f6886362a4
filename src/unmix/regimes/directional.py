"""Derivatives of a network's outputs along directions of its parameters, without their Jacobian where that goes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.regimes.choosing import FEW
from unmix.regimes.jacobian import Rowwise, Transformed, outputs
from unmix.regimes.running import first_line

WAYS = ("forward", "twice", "rows")


def way_for(source: Transformed, x: Tensor) -> str:
    """The first way that agrees with autograd's gradients on a few rows of x [n, ...].

    forward: torch's forward derivative. twice: the gradient, derived once more by what it was taken of, where an
    operation has no forward derivative. rows: from the Jacobian. Raises `UsageError` where none does.
    """
    few = x[:: max(1, len(x) // FEW)][:FEW]
    draw, told = torch.Generator().manual_seed(0), ""
    along = {name: torch.randn(p.shape, generator=draw).to(p) for name, p in source.parameters.items()}
    v, gradient = pulled(source, few, None)
    parts = [(gradient[name] * step).double() for name, step in along.items()]
    right, size = float(sum(part.sum() for part in parts)), float(sum(part.square().sum() for part in parts)) ** 0.5
    share = max(1e-3, 4 * torch.finfo(v.dtype).eps ** 0.5)
    for way in WAYS:
        try:
            left = float((Pushed(source, few, way)(along).detach() * v).double().sum())
        except Exception as error:  # operations that torch cannot derive in this way
            told = first_line(error)
            continue
        if abs(left - right) <= share * size:
            return way
    raise UsageError(f"model: its outputs cannot be derived along a direction of its parameters {told}".strip())


def pulled(source: Transformed, x: Tensor, v: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
    """v [n, c], drawn at random where none is given, and J^T v {name: shape}, by autograd."""
    with torch.enable_grad():
        made = outputs(source.model, x, source.forward)
        if v is None:
            v = torch.randn(made.shape, generator=torch.Generator().manual_seed(1)).to(made)
        held = source.parameters
        found = torch.autograd.grad(made, list(held.values()), v.to(made.dtype), allow_unused=True)
    return v, {
        name: torch.zeros_like(p) if g is None else g.to_dense()
        for (name, p), g in zip(held.items(), found, strict=True)
    }


class Pushed:
    """J v [n, c] for directions v {name: shape} at rows x [n, ...], in one of the ways; derivable by v."""

    def __init__(self, source: Transformed, x: Tensor, way: str) -> None:
        self.source, self.x, self.way = source, x, way
        self.values = {name: p.detach() for name, p in source.parameters.items()}
        self._held: Any = None

    def __call__(self, along: dict[str, Tensor]) -> Tensor:
        if self.way == "forward":
            made: Tensor = torch.func.jvp(self.source.function(self.x), (self.values,), (along,))[1]
            return made
        if self._held is None:
            self._held = self._gradient() if self.way == "twice" else self._jacobian()
        if self.way == "rows":
            parts = [torch.einsum("nc...,...->nc", J, along[name]) for name, J in self._held.items()]
            return torch.stack(parts).sum(0)
        gradient, mixture = self._held
        with torch.enable_grad():
            total = sum((g * along[name]).sum() for name, g in gradient.items())
            (made,) = torch.autograd.grad(total, mixture, retain_graph=True, create_graph=True)
        return made

    def _gradient(self) -> tuple[dict[str, Tensor], Tensor]:
        """J^T u as a function of u, which is linear, so that u may be zero."""
        source = self.source
        with torch.enable_grad():
            made = outputs(source.model, self.x, source.forward)
            mixture = torch.zeros_like(made, requires_grad=True)
            found = torch.autograd.grad(
                made, list(source.parameters.values()), mixture, create_graph=True, allow_unused=True
            )
        return {name: g for name, g in zip(source.parameters, found, strict=True) if g is not None}, mixture

    def _jacobian(self) -> dict[str, Tensor]:
        with torch.enable_grad():
            made = Rowwise(self.source.model, self.source.forward).jacobian(self.x, list(self.source.parameters))
        return {name: J.detach() for name, J in made.items()}
