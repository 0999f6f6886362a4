"""Verbs that add to a run folder: fit, compare, trust, and the studies of papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmix.cli.shared import (
    OF_DATA,
    DataArgument,
    DryRun,
    EngineName,
    Options,
    Out,
    Run,
    engine_of,
    tell,
    tell_costs,
    tell_results,
    world_of,
)


def fit(
    data: DataArgument,
    options: Options = None,
    out: Out = Path("run"),
    engine: EngineName = "serial",
    start: Annotated[
        Path | None, typer.Option(help="Go on from features: a folder of them, or a run (its best fit).")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Fit features: unmix fit acts/ finder=TopKSAE,SparseCoding finder.width=1024 seed=0..1 -o run/"""
    from unmix.core.options import Count, finish, parse, recipes, take
    from unmix.finders import FINDERS

    given = parse(options or [])
    seeds, samples = take(given, "seed", list[int], [0]), take(given, "samples", list[Count | None], [None])
    world = world_of(data, given)
    from unmix.study import verbs
    from unmix.study.cautions import cautions

    sizing = verbs.sizing(world, min(samples, key=lambda size: size or 0), start, None if dry_run else out)
    finders = recipes(FINDERS, "finder", given, ["TopKSAE"], sizing.fields)
    finish(given, ["finder", "finder.FIELD", "KIND.FIELD", "transform", "seed", "samples", *OF_DATA])
    for sentence in dict.fromkeys(sizing.told):
        tell(f"chosen  {sentence}")
    if dry_run:
        tell_costs(verbs.estimate(world, finders, seeds, samples[0]))
        return
    results = verbs.fit(world, finders, out, seeds, samples, engine_of(engine), start=start)
    tell_results(results)
    for sentence in cautions(results, finders, world):
        tell(f"caution  {sentence}")


def compare(
    run: Run,
    options: Options = None,
    engine: EngineName = "serial",
) -> None:
    """Swap encoders over the fitted dictionaries: unmix compare run/ encoder=Linear,TopK,Fista,Omp l0=32"""
    from unmix.core.options import finish, parse, recipes, take
    from unmix.encoders import ENCODERS

    given = parse(options or [])
    l0, seeds = take(given, "l0", float | None, None), take(given, "seed", list[int], None)
    encoders = recipes(ENCODERS, "encoder", given, ["Linear", "TopK", "Fista", "Omp"])
    finish(given, ["encoder", "encoder.FIELD", "KIND.FIELD", "l0", "seed"])
    from unmix.study import verbs

    tell_results(verbs.compare(run, encoders, l0, seeds, engine_of(engine)))


def trust(
    run: Run,
    options: Options = None,
    engine: EngineName = "serial",
    checked: Annotated[
        Path | None, typer.Option(help="Folder of `unmix study trust`: says how far such promises held there.")
    ] = None,
) -> None:
    """Try what found a run's features, or learned its representations, on a matched world whose truth is known.

    unmix trust run/ size=.1,.32,1 seed=0..1 --checked study-trust/ (size: shares of the rows, for features)
    """
    from unmix.core.options import finish, parse, take

    given = parse(options or [])
    sizes, seeds = take(given, "size", list[float], [0.1, 0.32, 1.0]), take(given, "seed", list[int], [0])
    finish(given, ["size", "seed"])
    from unmix.papers.trust.lessons import lesson
    from unmix.study import verbs
    from unmix.study.present import show_learned
    from unmix.study.study import Results
    from unmix.study.trusting import trust_learned
    from unmix.study.verdict import verdict

    if (run / "learned").is_dir():
        learned, promises = trust_learned(run, seeds, engine_of(engine))
        show_learned(learned)
        for promise in promises:
            tell(f"{promise.world}: {promise.sentence}")
            for sentence in promise.told:
                tell(f"  matched by: {sentence}")
            if checked is not None and promise.outcomes:
                tell(lesson(checked, promise.learner))
        if not Results(run).cells():
            return
    results = verbs.trust(run, sizes, seeds, engine_of(engine))
    tell_results(results, world="matched")
    tell(verdict(results).sentence)
    if checked is None:
        tell("Such promises, checked where they should fail: unmix study trust --small, then --checked study-trust/")
    else:
        tell(lesson(checked, None, verbs.departure(results)))


def study(
    name: Annotated[str, typer.Argument(help="A study from `unmix list studies`.")],
    options: Options = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default study-NAME.")] = None,
    small: Annotated[bool, typer.Option("--small", help="The version that takes minutes on two cores.")] = False,
    engine: Annotated[str, typer.Option("--engine", help="auto, or processes, dask, ray or slurm.")] = "auto",
    dry_run: DryRun = False,
) -> None:
    """Run a paper's study, its claims.json and a page: unmix study amortisation-gap seed=0..4 --small

    Options are the study's fields (unmix show NAME). Run it again to go on where it stopped.
    """
    from unmix.core.named import typed
    from unmix.core.options import fields, finish, parse
    from unmix.papers import STUDIES

    given = parse(options or [])
    if "seed" in given:
        given["seeds"] = given.pop("seed")
    cls = STUDIES[name]
    with typed():
        paper = cls(**fields(cls, given))
    finish(given, ["seed", *getattr(cls, "model_fields", {})])
    if dry_run:
        tell(paper.plan(small))
        return
    page = paper.run(out or Path(f"study-{name}"), small, None if engine == "auto" else engine_of(engine))
    tell(f"report  {page}")
