"""Similarities of images: what the scores of interpretability compare exciting images with."""

from unmix.core.recipe import Table

SIMILARITIES = Table(
    "similarity",
    {
        "OrientedEnergy": "unmix.scores.similarity.energy:OrientedEnergy",
        "ColourHistogram": "unmix.scores.similarity.colour:ColourHistogram",
        "MeanColour": "unmix.scores.similarity.colour:MeanColour",
        "Brightness": "unmix.scores.similarity.colour:Brightness",
        "Pixels": "unmix.scores.similarity.pixels:Pixels",
        "Structural": "unmix.scores.similarity.pixels:Structural",
        "Embedding": "unmix.scores.similarity.learnt:Embedding",
        "Network": "unmix.scores.similarity.learnt:Network",
    },
    "unmix.scores.similarity.base:Similarity",
)
