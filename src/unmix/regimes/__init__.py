"""Learning regimes: exact solutions, initialisation, the empirical kernel and monitors of lazy and rich learning."""

from unmix.core.recipe import Table

INITIALISATIONS = Table(
    "initialisation",
    {
        "Upstream": "unmix.regimes.initialise:Upstream",
        "Downstream": "unmix.regimes.initialise:Downstream",
        "Balanced": "unmix.regimes.initialise:Balanced",
    },
    "unmix.regimes.initialise:Initialisation",
)
