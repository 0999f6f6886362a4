"""Print the tables of docs/choosing-a-method.md: python docs/methods.py [FOLDER].

Finders on worlds whose truth is known, two seeds each: some minutes on one core. It goes on where it stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from unmix.encoders.iterative import Fista
from unmix.finders.clusters import SphericalKMeans
from unmix.finders.dictionary import SparseCoding
from unmix.finders.linear import PCA, FastICA
from unmix.finders.sae import SAE
from unmix.finders.topk_sae import TopKSAE
from unmix.study.study import Study
from unmix.worlds.sparse import SparseWorld

ACTIVE = 3
WORLDS = {
    "32, orthogonal": SparseWorld(latents=32, width=32, dictionary="orthogonal"),
    "64": SparseWorld(latents=64, width=32),
    "128": SparseWorld(latents=128, width=32),
    "64, noise .1": SparseWorld(latents=64, width=32, noise=0.1),
    "64, firing together": SparseWorld(latents=64, width=32, correlation=0.9, block=4),
    "64, coherent": SparseWorld(latents=64, width=32, dictionary="coherent"),
}
SCORES = {"mcc": "MCC of codes on held-out rows", "dictionary_mcc": "MCC of the dictionary"}


def study(world: SparseWorld) -> Study:
    """Every finder with the true number of atoms, or as many as it can have; its own encoder, and lasso."""
    n, most = world.latents, min(world.latents, world.width)
    made = [
        PCA(width=most),
        FastICA(width=most, tolerance=1e-3),
        SphericalKMeans(width=n),
        TopKSAE(width=n, k=ACTIVE, steps=2000),
        SAE(width=n, active=ACTIVE, steps=2000),
        SparseCoding(width=n, penalty=0.1, passes=30),
    ]
    sizes = {"samples": (8192,), "test": 4096, "seeds": (0, 1), "l0": ACTIVE}
    return Study(worlds=(world,), finders=tuple(made), encoders=(None, Fista()), scores=tuple(SCORES), **sizes)


def main(folder: Path) -> None:
    """Fit what is missing, and print a table for each score: means over seeds, chance in the last row."""
    found = []
    for number, (title, world) in enumerate(WORLDS.items()):
        rows = study(world).run(folder / str(number)).table()
        rows["method"] = rows["finder"] + rows["own"].map({True: "", False: ", lasso"})
        found.append(rows.assign(title=title))
    table = pd.concat(found)
    for score, told in SCORES.items():
        kept = table if score == "mcc" else table[table["own"]]
        grid = kept.pivot_table(index="method", columns="title", values=score, sort=False)[list(WORLDS)]
        grid.loc["chance"] = kept.groupby("title")[f"{score}_chance"].mean()
        print(f"{told}\n\n| | {' | '.join(grid.columns)} |\n|---|{'---|' * grid.shape[1]}")
        for method, row in grid.iterrows():
            print(f"| {method} | " + " | ".join("" if pd.isna(value) else f"{value:.2f}" for value in row) + " |")
        print()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "study-methods"))
