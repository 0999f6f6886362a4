"""Papers: one short file for every study that reproduces one."""

from unmix.core.recipe import Table

STUDIES = Table(
    "study",
    {
        "amortisation-gap": "unmix.papers.amortisation.study:AmortisationGap",
        "get-rich-quick": "unmix.papers.get_rich_quick.study:GetRichQuick",
        "cross-entropy": "unmix.papers.cross_entropy.study:CrossEntropy",
        "interpretable-features": "unmix.papers.interpretable_features.study:InterpretableFeatures",
        "slowvae": "unmix.papers.slowvae.study:SlowVaeStudy",
        "diet": "unmix.papers.diet.study:DietStudy",
        "trust": "unmix.papers.trust.study:TrustStudy",
        "crossings": "unmix.papers.crossings.study:Crossings",
    },
    "unmix.core.recipe:Recipe",
)
