"""Linear DIET in closed form: an eigenvalue problem of data and their views, beside what gradient descent finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.seeds import Stream
from unmix.papers.diet.grids import GENTLE, digits

CUTOFF = 1e-10  # directions of the views with less of the largest variance are left out


def moments(views: Tensor) -> tuple[Tensor, Tensor]:
    """C = E x x' [D, D] and S = E_i m_i m_i' [D, D], m_i the mean view, of views [N, V, D]."""
    means = views.mean(1)
    flat = views.flatten(0, 1)
    return flat.T @ flat / len(flat), means.T @ means / len(means)


def solution(views: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues [k] of S a = lambda C a, and the a as rows [k, D], of views [N, V, D].

    The linear encoder with these rows, and the best linear head on it, have the least mean squared error to one-hot
    numbers of the data; it is 1 - sum(lambda) / N.
    """
    from scipy.linalg import eigh

    second, between = moments(views)
    values, vectors = eigh(between.numpy(), second.numpy())
    order = np.argsort(values)[::-1][:k].copy()
    return torch.from_numpy(values[order]), torch.from_numpy(vectors[:, order].T.copy())


def squared_error(views: Tensor, encoder: Tensor, head: Tensor) -> Tensor:
    """E |e_i - W A x|^2 over views [N, V, D], A [k, D], W [N, k]; the N x V x N errors are never made."""
    count, per = views.shape[:2]
    h = views.flatten(0, 1) @ encoder.T
    own = (h.view(count, per, -1) * head[:, None]).sum()
    return 1 + ((h @ (head.T @ head)) * h).sum() / len(h) - 2 * own / len(h)


def spectral(views: Tensor, encoder: Tensor) -> Tensor:
    """-2 tr(A S A') + tr((A C A')^2), the spectral contrastive loss of a linear encoder [k, D]."""
    second, between = moments(views)
    return -2 * (encoder @ between @ encoder.T).trace() + (encoder @ second @ encoder.T).square().sum()


def descended(loss: Callable[..., Tensor], starts: Sequence[Tensor], steps: int = 5000) -> tuple[float, list[Tensor]]:
    """Loss and parameters where L-BFGS with a strong Wolfe search ends from the starts."""
    parameters = [start.clone().requires_grad_() for start in starts]
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=steps, max_eval=2 * steps, tolerance_grad=1e-12, tolerance_change=1e-16,
        history_size=50, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss(*parameters)
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(closure)
    return float(loss(*parameters).detach()), [parameter.detach() for parameter in parameters]


def angle(one: Tensor, other: Tensor) -> float:
    """The largest angle, in degrees, between the row spaces of two [k, D] matrices."""
    bases = [torch.linalg.qr(rows.T)[0] for rows in (one, other)]
    # The sine is exact where the angle is small; the cosine is not.
    off = bases[1] - bases[0] @ (bases[0].T @ bases[1])
    return math.degrees(math.asin(min(1.0, float(torch.linalg.matrix_norm(off, 2)))))


def check(data: int = 60, views: int = 8, widths: Sequence[int] = (1, 2, 4, 8, 16), seed: int = 0) -> list[Any]:
    """Closed form beside L-BFGS on views of digits, of DIET with squared error and of the spectral loss.

    Records for every width k: width, objective, closed, descended, angle (of the two encoders' row spaces, degrees).
    Views are reduced to the directions in which they vary.
    """
    x = digits().sample(data, Stream(seed).child("linear")).x
    drawn = [GENTLE(x, Stream(seed).child(f"view {number}")) for number in range(views)]
    flat = torch.stack(drawn, 1).flatten(2).double()
    values, vectors = torch.linalg.eigh(moments(flat)[0])
    kept = values > CUTOFF * values[-1]
    flat = flat @ (vectors[:, kept] / values[kept].sqrt())
    draw, found = Stream(seed).child("starts").torch(), []
    for k in widths:
        eigenvalues, exact = solution(flat, k)
        encoder = torch.randn(k, flat.shape[2], generator=draw, dtype=torch.float64) / math.sqrt(flat.shape[2])
        head = torch.randn(data, k, generator=draw, dtype=torch.float64) / math.sqrt(data)
        for name, closed, loss, starts in (
            ("DIET, squared error", 1 - float(eigenvalues.sum()) / data, squared_error, [encoder, head]),
            ("spectral contrastive", -float(eigenvalues.square().sum()), spectral, [encoder]),
        ):
            # At the scale of 1 rather than of 1 / N the search ends much nearer to the minimum.
            scale, least = (data, 1.0) if len(starts) == 2 else (1, 0.0)
            value, parameters = descended(
                lambda *given, loss=loss, scale=scale, least=least: scale * (loss(flat, *given) - least), starts
            )
            value = value / scale + least
            apart = angle(exact, parameters[0])
            found.append({"objective": name, "width": k, "closed": closed, "descended": value, "angle": apart})
    return found
