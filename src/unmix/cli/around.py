"""What surrounds a command: its help and errors, streams that may be closed, signals that end it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any, TextIO

from typer.core import TyperCommand

from unmix.core.watch import say

KEPT = "what is done is kept: run the same command again to go on"
SENTENCES = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "the terminal is gone"}


class Carried(Exception):
    """What a verb raised, its cause, past a parser that would make something else of it."""


class Verb(TyperCommand):
    """A verb whose help is shown as it was written ([n, f] is a shape, no markup) and whose errors stay its own."""

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        parts: tuple[Any, ...] = (self, *self.params)
        for part in parts:
            if getattr(part, "help", None):
                part.help = part.help.replace("[", r"\[")

    def invoke(self, ctx: Any) -> Any:
        """Call the verb."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError, OSError) as error:
            raise Carried(str(error)) from error


@dataclass
class Ending:
    """The signal that asked the command to end, or None."""

    signal: int | None = None

    @property
    def status(self) -> int:
        """The exit status by the shell's convention."""
        return 128 + (self.signal or signal.SIGINT)

    def tell(self) -> int:
        """Say why the command ends; its exit status."""
        name = signal.Signals(self.signal or signal.SIGINT).name
        if os.environ.get("RANK", "0") == "0":
            say(f"\n{SENTENCES[name]}; {KEPT}\n")
        return self.status


def open_streams() -> None:
    """Give a stream that is closed a place to write to, and letters that its encoding lacks another form.

    A descriptor that is closed would else be that of the next file opened, and what is printed would end up in it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def mute(stream: TextIO) -> None:
    """Send what a stream still holds nowhere: whoever read it has gone."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def ask_to_end() -> Ending:
    """From now on a signal that ends the process does so by `KeyboardInterrupt`, a second one at once.

    What it was can be read off the result. Signals that whoever started the process had it ignore stay ignored.
    """
    asked = Ending()

    def end(number: int, _frame: FrameType | None) -> None:
        if asked.signal is not None:
            os._exit(asked.tell())
        asked.signal = number
        raise KeyboardInterrupt

    def unraisable(lost: Any) -> None:
        """Python cannot raise everywhere (in a destructor, say): then the interruption ends the process here."""
        if isinstance(lost.exc_value, KeyboardInterrupt):
            os._exit(asked.tell())
        before(lost)

    before, sys.unraisablehook = sys.unraisablehook, unraisable
    for name in SENTENCES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)
    return asked
