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
        "Diet": "unmix.learners.diet:Diet",
        "SupervisedViews": "unmix.learners.supervised_views:SupervisedViews",
        "SimCLR": "unmix.learners.selfsup:SimCLR",
        "BarlowTwins": "unmix.learners.selfsup:BarlowTwins",
        "VICReg": "unmix.learners.selfsup:VICReg",
        "SpectralContrastive": "unmix.learners.selfsup:SpectralContrastive",
        "BYOL": "unmix.learners.selfsup:BYOL",
        "Rotation": "unmix.learners.pretext:Rotation",
        "Reconstruction": "unmix.learners.pretext:Reconstruction",
        "TimeContrastive": "unmix.learners.temporal:TimeContrastive",
        "PermutationContrastive": "unmix.learners.temporal:PermutationContrastive",
        "GeneralisedContrastive": "unmix.learners.temporal:GeneralisedContrastive",
        "BetaVAE": "unmix.learners.vae:BetaVAE",
        "BetaTCVAE": "unmix.learners.vae:BetaTCVAE",
        "SlowVAE": "unmix.learners.slow:SlowVAE",
        "AdaGVAE": "unmix.learners.slow:AdaGVAE",
        "Slowness": "unmix.learners.slow:Slowness",
    },
    "unmix.learners.base:Learner",
)
