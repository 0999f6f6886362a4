"""Matched worlds of learners: worlds whose truth is known, made to look like the data that a learner learned from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.learners.base import count_of
from unmix.learners.loop import moved
from unmix.learners.representation import Representation
from unmix.networks.mlp import MLP
from unmix.study.udr import informative_codes
from unmix.worlds.cluster import ClusterWorld, bayes_loss
from unmix.worlds.increments import GeneralisedLaplace
from unmix.worlds.motion import TransitionWorld
from unmix.worlds.tracks import fit_transitions

ROWS = 4096
SHARE = 0.99  # of the variance of a representation: as many directions as carry it count as latents
WIDEST = 64  # dimensions of the matched observations at most: the latents are few
CONCENTRATIONS = (0.3, 1000.0)
SHAPES = (0.3, 4.0)
NEIGHBOURS = 10
QUIET = 0.002  # less noise than this is none
SURE = 0.995  # a label that is told as often as this says nothing of how latents scatter
CLASSIFIERS = ("Supervised", "InstanceDiscrimination", "Diet")
PLAIN = "a world to match would have to be one that the learner is known to invert, and for {} there is no theorem"
REFUSED = {
    "BetaVAE": PLAIN.format("variational autoencoders of single rows"),
    "BetaTCVAE": PLAIN.format("variational autoencoders of single rows"),
    "BarlowTwins": PLAIN.format("decorrelated views"),
    "Regression": "it learns what it is given as targets; held-out targets say how well",
}
MIXED = "a mixing drawn at random, which nothing in the data tells: R2 of raw observations there is not the data's"
VIEWS = (
    "its theorem is about the law of two views of one latent; the data have augmentations for it, "
    "and no latents whose law could be measured"
)


@dataclass(frozen=True)
class Matched:
    """world, learner: what to train where the truth is known. told: a sentence for each thing the match rests on."""

    world: Any
    learner: Any
    told: tuple[str, ...]


def match(world: Any, learner: Any, learnt: Representation, seed: int = 0) -> Matched:
    """The matched world of what a learner learned from a world, whose latents are not looked at.

    Classifiers (of labels or of the number of each datum) get a `ClusterWorld` with as many classes and data, as
    many latents as the representation has directions, and labels as predictable as they were; learners of
    neighbouring frames a `TransitionWorld` whose latents move by the law that the codes moved by, with the noise that
    the codes do not explain. Another network than an MLP is replaced by one, since matched observations are vectors.
    Raises `UsageError`, with the reason, where no matched world is justified.
    """
    if (reason := REFUSED.get(learner.kind)) is not None:
        raise UsageError(f"{learner.kind}: no matched world: {reason}")
    made: Any
    if learner.kind in CLASSIFIERS:
        made, told = _classes(world, learner, learnt, seed)
    elif learner.needs >= {"group", "time"} and "time" in world.provides:
        made, told = _motion(world, learner, learnt, seed)
    else:
        raise UsageError(f"{learner.kind}: no matched world: {VIEWS}")
    plain, more = _plain(learner)
    return Matched(made, plain, (*told, *more))


def known(world: Any) -> str | None:
    """Why a world needs no matched one: its truth is known; None for data."""
    if "z" not in world.provides:
        return None
    return f"the truth of {world.kind} is known, so that the run's own scores say what was recovered"


def _plain(learner: Any) -> tuple[Any, tuple[str, ...]]:
    """The learner for rows that are vectors, and what was changed."""
    changes: dict[str, Any] = {}
    told = []
    if learner.network.kind != "MLP":
        changes["network"] = MLP()
        told.append(f"{learner.network.kind} is replaced by an MLP, for matched observations are vectors")
    if getattr(learner, "augment", None) is not None:
        changes["augment"] = None
        told.append("a fresh latent of the same class stands for an augmented view")
    if getattr(learner, "decoder", None) is not None:
        changes["decoder"] = None
    if getattr(learner, "likelihood", "gaussian") != "gaussian":
        changes["likelihood"] = "gaussian"
    if getattr(learner, "online", False):
        changes["online"] = False
    if getattr(learner, "classes", None) is not None:
        changes["classes"] = None
    return (learner.but(**changes) if changes else learner), tuple(told)


def _classes(world: Any, learner: Any, learnt: Representation, seed: int) -> tuple[ClusterWorld, tuple[str, ...]]:
    field = learner.label
    count = count_of(world, field, learner.classes, learner.kind)
    sample = _rows(world, seed, held=field == "y")
    h = learnt(sample.x)
    latents = max(2, _directions(h))
    if count <= latents:
        raise UsageError(
            f"{learner.kind}: no matched world: {count} classes cannot tell {latents} latents apart, "
            "the theorem needs more classes than latents"
        )
    accuracy = _accuracy(learnt, h, getattr(sample, field))
    if accuracy > SURE:
        raise UsageError(
            f"{learner.kind}: no matched world: {accuracy:.1%} of the labels are told, which leaves open how far "
            "latents scatter around their classes"
        )
    width = _width(sample.x, latents)
    instances = count if field == "index" else None
    base = ClusterWorld(latents=latents, classes=count, instances=instances, width=width, seed=seed)
    made = base.but(concentration=_concentration(base, accuracy))
    told = (
        f"{latents} latents: so many directions carry {SHARE:.0%} of the variance of the representation",
        f"concentration {made.concentration:.3g}: {_reached(made.concentration)}, {accuracy:.1%}",
        f"{count} {'data' if instances else 'classes'}, uniform class vectors, {width} observed dimensions",
        MIXED,
    )
    return made, told


def _accuracy(learnt: Representation, h: Tensor, labels: Tensor) -> float:
    """Share of the labels that the learner's own head tells."""
    head = learnt.parts
    scores = h @ head["weights"].T * float(head["beta"])
    scores = scores + head["bias"] if "bias" in head else scores
    return float((scores.argmax(1) == labels).double().mean())


def _reached(concentration: float) -> str:
    """What the found concentration means; at a bound of its search it is no estimate."""
    if concentration > 0.99 * CONCENTRATIONS[1]:
        return "the bound of its search, where the best possible classifier is still right less often than this one"
    if concentration < 1.01 * CONCENTRATIONS[0]:
        return "the bound of its search, where the best possible classifier is already right more often than this one"
    return "the best possible classifier is right as often as this one"


def _concentration(world: ClusterWorld, accuracy: float) -> float:
    """The concentration at which the best classifier of z is right as often as `accuracy`."""
    low, high = (math.log(bound) for bound in CONCENTRATIONS)
    for _ in range(12):
        middle = (low + high) / 2
        right = bayes_loss(world.but(concentration=math.exp(middle)), 2000).accuracy
        low, high = (middle, high) if right < accuracy else (low, middle)
    return float(f"{math.exp((low + high) / 2):.3g}")


def _motion(world: Any, learner: Any, learnt: Representation, seed: int) -> tuple[TransitionWorld, tuple[str, ...]]:
    sample = _rows(world, seed, held=True)
    h = learnt(sample.x)
    if hasattr(learner, "likelihood"):
        h = h[:, informative_codes(learnt, sample.x)]
    h = h[:, h.std(0) > 1e-6 * h.std(0).amax()]
    if not h.shape[1]:
        raise UsageError(f"{learner.kind}: no matched world: no code says anything of the data")
    next_to = (sample.group[1:] == sample.group[:-1]).numpy()
    scaled = ((h - h.mean(0)) / h.std(0)).double().numpy()
    fits = fit_transitions((scaled[1:] - scaled[:-1])[next_to])
    found = float(np.median([fit.alpha for fit in fits]))
    alpha = min(max(found, SHAPES[0]), SHAPES[1])
    beyond = "" if alpha == found else f" would with a shape of {found:.2g}, which is beyond what is taken here"
    rate = float(1 / np.median([fit.scale for fit in fits]))
    latents = h.shape[1]
    width = _width(sample.x, latents)
    law = GeneralisedLaplace(shape=float(f"{alpha:.3g}"), rate=float(f"{rate:.3g}"))
    made = TransitionWorld(latents=latents, transition=law, mixing="mlp", width=width, seed=seed)
    left = _noise(scaled, sample.x.flatten(1).double().numpy())
    if left > QUIET:
        size = float(made.sample(2000, Stream(seed).child("size")).x.std(0, correction=0).square().mean())
        made = made.but(noise=float(f"{math.sqrt(size * left / (1 - left)):.3g}"))
    kind = "sparse" if alpha < 1.5 else "close to Gaussian, which leaves rotations open" if alpha < 2.5 else "bounded"
    told = (
        f"{latents} latents: so many codes say something of the data",
        f"they move by a generalised Laplace law of shape {alpha:.2f} ({kind}), rate {rate:.2g}, as the codes do"
        f"{beyond}",
        f"noise: {left:.1%} of the variance of the observations, what rows with nearly the same codes differ by",
        MIXED,
    )
    return made, told


def _noise(codes: np.ndarray, x: np.ndarray) -> float:
    """Share of the variance of x [n, D] that no smooth function of codes [n, d] explains, in [0, .95].

    Half the squared distance of two neighbours' x, as a line over the squared distance of their codes, at zero: the
    Gamma test. Source: Stefansson, Koncar, Jones 1997.
    """
    from scipy.spatial import cKDTree

    distance, near = cKDTree(codes).query(codes, NEIGHBOURS + 1)
    apart = distance[:, 1:] ** 2
    half = np.stack([((x - x[near[:, k]]) ** 2).sum(1) / 2 for k in range(1, NEIGHBOURS + 1)], 1)
    _, at_zero = np.polyfit(apart.mean(0), half.mean(0), 1)
    whole = float(x.var(0).sum())
    return float(np.clip(at_zero / max(whole, 1e-300), 0, 0.95))


def _directions(h: Tensor) -> int:
    """As many principal directions as carry most of the variance."""
    values = torch.linalg.eigvalsh(torch.cov(h.double().T).reshape(h.shape[1], h.shape[1])).flip(0).clamp_min(0)
    reach = values.cumsum(0) / values.sum().clamp_min(1e-300)
    return min(int((reach < SHARE).sum()) + 1, h.shape[1])


def _width(x: Tensor, latents: int) -> int:
    return max(latents, min(WIDEST, math.prod(x.shape[1:])))


def _rows(world: Any, seed: int, held: bool) -> Sample:
    source = world.held_out if held else world
    n = ROWS if source.size is None else min(ROWS, source.size)
    n -= n % int(getattr(source, "length", 1) or 1)
    return moved(source.sample(n, Stream(seed).child("match")), "cpu")
