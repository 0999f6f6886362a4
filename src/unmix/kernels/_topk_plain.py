"""The plain torch reference of the TopK encoder and of its training step, on any device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


@dataclass
class Pass:
    """Codes of one batch under one target: values, indices, slopes [b, k], losses and spread [b].

    slopes are the products of the error with the atoms of active codes, 0 elsewhere; `scale` turns them into the
    gradient of the loss. spread is the squared distance of each target from the mean of the targets.
    """

    values: Tensor
    indices: Tensor
    slopes: Tensor
    losses: Tensor
    spread: Tensor
    scale: float


def select(before: Tensor, k: int, exact: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest of each row of relu(before) [n, m] in rising order of index: values, indices [n, k].

    exact: ties go to the lowest index (this looks at the result, so it waits for a GPU); otherwise torch decides.
    `before` is rectified in place.
    """
    codes = before.relu_()
    values, indices = codes.topk(k, dim=1, sorted=True)
    if exact and k < codes.shape[1]:
        least = values[:, -1:]
        tied = (codes == least).sum(1) > (values == least).sum(1)
        rows = tied.nonzero().squeeze(1)
        if len(rows):
            found = codes[rows].sort(dim=1, descending=True, stable=True)
            values[rows], indices[rows] = found.values[:, :k], found.indices[:, :k]
    indices, order = indices.sort(dim=1)
    return values.gather(1, order), indices


def select_and_decode_plain(
    before: Tensor,
    k: int,
    atoms: Tensor,
    target: Tensor,
    centre: Tensor,
    values: Tensor,
    indices: Tensor,
    slopes: Tensor,
    error: Tensor,
    losses: Tensor,
    spread: Tensor,
) -> None:
    """Fill values, indices, slopes [n, k], error [n, d] = z D - target, losses and spread [n] from before [n, m]."""
    # Positive ties between different latents do not happen in training, and inactive slots teach nothing.
    found, chosen = select(before, k, exact=False)
    values.copy_(found)
    indices.copy_(chosen)
    torch.sub(embedding_bag(chosen, atoms, mode="sum", per_sample_weights=found), target, out=error)
    torch.sum(error.square(), 1, out=losses)
    torch.sum((target - centre).square_(), 1, out=spread)
    for start in range(0, len(error), 256):  # the gathered atoms of a few rows stay in the cache
        rows = slice(start, start + 256)
        picked = atoms[chosen[rows].flatten()].view(-1, k, atoms.shape[1])
        slopes[rows] = torch.bmm(picked, error[rows].unsqueeze(2)).squeeze(2)
    slopes.masked_fill_(found <= 0, 0)


def gradients_plain(
    inputs: Tensor, errors: Tensor, passes: list[Pass], m: int
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Gradients of weight, atoms and encoder_bias, the last from the first pass alone, and which latents fired [m].

    Codes are sorted by latent once; the gradients are then weighted sums of rows, in a fixed order.
    """
    b = len(inputs)
    latents = torch.cat([part.indices.flatten() for part in passes])
    slope = torch.cat([part.slopes.flatten() * part.scale for part in passes])
    code = torch.cat([part.values.flatten() * part.scale for part in passes])
    numbers = torch.arange(b, device=inputs.device)
    rows = torch.cat([(numbers + i * b).unsqueeze(1).expand_as(p.indices).flatten() for i, p in enumerate(passes)])
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
