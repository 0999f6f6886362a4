"""Networks: recipes of torch modules, seeded without touching global random state."""

from unmix.core.recipe import Table

NETWORKS = Table(
    "network",
    {
        "MLP": "unmix.networks.mlp:MLP",
        "Conv": "unmix.networks.conv:Conv",
        "ResNet": "unmix.networks.resnet:ResNet",
        "ViT": "unmix.networks.vit:ViT",
        "Transformer": "unmix.networks.transformer:Transformer",
        "Built": "unmix.networks.built:Built",
        "OnSphere": "unmix.networks.wrapped:OnSphere",
        "PosteriorMean": "unmix.networks.posterior:PosteriorMean",
    },
    "unmix.networks.base:Network",
)
DECODERS = Table(
    "decoder",
    {"MLPDecoder": "unmix.networks.mlp:MLPDecoder", "ConvDecoder": "unmix.networks.conv:ConvDecoder"},
    "unmix.networks.base:Decoder",
)
