"""The verb that says which assumptions hold before anything is trained."""

from __future__ import annotations

from typing import Annotated

import typer

from unmix.cli.shared import Options, tell
from unmix.core.errors import UsageError

TRACKS = (".csv", ".csv.gz", ".npz")


def check(
    world: Annotated[
        str, typer.Argument(metavar="WORLD-OR-DATA", help="A world, or a .csv or .npz of object tracks.")
    ],
    options: Options = None,
) -> None:
    """Which assumptions of the theorems hold: unmix check ClusterWorld world.latents=5 world.classes=5

    Options: the world's fields as world.FIELD, samples (latents drawn) and rng.
    """
    from unmix.core.options import Count, finish, parse, take

    given = parse(options or [])
    if world.endswith(TRACKS):
        from unmix.worlds.tracks import check_tracks

        finish(given, [])
        tell(check_tracks(world))
        return
    from unmix.worlds import WORLDS

    if world not in WORLDS and ("/" in world or "." in world):
        raise UsageError(
            f"check: {world} is data whose latents are not known; give a world or a file of object tracks"
        )
    fields = {"n": take(given, "samples", Count, 2000), "rng": take(given, "rng", int, 0)}
    from unmix.core.options import recipes
    from unmix.worlds.assumptions import check_assumptions

    made = recipes(WORLDS, "world", {**given, "world": [world]}, [])
    finish(
        {k: v for k, v in given.items() if not k.startswith(("world.", f"{world}."))},
        ["world.FIELD", "samples", "rng"],
    )
    if len(made) != 1:
        raise UsageError("world: one at a time here; run once for each")
    tell(str(check_assumptions(made[0], **fields)))
