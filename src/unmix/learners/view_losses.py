"""Losses of two views of the same rows as plain functions of tensors; each is usable alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """L = mean over all 2n views of -log [ exp(s(a, p) / t) / sum over the other 2n - 1 views ], s the cosine.

    first, second: [n, d], row i of one the other view of row i. Source: Chen et al. 2020, arXiv 2002.05709.
    """
    z = functional.normalize(torch.cat([first, second]))
    logits = z @ z.T / temperature
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(first))
    return functional.cross_entropy(logits, partner)


def barlow_twins(first: Tensor, second: Tensor, off_diagonal: float) -> Tensor:
    """L = sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2, C the correlations of columns between views.

    first, second: [n, d]. Source: Zbontar et al. 2021, arXiv 2103.03230.
    """
    a, b = ((z - z.mean(0)) / z.std(0, unbiased=False).clamp_min(1e-5) for z in (first, second))
    correlations = a.T @ b / len(a)
    diagonal = correlations.diagonal()
    return (1 - diagonal).square().sum() + off_diagonal * _off_diagonal(correlations)


def vicreg(
    first: Tensor, second: Tensor, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
) -> Tensor:
    """L = lambda mean (a - b)^2 + sum over both views of mu mean_j max(0, 1 - sd_j) + nu / d sum_{i != j} C_ij^2.

    first, second: [n, d] views a and b, n at least 2. sd_j = sqrt(var_j + 1e-4) and C the covariances of a view's
    columns, both with n - 1. The first mean is over rows and columns.
    Source: Bardes, Ponce, LeCun 2021, arXiv 2105.04906, algorithm 1.
    """
    loss = invariance * functional.mse_loss(first, second)
    for view in (first, second):
        centred = view - view.mean(0)
        covariances = centred.T @ centred / (len(view) - 1)
        spread = (covariances.diagonal() + 1e-4).sqrt()
        loss = loss + variance * functional.relu(1 - spread).mean()
        loss = loss + covariance / view.shape[1] * _off_diagonal(covariances)
    return loss


def byol(predicted: Tensor, target: Tensor) -> Tensor:
    """L = mean over rows of |p / |p| - t / |t||^2 = 2 - 2 cos(p, t).

    predicted, target: [n, d], of two views; no gradient goes to the target.
    Source: Grill et al. 2020, arXiv 2006.07733.
    """
    return 2 - 2 * functional.cosine_similarity(predicted, target.detach(), 1).mean()


def _off_diagonal(square: Tensor) -> Tensor:
    return square.square().sum() - square.diagonal().square().sum()
