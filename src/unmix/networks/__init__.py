"""Networks: recipes of torch modules, seeded without touching global random state."""

from unmix.core.recipe import Table

NETWORKS = Table("network", {"MLP": "unmix.networks.mlp:MLP", "OnSphere": "unmix.networks.wrapped:OnSphere"})
