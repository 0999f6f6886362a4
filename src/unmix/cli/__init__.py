"""The `unmix` command: one verb for each thing a person does; heavy imports happen inside the verbs."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Annotated, Any

import typer

from unmix import __version__
from unmix.cli import check, interop, learn, model, practice, results, runs, score, start
from unmix.cli.around import Carried, Ending, Verb, ask_to_end, mute, open_streams
from unmix.core.errors import GONE, UnmixError, reason, system_words, visible
from unmix.core.named import SAFE
from unmix.core.recipe import problem
from unmix.core.watch import say, show_notices

app = typer.Typer(
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
    app.command(name=verb.__name__.strip("_").replace("_", "-"), cls=Verb)(verb)


def main() -> None:
    """Run the command; errors are one line, status 2 for usage and 1 for failures, a traceback with --debug."""
    open_streams()
    asked = ask_to_end()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # The current folder may be somebody else's: imports of workers, which are begun with python -m, skip it as well.
    os.environ.setdefault("PYTHONSAFEPATH", SAFE)
    show_notices()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of every cache folder that it cannot make
    try:
        os.getcwd()
    except OSError:
        say(f"error: {GONE}\n")  # before torch is loaded, whose libraries end the process where there is none
        sys.exit(1)
    arguments, debug = [word for word in sys.argv[1:] if word != "--debug"], "--debug" in sys.argv
    try:
        status = run(arguments, debug, asked)
    except KeyboardInterrupt:
        status = asked.tell()
    sys.exit(status)


def run(arguments: list[str], debug: bool = False, asked: Ending | None = None) -> int:
    """The exit status of one command, whose errors are told; debug: raise them. asked: a signal that ended it."""
    asked = asked or Ending()
    try:
        status = int(app(args=arguments or ["--help"], prog_name="unmix", standalone_mode=False) or 0)
        sys.stdout.flush()
        return status if asked.signal is None else asked.tell()
    except Exception as raised:
        error = raised.__cause__ if isinstance(raised, Carried) and raised.__cause__ else raised
        if isinstance(error, KeyboardInterrupt) or asked.signal is not None:
            return asked.tell()  # some libraries make an error of their own of an interruption
        if isinstance(error, BrokenPipeError):
            mute(sys.stdout)
            return 128 + signal.SIGPIPE
        if debug:
            raise
        said, status = _told(error)
        say(visible(said))
        return status


def _parsed(error: Any) -> str:
    """The parser's message; of a value of another type in the words that options have."""
    details = getattr(error.__cause__, "errors", None)
    if details is not None and getattr(error, "param", None) is not None:
        first = details()[0]
        return f"{max(error.param.opts, key=len)}={first['input']}: {problem(first)}"
    return str(error.format_message())


def _told(error: BaseException) -> tuple[str, int]:
    """What is said of an error, and the exit status."""
    if isinstance(error, UnmixError):
        return f"error: {error}\n", error.exit_status
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # the parser's own errors
        context = getattr(error, "ctx", None)
        help_of = f"{context.command_path} --help" if context else "unmix --help"
        said = _parsed(error).strip().rstrip(".")
        return f"error: {said[0].lower()}{said[1:]} (see {help_of})\n", error.exit_code
    more = "" if system_words(error) else " (add --debug for the traceback)"
    return f"error: {reason(error)}{more}\n", 1
