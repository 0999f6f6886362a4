"""Losses of variational autoencoders in closed form: every function is pure, float32 at least, and stays finite.

q = N(mean, exp(logvar)) entry by entry; all arguments are [n, d] unless said, in nats.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Convention = Literal["paper", "official"]
LARGEST = 80.0  # exp of more is continued by its tangent: e^80 and its square root of a sum stay finite in float32
FAR = 30.0  # standard deviations from the cusp where two terms of the series are exact to float32
WIDTH, NODES = 9.0, 64
ENTROPY = 0.5 * math.log(2 * math.pi * math.e)


def variance(logvar: Tensor) -> Tensor:
    """exp(logvar), continued linearly above `LARGEST`."""
    logvar = _wide(logvar)
    most = math.exp(LARGEST)
    return torch.where(logvar > LARGEST, most * (logvar - (LARGEST - 1)), logvar.clamp(max=LARGEST).exp())


def sampled(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """mean + s noise, s = exp(logvar / 2)."""
    return _wide(mean) + variance(logvar / 2) * noise


def normal_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(q || N(0, 1)) = (mean^2 + exp(logvar) - 1 - logvar) / 2."""
    mean, logvar = _wide(mean), _wide(logvar)
    return 0.5 * (mean.square() + variance(logvar) - 1 - logvar)


def entropy(logvar: Tensor) -> Tensor:
    """Entropy of q: ln(2 pi e) / 2 + logvar / 2."""
    return 0.5 * _wide(logvar) + ENTROPY


def folded_mean(mean: Tensor, deviation: Tensor) -> Tensor:
    """E|y| for y ~ N(mean, s^2): s sqrt(2 / pi) exp(-mean^2 / 2 s^2) + mean erf(mean / s sqrt 2).

    Its gradients, erf(mean / s sqrt 2) and sqrt(2 / pi) exp(-mean^2 / 2 s^2), are written out: differentiating the
    formula itself gives 0 times infinity where s is tiny.
    """
    return _Folded.apply(mean, deviation)


def absolute_moment(mean: Tensor, deviation: Tensor, power: float) -> Tensor:
    """E|y|^a for y ~ N(mean, s^2) and 0 < a <= 2, by quadrature on |y| >= 0, so that no node crosses the cusp.

    s^a int_0^inf u^a (phi(u - r) + phi(u + r)) du, r = |mean| / s, with 64 Gauss-Legendre nodes that crowd to 0; the
    series in 1 / r^2 beyond 30 standard deviations. Relative error below 1e-6.
    """
    return _Moment.apply(mean, deviation, power)


def laplace_cross_entropy(mean: Tensor, logvar: Tensor, rate: Any, shape: float = 1.0) -> Tensor:
    """E_q[-ln p(y)] of p(y) = a r / (2 Gamma(1 / a)) exp(-(r |y|)^a): rate r > 0 (a number or [d]), shape a.

    a = 1 is the Laplace law, -ln(r / 2) + r E|y|.
    """
    mean, deviation = _wide(mean), variance(logvar / 2)
    rate = torch.as_tensor(rate, dtype=mean.dtype, device=mean.device)
    if shape == 1:
        return rate * folded_mean(mean, deviation) - (rate / 2).log()
    constant = math.log(2) + math.lgamma(1 / shape) - math.log(shape)
    return rate**shape * absolute_moment(mean, deviation, shape) - rate.log() + constant


def laplace_kl(
    mean: Tensor,
    logvar: Tensor,
    before: Tensor,
    rate: Any,
    before_logvar: Tensor | None = None,
    shape: float = 1.0,
) -> Tensor:
    """KL(q || p(. | before)) of the transition p(z | z') = generalised Laplace of z - z' with this rate and shape.

    before: [n, d] the mean of the frame before. before_logvar: with it the expectation over that frame's posterior
    is exact, the cross-entropy being that of variance exp(logvar) + exp(before_logvar); without it the frame
    before stands as its mean, as in the paper's code. At mean = before the least value over logvar is
    1/2 + ln(2 / pi) = .0484173 for every rate (shape 1). Source: Klindt et al. 2021, arXiv 2007.10930.
    """
    logvar = _wide(logvar)
    spread = logvar if before_logvar is None else torch.logaddexp(logvar, _wide(before_logvar))
    return laplace_cross_entropy(_wide(mean) - _wide(before), spread, rate, shape) - entropy(logvar)


def transition_cost(
    mean: Tensor,
    logvar: Tensor,
    after: Tensor,
    after_logvar: Tensor,
    rate: Any,
    convention: Convention = "paper",
    two_sided: bool = False,
    shape: float = 1.0,
) -> Tensor:
    """The temporal term of SlowVAE for pairs of frames, both directions: [n], summed over dimensions.

    paper: the mean of the two directions' KL. official: the authors' code adds the two cross-entropies and takes off
    the mean of the two entropies, which is the paper's term at twice the rate, up to a constant:
    official(r) - paper(2 r) = d (ln r - 2 ln(r / 2)) for shape 1.
    """
    change = _wide(after) - _wide(mean)
    if two_sided:
        spread = torch.logaddexp(_wide(logvar), _wide(after_logvar))
        crosses = 2 * laplace_cross_entropy(change, spread, rate, shape)
    else:
        crosses = laplace_cross_entropy(change, after_logvar, rate, shape)
        crosses = crosses + laplace_cross_entropy(change, logvar, rate, shape)
    own = 0.5 * (entropy(logvar) + entropy(after_logvar))
    return ((crosses if convention == "official" else 0.5 * crosses) - own).sum(1)


def total_correlation(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z) || prod_j q(z_j)) of the batch's mixture of posteriors at its own samples z: a scalar.

    mean_i [ln (1/n) sum_k q(z_i | x_k) - sum_j ln (1/n) sum_k q(z_ij | x_k)], as disentanglement_lib estimates it,
    constants kept. Source: Chen et al. 2018, arXiv 1802.04942.
    """
    z, mean, logvar = _wide(z), _wide(mean), _wide(logvar)
    away = (z[:, None] - mean) * variance(-logvar / 2)
    logs = -0.5 * (away.square() + logvar + math.log(2 * math.pi))
    size = math.log(len(z))
    joint = logs.sum(2).logsumexp(1) - size
    return (joint - (logs.logsumexp(1) - size).sum(1)).mean()


def adaptive_average(mean: Tensor, logvar: Tensor, other: Tensor, other_logvar: Tensor) -> tuple[Tensor, ...]:
    """Ada-GVAE's posteriors of two frames that share factors: mean, logvar of each, and what is shared [n, d].

    Entries whose KL(q || q') lies below the middle between the row's least and largest are shared: both frames get
    the mean of the means and of the variances. Source: Locatello et al. 2020, arXiv 2002.02886.
    """
    mean, logvar, other, other_logvar = map(_wide, (mean, logvar, other, other_logvar))
    with torch.no_grad():
        ratio = variance(logvar - other_logvar) + (other - mean).square() * variance(-other_logvar)
        apart = 0.5 * (ratio - 1 + other_logvar - logvar)
        shared = apart < (apart.amax(1, keepdim=True) + apart.amin(1, keepdim=True)) / 2
    middle = 0.5 * (mean + other)
    spread = torch.logaddexp(logvar, other_logvar) - math.log(2)
    own = (torch.where(shared, middle, mean), torch.where(shared, spread, logvar))
    return (*own, torch.where(shared, middle, other), torch.where(shared, spread, other_logvar), shared)


def _wide(value: Tensor) -> Tensor:
    """The value in float32 where it is narrower."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, deviation: Tensor) -> Tensor:
        r = mean / deviation.clamp_min(torch.finfo(deviation.dtype).tiny)
        slope = torch.erf(r * 0.5**0.5)
        density = (2 / math.pi) ** 0.5 * torch.exp(-0.5 * r.square())
        ctx.save_for_backward(slope, density)
        return deviation * density + mean * slope

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        slope, density = ctx.saved_tensors
        return gradient * slope, gradient * density


class _Moment(torch.autograd.Function):
    """E|y|^a = s^a g(r), d/dmean = s^(a-1) g'(r), d/ds = s^(a-1) g''(r) (the heat equation)."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, deviation: Tensor, power: float) -> Tensor:
        s = deviation.double().clamp_min(torch.finfo(torch.float32).tiny)
        r = mean.double().abs() / s
        near, far = _near(r.clamp(max=FAR), power), _series(r.clamp(min=FAR), power)
        value, slope, bend = (torch.where(r < FAR, a, b) for a, b in zip(near, far, strict=True))
        unit = s ** (power - 1)
        ctx.save_for_backward((unit * slope * mean.sign()).to(mean.dtype), (unit * bend).to(mean.dtype))
        return (unit * s * value).to(mean.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        slope, bend = ctx.saved_tensors
        return gradient * slope, gradient * bend, None


def _near(r: Tensor, power: float) -> tuple[Tensor, Tensor, Tensor]:
    """g, g', g'' at r [...]: moments of |r + e|^a with 1, e, e^2 - 1."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    v = torch.from_numpy((nodes + 1) / 2).to(r.device)
    w = torch.from_numpy(weights / 2).to(r.device)
    low = (r - WIDTH).clamp(min=0)[..., None]
    span = r[..., None] + WIDTH - low
    u = low + span * v**3
    size = u**power * span * 3 * v**2 * w / (2 * math.pi) ** 0.5
    right, left = u - r[..., None], u + r[..., None]
    a, b = size * torch.exp(-0.5 * right.square()), size * torch.exp(-0.5 * left.square())
    slope = (a * right - b * left).sum(-1)
    return (a + b).sum(-1), slope, (a * (right.square() - 1) + b * (left.square() - 1)).sum(-1)


def _series(r: Tensor, power: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same far from the cusp: r^a + a (a-1) / 2 r^(a-2) + a (a-1) (a-2) (a-3) / 8 r^(a-4)."""
    second = power * (power - 1) / 2
    fourth = second * (power - 2) * (power - 3) / 4
    found: list[Tensor] = []
    factors = [1.0, second, fourth]
    for order in range(3):
        exponents = [power - 2 * k - order for k in range(3)]
        found.append(sum((f * r**e for f, e in zip(factors, exponents, strict=True)), torch.zeros_like(r)))
        factors = [f * e for f, e in zip(factors, exponents, strict=True)]
    return found[0], found[1], found[2]
