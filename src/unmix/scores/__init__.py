"""Scores: what a set of features is worth, each with its chance level, ceiling and interval."""

from unmix.core.recipe import Table

SCORES = Table(
    "score",
    {
        "mcc": "unmix.scores.matching:Mcc",
        "dictionary_mcc": "unmix.scores.matching:DictionaryMcc",
        "dictionary_mcc_paper": "unmix.scores.compat:PaperDictionaryMcc",
        "found": "unmix.scores.matching:Found",
        "agreement": "unmix.scores.matching:Agreement",
        "fvu": "unmix.scores.sparsity:Fvu",
        "l0": "unmix.scores.sparsity:L0",
        "dead": "unmix.scores.sparsity:Dead",
        "autointerp": "unmix.scores.autointerp:AutoInterp",
    },
)
