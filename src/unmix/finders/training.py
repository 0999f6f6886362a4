"""What training a dense autoencoder needs beside its loss: unit norm, and help for latents that do not fire."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unmix.core.adam import Adam
from unmix.core.seeds import Stream
from unmix.encoders.amortised import Amortised, half_squared


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
def resample(
    encoder: Amortised,
    tensors: Mapping[str, Tensor],
    adam: Adam,
    x: Tensor,
    codes: Tensor,
    dead: Tensor,
    rng: Stream,
) -> Tensor:
    """Point latents that do not fire at rows that are reconstructed badly; returns the latents taken, [<= k].

    Rows of the batch x [n, d] are drawn by their squared error under codes [n, m]; the atom and the encoder's weights
    of a latent become the direction of the row's residual, at the mean norm of the weights in use, its shifts the
    mean of those in use. Where atoms are frozen the weights are pointed at the latent's own atom.
    Source: Bricken et al. 2023, Towards Monosemanticity.
    """
    tensors = {**tensors, **adam.learnt}
    if "atoms" in adam.learnt:
        residual = x - codes @ tensors["atoms"]
        error = residual.square().sum(1).double().cpu().numpy()
        dead = dead[: int((error > 0).sum())]
        if not len(dead):
            return dead
        chosen = rng.numpy().choice(len(error), len(dead), replace=False, p=error / error.sum())
        aims = residual[torch.from_numpy(chosen).to(x.device)]
        tensors["atoms"][dead] = torch.nn.functional.normalize(aims)
        adam.forget("atoms", dead, 0)
    else:
        aims = tensors["atoms"][dead]
    used = torch.ones(len(tensors["atoms"]), dtype=torch.bool, device=x.device).index_fill_(0, dead, False)
    matrix, *rest = (name for name in encoder.latents if name in adam.learnt)
    for name in (matrix, *rest):
        rows = tensors[name].movedim(encoder.axis, 0)
        alive = rows[used] if used.any() else rows
        if name == matrix:
            read = torch.nn.functional.normalize(encoder._inner(tensors, aims))
            read = read.view(len(dead), *([1] * (rows.ndim - 2)), -1)
            rows[dead] = read * alive.norm(dim=-1, keepdim=True).mean(0)
        else:
            rows[dead] = alive.mean(0).expand_as(rows[dead])
        adam.forget(name, dead, encoder.axis)
    return dead
