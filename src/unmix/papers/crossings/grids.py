"""What is crossed with what: worlds, learners, starts, finders, encoders, scores; and why a crossing is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmix.activations.data import Data
from unmix.activations.transforms import Center, Scale
from unmix.encoders.amortised import Linear, TopK
from unmix.encoders.greedy import Omp
from unmix.encoders.iterative import Fista
from unmix.finders.clusters import KMeans
from unmix.finders.dictionary import SparseCoding
from unmix.finders.linear import PCA, FastICA
from unmix.finders.topk_sae import TopKSAE
from unmix.learners.diet import Diet
from unmix.learners.slow import SlowVAE
from unmix.learners.supervised import Supervised
from unmix.learners.vae import BetaVAE
from unmix.networks.mlp import MLP
from unmix.regimes import INITIALISATIONS
from unmix.scores import SCORES
from unmix.worlds.cluster import ClusterWorld
from unmix.worlds.images import Images
from unmix.worlds.labelled import Labelled
from unmix.worlds.motion import TransitionWorld
from unmix.worlds.sparse import SparseWorld
from unmix.worlds.sprites import SpritesWorld

WORLDS = ("sparse", "clusters", "motion", "sprites", "digits", "activations", "recordings")
GIVEN = ("activations", "recordings")  # worlds that need a path
LEARNERS = ("Supervised", "Diet", "SlowVAE", "BetaVAE")
STARTS = ("Balanced", "Upstream", "Downstream")
FINDERS = ("PCA", "FastICA", "KMeans", "TopKSAE", "SparseCoding")
DICTIONARIES = ("KMeans", "TopKSAE", "SparseCoding")  # whose atoms every encoder reads
ENCODERS = ("Linear", "TopK", "Omp", "Fista")
SPARSE = ("Omp", "Fista")  # inference that solves for the codes
RAW, UNTRAINED, COLUMNS = "x", "untrained", "columns"
TRUTH = ("mcc", "r2", "dci_disentanglement", "dictionary_mcc")
LABEL_FREE = ("fvu", "l0", "hoyer", "dead", "stability", "rankme")
ALPHA = 5.0
SHAPES = ("square", "ellipse", "heart")


@dataclass(frozen=True)
class Place:
    """A world with the sizes that belong to it.

    width: columns of a learned representation. atoms: of dictionaries. active: codes in a row. likelihood: of
    variational learners.
    """

    world: Any
    width: int
    atoms: int
    active: int
    likelihood: str = "gaussian"


def place(name: str, seed: int, paths: dict[str, str | None]) -> Place:
    """The world of a name; those of `GIVEN` by their path. Raises `UsageError` for a path without rows."""
    if name == "sparse":
        return Place(SparseWorld(latents=32, width=16, active=2, noise=0.02, seed=seed), 32, 32, 2)
    if name == "clusters":
        return Place(ClusterWorld(latents=4, classes=50, instances=500, width=16, seed=seed), 4, 8, 3)
    if name == "motion":
        law = {"kind": "Laplace", "rate": 2.0}
        return Place(TransitionWorld(latents=4, mixing="mlp", width=8, transition=law, seed=seed), 4, 8, 3)
    if name == "sprites":
        free, law = ("shape", "scale", "x", "y"), {"kind": "LaplaceGrid", "rate": 3.0}
        sprites = SpritesWorld(shapes=SHAPES, free=free, pixels=16, anti_alias=2, transition=law)
        return Place(Labelled(world=sprites, factor="shape"), 4, 8, 2, "bernoulli")
    if name == "digits":
        return Place(Images(path="digits"), 16, 64, 4, "bernoulli")
    path = str(Path(str(paths[name])).resolve()) if Path(str(paths[name])).exists() else str(paths[name])
    data = Data(path=path, transforms=(Center(), Scale()))
    d = data.open().shape[1]
    return Place(data, min(16, d), min(4 * d, 512), 8)


def learner(name: str, start: str, at: Place, training: float) -> Any:
    """A learner that starts as said, on a network of two hidden layers that any start can rescale."""
    steps = max(1, round(1000 * training))
    network = MLP(hidden=(64, 64), activation="relu", normalise="none")
    # Balanced for every start: then they differ in the share of scale alone, and not in its spread over the units.
    options = {} if start == "Balanced" else {"alpha": ALPHA}
    shared: dict[str, Any] = {"network": network, "width": at.width, "steps": steps, "batch": 256}
    shared["init"] = INITIALISATIONS[start](**options)
    variational = {**shared, "likelihood": at.likelihood}
    if name == "Supervised":
        return Supervised(**shared)
    if name == "Diet":
        return Diet(**shared, smoothing=0.0, weight_decay=0.0, augment=None)
    if name == "SlowVAE":
        return SlowVAE(**variational, gamma=2.0, rate_prior=3.0, beta=0.5)
    return BetaVAE(**variational, beta=0.25)


def finder(name: str, at: Place, d: int, training: float) -> Any:
    """A finder for a representation of d columns."""
    few = min(d, at.atoms)
    steps, passes = max(1, round(800 * training)), max(1, round(8 * training))
    if name == "PCA":
        return PCA(width=few)
    if name == "FastICA":
        return FastICA(width=few, tolerance=1e-3, max_iterations=300)
    if name == "KMeans":
        return KMeans(width=at.atoms, starts=1)
    if name == "TopKSAE":
        return TopKSAE(width=at.atoms, k=at.active, steps=steps, batch=256)
    return SparseCoding(width=at.atoms, active=float(at.active), passes=passes)


def encoder(name: str, at: Place) -> Any:
    """An encoder of any dictionary; amortised ones are fitted on rows. Fista's penalty is set for the sparsity."""
    return {"Linear": Linear(), "TopK": TopK(k=at.active), "Omp": Omp(k=at.active), "Fista": Fista()}[name]


def refused(at: Place, method: str, training: float) -> str | None:
    """Why a learner cannot learn from a world, as a sentence, or None; a batch is drawn to see."""
    small = learner(method, "Balanced", at, training)
    return small.but(batch=min(64, at.world.size or 64)).refusal(at.world)


def scores_of(at: Place, learned: bool) -> dict[str, str | None]:
    """Score -> why it cannot be measured on codes of this world, or None."""
    gives = {"codes", "atoms", "others", "h", "reconstruction"}
    gives |= {"z"} & set(at.world.provides)
    gives |= {"truth"} if "atoms" in at.world.provides and not learned else set()
    found: dict[str, str | None] = {}
    for name in (*TRUTH, *LABEL_FREE):
        missing = sorted(SCORES[name].needs - gives)
        found[name] = None
        if missing == ["truth"] and "atoms" in at.world.provides:
            found[name] = "true atoms are directions of x, and a learned representation has others"
        elif missing:
            found[name] = f"{at.world.kind} does not know {', '.join(missing)}"
    return found
