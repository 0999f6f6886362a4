"""What tells lazy from rich: kernels, representations, filters and activation patterns compared; plain functions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmix.core.errors import UsageError

LAPLACE = ((-0.25, -0.5, -0.25), (-0.5, 2.0, -0.5), (-0.25, -0.5, -0.25))


def kernel_distance(one: Tensor, two: Tensor) -> float:
    """S = 1 - <K1, K2> / (|K1| |K2|) of two kernels of one shape; 0 where proportional; UsageError for zeros."""
    a, b = one.double().flatten(), two.double().flatten()
    if a.shape != b.shape or not bool(a.any()) or not bool(b.any()):
        raise UsageError(f"kernel_distance: shapes {tuple(one.shape)}, {tuple(two.shape)}; alike, and not all zero")
    return float(1 - (a @ b) / (a.norm() * b.norm()))


def alignment(kernel: Tensor, y: Tensor) -> float:
    """<K, Y Y^T> / (|K| |Y Y^T|) of a kernel [n, n] with targets y [n] or [n, c]; labels as centred one-hots."""
    if not y.is_floating_point():
        y = nn.functional.one_hot(y.long()).double()
        y = y - y.mean(0)
    y = y.double().reshape(len(kernel), -1)
    return 1 - kernel_distance(kernel, y @ y.T)


def effective_rank(kernel: Tensor) -> float:
    """exp of the entropy of the eigenvalues of a kernel [n, n], as shares of their sum; between 1 and n."""
    values = torch.linalg.eigvalsh(kernel.double()).clamp_min(0)
    shares = values / values.sum()
    return float(torch.exp(-(shares * shares.clamp_min(1e-300).log()).sum()))


def cka(one: Tensor, two: Tensor) -> float:
    """Linear CKA of two representations [n, d1], [n, d2] of the same rows: 1 up to turns and scale; 0 for constants.

    |Y^T X|^2 / (|X^T X| |Y^T Y|) of centred columns. Source: Kornblith et al. 2019, arXiv 1905.00414.
    """
    a, b = (h.double().flatten(1) - h.double().flatten(1).mean(0) for h in (one, two))
    scale = (a.T @ a).norm() * (b.T @ b).norm()
    return float((b.T @ a).square().sum() / scale) if float(scale) > 0 else 0.0


def roughness(filters: Tensor, padding: str = "same") -> Tensor:
    """|L * w|^2 / |w|^2 of each filter [..., k, k] with L a discrete Laplacian: small is smooth; any scale.

    padding: "same" or "full". An impulse has 5.25 where L fits around it; white noise 15 x 15 about 5.15 ("same").
    Zero filters give 0. Source: Kunin et al. 2024, arXiv 2406.06158, appendix D.
    """
    if padding not in ("same", "full") or filters.ndim < 2:
        raise UsageError(f"roughness: filters {tuple(filters.shape)}, padding={padding!r}: [..., k, k], same or full")
    w = filters.double().reshape(-1, 1, *filters.shape[-2:])
    passed = nn.functional.conv2d(w, w.new_tensor(LAPLACE)[None, None], padding=1 if padding == "same" else 2)
    size = w.square().sum((1, 2, 3))
    return (passed.square().sum((1, 2, 3)) / size.clamp_min(1e-300)).reshape(filters.shape[:-2])


def hamming(one: Tensor, two: Tensor) -> float:
    """Share of activation patterns (booleans, one shape) that differ, 0 to 1."""
    if one.shape != two.shape:
        raise UsageError(f"hamming: patterns {tuple(one.shape)} and {tuple(two.shape)} must be alike")
    return float((one != two).double().mean())


def verdict(distance: float, switched: float | None, relative: float) -> str:
    """The regime from kernel distance S, Hamming share and relative motion together; S alone ranks them wrongly.

    lazy: S < .02, and fewer than 5 % of the patterns switched. rich with little motion (upstream): at least 20 %
    switched while the parameters moved by less than a quarter of their norm. rich: at least 20 % switched.
    downstream: the kernel moved (S >= .1) and the patterns hardly. between: none of these. Without patterns
    (switched None) S decides lazy or not, and motion the rest. The limits are conventions, set on two-layer networks
    whose regime is known.
    """
    if switched is None:
        if distance < 0.02:
            return "lazy"
        return "rich with little motion" if relative < 0.25 else "rich"
    if switched >= 0.2:
        return "rich with little motion" if relative < 0.25 else "rich"
    if distance < 0.02 and switched < 0.05:
        return "lazy"
    return "downstream" if distance >= 0.1 else "between"
