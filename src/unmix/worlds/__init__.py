"""Worlds: where observations come from; synthetic ones know the truth, data does not."""

from unmix.core.recipe import Table

WORLDS = Table(
    "world",
    {
        "SparseWorld": "unmix.worlds.sparse:SparseWorld",
        "SynthSAEBench": "unmix.worlds.synth:SynthSAEBench",
        "MatchedWorld": "unmix.worlds.matched:MatchedWorld",
        "SpritesWorld": "unmix.worlds.sprites:SpritesWorld",
        "TransitionWorld": "unmix.worlds.motion:TransitionWorld",
        "TeacherStudent": "unmix.worlds.teacher:TeacherStudent",
        "Parity": "unmix.worlds.parity:Parity",
        "RandomHierarchy": "unmix.worlds.hierarchy:RandomHierarchy",
        "ModularArithmetic": "unmix.worlds.modular:ModularArithmetic",
        "MaskWorld": "unmix.worlds.masks:MaskWorld",
        "Series": "unmix.worlds.series:Series",
        "NaturalSprites": "unmix.worlds.natural_sprites:NaturalSprites",
        "DSprites": "unmix.worlds.published:DSprites",
        "Shapes3D": "unmix.worlds.published:Shapes3D",
        "MPI3D": "unmix.worlds.published:MPI3D",
        "Cars3D": "unmix.worlds.published:Cars3D",
        "SmallNORB": "unmix.worlds.published:SmallNORB",
        "Images": "unmix.worlds.images:Images",
        "ClusterWorld": "unmix.worlds.cluster:ClusterWorld",
        "PairWorld": "unmix.worlds.pairs:PairWorld",
        "Labelled": "unmix.worlds.labelled:Labelled",
        "SuperpositionWorld": "unmix.worlds.superposition:SuperpositionWorld",
        "Data": "unmix.activations.data:Data",
    },
    "unmix.worlds.base:World",
)

TRANSITIONS = Table(
    "transition",
    {
        "LaplaceGrid": "unmix.worlds.transitions:LaplaceGrid",
        "UniformChange": "unmix.worlds.transitions:UniformChange",
        "LocatelloPairs": "unmix.worlds.transitions:LocatelloPairs",
        "GeneralisedLaplace": "unmix.worlds.increments:GeneralisedLaplace",
        "Laplace": "unmix.worlds.increments:Laplace",
        "ZeroInflated": "unmix.worlds.increments:ZeroInflated",
        "Gaussian": "unmix.worlds.increments:Gaussian",
        "Uniform": "unmix.worlds.increments:Uniform",
        "Natural": "unmix.worlds.natural:Natural",
    },
    "unmix.worlds.transitions:Transition",
)

MIXINGS = Table(
    "mixing",
    {
        "InvertibleMLP": "unmix.worlds.mixing:InvertibleMLP",
        "Orthogonal": "unmix.worlds.mixing:Orthogonal",
        "CouplingFlow": "unmix.worlds.flows:CouplingFlow",
        "Spiral": "unmix.worlds.flows:Spiral",
    },
    "unmix.worlds.mixing:Mixing",
)
