"""Watches: what looks on while long work runs; progress, the log and checkpoints."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unmix.core.errors import Failure, Notice, UsageError, system_words, visible
from unmix.core.store import read_tensors, set_aside, write_tensors, writing

if TYPE_CHECKING:
    from torch import Tensor

Made = TypeVar("Made")


def say(text: str) -> None:
    """Write on standard error; a stream that is closed, or whose reader has gone, is no reason to end the work."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def show_notices() -> None:
    """From now on notices are lines that begin with "note:", each text once; other warnings stay as they were."""
    others, shown = warnings.showwarning, set()

    def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, Notice):
            others(message, category, *place, **more)
        elif str(message) not in shown:
            shown.add(str(message))
            say(visible(f"note: {message}\n"))

    warnings.showwarning = show
    warnings.simplefilter("always", Notice)


class Watch:
    """Looks on at long work; this one sees nothing. Override what you need.

    `on_step` is called after every step with the step number (from 1), the total and named numbers;
    `restore` gives back the state that `save` kept, so that interrupted work goes on where it stopped.
    """

    def on_step(self, step: int, total: int, facts: Mapping[str, Any]) -> None:
        """One step of `total` is done; facts are numbers such as loss and fvu (tensors are allowed)."""

    def before_step(self, step: int, module: Any, optimiser: Any) -> None:
        """Gradients of step `step` (from 1) lie in `module` and the optimiser has not moved yet; for monitors."""

    def save(self, state: Callable[[], dict[str, Tensor]]) -> None:
        """The work can be taken up again from `state()`; keep it or not."""

    def restore(self) -> dict[str, Tensor] | None:
        """The last state kept by an interrupted run of the same work, or None."""
        return None

    def done(self) -> None:
        """The work has ended well."""


class Following(Watch):
    """Takes up what another watch kept and keeps nothing: for all processes of a fit but the first."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def restore(self) -> dict[str, Tensor] | None:
        return self.watch.restore()


class Progress(Watch):
    """Draws a bar on a terminal and a plain line every few seconds otherwise, on standard error."""

    label: str
    every: float
    begun: float
    last: float
    terminal: bool
    drawn: bool

    def __init__(self, label: str, every: float = 10.0) -> None:
        self.label, self.every = label, every
        self.begun = self.last = time.monotonic()
        self.terminal = _draws()
        self.drawn = False

    def on_step(self, step: int, total: int, facts: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if now - self.last < (0.1 if self.terminal else self.every) and step < total:
            return
        if step == total and not self.drawn and not self.terminal and now - self.begun < self.every:
            return
        self.last, self.drawn = now, True
        share = step / max(total, 1)
        left = (now - self.begun) / max(share, 1e-9) * (1 - share)
        numbers = "  ".join(f"{name} {float(value):.4g}" for name, value in facts.items())
        if self.terminal:
            bar = "━" * round(28 * share)
            say(f"\r\033[K{self.label:<34.34} {bar:<28} {share:4.0%}  {left:3.0f} s left  {numbers}")
        else:
            say(f"{self.label}: {step}/{total}, {left:.0f} s left  {numbers}\n")

    def done(self) -> None:
        if self.terminal and self.drawn:
            say("\r\033[K")


def _draws() -> bool:
    """Whether standard error is a terminal that can move its cursor."""
    with contextlib.suppress(AttributeError, ValueError):  # there is none, or it is closed
        return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    return False


class Checkpoint(Progress):
    """Progress, a JSON-lines log, and a checkpoint every few seconds in a folder, removed when the work is done."""

    file: Path
    log: Path
    seconds: float
    kept: float
    logged: int
    untried: bool  # a state was given back, and no step has been made from it yet

    def __init__(self, folder: Path, label: str, seconds: float = 5.0) -> None:
        super().__init__(label)
        self.file, self.log = folder / "checkpoint.safetensors", folder / "log.jsonl"
        self.seconds, self.kept, self.logged, self.untried = seconds, time.monotonic(), -1, False
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def on_step(self, step: int, total: int, facts: Mapping[str, Any]) -> None:
        super().on_step(step, total, facts)
        self.untried = False
        stride = max(1, total // 100)
        if step // stride > self.logged:
            self.logged = step // stride
            numbers = {name: float(value) for name, value in facts.items()}
            plain = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
            line = {"step": step, "total": total, **plain}
            with writing(self.log), open(self.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def save(self, state: Callable[[], dict[str, Tensor]]) -> None:
        if time.monotonic() - self.kept >= self.seconds:
            write_tensors(self.file, state())
            self.kept = time.monotonic()

    def restore(self) -> dict[str, Tensor] | None:
        if not self.file.exists():
            return None
        try:
            found = read_tensors(self.file)
        except (Failure, UsageError) as error:
            set_aside(self.file, str(error))
            return None
        self.untried = True
        return found

    def done(self) -> None:
        super().done()
        self.file.unlink(missing_ok=True)


def resumed(watch: Checkpoint, work: Callable[[], Made], alone: bool = True) -> Made:
    """work(); where it cannot take up the state that `watch` kept, this is set aside and the work begins anew.

    alone: no other process shares the work; where some do, `Failure` names the file to remove.
    """
    try:
        return work()
    except Exception as error:  # what another recipe's state makes a loader stumble over may be anything
        if not watch.untried or system_words(error) is not None:
            raise
        told = f"{watch.file}: does not fit this work ({' '.join(str(error).split())[:200]})"
        if not alone:
            raise Failure(f"{told}; remove it to begin anew") from None
        set_aside(watch.file, told)
    watch.untried = False
    return work()
