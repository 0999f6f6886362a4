"""Sizing: the fields of a finder that nobody gave, from the rows that it is for, each with its reason."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from unmix.core import parallel
from unmix.core.digest import digest
from unmix.core.errors import Notice
from unmix.core.rows import Rows, gather
from unmix.core.seeds import Stream
from unmix.core.store import recall, write_json
from unmix.finders.features import Features
from unmix.finders.topk_sae import TopKSAE
from unmix.study.description import describe
from unmix.study.runs import Store

OVERCOMPLETE = 4  # atoms for each column
EACH = 4  # rows for each atom, at least
SHARES = (1 / 64, 1 / 32, 1 / 16, 3 / 32, 1 / 8, 3 / 16, 1 / 4)  # of the columns: active codes tried
TRIAL = 4096  # rows of a trial, at most
COLUMNS = 1024  # beyond which a trial would take longer than many a fit
ACTIVE = 64  # active codes, at most, where nothing was tried
UPDATES = 100_000  # rows that a finder which passes over all rows should see, at least


class Sizing:
    """Fields that a finder needs and was not given, from rows [n, d]; `told` says each with its reason.

    Width: 4 atoms a column, at least 4 rows an atom. Active codes: of some shares of the columns the one whose
    features describe rows that a short trial fit has not seen in the fewest bits (`describe`), and at least two,
    since one active code makes clusters. Batch, steps and passes: from the number of rows. Only rows to fit on are
    looked at, never those held out.

    rows: to fit on. start: features that are gone on from; their number is the width. folder: of a run, which keeps
    what the trials found, so that the same command asks for the same fit again; None keeps nothing.
    """

    def __init__(self, rows: Rows, start: Features | None = None, folder: Path | None = None) -> None:
        self.rows, self.start, self.folder = rows, start, folder
        self.told: list[str] = []

    def fields(self, cls: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """Values for fields of a finder's class that are not among those given; other fields keep their defaults."""
        n = self.rows.shape[0]
        known, found = cls.model_fields, {}
        numbers = [given[name] for name in ("width", "batch", "steps", "passes") if name in given]
        if not all(isinstance(number, (int, float)) and number >= 1 for number in numbers):
            return {}  # the recipe says what is wrong with them
        sparse = "k" in known or "active" in known
        if "width" in known and "width" not in given:
            found["width"] = self._tell(cls, "width", *self._width(sparse, known["width"].default))
        width = given.get("width", found.get("width"))
        if (name := _free(cls, given)) is not None:
            k, reason = self._active()
            found[name] = self._tell(cls, name, min(k, width), reason)
        default = {name: known[name].default for name in ("batch", "steps", "passes") if name in known}
        if not sparse:
            return found
        batch = given.get("batch", default.get("batch"))
        least = max(16, 1 << int(math.log2(max(n / 8, 1))))
        if "batch" in default and "batch" not in given and batch > least:
            reason = f"a power of two, at most an eighth of the {n:,} rows where that is 16 or more"
            batch = found["batch"] = self._tell(cls, "batch", least, reason)
        if "steps" in default and "steps" not in given:
            steps = default["steps"]
            if n > steps * batch:
                reason = f"one pass over {n:,} rows, at most {5 * steps:,}"
                found["steps"] = self._tell(cls, "steps", min(math.ceil(n / batch), 5 * steps), reason)
        if "passes" in default and "passes" not in given and n * default["passes"] < UPDATES:
            passes = min(50, math.ceil(UPDATES / n))
            found["passes"] = self._tell(
                cls, "passes", passes, f"{n:,} rows are few: {UPDATES:,} rows in all, at most 50"
            )
        return found

    def _width(self, sparse: bool, default: int) -> tuple[int, str]:
        n, d = self.rows.shape
        if self.start is not None:
            return self.start.shape[0], "that of the features gone on from"
        if not sparse:
            return min(default, d, n), f"at most the {d:,} columns" if default > d else "the finder's own default"
        if n // EACH < OVERCOMPLETE * d:
            return max(1, n // EACH), f"{EACH} rows for each atom, of {n:,} rows"
        return OVERCOMPLETE * d, f"{OVERCOMPLETE} for each of the {d:,} columns"

    def _tell(self, cls: Any, name: str, value: Any, reason: str) -> Any:
        self.told.append(f"{cls.__name__}.{name}={value} ({reason})")
        return value

    def _active(self) -> tuple[int, str]:
        n, d = self.rows.shape
        tried = _tried(d)
        if len(tried) == 1:
            return tried[0], f"for {d} columns"
        if d > COLUMNS or n < 8:
            k = max(1, min(ACTIVE, d // 32))
            return k, f"a 32nd of the {d:,} columns, at most {ACTIVE}; nothing was tried"
        k, bits, plain = (self._trial[name] for name in ("active", "bits", "plain"))
        reason = f"of {', '.join(map(str, tried))} the fewest bits for unseen rows in short trials"
        return int(k), f"{reason}: {bits:.0f}; {plain:.0f} without features"

    @cached_property
    def _trial(self) -> Mapping[str, Any]:
        """active: the number suggested; bits, plain: for a row with features of so many active codes, and without."""
        file = (
            None
            if self.folder is None
            else self.folder / "sizing" / f"{digest([self.rows.digest, SHARES, TRIAL])}.json"
        )
        if file is not None and (kept := recall(file, "active", "bits", "plain")) is not None:
            return kept
        n, d = self.rows.shape
        rows = gather(self.rows, min(n, TRIAL + TRIAL // 4), Stream(0).child("sizing"))
        order = torch.randperm(len(rows), generator=Stream(0).child("sizing order").torch())
        unseen, seen = rows[order[: max(2, len(rows) // 5)]], rows[order[max(2, len(rows) // 5) :]]
        width, lines = max(1, min(OVERCOMPLETE * d, len(seen) // EACH, 1024)), []
        for k in sorted({min(width, k) for k in _tried(d)}):
            steps, batch = (300, 256) if d <= 128 else (150, 128)
            finder = TopKSAE(width=width, k=k, steps=steps, batch=batch, aux_k=min(64, width))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Notice)  # of a trial that is thrown away
                found = describe(finder.fit(seen), seen, unseen)
            lines.append({"active": k, "bits": found.mean, "plain": float(found.plain.mean())})
        made = min(lines, key=lambda line: line["bits"])
        if self.folder is not None and file is not None and not parallel.rank():
            Store(self.folder).create()
            write_json(file, made)
        return made


def _tried(d: int) -> list[int]:
    """Numbers of active codes to try in rows of d columns."""
    return sorted({max(2 if d >= 8 else 1, round(d * share)) for share in SHARES})


def _free(cls: Any, given: Mapping[str, Any]) -> str | None:
    """The field for the number of active codes, where neither it nor what else sets the sparsity is given."""
    known = cls.model_fields
    encoder = given.get("encoder", "Linear")
    kind = encoder.get("kind", "") if isinstance(encoder, Mapping) else str(encoder)
    if any(given.get(name) is not None for name in ("k", "active", "penalty", "weight")):
        return None
    if "encoder" in known and "k" in getattr(_encoder(kind), "model_fields", ()):
        return None
    return next((name for name in ("k", "active") if name in known), None)


def _encoder(kind: str) -> Any:
    from unmix.encoders import ENCODERS

    return ENCODERS[kind.partition("(")[0]]
