"""Worlds: where observations come from; synthetic ones know the truth, data does not."""

from unmix.core.recipe import Table

WORLDS = Table(
    "world",
    {
        "SparseWorld": "unmix.worlds.sparse:SparseWorld",
        "SynthSAEBench": "unmix.worlds.synth:SynthSAEBench",
        "MatchedWorld": "unmix.worlds.matched:MatchedWorld",
        "TeacherStudent": "unmix.worlds.teacher:TeacherStudent",
        "Parity": "unmix.worlds.parity:Parity",
        "RandomHierarchy": "unmix.worlds.hierarchy:RandomHierarchy",
        "ModularArithmetic": "unmix.worlds.modular:ModularArithmetic",
        "Data": "unmix.activations.data:Data",
    },
)
