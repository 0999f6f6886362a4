"""Variational autoencoders of single observations: beta-VAE and beta-TC-VAE; the representation is the mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn
from torch.nn import functional

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners.base import Learner
from unmix.learners.loop import moved
from unmix.learners.parallel import gathered, normal
from unmix.learners.vae_losses import normal_kl, sampled, total_correlation
from unmix.networks import DECODERS, NETWORKS
from unmix.networks.base import Network
from unmix.networks.mirror import mirror
from unmix.networks.mlp import MLP
from unmix.networks.posterior import PosteriorMean

UNITS = (64, 64, 64)


class Variational(Learner):
    """A variational autoencoder: q(z | x) = N(mean, diag s^2), p(x | z), and a prior that a subclass writes.

    network, decoder: recipes of encoder and decoder; a decoder None is the mirror of the encoder. likelihood:
    gaussian, with standard deviation `deviation`, or bernoulli for images in [0, 1]. kaiming: initial weights as in
    the paper's code, normal with variance 2 / fan-in and no bias, for linear layers and convolutions but not the
    decoder's transposed ones. heat: factor on the prior's terms in the first step; it falls geometrically to 1
    over the first `cooling` share of the steps, so that latents come in one after another. The representation is the
    posterior mean.
    """

    network: Annotated[Any, BeforeValidator(NETWORKS.make)] = MLP(hidden=UNITS, activation="leaky", normalise="none")
    decoder: Annotated[Any, BeforeValidator(lambda given: None if given is None else DECODERS.make(given))] = None
    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    deviation: float = Field(default=0.3, gt=0)
    kaiming: bool = False
    heat: float = Field(default=1.0, ge=1)
    cooling: float = Field(default=0.5, gt=0, le=1)
    width: int = Field(default=4, ge=1)
    batch: int = Field(default=256, ge=1)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values; without `heat` and `cooling` where there is none."""
        # Digests from before there was heat stay what they were.
        return {n: value for n, value in super().as_dict().items() if n not in ("heat", "cooling") or self.heat > 1}

    def _network(self) -> Network:
        return PosteriorMean(network=self.network)

    def _build(self, shape: tuple[int, ...], world: Any, rng: Stream) -> nn.ModuleDict:
        encoder = self._network().build(shape, self.width, rng)
        decoder = self._decoder().build(self.width, shape, rng.child("decoder"))
        if self.kaiming:
            draw = rng.child("kaiming").torch()
            for layer in (*encoder.modules(), *decoder.modules()):
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, generator=draw)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)
        modules = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        if self.heat > 1:
            modules["heat"] = _Heat(self.heat)
        return modules

    def _after_step(self, modules: nn.ModuleDict, step: int) -> None:
        super()._after_step(modules, step)
        if self.heat > 1:
            left = 1 - (step + 1) / (self.cooling * self.steps)
            cast(_Heat, modules["heat"]).now.fill_(self.heat ** max(0.0, left))

    def _heated(self, modules: nn.ModuleDict, term: Tensor) -> Tensor:
        """A term of the prior, as it counts now."""
        return term * cast(_Heat, modules["heat"]).now if self.heat > 1 else term

    def _parts(self, modules: nn.ModuleDict) -> Mapping[str, Tensor]:
        return {name: t for name, t in super()._parts(modules).items() if name != "heat.now"}

    def _decoder(self) -> Any:
        if self.decoder is not None:
            return self.decoder
        found = mirror(self.network)
        if found is None:
            raise UsageError(f"{self.kind}.decoder: {self.network.kind} has no mirror image; give decoder=")
        return found

    def _check(self, world: Any, sample: Sample) -> None:
        super()._check(world, sample)
        if self.likelihood == "bernoulli":
            low, high = (float(end) for end in moved(Sample(x=sample.x), "cpu").x.aminmax())
            if low < 0 or high > 1:
                raise UsageError(
                    f"{self.kind}.likelihood=bernoulli: x of {world.kind} lies in [{low:.3g}, {high:.3g}]; it must "
                    "be in [0, 1], or give likelihood=gaussian"
                )

    def _posterior(self, modules: nn.ModuleDict, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances [n, width]."""
        mean, logvar = self._run(cast(Any, modules["encoder"]).inside, x).split(self.width, 1)
        return mean, logvar

    def _sampled(self, mean: Tensor, logvar: Tensor, rng: Stream) -> Tensor:
        noise = normal(len(mean), self.width, rng.child("posterior"), mean.device)
        return sampled(mean, logvar, noise)

    def _reconstruction(self, modules: nn.ModuleDict, z: Tensor, x: Tensor) -> Tensor:
        """-ln p(x | z) of each row [n], summed over x's entries; without the Gaussian's constant."""
        made = self._run(modules["decoder"], z)
        if self.likelihood == "bernoulli":
            apart = functional.binary_cross_entropy_with_logits(made, x.to(made.dtype), reduction="none")
        else:
            apart = (made - x).square() / (2 * self.deviation**2)
        return apart.flatten(1).sum(1)


class _Heat(nn.Module):
    """The factor on the prior as it is now, kept with the weights so that an interrupted run goes on with it."""

    now: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("now", torch.tensor(value))


class BetaVAE(Variational):
    """beta-VAE: a variational autoencoder whose prior counts beta times; beta = 1 is the VAE.

    beta: weight of the prior.
    """

    equation: ClassVar[str] = "L = E_q[-ln p(x | z)] + beta KL(q(z | x) || N(0, I))"
    reference: ClassVar[str] = "Higgins et al. 2017; Kingma, Welling 2014, arXiv 1312.6114"

    beta: float = Field(default=1.0, ge=0)

    def _loss(self, modules: nn.ModuleDict, batch: Sample, rng: Stream) -> tuple[Tensor, Mapping[str, Any]]:
        mean, logvar = self._posterior(modules, batch.x)
        error = self._reconstruction(modules, self._sampled(mean, logvar, rng), batch.x).mean()
        prior = normal_kl(mean, logvar).sum(1).mean()
        loss = error + self._heated(modules, self.beta * prior)
        return loss, {"reconstruction": error.detach(), "prior": prior.detach()}


class BetaTCVAE(Variational):
    """beta-TC-VAE: the total correlation of the aggregate posterior counts beta times, the rest of the prior once.

    beta: weight of the total correlation, estimated within the batch.
    """

    equation: ClassVar[str] = "L = E_q[-ln p(x | z)] + KL(q(z | x) || N(0, I)) + (beta - 1) TC(q(z))"
    reference: ClassVar[str] = "Chen et al. 2018, arXiv 1802.04942"
    couples: ClassVar[bool] = True

    beta: float = Field(default=6.0, ge=0)

    def _loss(self, modules: nn.ModuleDict, batch: Sample, rng: Stream) -> tuple[Tensor, Mapping[str, Any]]:
        mean, logvar = self._posterior(modules, batch.x)
        z = self._sampled(mean, logvar, rng)
        error = self._reconstruction(modules, z, batch.x).mean()
        prior = normal_kl(mean, logvar).sum(1).mean()
        correlation = total_correlation(gathered(z), gathered(mean), gathered(logvar))
        facts = {"reconstruction": error, "prior": prior, "total correlation": correlation}
        loss = error + self._heated(modules, prior + (self.beta - 1) * correlation)
        return loss, {name: value.detach() for name, value in facts.items()}


def rows_of(batch: Sample, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """Of rows ordered by group, then time: which begin a sequence [n], which end one [n], and who has a next [p].

    Raises `UsageError` where no row has a next one.
    """
    same = batch.group[1:] == batch.group[:-1]
    edge = torch.ones(1, dtype=torch.bool, device=same.device)
    starts, ends = torch.cat([edge, ~same]), torch.cat([~same, edge])
    first = same.nonzero()[:, 0]
    if not len(first):
        raise UsageError(f"{kind}: no two rows of the batch belong to one sequence; give a world of sequences")
    return starts, ends, first
