"""Learners: what turns a world's observations into a representation."""

from unmix.core.recipe import Table

LEARNERS = Table(
    "learner",
    {
        "Supervised": "unmix.learners.supervised:Supervised",
        "InstanceDiscrimination": "unmix.learners.supervised:InstanceDiscrimination",
    },
)
