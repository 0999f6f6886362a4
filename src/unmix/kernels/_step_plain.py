"""A training step on sparse codes in plain torch, on any device: what the compiled one is tested against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

if TYPE_CHECKING:
    from unmix.kernels.lists import Lists


def reconstruct_plain(codes: Lists, atoms: Tensor, base: Tensor, sign: int, error: Tensor) -> Tensor:
    """Fill error [b, d] = z D + sign base and the slopes of all codes; returns |error_i|^2 [b]."""
    decode_plain(codes, atoms, error)
    error.add_(base, alpha=sign)
    slopes_plain(codes, atoms, error)
    return error.square().sum(1)


def decode_plain(codes: Lists, atoms: Tensor, out: Tensor) -> None:
    """Fill out [b, d] with z D."""
    if not len(codes.values):
        out.zero_()
        return
    out.copy_(embedding_bag(codes.indices, atoms, codes.pointers[:-1], mode="sum", per_sample_weights=codes.values))


def slopes_plain(codes: Lists, atoms: Tensor, error: Tensor) -> None:
    """Fill the slopes of all codes: products of the errors of their rows [b, d] with their atoms."""
    each = codes.each
    size = 8192 if each is None else max(1, 8192 // each) * each  # the gathered atoms stay in the cache
    for start in range(0, len(codes.values), size):
        part = slice(start, start + size)
        picked = atoms[codes.indices[part]]
        if each is not None:
            picked = picked.view(-1, each, atoms.shape[1])
            own = error[start // each :][: len(picked)]
            codes.slopes[part] = torch.bmm(picked, own.unsqueeze(2)).flatten()
        else:
            codes.slopes[part] = torch.linalg.vecdot(picked, error[codes.rows[part]])


def gradients_plain(
    inputs: Tensor, errors: Tensor, passes: list[Lists], m: int
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Gradients of weight, atoms and encoder_bias, the last from the first pass alone, and which latents fired [m].

    Codes are sorted by latent once; the gradients are then weighted sums of rows, in a fixed order.
    """
    b = len(inputs)
    latents = torch.cat([part.indices for part in passes])
    slope = torch.cat([(part.slopes * part.scale).masked_fill_(part.values == 0, 0) for part in passes])
    code = torch.cat([part.values * part.scale for part in passes])
    rows = torch.cat([part.rows + number * b for number, part in enumerate(passes)])
    latents, order = latents.sort(stable=True)
    rows, slope, code = rows[order], slope[order], code[order]
    starts = torch.searchsorted(latents, torch.arange(m, device=latents.device))
    first = (rows < b).to(slope.dtype)
    sums = torch.stack([slope, slope * first, code * first], 1)
    ends = torch.cat([starts, starts.new_full((1,), len(rows))])
    totals = torch.segment_reduce(sums, "sum", offsets=ends, initial=0)
    gradients = {
        "weight": embedding_bag(rows % b, inputs, starts, mode="sum", per_sample_weights=slope),
        "atoms": embedding_bag(rows, errors, starts, mode="sum", per_sample_weights=code),
        "encoder_bias": totals[:, 0].contiguous(),
    }
    return gradients, totals[:, 1].contiguous(), totals[:, 2] > 0


def adam_plain(
    parameters: list[Tensor],
    gradients: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    owner: Any,
    lr: float,
) -> None:
    """One step of torch's fused Adam with the moments given; `owner` has betas, eps and steps (this one counted)."""
    optimiser = torch.optim.Adam(parameters, lr=lr, betas=owner.betas, eps=owner.eps, fused=True)
    for parameter, gradient, one, two in zip(parameters, gradients, first, second, strict=True):
        parameter.grad = gradient
        step = torch.tensor(float(owner.steps - 1), device=parameter.device)
        optimiser.state[parameter] = {"step": step, "exp_avg": one, "exp_avg_sq": two}
    optimiser.step()
    for parameter in parameters:
        parameter.grad = None


def normalise(atoms: Tensor) -> None:
    """Give every atom unit norm in place; zero atoms stay."""
    norms = atoms.norm(dim=1, keepdim=True)
    atoms.div_(torch.where(norms > 0, norms, 1))
