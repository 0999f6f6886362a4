"""
Which code is which factor
==========================

The association of codes with factors under three representations of the same factors: PCA of a mixture, ICA of its
differences in time (transitions are sparse, so that it works), and the factors turned by a rotation, which keeps all
there is to know and says nothing about axes.
"""

import numpy as np
from sklearn.decomposition import PCA, FastICA

from unmix.report.association import association
from unmix.scores.disentanglement.typed import typed_mcc
from unmix.worlds.motion import TransitionWorld

world = TransitionWorld(latents=4, transition={"kind": "Laplace", "rate": 2.0})
sample = world.sample(8000, rng=0)
x, z = sample.x.numpy(), sample.z.numpy()
changes = x[1::2] - x[::2]  # rows 2k and 2k + 1 are a pair
ica = FastICA(whiten="unit-variance", random_state=0, max_iter=1000).fit(changes)
turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
codes = {
    "PCA": PCA(4).fit_transform(x),
    "ICA of differences": x @ ica.components_.T,
    "rotated factors": z @ turn,
}

# %%
# From left to right: PCA, ICA of differences, rotated factors. Chance is what random rotations of the factors score.
outcomes = {name: typed_mcc(h, z) for name, h in codes.items()}
pca, differences, rotated = [association(found.detail) for found in outcomes.values()]
for name, found in outcomes.items():
    print(f"{name}: {found}")
