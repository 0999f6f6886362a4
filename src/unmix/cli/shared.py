"""What the verbs share: kinds of arguments, worlds and engines from options, results on the terminal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from unmix.core.errors import Failure, UsageError, visible

DATA = "A shards folder, .npy, .npz, .safetensors, a table (.csv, .tsv, .txt, .parquet), 'digits', or a world's name."
OF_DATA = ("world.FIELD", "data.drop", "data.labels")
DataArgument = Annotated[str, typer.Argument(metavar="DATA", help=DATA)]


def to_write(*endings: str) -> Callable[[Path | None], Path | None]:
    """What looks at an option that names a file to write, before any work: its ending, and whether it can be."""

    def look(path: Path | None) -> Path | None:
        from unmix.core.store import must_be_writable

        if path is not None:
            if path.suffix not in endings:
                raise UsageError(f"{path}: the file to write must end in {' or '.join(endings)}")
            must_be_writable(path)
        return path

    return look


Options = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Options, such as finder.k=32.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Run folder to make or add to.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what time, memory and disk it would take; run nothing.")]
TABLES = to_write(".csv", ".parquet")
Csv = Annotated[Path | None, typer.Option(help="Write the whole table as .csv or .parquet.", callback=TABLES)]
EngineName = Annotated[
    str, typer.Option("--engine", help="serial, processes, dask, ray or slurm; fields after commas.")
]


def world_of(data: str, given: dict[str, list[Any]]) -> Any:
    """A world from its name, or data from a path, with the options that belong to it."""
    from unmix.core.options import recipes
    from unmix.worlds import WORLDS

    if data in WORLDS and data != "Data":
        no_columns(data, given)
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
    return Data(path=path, transforms=tuple(transforms), **columns_of("data", given))


def columns_of(name: str, given: dict[str, list[Any]], labelled: bool = True) -> dict[str, Any]:
    """The options NAME.drop=A,B and, where labelled, NAME.labels=C of a table, taken out of those given."""
    from unmix.core.options import take

    drop = given.pop(f"{name}.drop", [])
    drop = drop[0] if drop and isinstance(drop[0], list) else drop  # ["a,b"] is a name with a comma
    found: dict[str, Any] = {"drop": tuple(map(str, drop))}
    if labelled and (label := take(given, f"{name}.labels", Any, None)) is not None:
        found["labels"] = str(label[0] if isinstance(label, list) and len(label) == 1 else label)
    return found


def no_columns(data: str, given: dict[str, list[Any]]) -> None:
    """Raise `UsageError` where columns are named of data that have none."""
    if named := [key for key in ("data.drop", "data.labels") if key in given]:
        raise UsageError(f"{named[0]}: is for columns of a table; {data} has none")


def engine_of(name: str) -> Any:
    """An engine by name, its fields after commas: dask,address=tcp://host:8786 or slurm,partition=long,hours=8."""
    from unmix.core.options import parse, take
    from unmix.study import ENGINES

    kind, *words = name.split(",")
    fields = parse(words)
    return ENGINES[kind](**{key: take(fields, key, Any, None) for key in list(fields)})


def tell_results(results: Any, world: str | None = None) -> None:
    """Print a run's tables; raises `Failure` where cells failed. Of torchrun's processes the first one speaks."""
    if os.environ.get("RANK", "0") != "0":
        return
    from unmix.study.present import show_table

    show_table(results, world)
    if results.failures:
        raise Failure(f"{len(results.failures)} cells failed; first: {results.failures[0]}")


def tell_costs(costs: dict[str, float]) -> None:
    """Print what something would cost."""
    from unmix.study.present import amounts

    tell(amounts(costs))


def tell(text: str) -> None:
    """Print a line on standard output; of torchrun's processes the first one does."""
    if os.environ.get("RANK", "0") != "0":
        return
    typer.echo(visible(text))
