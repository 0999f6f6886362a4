"""Learners from neighbouring frames: SlowVAE, Ada-GVAE, and plain slowness as their control."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners.base import Learner
from unmix.learners.contrastive import Paired
from unmix.learners.loop import moved
from unmix.learners.vae import Variational, rows_of
from unmix.learners.vae_losses import Convention, adaptive_average, normal_kl, transition_cost


def ordered(sample: Sample, kind: str) -> None:
    """Raise `UsageError` unless each group's rows stand together and their times rise."""
    plain = moved(sample, "cpu")
    group, time = plain.group, plain.time
    same = group[1:] == group[:-1]
    if int((~same).sum()) + 1 != len(group.unique()):
        raise UsageError(f"{kind}: the rows of a sequence must stand together; sort them by group, then time")
    if bool((same & (time[1:] <= time[:-1])).any()):
        raise UsageError(f"{kind}: time must rise within a sequence; sort the rows by group, then time")


class SlowVAE(Variational):
    """SlowVAE: a variational autoencoder whose prior says that latents change sparsely from frame to frame.

    Sequences of any length; both directions of time count, each by half, so that a sequence and its reverse have the
    same loss. The loss is that of a sequence, all its frames together.
    beta: weight of the prior N(0, I) of the first frame. gamma: weight of the transitions; 0 is a beta-VAE (of half
    this beta on pairs, where each frame is the first in one of two directions). rate_prior: rate r of the Laplace
    law, larger is slower. learn_prior: one rate for each latent is learnt; rates and the scale of the codes trade
    off, so that a learnt rate says nothing by itself. shape: of the generalised Laplace law, 1 for Laplace, by
    quadrature otherwise. convention: paper, or official for the authors' code, whose rate r is the paper's 2 r: their
    published gamma 10 and rate 6 are the paper's 10 and 12. two_sided: the expectation over the frame before is
    exact, where the paper's code puts in its mean. Where rates are learnt, they are the part rate [width].
    """

    equation: ClassVar[str] = (
        "L = sum_t E_q[-ln p(x_t | z_t)] + beta KL(q(z_1) || N(0, I)) + gamma sum_t E_q KL(q(z_t) || p(. | z_{t-1})),"
        "  p(z_t | z_{t-1}) = prod_i r / 2 exp(-r |z_ti - z_{t-1,i}|)"
    )
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"
    needs: ClassVar[frozenset[str]] = frozenset({"x", "group", "time"})

    beta: float = Field(default=1.0, ge=0)
    gamma: float = Field(default=10.0, ge=0)
    rate_prior: float = Field(default=6.0, gt=0)
    learn_prior: bool = False
    shape: float = Field(default=1.0, gt=0, le=2)
    convention: Convention = "paper"
    two_sided: bool = False

    def _check(self, world: Any, sample: Sample) -> None:
        super()._check(world, sample)
        ordered(sample, self.kind)

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        modules = super()._build(shape, world, rng)
        if self.learn_prior:
            modules["rate"] = _Rates(self.rate_prior, self.width)
        return modules

    def _loss(self, modules: nn.ModuleDict, batch: Sample, rng: Stream) -> tuple[Tensor, Mapping[str, Any]]:
        starts, ends, first = rows_of(batch, self.kind)
        mean, logvar = self._posterior(modules, batch.x)
        error = self._reconstruction(modules, self._sampled(mean, logvar, rng), batch.x)
        count = int(starts.sum())
        own = normal_kl(mean, logvar).sum(1)
        prior = 0.5 * (own * (starts.to(own.dtype) + ends)).sum() / count
        whole = error.sum() / count
        facts = {"reconstruction": error.detach().mean(), "prior": prior.detach()}
        loss = whole + self._heated(modules, self.beta * prior)
        if self.gamma:
            rate = modules["rate"]() if self.learn_prior else self.rate_prior
            after = first + 1
            pair = (mean[first], logvar[first], mean[after], logvar[after])
            cost = transition_cost(*pair, rate, self.convention, self.two_sided, self.shape).sum() / count
            loss, facts = loss + self.gamma * cost, {**facts, "transition": cost.detach()}
        return loss, facts

    def _parts(self, modules: nn.ModuleDict) -> Mapping[str, Tensor]:
        kept = {name: t for name, t in super()._parts(modules).items() if not name.startswith("rate.")}
        return {**kept, "rate": modules["rate"]()} if self.learn_prior else kept

    def _take(self, modules: nn.ModuleDict, start: Any) -> None:
        super()._take(modules, start)
        if self.learn_prior and "rate" in start.parts:
            cast(_Rates, modules["rate"]).log.copy_(start.parts["rate"].log())


class _Rates(nn.Module):
    """Positive rates [width], kept as logarithms."""

    def __init__(self, value: float, width: int) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.full((width,), math.log(value)))

    def forward(self) -> Tensor:
        """[width]."""
        return self.log.exp()


class AdaGVAE(Variational):
    """Ada-GVAE: two frames share the posterior of the latents in which they hardly differ.

    Neighbouring rows of a sequence are the pairs. beta: weight of the prior.
    """

    equation: ClassVar[str] = (
        "L = mean over both frames of E_q~[-ln p(x | z)] + beta KL(q~ || N(0, I)),  "
        "q~_i averaged where KL(q_i || q'_i) < (max + min) / 2"
    )
    reference: ClassVar[str] = "Locatello et al. 2020, arXiv 2002.02886"
    needs: ClassVar[frozenset[str]] = frozenset({"x", "group", "time"})

    beta: float = Field(default=1.0, ge=0)

    def _check(self, world: Any, sample: Sample) -> None:
        super()._check(world, sample)
        ordered(sample, self.kind)

    def _loss(self, modules: nn.ModuleDict, batch: Sample, rng: Stream) -> tuple[Tensor, Mapping[str, Any]]:
        first = rows_of(batch, self.kind)[2]
        mean, logvar = self._posterior(modules, batch.x)
        *both, shared = adaptive_average(mean[first], logvar[first], mean[first + 1], logvar[first + 1])
        # Frames of a pair side by side, as in the batch, so that each process draws its own rows' noise.
        mean, logvar = (torch.stack(frames, 1).flatten(0, 1) for frames in ((both[0], both[2]), (both[1], both[3])))
        x = torch.stack([batch.x[first], batch.x[first + 1]], 1).flatten(0, 1)
        error = self._reconstruction(modules, self._sampled(mean, logvar, rng), x).mean()
        prior = normal_kl(mean, logvar).sum(1).mean()
        facts = {"reconstruction": error.detach(), "prior": prior.detach(), "shared": shared.float().mean()}
        return error + self._heated(modules, self.beta * prior), facts


class Slowness(Paired):
    """Plain slowness: features that change little for their spread, kept white by a penalty; no decoder, no prior.

    power: 2 is slow feature analysis, which leaves rotations among equally slow features open; 1 prefers sparse
    changes. weight: of the penalty. Changes are in units of the feature's deviation s_i over the batch: otherwise
    shrinking to a constant, which changes nothing, pays at power 1.
    """

    equation: ClassVar[str] = "L = E sum_i |h_i(x_t) - h_i(x_{t-1})|^p / s_i^p + weight |Cov(h) - I|^2"
    reference: ClassVar[str] = "Wiskott, Sejnowski 2002"

    power: Literal[1, 2] = 2
    weight: float = Field(default=1.0, gt=0)

    def _check(self, world: Any, sample: Sample) -> None:
        Learner._check(self, world, sample)
        ordered(sample, self.kind)

    def _compare(
        self, modules: nn.ModuleDict, anchors: Tensor, positives: Tensor, rng: Stream
    ) -> tuple[Tensor, Mapping[str, Any]]:
        h = torch.cat([anchors, positives])
        centred = h - h.mean(0)
        spread = centred.square().mean(0).clamp_min(1e-12).sqrt()
        change = (positives - anchors).abs() / spread
        slow = (change if self.power == 1 else change.square()).sum(1).mean()
        apart = centred.T @ centred / len(h) - torch.eye(h.shape[1], device=h.device)
        return slow + self.weight * apart.square().sum(), {"change": slow.detach()}
