"""Adam for small models, where the optimiser would cost more than the step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unmix.core.errors import UsageError


class Adam:
    """Adam on tensors that lie in one buffer, so that a step is a few operations however many tensors there are.

    tensors: where training starts; they are copied. `learnt` holds the trained ones by name, leaves of the graph with
    their gradients in one buffer as well. Source: Kingma, Ba 2015, arXiv 1412.6980.
    """

    shapes: dict[str, torch.Size]
    learnt: dict[str, Tensor]
    buffer: Tensor
    gradient: Tensor
    first: Tensor
    second: Tensor
    betas: tuple[float, float]
    steps: int

    def __init__(self, tensors: Mapping[str, Tensor], betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self.buffer = torch.cat([tensor.detach().flatten() for tensor in tensors.values()])
        self.gradient, self.first, self.second = (torch.zeros_like(self.buffer) for _ in range(3))
        self.betas, self.steps = betas, 0
        self.learnt = {name: tensor.requires_grad_() for name, tensor in self._views(self.buffer).items()}
        for name, view in self._views(self.gradient).items():
            self.learnt[name].grad = view

    def _views(self, buffer: Tensor) -> dict[str, Tensor]:
        views, begin = {}, 0
        for name, shape in self.shapes.items():
            end = begin + shape.numel()
            views[name], begin = buffer[begin:end].view(shape).detach(), end
        return views

    def backward(self, loss: Tensor) -> None:
        """Fill the gradients of the tensors with those of `loss`."""
        self.gradient.zero_()
        loss.backward()

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """p <- p - lr m / (sqrt(v) + eps), with bias-corrected moments m and v of the gradients."""
        self.steps += 1
        beta1, beta2 = self.betas
        self.first.lerp_(self.gradient, 1 - beta1)
        self.second.mul_(beta2).addcmul_(self.gradient, self.gradient, value=1 - beta2)
        root = (1 - beta2**self.steps) ** 0.5
        size = self.second.sqrt().add_(1e-8 * root)
        self.buffer.addcdiv_(self.first, size, value=-lr * root / (1 - beta1**self.steps))

    def forget(self, name: str, where: Tensor, axis: int) -> None:
        """Set the moments of some rows, along `axis`, of a tensor to zero."""
        for buffer in (self.first, self.second):
            self._views(buffer)[name].index_fill_(axis, where, 0)

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs."""
        return {
            "learnt": self.buffer,
            "first": self.first,
            "second": self.second,
            "steps": torch.tensor(self.steps),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state()`; raises `UsageError` where it was made by another recipe."""
        if any(name not in state or state[name].shape != own.shape for name, own in self.state().items()):
            raise UsageError("checkpoint: made by another recipe; remove it to start again")
        with torch.no_grad():
            for own, name in ((self.buffer, "learnt"), (self.first, "first"), (self.second, "second")):
                own.copy_(state[name])
        self.steps = int(state["steps"])
