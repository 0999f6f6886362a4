"""The verb that trains learners on a world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from unmix.cli.shared import (
    OF_DATA,
    DryRun,
    EngineName,
    Options,
    Out,
    engine_of,
    no_columns,
    tell,
    tell_costs,
    world_of,
)
from unmix.core.errors import Failure, UsageError


def learn(
    data: Annotated[
        str,
        typer.Argument(
            help="A world's name, images (folder, .zip, .npy, 'digits'), series or masks (.npz), or rows."
        ),
    ],
    options: Options = None,
    out: Out = Path("run"),
    engine: EngineName = "serial",
    dry_run: DryRun = False,
    start: Annotated[
        Path | None, typer.Option(help="A representation to go on from, RUN/learned/DIGEST, of the same network.")
    ] = None,
    probes: Annotated[bool, typer.Option(help="Of images with labels: probe what was learnt at the end.")] = True,
) -> None:
    """Learn representations: unmix learn ClusterWorld learner=Supervised learner.steps=2000 seed=0..2 -o run/

    init=Upstream init.alpha=10 shares scale between layers (`unmix list initialisations`); watch=regime says on the
    way whether learning is lazy or rich, and watch.pairs="encoder.0 -> encoder.2" names the layers it follows where
    none are found. Each goes to RUN/learned/ with its scores on held-out rows. Run it again to go on where it
    stopped; under torchrun several processes train together.
    """
    from unmix.core.options import finish, parse, recipes, take
    from unmix.learners import LEARNERS
    from unmix.regimes import INITIALISATIONS

    given = parse(options or [])
    seeds, test = take(given, "seed", list[int], [0]), take(given, "test", int, 8192)
    world = _from_path(data, given) or world_of(data, given)
    learners = recipes(LEARNERS, "learner", given, [] if "learner" in given else [_suited(world)])
    watched, followed = take(given, "watch", str | None, None), list(map(str, given.pop("watch.pairs", [])))
    if "init" in given:
        starts = recipes(INITIALISATIONS, "init", given, [])
        learners = [made.but(init=start) for made in learners for start in starts]
    finish(
        given,
        ["learner", "learner.FIELD", "KIND.FIELD", "init", "watch", "watch.pairs", "seed", "test", *OF_DATA],
    )
    from unmix.learners import parallel
    from unmix.study import learning, learning_costs
    from unmix.study.cautions import cautions_of_learning
    from unmix.study.present import show_learned

    parallel.join()
    first = parallel.rank() == 0
    smaller = {made.kind: learning_costs.smaller_network(world, made) for made in learners} if first else {}
    if dry_run:
        tell_costs(learning_costs.estimate(world, learners, len(seeds)))
        _tell_smaller(world, learners, smaller, len(seeds))
        return
    _tell_smaller(world, learners, smaller, None)
    for sentence in learning.warnings_of(world) if first else ():
        typer.echo(f"warning: {sentence}", err=True)
    learned = learning.learn(world, learners, out, seeds, test, engine_of(engine), watched, start, followed)
    if first:
        show_learned(learned)
        if probes and hasattr(world, "pictures") and len(learned.table()):
            _tell_probes(world, out, learning.trusted(learners))
        tell(f"representations  {out / 'learned'}")
        for sentence in cautions_of_learning(learned, learners, world):
            tell(f"caution  {sentence}")
    if first and learned.failures:
        raise Failure(f"{len(learned.failures)} failed; first: {learned.failures[0]}")


SUITED = ("Supervised", "Diet", "SlowVAE", "InstanceDiscrimination")  # what is tried where no learner is named


def _suited(world: Any) -> str:
    """The first of some learners that a world gives what it needs; the first of all where none does."""
    from unmix.learners import LEARNERS

    refused = [LEARNERS[kind](batch=8).refusal(world) for kind in SUITED[:1]]
    while refused[-1] is not None and len(refused) < len(SUITED):
        refused.append(LEARNERS[SUITED[len(refused)]](batch=8).refusal(world))
    if refused[-1] is not None or len(refused) == 1:
        return SUITED[0]
    tell(f"chosen  learner={SUITED[len(refused) - 1]} ({refused[0]})")
    return SUITED[len(refused) - 1]


def _tell_smaller(world: Any, learners: list[Any], smaller: dict[str, Any], seeds: int | None) -> None:
    """Propose smaller networks for few images, with what they would take where that is asked."""
    from unmix.study import learning_costs
    from unmix.study.present import duration

    for made in learners:
        if (network := smaller.get(made.kind)) is not None:
            option = "".join(json.dumps(network.as_dict()).split())
            line = (
                f"{made.kind}: {world.size:,} images are few for {made.network}; try '{made.kind}.network={option}'"
            )
            if seeds is not None:
                took = learning_costs.estimate(world, [made.but(network=network)], seeds)["seconds"]
                line += f", about {duration(took)}"
            tell(line)


def _tell_probes(world: Any, out: Path, trust: frozenset[str]) -> None:
    """What probes read from everything that a run learnt from images, where these have labels."""
    from unmix.study.probing import probe_learned, shown

    if world.held_out == world:
        tell("no probes: nothing is held out; learn with world.held=0.2")
    elif world.classes is None:
        tell(f"no probes: there are no labels; unmix probe {out} LABELS takes them from a .npy or .csv file")
    else:
        tell("\n" + shown(probe_learned(out, trust=trust)) + "\n")


def _from_path(data: str, given: dict[str, list[Any]]) -> Any:
    """A world of images, of masks over time or of series where the path holds such, else None."""
    from unmix.core.options import recipes
    from unmix.worlds import WORLDS

    kind = None if data in WORLDS else _kind_of(data)
    if kind is None:
        return None
    no_columns(data, given)
    path = data if not Path(data).exists() else str(Path(data).resolve())
    own = {key: given.pop(key) for key in list(given) if key.startswith(("world.", f"{kind}."))}
    made = recipes(WORLDS, "world", {**own, "world": [kind], "world.path": [path]}, [])
    if len(made) != 1:
        raise UsageError("world: one at a time here; use a study for a grid")
    return made[0]


def _kind_of(data: str) -> str | None:
    from unmix.core.array_files import array_names
    from unmix.worlds.images import holds_images

    if holds_images(data):
        return "Images"
    names = set(array_names(data))
    if {"x", "group", "time"} <= names:
        return "Series"
    return "MaskWorld" if "masks" in names else None
