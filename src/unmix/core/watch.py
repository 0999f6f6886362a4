"""Watches: what looks on while long work runs; progress, the log and checkpoints."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmix.core.store import read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor


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
        self.terminal = sys.stderr.isatty()
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
            sys.stderr.write(f"\r\033[K{self.label:<34.34} {bar:<28} {share:4.0%}  {left:3.0f} s left  {numbers}")
        else:
            sys.stderr.write(f"{self.label}: {step}/{total}, {left:.0f} s left  {numbers}\n")
        sys.stderr.flush()

    def done(self) -> None:
        if self.terminal and self.drawn:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


class Checkpoint(Progress):
    """Progress, a JSON-lines log, and a checkpoint every few seconds in a folder, removed when the work is done."""

    file: Path
    log: Path
    seconds: float
    kept: float
    logged: int

    def __init__(self, folder: Path, label: str, seconds: float = 5.0) -> None:
        super().__init__(label)
        self.file, self.log = folder / "checkpoint.safetensors", folder / "log.jsonl"
        self.seconds, self.kept, self.logged = seconds, time.monotonic(), -1
        folder.mkdir(parents=True, exist_ok=True)

    def on_step(self, step: int, total: int, facts: Mapping[str, Any]) -> None:
        super().on_step(step, total, facts)
        stride = max(1, total // 100)
        if step // stride > self.logged:
            self.logged = step // stride
            line = {"step": step, "total": total, **{name: float(value) for name, value in facts.items()}}
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def save(self, state: Callable[[], dict[str, Tensor]]) -> None:
        if time.monotonic() - self.kept >= self.seconds:
            write_tensors(self.file, state())
            self.kept = time.monotonic()

    def restore(self) -> dict[str, Tensor] | None:
        return read_tensors(self.file) if self.file.is_file() else None

    def done(self) -> None:
        super().done()
        self.file.unlink(missing_ok=True)
