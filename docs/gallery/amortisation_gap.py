"""
The amortisation gap
====================

One autoencoder, and its dictionary read by other encoders: what its own encoder loses is the amortisation gap. Sparse
coding shows what a better dictionary adds, and the true dictionary what no finder can beat.
"""

import pandas as pd

from unmix import Fista, Omp, SparseCoding, SparseWorld, TopKSAE, mcc, replace
from unmix.report.published import beside_published

world = SparseWorld(latents=64, width=32, active=3)
train, test = world.sample(4096, rng=0), world.sample(2048, rng=1)
rows = []
for seed in range(3):
    sae = TopKSAE(width=64, k=3, steps=800).fit(train.x, seed)
    coding = SparseCoding(width=64, penalty=0.1, passes=30).fit(train.x, seed)
    solver = Fista(penalty=0.02)
    read = {
        "SAE": sae,
        "SAE's dictionary, OMP": replace(sae, encoder=Omp(k=3)),
        "SAE's dictionary, lasso": replace(sae, encoder=solver),
        "sparse coding, lasso": replace(coding, encoder=solver),
    }
    for method, features in read.items():
        found = mcc(features.encode(test.x), test.z, rng=seed)
        rows.append({"method": method, "seed": seed, "value": found.value, "published": None, "chance": found.chance})

# %%
# Dots are seeds, the bars are the scores of shuffled rows.
figure = beside_published(pd.DataFrame(rows), "Recovery of 64 latents from 32 dimensions", "MCC of codes")
