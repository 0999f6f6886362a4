"""
A classifier finds the latents
==============================

Latents on a sphere, classes around class vectors, a nonlinear mixing. Trained by cross-entropy alone, the network's
features become a linear function of the latents; the raw observations and the untrained network stand beside them.
"""

import pandas as pd

from unmix.learners.supervised import Supervised
from unmix.report.published import curves
from unmix.scores.identifiability.linear import r2
from unmix.worlds.cluster import ClusterWorld

world = ClusterWorld(latents=3, classes=40, concentration=10)
test = world.sample(4000, rng=9)
rows = []
for steps in (30, 100, 300, 1000):
    learner = Supervised(width=3, steps=steps, batch=512)
    learnt, untrained = learner.fit(world), learner.untrained(world)
    for group, h in (("trained", learnt(test.x)), ("untrained", untrained(test.x)), ("observations", test.x)):
        rows.append({"group": group, "x": steps, "y": r2(h, test.z).value})

# %%
figure = curves(pd.DataFrame(rows), "Latents from features by an affine map", ("training steps", "R2"), log=True)
