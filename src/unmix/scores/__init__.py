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
        "stability": "unmix.scores.stability:Stability",
        "support": "unmix.scores.support:Support",
        "exact_support": "unmix.scores.support:ExactSupport",
        "rare_recovery": "unmix.scores.recovery:RareRecovery",
        "linear_ceiling": "unmix.scores.ceiling:LinearCeiling",
        "fvu": "unmix.scores.sparsity:Fvu",
        "explained_variance": "unmix.scores.sparsity:ExplainedVariance",
        "l0": "unmix.scores.sparsity:L0",
        "hoyer": "unmix.scores.sparsity:Hoyer",
        "dead": "unmix.scores.sparsity:Dead",
        "dense": "unmix.scores.sparsity:Dense",
        "absorption": "unmix.scores.hierarchy:Absorption",
        "splitting": "unmix.scores.hierarchy:Splitting",
        "hedging": "unmix.scores.hierarchy:Hedging",
        "autointerp": "unmix.scores.autointerp:AutoInterp",
    },
)
