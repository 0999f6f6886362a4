"""The `unmix` command: one verb for each thing a person does; heavy imports happen inside the verbs."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import typer

from unmix import __version__
from unmix.cli import check, interop, learn, model, practice, results, runs, score, start
from unmix.core.errors import Notice, UnmixError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Find the factors in a representation, and know how far to trust them.",
    epilog="Start with: unmix demo",
)
# In the order of `unmix --help`; a new verb is a function in one of these modules and one entry here.
VERBS = (
    start.demo,
    start.list_,
    start.show,
    start.activations,
    check.check,
    practice.choose,
    learn.learn,
    runs.fit,
    runs.compare,
    runs.trust,
    runs.study,
    model.downstream,
    model.steer,
    model.concepts,
    model.probe,
    practice.explain,
    practice.match,
    score.score,
    results.status,
    results.table,
    results.export,
    interop.import_,
    results.report,
    results.atlas,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"unmix {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What stands before a verb; the help is the application's own."""


for verb in VERBS:
    app.command(name=verb.__name__.strip("_").replace("_", "-"))(verb)


def main() -> None:
    """Run the command; errors are one line, status 2 for usage and 1 for failures, a traceback with --debug."""
    debug = "--debug" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    _show_notices()
    sys.path.append(os.getcwd())  # module:build and classes of one's own, as with python -m
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


def _show_notices() -> None:
    """Notices are lines that begin with "note:", each text once; other warnings are shown as they were."""
    others, shown = warnings.showwarning, set()

    def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, Notice):
            others(message, category, *place, **more)
        elif str(message) not in shown:
            shown.add(str(message))
            typer.echo(f"note: {message}", err=True)

    warnings.showwarning = show
    warnings.simplefilter("always", Notice)


def _interrupted() -> int:
    typer.echo("\ninterrupted; what is done is kept: run the same command again to go on", err=True)
    return 130
