"""Learners: what turns a world's observations into a representation."""

from unmix.core.recipe import Table

LEARNERS = Table(
    "learner",
    {
        "Supervised": "unmix.learners.supervised:Supervised",
        "Regression": "unmix.learners.supervised:Regression",
        "InstanceDiscrimination": "unmix.learners.supervised:InstanceDiscrimination",
        "InfoNCE": "unmix.learners.contrastive:InfoNCE",
        "AnisotropicInfoNCE": "unmix.learners.contrastive:AnisotropicInfoNCE",
        "SpectralContrastive": "unmix.learners.contrastive:SpectralContrastive",
        "Diet": "unmix.learners.diet:Diet",
        "SimCLR": "unmix.learners.selfsup:SimCLR",
        "BarlowTwins": "unmix.learners.selfsup:BarlowTwins",
        "TimeContrastive": "unmix.learners.temporal:TimeContrastive",
        "PermutationContrastive": "unmix.learners.temporal:PermutationContrastive",
        "GeneralisedContrastive": "unmix.learners.temporal:GeneralisedContrastive",
        "BetaVAE": "unmix.learners.vae:BetaVAE",
        "BetaTCVAE": "unmix.learners.vae:BetaTCVAE",
        "SlowVAE": "unmix.learners.slow:SlowVAE",
        "AdaGVAE": "unmix.learners.slow:AdaGVAE",
        "Slowness": "unmix.learners.slow:Slowness",
    },
)
