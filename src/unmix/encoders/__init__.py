"""Encoders: from a representation to codes over a given dictionary; amortised, iterative or greedy."""

from unmix.core.recipe import Table

ENCODERS = Table(
    "encoder",
    {
        "Linear": "unmix.encoders.amortised:Linear",
        "TopK": "unmix.encoders.amortised:TopK",
        "AbsTopK": "unmix.encoders.gates:AbsTopK",
        "Gated": "unmix.encoders.gates:Gated",
        "Matryoshka": "unmix.encoders.gates:Matryoshka",
        "MLP": "unmix.encoders.amortised:MLP",
        "Lista": "unmix.encoders.unrolled:Lista",
        "Fista": "unmix.encoders.iterative:Fista",
        "Omp": "unmix.encoders.greedy:Omp",
        "Nearest": "unmix.encoders.greedy:Nearest",
    },
)
