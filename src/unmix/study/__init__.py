"""Studies: grids of cells, where they are kept, and what runs them."""

from unmix.core.recipe import Table

ENGINES = Table(
    "engine",
    {
        "serial": "unmix.study.engines.local:Serial",
        "processes": "unmix.study.engines.local:Processes",
        "dask": "unmix.study.engines.dask:Dask",
        "ray": "unmix.study.engines.ray:Ray",
        "slurm": "unmix.study.engines.slurm:Slurm",
    },
    "unmix.study.engines.base:Engine",
)
