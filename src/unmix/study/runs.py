"""The run store: a folder with one sub-folder for every fit and one file for every cell, named by digest."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from unmix.core import parallel
from unmix.core.digest import SCHEMA
from unmix.core.errors import Failure, UsageError, notice
from unmix.core.store import locked, read_json, set_aside, write_json
from unmix.core.watch import Checkpoint, resumed
from unmix.finders.features import Features
from unmix.study.cells import Cell, Split
from unmix.study.folders import OWN, told

Job = TypeVar("Job")
DIGEST = re.compile(r"[0-9a-f]{16}")
# What a cell that ended well keeps; `measure` makes it.
MEASURED = ("cell", "world", "samples", "finder", "encoder", "amortised", "own", "seed", "target_l0", "scores")


class Store:
    """Fits and cells of a run in a folder; what is there is never made twice, and failures stay, with their reason.

    root/run.json says what wrote it; root/fits/DIGEST/ holds features, log and, while it runs, a checkpoint;
    root/cells/DIGEST.json holds a cell and its outcome. A run.json that is lost or not whole is made again where the
    folder holds parts of a run. Raises `UsageError` for a folder of another version, or of something else.
    """

    def __init__(self, root: str | Path) -> None:
        self.root: Path = Path(root)
        self.headless = False
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"{self.root}: is a file; name a folder")
        header = self.root / "run.json"
        if header.exists():
            self._read(header)
        elif self.root.is_dir() and any(not part.name.startswith(".") for part in self.root.iterdir()):
            if not self._has_parts():
                raise UsageError(
                    f"{self.root}: not empty and not a run folder: {told(self.root)}; use another folder"
                )
            self._miss("run.json is missing")

    def _read(self, header: Path) -> None:
        try:
            found = read_json(header)
        except Failure as error:
            if header.is_dir() or (header.stat().st_size and not self._has_parts()):
                raise UsageError(f"{header}: was not written by unmix; use another folder") from error
            self._miss("run.json is empty" if not header.stat().st_size else "run.json is not whole")
            return
        schema = found.get("schema") if isinstance(found, dict) else None
        if not isinstance(schema, int):
            raise UsageError(f"{header}: was not written by unmix; use another folder")
        if schema != SCHEMA:
            raise UsageError(
                f"{self.root}: written by another version (schema {schema}, this one reads {SCHEMA}); "
                "use another folder, or the version that wrote it"
            )

    def _has_parts(self) -> bool:
        return any((self.root / name).is_dir() for name in OWN)

    def _miss(self, what: str) -> None:
        self.headless = True
        notice(f"{self.root}: {what}; what else is there is read as of this version, and the next fit writes it anew")

    @staticmethod
    def open(root: str | Path) -> Store:
        """An existing run; raises `UsageError` where there is none, with what is there instead."""
        root = Path(root)
        if not (root / "run.json").exists() and not any((root / name).is_dir() for name in OWN):
            raise UsageError(f"{root}: no run here: {told(root)}")
        return Store(root)

    def create(self) -> Store:
        """Make the folder where it is not there yet."""
        if self.headless or not (self.root / "run.json").is_file():
            write_json(self.root / "run.json", {"schema": SCHEMA})
            self.headless = False
        return self

    @contextlib.contextmanager
    def locked(self, name: str, what: str) -> Iterator[None]:
        """Keep other commands from the same work; of torchrun's processes the first one asks, and all wait for it."""
        with contextlib.ExitStack() as held:
            if not parallel.rank():
                held.enter_context(locked(self.root, name, what))
            parallel.agree(0)
            yield

    def has_fit(self, cell: Cell) -> bool:
        """Whether the features of a cell's fit are there, and whole as far as sizes tell."""
        return Features.lacks(self.root / "fits" / cell.fit_digest) is None

    def features(self, cell: Cell) -> Features | None:
        """The stored features of a cell's fit, or None; raises `Failure` where they are not whole."""
        folder = self.root / "fits" / cell.fit_digest
        return Features.load(folder) if folder.exists() else None

    def whole_features(self, cell: Cell) -> Features | None:
        """The stored features of a cell's fit; None, with a notice, where they are missing or not whole."""
        if not self.has_fit(cell):
            notice(f"{self.root}: the fit of {cell.label} is missing or not whole; run the same fit again")
            return None
        return self.features(cell)

    def fit(self, cell: Cell, part: Split) -> Features:
        """The features of a cell: stored, or fitted now, going on from the checkpoint of an interrupted fit.

        What is returned was read from the disk, so that a run that was interrupted in between has the same bits.
        What is stored and not whole is set aside. Under torchrun every process calls this, and the first one stores.
        """
        folder = self.root / "fits" / cell.fit_digest
        if self.has_fit(cell):
            return Features.load(folder)
        if folder.exists() and not parallel.rank():
            set_aside(folder, f"{folder}: {Features.lacks(folder)} is missing or not whole")
        working = folder.with_name(f"{folder.name}.working")
        watch = Checkpoint(working, cell.label)
        start = None if cell.start is None else Features.load(cell.start[0])
        features = resumed(
            watch, lambda: cell.finder.fit(part.train, cell.seed, watch, start=start), parallel.ranks() == 1
        )
        if parallel.rank():
            return features
        features.save(folder)
        if watch.log.is_file():
            shutil.copyfile(watch.log, folder / "log.jsonl")
        shutil.rmtree(working, ignore_errors=True)
        return Features.load(folder)

    def outcome(self, cell: Cell) -> dict[str, Any] | None:
        """The stored outcome of a cell, or None where it is missing, failed or not whole."""
        file = self.root / "cells" / f"{cell.digest}.json"
        try:
            stored = read_json(file) if file.is_file() else None
        except Failure:
            return None
        return stored if stored is not None and harm(stored) is None and "error" not in stored else None

    def keep(self, cell: Cell, outcome: dict[str, Any]) -> None:
        """Store the outcome of a cell; a failure never takes the place of an outcome that is good."""
        if "error" not in outcome or self.outcome(cell) is None:
            write_json(self.root / "cells" / f"{cell.digest}.json", {"cell": cell.as_dict(), **outcome})

    def outcomes(self) -> Iterator[dict[str, Any]]:
        """Every stored outcome, failures included, sorted by file name; what is not whole is left out, told."""
        for file, record in records(self.root / "cells"):
            if (reason := harm(record)) is None:
                yield record
            else:
                notice(f"{file}: left out: {reason}")


def records(folder: Path) -> Iterator[tuple[Path, Any]]:
    """The JSON files of a folder that are named by a digest, sorted by name, with what they hold.

    Hidden files are none of them; one that cannot be read, or has another name, is left out and named in a notice.
    """
    for file in sorted(folder.glob("*.json")):
        if file.name.startswith("."):
            continue
        if not DIGEST.fullmatch(file.stem):
            notice(f"{file}: left out: the name is no digest; unmix has not written it")
            continue
        try:
            yield file, read_json(file, "left out; the command that made it makes it again")
        except (Failure, UsageError) as error:
            notice(str(error))


def made_of(kind: Callable[..., Job], stored: list[tuple[dict[str, Any], Any]], root: Path) -> list[tuple[Job, Any]]:
    """The recipes of stored work with what is beside each; those that cannot be made here are left out, told.

    Raises `UsageError` where all are such.
    """
    found, left_out = [], dict[str, int]()
    for plain, beside in stored:
        try:
            found.append((kind(**{name: value for name, value in plain.items() if name != "kind"}), beside))
        except (Failure, UsageError, TypeError) as error:
            left_out[str(error)] = left_out.get(str(error), 0) + 1
    if left_out and not found:
        raise UsageError(f"{root}: nothing in it can be read here; first: {next(iter(left_out))}")
    for reason, count in left_out.items():
        notice(f"{root}: {count} of {len(stored)} results are left out: {reason}")
    return found


def harm(record: Any) -> str | None:
    """What is wrong with the stored outcome of a cell, or None."""
    if not isinstance(record, dict):
        return f"expected an object, got {type(record).__name__}"
    needed = ("cell", "world", "error") if "error" in record else MEASURED
    if missing := [name for name in needed if name not in record]:
        return f"has no {', '.join(missing)}"
    if not isinstance(record["cell"], dict):
        return "its cell is no recipe"
    scores = record.get("scores", {})
    if not isinstance(scores, dict) or any(not isinstance(s, dict) or "value" not in s for s in scores.values()):
        return "its scores are not whole"
    return None
