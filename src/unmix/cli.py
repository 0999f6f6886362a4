"""The `unmix` command: one verb for each thing a person does; heavy imports happen inside the verbs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unmix.core.errors import Failure, UnmixError, UsageError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Find the factors in a representation, and know how far to trust them.",
    epilog="Start with: unmix demo",
)
Options = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Options, such as finder.k=32.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Run folder to make or add to.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what time, memory and disk it would take; run nothing.")]
EngineName = Annotated[str, typer.Option("--engine", help="serial or processes.")]


@app.command()
def demo(
    data: Annotated[
        str, typer.Option(help="text (a sentence encoder on Python's documentation) or digits.")
    ] = "text",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default unmix-demo-DATA.")] = None,
    small: Annotated[bool, typer.Option("--small", help="A smaller, faster version of everything.")] = False,
    dry_run: DryRun = False,
) -> None:
    """The main job on real input: activations, features, encoders, trust, a report and an atlas to open."""
    from unmix.demo import run_demo

    run_demo(data, out or Path(f"unmix-demo-{data}"), small, dry_run)


@app.command(name="list")
def list_(
    noun: Annotated[str, typer.Argument(help="finders, encoders, worlds, scores, engines or studies.")] = "",
) -> None:
    """List what there is of one noun."""
    from unmix.shelf import listing

    _print(listing(noun))


@app.command()
def show(kind: Annotated[str, typer.Argument(help="A name from `unmix list`, such as TopKSAE.")]) -> None:
    """Fields, defaults, equation and reference of one recipe."""
    from unmix.shelf import page

    _print(page(kind))


@app.command()
def activations(
    model: Annotated[
        str, typer.Argument(help="A transformers folder, an installed package that carries one, or module:build.")
    ],
    layer: Annotated[str, typer.Option(help="Dotted path of the layer, such as encoder.layer.3.")],
    data: Annotated[str, typer.Option(help="Text file or folder, 'standard-library', or an array for a module.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of shards to make.")],
    options: Options = None,
    encoding: Annotated[str, typer.Option(help="Encoding of text files.")] = "utf-8",
    overwrite: Annotated[bool, typer.Option(help="Replace a folder that holds something else.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Run a model on data and keep one layer's activations as memory-mapped shards."""
    from unmix.activations.command import collect_command
    from unmix.core.options import parse

    told = collect_command(model, layer, data, out, parse(options or []), encoding, overwrite, dry_run)
    _print(told) if isinstance(told, str) else _dry(told)


@app.command()
def fit(
    data: Annotated[
        str, typer.Argument(help="A shards folder, .npy/.npz/.safetensors, 'digits', or a world's name.")
    ],
    options: Options = None,
    out: Out = Path("run"),
    engine: EngineName = "serial",
    dry_run: DryRun = False,
) -> None:
    """Fit features: unmix fit acts/ finder=TopKSAE,SparseCoding finder.width=1024 seed=0..1 -o run/"""
    from unmix.core.options import finish, parse, recipes
    from unmix.finders import FINDERS

    given = parse(options or [])
    seeds, samples = given.pop("seed", [0]), given.pop("samples", [None])
    world = _world(data, given)
    finders = recipes(FINDERS, "finder", given, ["TopKSAE"])
    finish(given, ["finder", "finder.FIELD", "KIND.FIELD", "transform", "seed", "samples", "world.FIELD"])
    from unmix.study import verbs

    if dry_run:
        _dry(verbs.estimate(world, finders, seeds, samples[0]))
        return
    _results(verbs.fit(world, finders, out, seeds, samples, _engine(engine)))


@app.command()
def compare(
    run: Run,
    options: Options = None,
    engine: EngineName = "serial",
) -> None:
    """Swap encoders over the fitted dictionaries: unmix compare run/ encoder=Linear,TopK,Fista,Omp l0=32"""
    from unmix.core.options import finish, parse, recipes
    from unmix.encoders import ENCODERS

    given = parse(options or [])
    l0, seeds = given.pop("l0", [None])[0], given.pop("seed", None)
    encoders = recipes(ENCODERS, "encoder", given, ["Linear", "TopK", "Fista", "Omp"])
    finish(given, ["encoder", "encoder.FIELD", "KIND.FIELD", "l0", "seed"])
    from unmix.study import verbs

    _results(verbs.compare(run, encoders, l0, seeds, _engine(engine)))


@app.command()
def trust(run: Run, options: Options = None, engine: EngineName = "serial") -> None:
    """Try the run's finders on a matched world whose truth is known: unmix trust run/ size=.1,.32,1 seed=0..1"""
    from unmix.core.options import finish, parse

    given = parse(options or [])
    sizes, seeds = given.pop("size", [0.1, 0.32, 1.0]), given.pop("seed", [0])
    finish(given, ["size", "seed"])
    from unmix.study import verbs
    from unmix.study.verdict import verdict

    results = verbs.trust(run, sizes, seeds, _engine(engine))
    _results(results, world="matched")
    _print(verdict(results).sentence)


@app.command()
def score(
    latents: Annotated[Path, typer.Option(help="True latents [n, f]: .npy, .npz:KEY or .safetensors:KEY.")],
    codes: Annotated[Path, typer.Option(help="Codes or a representation [n, m], rows in the same order.")],
    seed: Annotated[int, typer.Option(help="Of the shuffles and the bootstrap.")] = 0,
) -> None:
    """Score codes against true latents: the mean correlation coefficient with its chance level."""
    from unmix.activations.arrays import open_rows
    from unmix.core.rows import gather
    from unmix.scores.matching import mcc

    truth, given = (gather(open_rows(str(path))) for path in (latents, codes))
    _print(f"mcc  {mcc(given, truth, seed, draws=4)}")


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="A study from `unmix list studies`.")],
    options: Options = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default study-NAME.")] = None,
    small: Annotated[bool, typer.Option("--small", help="The version that takes minutes on two cores.")] = False,
    engine: EngineName = "serial",
    dry_run: DryRun = False,
) -> None:
    """Run a paper's study: its cells, claims.json and a page. Run it again to go on where it stopped."""
    from unmix.core.options import finish, parse
    from unmix.papers import STUDIES

    given = parse(options or [])
    seeds = given.pop("seed", None)
    finish(given, ["seed"])
    paper = STUDIES[name]()
    paper = paper if seeds is None else paper.but(seeds=tuple(seeds))
    if dry_run:
        _print(paper.plan(small))
        return
    page = paper.run(out or Path(f"study-{name}"), small, _engine(engine))
    _print(f"report  {page}")


@app.command()
def status(run: Run) -> None:
    """What a run folder holds: cells done, failed and fits that were interrupted."""
    from unmix.study.study import Results

    results = Results(run)
    waiting = sorted(run.glob("fits/*.working"))
    _print(f"{len(results.cells())} cells done, {len(results.failures)} failed, {len(waiting)} fits interrupted")
    for failure in results.failures:
        _print(f"failed  {failure}")


@app.command()
def table(
    run: Run,
    csv: Annotated[Path | None, typer.Option(help="Write the whole table as .csv or .parquet.")] = None,
) -> None:
    """The results of a run as a table."""
    from unmix.study.export import write_table
    from unmix.study.study import Results

    results = Results(run)
    if csv is not None:
        _print(str(write_table(results.table(), csv)))
        return
    _results(results)


@app.command()
def export(
    run: Run,
    codes: Annotated[Path | None, typer.Option(help="Active codes of all rows, as .csv or .parquet.")] = None,
    features: Annotated[Path | None, typer.Option(help="One line for each feature, as .csv or .parquet.")] = None,
    finder: Annotated[
        str | None, typer.Option(help="Which finder's fit; default the one that explains most.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Which seed.")] = None,
) -> None:
    """Write the codes and features of a fit as tables."""
    from unmix.study.export import codes_table, feature_table, write_table
    from unmix.study.study import Results
    from unmix.study.verbs import chosen

    if codes is None and features is None:
        raise UsageError("export: say what to write, --codes FILE or --features FILE")
    _, fitted, rows, _ = chosen(Results(run), finder, seed)
    found = fitted.encode(rows)
    if codes is not None:
        _print(str(write_table(codes_table(found), codes)))
    if features is not None:
        _print(str(write_table(feature_table(fitted, found), features)))


@app.command()
def report(
    run: Run, out: Annotated[Path | None, typer.Option("--out", "-o", help="Page; default RUN/report.html.")] = None
) -> None:
    """Write a run's results as one HTML page."""
    from unmix.report.run import report_run

    _print(f"report  {report_run(run, out)}")


@app.command()
def atlas(
    run: Run,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default RUN/atlas.")] = None,
    finder: Annotated[
        str | None, typer.Option(help="Which finder's fit; default the one that explains most.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Which seed.")] = None,
) -> None:
    """Write a static atlas of a fit's features, to open in a browser without a server."""
    from unmix.atlas.run import atlas_run

    _print(f"atlas  {atlas_run(run, out, finder, seed)}")


def _world(data: str, given: dict[str, list[Any]]) -> Any:
    from unmix.core.options import recipes
    from unmix.worlds import WORLDS

    if data in WORLDS and data != "Data":
        made = recipes(WORLDS, "world", {**given, "world": [data]}, [])
        for key in [key for key in given if key.startswith(("world.", f"{data}."))]:
            given.pop(key)
        if len(made) != 1:
            raise UsageError("world: one at a time here; use a study for a grid")
        return made[0]
    from unmix.activations import TRANSFORMS
    from unmix.activations.data import Data

    transforms = recipes(TRANSFORMS, "transform", given, [])
    file = Path(data.rpartition(":")[0] or data)
    path = str(Path(data).resolve()) if file.exists() or Path(data).exists() else data
    return Data(path=path, transforms=tuple(transforms))


def _engine(name: str) -> Any:
    from unmix.study import ENGINES

    return ENGINES[name]()


def _results(results: Any, world: str | None = None) -> None:
    from unmix.study.present import show_table

    show_table(results, world)
    if results.failures:
        raise Failure(f"{len(results.failures)} cells failed; first: {results.failures[0]}")


def _dry(costs: dict[str, float]) -> None:
    from unmix.study.present import amounts

    _print(amounts(costs))


def _print(text: str) -> None:
    typer.echo(text)


def main() -> None:
    """Run the command; errors are one line, status 2 for usage and 1 for failures, a traceback with --debug."""
    debug = "--debug" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        status = app(args=arguments, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = _interrupted()
    except UnmixError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        status = error.exit_status
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # the parser's own errors
            error.show()
            sys.exit(error.exit_code)
        if debug:
            raise
        typer.echo(f"error: unexpected {type(error).__name__}: {error} (add --debug for the traceback)", err=True)
        status = 1
    sys.exit(status or 0)


def _interrupted() -> int:
    typer.echo("\ninterrupted; what is done is kept: run the same command again to go on", err=True)
    return 130


if __name__ == "__main__":
    main()
