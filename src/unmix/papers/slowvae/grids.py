"""Which worlds and which learners: a few latents behind a mixing, and sprites."""

from __future__ import annotations

from typing import Any

from unmix.learners.contrastive import Paired
from unmix.learners.slow import AdaGVAE, Slowness, SlowVAE
from unmix.learners.temporal import PermutationContrastive
from unmix.learners.vae import BetaTCVAE
from unmix.networks.conv import Conv
from unmix.networks.mlp import MLP
from unmix.worlds.motion import TransitionWorld
from unmix.worlds.sprites import SpritesWorld

# All steps but the last have the spread of a Laplace law of rate 2.
DEVIATION = 0.5**0.5
RATES = {"zero-inflated": 3.0}  # of the learner's prior; 2 elsewhere
SLOW, BETA, PCL = "SlowVAE", "beta-VAE", "PCL"


def transitions(tracks: str | None) -> dict[str, dict[str, Any]]:
    """Name -> law of motion of the latents; the natural one only where tracks are given."""
    found: dict[str, dict[str, Any]] = {
        "Laplace": {"kind": "Laplace", "rate": 2.0},
        "zero-inflated": {"kind": "ZeroInflated", "move": 0.5, "rate": 1.0},
        "Gaussian": {"kind": "Gaussian", "scale": DEVIATION},
        "uniform": {"kind": "Uniform", "width": DEVIATION * 12**0.5},
    }
    if tracks is not None:
        found["natural"] = {"kind": "Natural", "path": tracks, "size": 0.5}
    return found


def latent_world(law: dict[str, Any], latents: int, mixing: str, seed: int) -> TransitionWorld:
    """Latents that move by a law, mixed anew for every seed."""
    return TransitionWorld(latents=latents, transition=law, mixing=mixing, seed=seed)


def latent_learners(latents: int, steps: int, gamma: float, rate: float) -> dict[str, Any]:
    """Name -> learner for a few latents: three layers of 64 units, pairs of a batch of 256 rows."""
    shared = {"width": latents, "steps": steps, "batch": 256}
    slow = SlowVAE(gamma=gamma, rate_prior=rate, **shared)
    return {
        SLOW: slow,
        BETA: slow.but(gamma=0.0),
        "Ada-GVAE": AdaGVAE(beta=0.5, **shared),
        "beta-TC-VAE": BetaTCVAE(beta=6, **shared),
        **_paired({"network": MLP(hidden=(64, 64, 64)), **shared}),
    }


def sprite_worlds(small: bool, tracks: str | None) -> dict[str, SpritesWorld]:
    """Name -> sprites: one heart of 32 pixels that moves and grows, or all of dSprites with 64."""
    if small:
        world = SpritesWorld(shapes=("heart",), free=("scale", "x", "y"), pixels=32)
        return {"LAP": world.but(transition={"kind": "LaplaceGrid", "rate": 1.0})}
    found = {
        "LAP": SpritesWorld(transition={"kind": "LaplaceGrid", "rate": 1.0}),
        "UNI": SpritesWorld(transition={"kind": "UniformChange"}),
    }
    if tracks is not None:
        found["natural"] = SpritesWorld(grid=False, transition={"kind": "Natural", "path": tracks, "joint": True})
    return found


def sprite_learners(small: bool, steps: int) -> dict[str, Any]:
    """Name -> learner for sprites: three codes for three factors in the small study, the paper's in the full one.

    The paper's settings: 10 codes, 64 images in a batch, Adam with 1e-4, gamma 10 and rate 6 by the authors' code,
    beta 1; beta-VAE with beta 8 on the same pairs. The small study has a quarter of the pixels, so a quarter of
    beta-VAE's beta (2, for both). Its priors count 12 times as much at first: codes that are narrow from the start
    spread two factors over three codes and stay so.
    """
    if small:
        conv = Conv(channels=(16, 16, 32), hidden=128)
        plain: dict[str, Any] = {"network": conv, "width": 3, "lr": 1e-3, "schedule": "cosine"}
    else:
        plain = {"network": Conv(), "width": 10, "lr": 1e-4, "schedule": "constant"}
    plain |= {"batch": 64, "steps": steps}
    shared = {**plain, "likelihood": "bernoulli", "kaiming": not small}
    if small:
        slow = SlowVAE(gamma=8, rate_prior=6, beta=2, heat=12, cooling=0.8, **shared)
        beta = slow.but(gamma=0.0)
    else:
        slow = SlowVAE(gamma=10, rate_prior=6, convention="official", **shared)
        beta = slow.but(gamma=0.0, beta=8.0)
    return {
        SLOW: slow,
        BETA: beta,
        "Ada-GVAE": AdaGVAE(beta=1, **shared),
        "beta-TC-VAE": BetaTCVAE(beta=6, **shared),
        # Nothing but the loss holds their scale, so their layers are normalised, as those of the multilayer network.
        **_paired({**plain, "network": plain["network"].but(normalise="batch")}),
    }


def _paired(shared: dict[str, Any]) -> dict[str, Paired]:
    """Rivals without a decoder."""
    return {
        PCL: PermutationContrastive(**shared),
        "slowness, squares": Slowness(power=2, **shared),
        "slowness, absolute": Slowness(power=1, **shared),
    }
