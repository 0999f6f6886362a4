"""The two errors a user meets, and the notice: every message is one line that says what to do."""

from __future__ import annotations

import warnings


class UnmixError(Exception):
    """Base of every error that unmix raises on purpose; `exit_status` is what the command line returns."""

    exit_status = 1


class UsageError(UnmixError, ValueError):
    """An option or an input is wrong: names the field, what was given and what would be right."""

    exit_status = 2


class Failure(UnmixError, RuntimeError):
    """The work could not be done although it was asked for correctly (a cut-off file, a full disk)."""

    exit_status = 1


class Notice(UserWarning):
    """What a user should know of work that goes on: what was dropped or guessed, what is weak, and what to do."""


def notice(text: str) -> None:
    """Say one line: a `Notice` in Python, "note: ..." on the command line's standard error, once for each text."""
    warnings.warn(text, Notice, stacklevel=3)
