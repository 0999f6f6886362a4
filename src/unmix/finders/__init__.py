"""Finders: from the rows of a representation to Features (atoms, bias and an encoder)."""

from unmix.core.recipe import Table

FINDERS = Table(
    "finder",
    {
        "TopKSAE": "unmix.finders.topk_sae:TopKSAE",
        "SAE": "unmix.finders.sae:SAE",
        "SparseCoding": "unmix.finders.dictionary:SparseCoding",
        "PCA": "unmix.finders.linear:PCA",
        "FastICA": "unmix.finders.linear:FastICA",
        "NMF": "unmix.finders.linear:NMF",
        "KMeans": "unmix.finders.clusters:KMeans",
        "RandomAtoms": "unmix.finders.controls:RandomAtoms",
        "DataAtoms": "unmix.finders.controls:DataAtoms",
    },
)
