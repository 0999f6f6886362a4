"""Which worlds a promise is tried on: as the matched world assumes, and otherwise."""

from __future__ import annotations

from typing import Any

from unmix.finders.dictionary import SparseCoding
from unmix.finders.topk_sae import TopKSAE
from unmix.learners.diet import Diet
from unmix.learners.slow import SlowVAE
from unmix.learners.supervised import Supervised
from unmix.networks.mlp import MLP
from unmix.worlds.cluster import ClusterWorld
from unmix.worlds.motion import TransitionWorld
from unmix.worlds.sparse import SparseWorld
from unmix.worlds.synth import SynthSAEBench

LATENTS, WIDTH, ACTIVE = 64, 32, 3
ASSUMED = "as assumed"  # what every matched world assumes: latents that fire independently, atoms at random


def sparse_worlds(seed: int) -> dict[str, Any]:
    """Name -> world of sparse sums, all but the first different from every matched world in one respect."""
    rate = ACTIVE / LATENTS
    base = SparseWorld(latents=LATENTS, width=WIDTH, active=ACTIVE, rates=rate, noise=0.05, seed=seed)
    counted = base.but(rates=None)
    trees = counted.but(roots=16, branching=3, depth=1)
    synth = SynthSAEBench(
        latents=128, width=WIDTH, most=0.12, least=0.005, rank=8, roots=16, branching=3, depth=2, seed=seed
    )
    return {
        ASSUMED: base,
        "a fixed number fires": counted,
        "equal amplitudes": base.but(amplitudes="one"),
        "heavy amplitudes": base.but(amplitudes="exponential"),
        "Zipf rates": base.but(zipf=1.0),
        "more noise": base.but(noise=0.2),
        "fire together": counted.but(correlation=0.9, block=4),
        "trees": trees,
        "exclusive trees, like atoms": trees.but(exclusive=True, dictionary="hierarchical", similarity=0.6),
        "coherent atoms": base.but(dictionary="coherent", coherence=0.9),
        "after SynthSAEBench": synth,
        "twice as many fire": base.but(rates=2 * rate),
        "hardly sparse": base.but(rates=8 * rate),
    }


def finders(width: int, training: float) -> dict[str, Any]:
    """Name -> finder with `width` atoms."""
    steps, passes = max(1, round(1500 * training)), max(1, round(15 * training))
    return {
        "TopKSAE": TopKSAE(width=width, k=ACTIVE, steps=steps, batch=256),
        "SparseCoding": SparseCoding(width=width, active=float(ACTIVE), passes=passes),
    }


def labelled_worlds(seed: int) -> dict[str, Any]:
    """Name -> world of classes, for what a classifier learns."""
    base = ClusterWorld(latents=4, classes=50, width=16, seed=seed)
    return {
        ASSUMED: base,
        "classes bunched together": base.but(vectors="clustered"),
        "classes in a plane fewer": base.but(vectors="subspace"),
        "few classes": base.but(classes=6),
        "Zipf classes": base.but(balance="zipf"),
        "Laplace scatter": base.but(conditional="laplace"),
        "wide scatter": base.but(concentration=3.0),
        "noisy labels": base.but(label_noise=0.3),
    }


def numbered_worlds(seed: int) -> dict[str, Any]:
    """Name -> world of data with numbers, for what DIET learns."""
    labelled = labelled_worlds(seed)
    names = (ASSUMED, "classes in a plane fewer", "wide scatter")
    return {name: labelled[name].but(instances=500) for name in names}


def moving_worlds(seed: int) -> dict[str, Any]:
    """Name -> world of latents that move, for what SlowVAE learns."""
    base = TransitionWorld(latents=4, mixing="mlp", width=8, transition={"kind": "Laplace", "rate": 2.0}, seed=seed)
    return {
        ASSUMED: base,
        "linear mixing": base.but(mixing="linear"),
        "half of them stay": base.but(transition={"kind": "ZeroInflated", "move": 0.5, "rate": 1.0}),
        "Gaussian steps": base.but(transition={"kind": "Gaussian", "scale": 0.7}),
        "uniform steps": base.but(transition={"kind": "Uniform", "width": 2.4}),
        "noise on x": base.but(noise=0.3),
    }


def classifier(training: float) -> Supervised:
    """The learner of labels: case C3 of the theory has it wider than the latents."""
    steps = max(1, round(1000 * training))
    return Supervised(width=8, steps=steps, batch=512, network=MLP(hidden=(64, 64)), unit_weights=True)


def discriminator(training: float) -> Diet:
    """The learner of numbers; a fresh latent of the same datum is its view."""
    steps, plain = max(1, round(1000 * training)), MLP(hidden=(64, 64))
    shared = {"steps": steps, "batch": 512, "network": plain, "augment": None, "lr": 2e-3}
    return Diet(width=8, smoothing=0.0, weight_decay=0.0, **shared)


def slow(training: float) -> SlowVAE:
    """The learner of motion."""
    steps = max(1, round(1500 * training))
    return SlowVAE(width=4, steps=steps, batch=256, gamma=5.0, rate_prior=2.0)
