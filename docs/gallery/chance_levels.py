"""
Chance levels of a dictionary's score
=====================================

Two unrelated dictionaries match better the more atoms they have and the fewer dimensions: a matched cosine of .8
means nothing at 128 atoms in 8 dimensions, and much at 128 atoms in 64.
"""

import pandas as pd

from unmix.report.published import curves
from unmix.scores.matching import dictionary_chance

rows = [
    {"group": f"{width} dimensions", "x": atoms, "y": dictionary_chance(atoms, atoms, width, rng=draw, draws=1)}
    for width in (8, 16, 32, 64)
    for atoms in (16, 32, 64, 128, 256)
    for draw in range(3)
]

# %%
figure = curves(pd.DataFrame(rows), "Two random dictionaries", ("atoms in each", "mean matched |cosine|"), log=True)
