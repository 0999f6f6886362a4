"""What the training of a dense autoencoder needs beside its loss: Adam, and help for latents that do not fire."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.encoders.amortised import Amortised, half_squared


class Adam:
    """Adam (Kingma, Ba 2015, arXiv 1412.6980) on tensors that lie in one buffer, so that a step is a few operations.

    tensors: where training starts; they are copied. `learnt` holds the trained ones by name, leaves of the graph.
    """

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


@torch.no_grad()
def to_unit_norm(atoms: Tensor) -> None:
    """Give every atom [m, d] unit norm, in place."""
    atoms.div_(torch.linalg.vector_norm(atoms, dim=1, keepdim=True).clamp_min(1e-12))


@torch.no_grad()
def remove_radial(gradient: Tensor, atoms: Tensor) -> None:
    """Take the part along its atom out of every row of the gradient [m, d], in place."""
    gradient.addcmul_((gradient * atoms).sum(1, keepdim=True), atoms, value=-1)


def part_of(encoder: Amortised, tensors: Mapping[str, Tensor], which: Tensor) -> dict[str, Tensor]:
    """The encoder's tensors and the atoms with only the latents `which` [k]."""
    own = {name: tensors[name].index_select(encoder.axis, which) for name in encoder.latents if name in tensors}
    return {**tensors, **own, "atoms": tensors["atoms"][which]}


def auxiliary_error(
    encoder: Amortised, tensors: Mapping[str, Tensor], x: Tensor, codes: Tensor, dead: Tensor, aux_k: int
) -> Tensor:
    """Half the squared error [n] of the residual decoded by latents that do not fire (arXiv 2406.04093, appendix A).

    x [n, d], codes [n, m], dead [k] the latents' numbers. Their aux_k largest activations, before any selection,
    decode the residual. Neither the residual nor x carries a gradient, so none reaches the decoder's bias.
    """
    x = x.detach()
    residual = x - codes.detach() @ tensors["atoms"].detach()
    own = part_of(encoder, tensors, dead)
    before = encoder._before(own, x)
    if not encoder.signed:
        before = before.relu()
    chosen = before.detach().abs().topk(min(aux_k, len(dead)), dim=1).indices
    best = torch.zeros_like(before).scatter(1, chosen, before.gather(1, chosen))
    return half_squared(residual - best @ own["atoms"])


@torch.no_grad()
def resample(encoder: Amortised, adam: Adam, x: Tensor, codes: Tensor, dead: Tensor, rng: Stream) -> Tensor:
    """Point latents that do not fire at rows that are reconstructed badly; returns the latents taken, [<= k].

    Rows of the batch x [n, d] are drawn by their squared error; the atom and the encoder's weights of a latent become
    the direction of the row's residual, at the mean norm of the weights in use, its shifts the mean of those in use.
    Source: Bricken et al. 2023, Towards Monosemanticity.
    """
    tensors = adam.learnt
    residual = x - codes @ tensors["atoms"]
    error = residual.square().sum(1).double().cpu().numpy()
    count = min(len(dead), int((error > 0).sum()))
    if count == 0:
        return dead[:0]
    chosen = rng.numpy().choice(len(error), count, replace=False, p=error / error.sum())
    dead = dead[:count]
    aims = residual[torch.from_numpy(chosen).to(x.device)]
    used = torch.ones(len(tensors["atoms"]), dtype=torch.bool, device=x.device).index_fill_(0, dead, False)
    tensors["atoms"][dead] = torch.nn.functional.normalize(aims)
    adam.forget("atoms", dead, 0)
    for number, name in enumerate(name for name in encoder.latents if name in tensors):
        rows = tensors[name].movedim(encoder.axis, 0)
        alive = rows[used] if used.any() else rows
        if number == 0:
            read = torch.nn.functional.normalize(encoder._inner(tensors, aims))
            norm = alive.norm(dim=-1, keepdim=True).mean(0)
            rows[dead] = read.view(count, *([1] * (rows.ndim - 2)), -1) * norm
        else:
            rows[dead] = alive.mean(0).expand_as(rows[dead])
        adam.forget(name, dead, encoder.axis)
    return dead
