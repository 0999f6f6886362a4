"""The two errors a user meets, and the notice: every message is one line that says what to do."""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Mapping
from typing import Any

_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


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


# What torch, its libraries and the loader of shared objects say where memory cannot be had.
GONE = "the working folder is gone (it was removed); change to one that is there"
_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "failed to map segment",
    "can't start new thread",
    "error return without exception set",
)
_TOO_LARGE = (
    "Overflow when unpacking",
    "Maximum allowed dimension",
    "larger than the maximum possible",
    "overflowed",
)


def short_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or of a library, or what it came from, means that memory could not be had."""
    if isinstance(error, MemoryError) or any(words in str(error) for words in _MEMORY):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and short_of_memory(cause)


def reason(error: BaseException) -> str:
    """Why work ended with an error, in words where unmix or the system has some."""
    if isinstance(error, UnmixError):
        return str(error)
    return system_words(error) or f"unexpected {type(error).__name__}: {error}"


def system_words(error: BaseException) -> str | None:
    """A sentence for what the system refused (memory, a file, the working folder); None for every other error."""
    if short_of_memory(error):
        size = re.search(r"allocate ([\d.]+ [KMGTPE]iB|\d+ bytes)", str(error))
        asked = f" ({size[1]} asked for at once)" if size else ""
        return f"out of memory{asked}; give fewer rows, a smaller width or batch, or a machine with more"
    if isinstance(error, OverflowError) or any(words in str(error) for words in _TOO_LARGE):
        return "a size is larger than any machine can hold; give a smaller number"
    if isinstance(error, RecursionError):
        return "nested too deeply: a file or an option holds lists within lists without end"
    if not isinstance(error, OSError):
        return None
    try:
        os.getcwd()
    except OSError:
        return GONE
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def visible(value: Any) -> Any:
    """A text in which what a terminal obeys (escapes, carriage returns, turned writing) or cannot show is spelt.

    Newlines and tabs stay, and so does every value that is no text.
    """
    return _OBEYED.sub(lambda found: repr(found[0])[1:-1], value) if isinstance(value, str) else value


def suggest(given: str, known: Mapping[str, Any] | list[str]) -> str:
    """One phrase: the near matches of a misspelt name, or all names where there is none."""
    names = [name for name in known if not name.startswith("_")]
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    near = near or [name for name in names if given and name.lower().startswith(given.lower())][:3]
    if near:
        return "did you mean " + " or ".join(near) + "?"
    return "known: " + (", ".join(names[:24]) + (" ..." if len(names) > 24 else "") if names else "none")
