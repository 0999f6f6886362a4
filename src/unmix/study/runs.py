"""The run store: a folder with one sub-folder for every fit and one file for every cell, named by digest."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unmix.core import parallel
from unmix.core.digest import SCHEMA
from unmix.core.errors import UsageError
from unmix.core.store import read_json, write_json
from unmix.core.watch import Checkpoint
from unmix.finders.features import Features
from unmix.study.cells import Cell, Split


class Store:
    """Fits and cells of a run in a folder; what is there is never made twice, and failures stay, with their reason.

    root/run.json says what wrote it; root/fits/DIGEST/ holds features, log and, while it runs, a checkpoint;
    root/cells/DIGEST.json holds a cell and its outcome. Raises `UsageError` for a folder of another version.
    """

    def __init__(self, root: str | Path) -> None:
        self.root: Path = Path(root)
        header = self.root / "run.json"
        if header.is_file():
            found = read_json(header).get("schema")
            if found != SCHEMA:
                raise UsageError(
                    f"{self.root}: written by another version (schema {found}, this one reads {SCHEMA}); "
                    "use another folder, or the version that wrote it"
                )
        elif self.root.is_dir() and any(not part.name.startswith(".") for part in self.root.iterdir()):
            raise UsageError(f"{self.root}: not empty and not a run folder; use another folder")

    @staticmethod
    def open(root: str | Path) -> Store:
        """An existing run; raises `UsageError` where there is none."""
        if not (Path(root) / "run.json").is_file():
            raise UsageError(f"{root}: no run here (no run.json); make one with: unmix fit DATA -o {root}")
        return Store(root)

    def create(self) -> Store:
        """Make the folder where it is not there yet."""
        if not (self.root / "run.json").is_file():
            write_json(self.root / "run.json", {"schema": SCHEMA})
        return self

    def features(self, cell: Cell) -> Features | None:
        """The stored features of a cell's fit, or None."""
        folder = self.root / "fits" / cell.fit_digest
        return Features.load(folder) if (folder / "features.json").is_file() else None

    def fit(self, cell: Cell, part: Split) -> Features:
        """The features of a cell: stored, or fitted now, going on from the checkpoint of an interrupted fit.

        What is returned was read from the disk, so that a run that was interrupted in between has the same bits.
        Under torchrun every process calls this, and the first one stores.
        """
        if (known := self.features(cell)) is not None:
            return known
        working = self.root / "fits" / f"{cell.fit_digest}.working"
        watch = Checkpoint(working, cell.label)
        start = None if cell.start is None else Features.load(cell.start[0])
        features = cell.finder.fit(part.train, cell.seed, watch, start=start)
        if parallel.rank():
            return features
        folder = self.root / "fits" / cell.fit_digest
        features.save(folder)
        if watch.log.is_file():
            shutil.copyfile(watch.log, folder / "log.jsonl")
        shutil.rmtree(working, ignore_errors=True)
        return Features.load(folder)

    def outcome(self, cell: Cell) -> dict[str, Any] | None:
        """The stored outcome of a cell, or None where it is missing or failed."""
        file = self.root / "cells" / f"{cell.digest}.json"
        stored = read_json(file) if file.is_file() else None
        return None if stored is None or "error" in stored else stored

    def keep(self, cell: Cell, outcome: dict[str, Any]) -> None:
        """Store the outcome of a cell."""
        write_json(self.root / "cells" / f"{cell.digest}.json", {"cell": cell.as_dict(), **outcome})

    def outcomes(self) -> Iterator[dict[str, Any]]:
        """Every stored outcome, failures included, sorted by file name."""
        for file in sorted((self.root / "cells").glob("*.json")):
            yield read_json(file)
