"""Print the numbers of docs/metrics.md: python docs/metrics.py (about a minute on one core)."""

from __future__ import annotations

import numpy as np

from unmix.core.factors import Factor
from unmix.core.seeds import Stream
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.scores.disentanglement.data import paired
from unmix.scores.disentanglement.infomec import infomec
from unmix.scores.disentanglement.typed import projections, symmetry_ceiling

LIBRARY = {"compat": "disentanglement_lib"}
SPRITES = (3, 6, 40, 32, 32)
READ = ("dci_es", "infomec_infoe", "explicitness", "typed_mcc", "dci_informativeness")
WAYS = ("bins", "neighbours")
SIZES = ((2, 2), (3, 3), (5, 5), (10, 10), (20, 20), (3, 5), (3, 10), (5, 10))


def chance() -> None:
    for factors, codes in SIZES:
        z = np.random.default_rng(0).random((5000, factors))
        pair = paired(np.random.default_rng(1).random((5000, codes)), z)
        values = projections(pair, Stream(0), draws=100)
        print(f"{factors} factors, {codes} codes: {values.mean():.2f} +- {values.std():.2f}")


def table(rng: np.random.Generator, n: int = 6000) -> None:
    z = rng.random((n, 5))
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    codes = {
        "identity": z,
        "warped": np.exp(3 * z),
        "rotated": (z - 0.5) @ turn,
        "doubled": np.concatenate([z, z], 1),
        "noise": np.concatenate([z, rng.standard_normal((n, 5))], 1),
        "unrelated": rng.standard_normal((n, 5)),
    }
    print("| score | " + " | ".join(codes) + " | chance |")
    for name, where in SCORES.entries.items():
        if ".disentanglement." in where:
            found = [SCORES[name]().measure(Inputs(codes=h, z=z)) for h in codes.values()]
            numbers = [round(value, 2) + 0.0 for value in (*(o.value for o in found), found[0].chance)]  # no -0.00
            print(f"| `{name}` | " + " | ".join(f"{number:.2f}" for number in numbers) + " |")


def sprites(rng: np.random.Generator, n: int = 10000) -> None:
    z = np.stack([rng.integers(0, size, n) for size in SPRITES], 1).astype(np.float32)
    kinds = ["categorical", *["ordinal"] * 4]
    factors = [Factor(f"z{j}", kind, size) for j, (kind, size) in enumerate(zip(kinds, SPRITES, strict=True))]
    dead = np.concatenate([z, np.zeros((n, 5), np.float32)], 1)
    noise = np.concatenate([z, rng.standard_normal((n, 5)).astype(np.float32)], 1)
    cases = [("mig", z), ("modularity", dead), ("modularity", noise), ("sap", z), ("factor_vae", dead), ("irs", z)]
    for name, h in cases:
        there, here = (SCORES[name](**way).measure(Inputs(codes=h, z=z, factors=factors)) for way in (LIBRARY, {}))
        print(f"{name}, {h.shape[1]} codes: library {there.value:.3f}, corrected {here.value:.3f}")
    few = rng.standard_normal((1000, 5))
    given = Inputs(codes=few, z=z[:1000], factors=factors)
    there, here = (SCORES["mig"](**way).measure(given).detail for way in (LIBRARY, {}))
    print("unrelated, 1000 rows, I/H:", (there["matrix"] / there["entropy"]).mean(0).round(3))
    print("unrelated, 1000 rows, adjusted:", here["matrix"].mean(0).round(3))


def categories(rng: np.random.Generator, n: int = 6000) -> None:
    """One code that holds the number of a category, and one code for each category, under linear read-outs."""
    z = rng.integers(0, 6, (n, 3))
    factors = [Factor(f"z{j}", "categorical", 6) for j in range(3)]
    for word, codes in (("numbers", z), ("indicators", np.concatenate([np.eye(6)[column] for column in z.T], 1))):
        found = [SCORES[name]().measure(Inputs(codes=codes, z=z, factors=factors)) for name in READ]
        print(f"{word}: " + ", ".join(f"{name} {o.value:.2f}" for name, o in zip(READ, found, strict=True)))


def gaussian(rng: np.random.Generator) -> None:
    """Information in nats of a Gaussian pair by both estimators, the factor cut in 20 bins of equal count."""
    for n in (900, 10000):
        for rho in (0.6, 0.9):
            z = rng.standard_normal((n, 1))
            h = rho * z + np.sqrt(1 - rho**2) * rng.standard_normal((n, 1))
            found = [infomec(h, z, "modularity", estimator=way).detail["matrix"][0, 0] for way in WAYS]
            said = ", ".join(f"{way} {np.log(20) * a:.3f}" for way, a in zip(WAYS, found, strict=True))
            print(f"{n} rows, rho {rho}: true {-np.log(1 - rho**2) / 2:.3f}, {said}")


def ceilings(rng: np.random.Generator, n: int = 60000) -> None:
    angle = rng.uniform(0, 2 * np.pi, n)
    for symmetries in ([4, 2, 1], [4, 3, 4, 4]):
        drawn = rng.choice(symmetries, n)
        both = [symmetry_ceiling(angle, 0, 2 * np.pi, drawn, rule) for rule in ("pearson", "spearman")]
        print(f"symmetries {symmetries}: Pearson {both[0]:.3f}, Spearman {both[1]:.3f}")


if __name__ == "__main__":
    chance()
    generator = np.random.default_rng(0)
    table(generator)
    sprites(generator)
    ceilings(generator)
    categories(generator)
    gaussian(generator)
