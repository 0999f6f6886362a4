"""Encoders: from a representation to codes over a given dictionary; amortised, iterative or greedy."""

from unmix.core.recipe import Table

ENCODERS = Table(
    "encoder",
    {
        "Linear": "unmix.encoders.amortised:Linear",
        "TopK": "unmix.encoders.amortised:TopK",
        "BatchTopK": "unmix.encoders.thresholds:BatchTopK",
        "JumpReLU": "unmix.encoders.thresholds:JumpReLU",
        "AbsTopK": "unmix.encoders.gates:AbsTopK",
        "Gated": "unmix.encoders.gates:Gated",
        "Matryoshka": "unmix.encoders.gates:Matryoshka",
        "MLP": "unmix.encoders.amortised:MLP",
        "Lista": "unmix.encoders.unrolled:Lista",
        "Ista": "unmix.encoders.iterative:Ista",
        "Fista": "unmix.encoders.iterative:Fista",
        "CoordinateDescent": "unmix.encoders.iterative:CoordinateDescent",
        "Lca": "unmix.encoders.iterative:Lca",
        "Exponentiated": "unmix.encoders.perrow:Exponentiated",
        "Nnls": "unmix.encoders.iterative:Nnls",
        "MatchingPursuit": "unmix.encoders.greedy:MatchingPursuit",
        "Omp": "unmix.encoders.greedy:Omp",
        "GradientPursuit": "unmix.encoders.greedy:GradientPursuit",
        "Nearest": "unmix.encoders.greedy:Nearest",
        "Refine": "unmix.encoders.composed:Refine",
        "Debiased": "unmix.encoders.composed:Debiased",
        "Thresholded": "unmix.encoders.composed:Thresholded",
        "Largest": "unmix.encoders.composed:Largest",
    },
    "unmix.encoders.base:Encoder",
)
