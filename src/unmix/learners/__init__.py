"""Learners: what turns a world's observations into a representation."""

from unmix.core.recipe import Table

LEARNERS = Table(
    "learner",
    {
        "Supervised": "unmix.learners.supervised:Supervised",
        "InstanceDiscrimination": "unmix.learners.supervised:InstanceDiscrimination",
        "InfoNCE": "unmix.learners.contrastive:InfoNCE",
        "AnisotropicInfoNCE": "unmix.learners.contrastive:AnisotropicInfoNCE",
        "SpectralContrastive": "unmix.learners.contrastive:SpectralContrastive",
        "TimeContrastive": "unmix.learners.temporal:TimeContrastive",
        "PermutationContrastive": "unmix.learners.temporal:PermutationContrastive",
        "GeneralisedContrastive": "unmix.learners.temporal:GeneralisedContrastive",
    },
)
