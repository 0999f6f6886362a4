"""Parts of a study that are no cells: a function with its settings, whose plain result is kept."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unmix.core.digest import digest
from unmix.core.recipe import load_class
from unmix.core.store import read_json, write_json
from unmix.study.engines import Engine


@dataclass(frozen=True)
class Part:
    """function ("module:name") called with settings (plain JSON values); its result must be plain as well."""

    function: str
    settings: dict[str, Any] = field(default_factory=dict)

    def file(self, root: Path) -> Path:
        """Where the result is kept."""
        return root / "parts" / f"{digest([self.function, self.settings])}.json"


def run_part(root: Path, part: Part) -> None:
    """Make the result of a part, unless it is there."""
    if not part.file(root).is_file():
        result = load_class(part.function)(**part.settings)
        write_json(part.file(root), {"function": part.function, "settings": part.settings, "result": result})


def run_parts(root: Path, parts: Iterable[Part], engine: Engine) -> None:
    """Make the results that are missing."""
    missing = [part for part in parts if not part.file(root).is_file()]
    for _ in engine.map(functools.partial(run_part, root), missing):
        pass


def results(root: Path, parts: Iterable[Part]) -> Iterator[tuple[Part, Any]]:
    """Every part whose result is there, with the result."""
    for part in parts:
        if part.file(root).is_file():
            yield part, read_json(part.file(root))["result"]
