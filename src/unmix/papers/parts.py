"""Parts of a study that are no cells: a function with its settings, whose plain result is kept."""

from __future__ import annotations

import functools
import inspect
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unmix.core.digest import digest
from unmix.core.errors import Failure
from unmix.core.named import load_class, typed
from unmix.core.store import locked, recall, write_json
from unmix.study.engines import Engine, Lost

AGAIN = "the same study makes it again"


@dataclass(frozen=True)
class Part:
    """function ("module:name") called with settings (plain JSON values); its result must be plain as well.

    A function that has an argument `working` is given a folder of its own for checkpoints, removed when it is done.
    """

    function: str
    settings: dict[str, Any] = field(default_factory=dict)

    def file(self, root: Path) -> Path:
        """Where the result is kept."""
        return root / "parts" / f"{digest([self.function, self.settings])}.json"

    @property
    def label(self) -> str:
        """A short name for messages."""
        return f"{self.function.partition(':')[2]} {self.settings}"


def run_part(root: Path, part: Part) -> None:
    """Make the result of a part, unless it is there."""
    file = part.file(root)
    with locked(root, file.stem, part.label):
        if recall(file, "result") is not None:
            return
        function, working = load_class(part.function), file.with_suffix(".working")
        resumes = "working" in inspect.signature(function).parameters
        with typed():  # settings are the fields of a study that somebody runs
            result = function(**part.settings, **({"working": working} if resumes else {}))
        write_json(file, {"function": part.function, "settings": part.settings, "result": result})
        shutil.rmtree(working, ignore_errors=True)


def run_parts(root: Path, parts: Iterable[Part], engine: Engine) -> None:
    """Make the results that are missing; raises `Failure`, when the others are there, where workers died of some."""
    missing = [part for part in parts if recall(part.file(root), "result") is None]
    lost = [
        (job, end)
        for job, end in engine.map(functools.partial(run_part, root.resolve()), missing)
        if isinstance(end, Lost)
    ]
    if lost:
        part, end = lost[0]
        raise Failure(f"{len(lost)} parts of the study are missing; first: {part.label}: {end.reason}")


def results(root: Path, parts: Iterable[Part]) -> Iterator[tuple[Part, Any]]:
    """Every part whose result is there, with the result."""
    for part in parts:
        if (kept := recall(part.file(root), "result", remedy=AGAIN)) is not None:
            yield part, kept["result"]


def each_result(pieces: Iterable[tuple[dict[str, Any], Part]], root: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """What each piece of work is, with its result, of those whose result is there."""
    for what, part in pieces:
        if (kept := recall(part.file(root), "result", remedy=AGAIN)) is not None:
            yield what, kept["result"]


def command_of(study: Any, small: bool) -> str:
    """The command that makes this study: its fields that differ from their defaults."""
    words = [f"unmix study {study.name}"]
    for name, own in type(study).model_fields.items():
        value = getattr(study, name)
        if value != own.get_default(call_default_factory=True):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else value
            words.append(f"'{name}={json.dumps(value)}'" if isinstance(value, dict) else f"{name}={text}")
    return " ".join([*words, *(["--small"] if small else [])])
