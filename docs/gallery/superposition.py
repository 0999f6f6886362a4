"""
Features in superposition, and the controls
===========================================

Thirty-two features in sixteen neurons, and images that show which are active. How alike are the images that excite a
direction most? Every basis beside what knows nothing of features: random directions, and the finder on neurons that
were shuffled apart.
"""

from unmix.finders.clusters import SphericalKMeans
from unmix.finders.dictionary import SparseCoding
from unmix.report.published import beside_published
from unmix.scores.similarity.pixels import Pixels
from unmix.study.interpretable import compare_bases, findings
from unmix.worlds.superposition import SuperpositionWorld

sample = SuperpositionWorld().sample(3000)
finders = [SparseCoding(width=32, penalty=0.05, passes=60), SphericalKMeans(width=32, centre=False)]
table = compare_bases(sample.h, sample.x, finders, Pixels())
print("\n".join(findings(table)))

# %%
# Angles are activations over the length of the row: how much of it lies along the direction.
shown = table[table["read"] != "projections"].assign(published=None)
names = shown["basis"].str.replace(r"\(.*?\)", "", regex=True)
shown["method"] = names + ", " + shown["read"]
figure = beside_published(shown, "Likeness of the most exciting images", "interpretability index")
