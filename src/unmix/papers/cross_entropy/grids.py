"""What is trained: the worlds and learners of every section, as parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unmix.learners.contrastive import AnisotropicInfoNCE, InfoNCE
from unmix.learners.selfsup import SpectralContrastive
from unmix.learners.supervised import InstanceDiscrimination, Supervised
from unmix.networks.mlp import MLP
from unmix.papers.parts import Part
from unmix.worlds.cluster import ClusterWorld
from unmix.worlds.mixing import InvertibleMLP
from unmix.worlds.pairs import PairWorld

TRAINED = "unmix.papers.cross_entropy.runs:trained"
CASES = {"C1": (True, True), "C2": (True, False), "C3": (False, True), "C4": (False, False)}
INSTANCES = 1000
LR = 1e-2  # large rates do better here than the usual 1e-3 with batch norm


def steps(full: int, training: float) -> int:
    """A share of the training steps, at least 2."""
    return max(2, round(full * training))


def part(world: Any, learner: Any, seed: int, test: int = 8192) -> Part:
    """The piece of work of a learner on a world."""
    settings = {"world": world.as_dict(), "learner": learner.as_dict(), "seed": seed, "test": test}
    return Part(TRAINED, settings)


def network(units: int = 64, activation: str = "gelu") -> MLP:
    """Four hidden layers of so many units."""
    return MLP(hidden=(units,) * 4, activation=activation)


def classifier(case: str, steps: int, instances: bool = False, **fields: Any) -> Supervised:
    """A classifier of case C1 to C4; `instances`: its labels are the numbers of the data."""
    features, weights = CASES[case]
    kind = InstanceDiscrimination if instances else Supervised
    given = {"network": network(), "lr": LR, **fields}
    return kind(unit_features=features, unit_weights=weights, steps=steps, **given)


def theorem(seeds: Sequence[int], small: bool, training: float) -> list[Part]:
    """Section 1: every case with classes and with instances, at 5 latents, 100 classes, concentration 10."""
    count = steps(2000 if small else 10_000, training)
    found = []
    for seed in seeds:
        world = ClusterWorld(seed=seed)
        found += [part(world, classifier(case, count), seed) for case in CASES]
        for case in ("C4",) if small else ("C1", "C3", "C4"):
            found.append(part(world.but(instances=INSTANCES), classifier(case, count, True), seed))
    return found


@dataclass(frozen=True, eq=False)
class Row:
    """A line of the paper's tables: what differs from (N, d, C, k) = (1e3, 5, 100, 10), and R2 of z as printed.

    labels: classes (its Table 3) or instances (Table 2 and 5). published: case -> R2. hard: tried in more cases.
    heavy: so many labels that one seed and a quarter of the held-out rows have to do; classes with a fifth of the
    steps, instances with a softmax over the batch and twice the steps, as each is seen rarely.
    """

    name: str
    labels: str
    published: dict[str, float]
    world: dict[str, Any]
    hard: bool = False
    heavy: bool = False

    @property
    def key(self) -> str:
        """Labels and name."""
        return f"{self.labels}: {self.name}"

    @property
    def batchwise(self) -> bool:
        """Whether the softmax is over the batch."""
        return self.heavy and self.labels == "instances"

    @property
    def length(self) -> float:
        """Steps, as a share of those of other lines: beyond 10 latents the loss falls for long."""
        return 2.0 if self.batchwise else 0.2 if self.heavy else 4.0 if self.world.get("latents", 5) > 10 else 1.0


def _instances(name: str, c3: float, c4: float, hard: bool = False, heavy: bool = False, **world: Any) -> Row:
    return Row(name, "instances", {"C3": c3, "C4": c4}, world, hard, heavy)


def _classes(name: str, c4: float, hard: bool = False, heavy: bool = False, **world: Any) -> Row:
    return Row(name, "classes", {"C4": c4}, world, hard, heavy)


NORMAL: dict[str, Any] = {"conditional": "projected-normal", "concentration": 1.0}
LAPLACE: dict[str, Any] = {"conditional": "projected-laplace", "concentration": 1.0}
ROWS = (
    _instances("N = 1000, d = 5, C = 100, k = 10", 0.986, 0.990),
    _instances("N = 100,000", 0.982, 0.997, heavy=True, instances=100_000),
    _instances("d = 10", 0.925, 0.930, latents=10),
    _instances("d = 20", 0.708, 0.819, True, latents=20),
    _instances("C = 10", 0.886, 0.900, classes=10),
    _instances("C = 1000", 0.993, 0.992, classes=1000),
    _instances("k = 5", 0.986, 0.990, concentration=5.0),
    _instances("k = 50", 0.450, 0.725, True, concentration=50.0),
    _instances("Laplace conditional, b = 1", 0.852, 0.854, **LAPLACE),
    _instances("normal conditional, s = 1", 0.987, 0.986, **NORMAL),
    _instances("class vectors Laplace", 0.987, 0.991, vectors="laplace"),
    _instances("class vectors normal", 0.982, 0.992, vectors="clustered"),
    _classes("d = 5, C = 100, k = 10", 0.998),
    _classes("d = 10", 0.972, latents=10),
    _classes("d = 20", 0.821, True, latents=20),
    _classes("C = 10", 0.975, classes=10),
    _classes("C = 1000", 0.998, classes=1000),
    _classes("C = 10,000", 0.998, heavy=True, classes=10_000),
    _classes("k = 5", 0.997, concentration=5.0),
    _classes("k = 50", 0.655, True, concentration=50.0),
    _classes("Laplace conditional, b = 1", 0.854, **LAPLACE),
    _classes("normal conditional, s = 1", 0.996, **NORMAL),
)
SMALL_ROWS = tuple(
    f"classes: {name}" for name in ("d = 5, C = 100, k = 10", "d = 10", "d = 20", "C = 10", "C = 1000", "k = 50")
)
# Of the tables: units for up to 5 latents, twice as many up to 10 and four times beyond; steps, full and small.
UNITS, STEPS, FEW = 64, 4000, 2500
# Orthogonalised steps reach in 1000 steps at d = 10 what Adam reaches in 2500.
OPTIMISER = {"optimiser": "muon", "lr": 0.02, "head_rate": 2.5}
PUBLISHED_MIXING = InvertibleMLP(layers=4, draws=25_000)


def row_world(row: Row, seed: int, mixing: InvertibleMLP = PUBLISHED_MIXING) -> ClusterWorld:
    """The world of a line of the tables; the seed draws its mixing and class vectors as well."""
    fields = dict(row.world)
    if row.labels == "instances":
        fields.setdefault("instances", INSTANCES)
    return ClusterWorld(**fields, mixing=mixing, seed=seed)


def row_parts(row: Row, cases: Sequence[str], seed: int, count: int) -> list[Part]:
    """A line of the tables in its cases."""
    world = row_world(row, seed)
    # The density of a projected law is an integral for every row and class.
    test = 2048 if row.heavy or str(world.conditional).startswith("projected") else 8192
    units = UNITS * (1 if world.latents <= 5 else 2 if world.latents <= 10 else 4)
    fields = {"width": world.latents, "network": network(units, "leaky"), **OPTIMISER}
    if row.batchwise:
        fields["among"] = "batch"
    made = [classifier(case, count, row.labels == "instances", **fields) for case in cases]
    return [part(world, learner, seed, test) for learner in made]


def published(seeds: Sequence[int], small: bool, training: float) -> list[tuple[Row, Part]]:
    """Section 2: lines of the paper's tables as they are; a few of them, with one seed, in the small study."""
    found = []
    for row in ROWS:
        if not small or row.key in SMALL_ROWS:
            count = steps(FEW if small else round(STEPS * row.length), training)
            for seed in seeds[:1] if small or row.heavy else seeds:
                found += [(row, made) for made in row_parts(row, list(row.published), seed, count)]
    return found


def improved(seeds: Sequence[int], small: bool, training: float) -> list[tuple[Row, Part]]:
    """The hard lines again with weights, or both weights and features, on the sphere: C3 and C1."""
    found = []
    for row in ROWS:
        count = steps(FEW if small else round(STEPS * row.length), training)
        if row.hard and row.labels == "classes" and (not small or row.key in SMALL_ROWS):
            for seed in seeds[:1] if small else seeds:
                found += [(row, made) for made in row_parts(row, ("C3", "C1"), seed, count)]
    return found


def violations(small: bool, training: float) -> list[tuple[str, Part]]:
    """Section 3: worlds and losses outside the theorem, each beside what the theorem asks."""
    count = steps(2000 if small else 10_000, training)
    plain, flat = ClusterWorld(), ClusterWorld(vectors="subspace")
    zipf, noisy = ClusterWorld(balance="zipf"), ClusterWorld(label_noise=0.8)
    laplace = ClusterWorld(conditional="laplace")
    found = [
        ("class vectors in a subspace", part(flat, classifier("C4", count), 0)),
        ("Zipf classes, no bias", part(zipf, classifier("C4", count), 0)),
        ("Zipf classes, bias", part(zipf, classifier("C4", count, bias=True), 0)),
        ("label smoothing 0.8, C3", part(plain, classifier("C3", count, smoothing=0.8), 0)),
        ("Laplace conditional", part(laplace, classifier("C4", count), 0)),
    ]
    if not small:
        found += [
            ("5 classes for 5 latents", part(plain.but(classes=5), classifier("C4", count), 0)),
            ("10 classes", part(plain.but(classes=10), classifier("C4", count), 0)),
            ("label noise 0.8", part(noisy, classifier("C4", count), 0)),
        ]
    return found


def objectives(seeds: Sequence[int], small: bool, training: float) -> list[tuple[str, Part]]:
    """Section 4: contrastive objectives on pairs, each on the world that it is made for."""
    count = steps(2000 if small else 10_000, training)
    found = []
    for seed in seeds[:1] if small else seeds:
        sphere, box = PairWorld(seed=seed), PairWorld(space="box", conditional="laplace", seed=seed)
        uneven = PairWorld(conditional="anisotropic", anisotropy=8, seed=seed)
        common = {"steps": count, "lr": 3e-3, "network": network()}
        in_time = {"pairs": "time", "projection": None, "batch": 1024, "schedule": "cosine", "weight_decay": 0.0}
        found += [
            ("sphere, von Mises-Fisher", part(sphere, InfoNCE(**common), seed)),
            ("sphere, von Mises-Fisher", part(sphere, SpectralContrastive(width=6, **common, **in_time), seed)),
            ("sphere, anisotropic", part(uneven, InfoNCE(**common), seed)),
            ("sphere, anisotropic", part(uneven, AnisotropicInfoNCE(**common), seed)),
            ("box, Laplace", part(box, InfoNCE(similarity="normal", **common), seed)),
            ("box, Laplace", part(box, InfoNCE(similarity="laplace", **common), seed)),
        ]
    return found
