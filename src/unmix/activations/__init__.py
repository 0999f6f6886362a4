"""Activations: a model's inner values as rows; memory-mapped shards, hooks, corpora, transforms and files."""

from unmix.core.recipe import Table

COLLECTORS = Table(
    "collector",
    {
        "TextActivations": "unmix.activations.collect:TextActivations",
        "ModuleActivations": "unmix.activations.modules:ModuleActivations",
    },
)

TRANSFORMS = Table(
    "transform",
    {
        "Center": "unmix.activations.transforms:Center",
        "Scale": "unmix.activations.transforms:Scale",
        "Standardise": "unmix.activations.transforms:Standardise",
        "Whiten": "unmix.activations.transforms:Whiten",
    },
    "unmix.activations.transforms:Transform",
)

TEXTS = Table("text", {"standard-library": "unmix.activations.text:standard_library_text"})

DATASETS = Table("data", {"digits": "unmix.activations.arrays:digits"})
