"""Finders: from the rows of a representation to Features (atoms, bias and an encoder)."""

from unmix.core.recipe import Table

FINDERS = Table(
    "finder",
    {
        "TopKSAE": "unmix.finders.topk_sae:TopKSAE",
        "BatchTopKSAE": "unmix.finders.thresholds:BatchTopKSAE",
        "JumpReLUSAE": "unmix.finders.thresholds:JumpReLUSAE",
        "SAE": "unmix.finders.sae:SAE",
        "SparseCoding": "unmix.finders.dictionary:SparseCoding",
        "PCA": "unmix.finders.linear:PCA",
        "FastICA": "unmix.finders.linear:FastICA",
        "NMF": "unmix.finders.linear:NMF",
        "MiniBatchDictionary": "unmix.finders.linear:MiniBatchDictionary",
        "JointCoding": "unmix.finders.joint:JointCoding",
        "KMeans": "unmix.finders.clusters:KMeans",
        "SphericalKMeans": "unmix.finders.clusters:SphericalKMeans",
        "Archetypes": "unmix.finders.archetypes:Archetypes",
        "RandomAtoms": "unmix.finders.controls:RandomAtoms",
        "DataAtoms": "unmix.finders.controls:DataAtoms",
        "UntrainedSAE": "unmix.finders.controls:UntrainedSAE",
        "FrozenDecoder": "unmix.finders.controls:FrozenDecoder",
    },
    "unmix.finders.base:Finder",
)
