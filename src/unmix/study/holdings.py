"""What a run folder holds, counted: for `unmix status`, and for the words of a verb that finds nothing to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from unmix.core.errors import UsageError
from unmix.core.store import is_locked
from unmix.finders.features import Features
from unmix.study.runs import DIGEST
from unmix.study.study import Results

# Sub-folders and files of a run beside its fits, what each holds, and what reads it.
BESIDE = {
    "parts": ("result of a study", "open report.html"),
    "promises": ("promise of unmix trust", "unmix trust"),
    "explanations": ("explanation of features", "unmix explain"),
    "downstream": ("downstream measurement", "unmix downstream"),
    "steering": ("steering measurement", "unmix steer"),
    "interpretability": ("table of interpretability", "unmix score and unmix atlas"),
}
FILES = ("choose.csv", "learning_curve.csv", "claims.json", "report.html", "atlas")


@dataclass(frozen=True)
class Holdings:
    """What is in a run folder. Raises `UsageError` for a folder that is none."""

    root: Path

    @cached_property
    def results(self) -> Results:
        """Its fits and cells."""
        return Results(self.root)

    @cached_property
    def learnt(self) -> list[str]:
        """A name for everything that `unmix learn` learnt."""
        if not (self.root / "learned").is_dir():
            return []
        from unmix.study.learning import Learned

        return [job.label for job, _ in Learned(self.root).jobs()]

    @cached_property
    def failures(self) -> list[str]:
        """One sentence for everything that failed."""
        if not (self.root / "learned").is_dir():
            return self.results.failures
        from unmix.study.learning import Learned

        return [*self.results.failures, *Learned(self.root).failures]

    def table(self) -> pd.DataFrame:
        """One row for every cell (`Results.table`), then one for everything learnt (`Learned.table`)."""
        frame = self.results.table()
        if not self.learnt:
            return frame
        from unmix.study.learning import Learned

        other = Learned(self.root).table()
        return pd.concat([frame, other], ignore_index=True) if len(frame) else other

    def working(self, own: str) -> tuple[int, int]:
        """How many fits (own="fits") or learners ("learned") were interrupted, and how many run now."""
        names = [path.name.removesuffix(".working") for path in (self.root / own).glob("*.working")]
        now = sum(is_locked(self.root, name) for name in names)
        return len(names) - now, now

    @property
    def unmeasured(self) -> int:
        """Number of fits that no cell tells of."""
        told = {cell.fit_digest for cell, _ in self.results.cells()}
        return len({path.name for path in (self.root / "fits").glob("*") if DIGEST.fullmatch(path.name)} - told)

    @property
    def harmed(self) -> list[str]:
        """A sentence for every stored fit of which a file is missing or cut off."""
        folders = [path for path in sorted((self.root / "fits").glob("*")) if DIGEST.fullmatch(path.name)]
        lacking = [(folder, name) for folder in folders if (name := Features.lacks(folder)) is not None]
        return [f"{folder / name}: missing or not whole; run the same fit again" for folder, name in lacking]

    def beside(self) -> Iterator[tuple[str, str]]:
        """What else is there, counted, and what reads it."""
        for folder, (noun, reader) in BESIDE.items():
            paths = [path for path in (self.root / folder).glob("*") if DIGEST.fullmatch(path.stem)]
            if count := len({path.stem for path in paths}):
                yield _counted(count, noun), reader

    def lines(self) -> list[str]:
        """What `unmix status` prints."""
        cells, told = len(self.results.cells()), []
        learnt = len(self.learnt)
        failed = len(self.results.failures)
        for own, done, bad, noun in (
            ("fits", cells, failed, "cell"),
            ("learned", learnt, len(self.failures) - failed, "representation"),
        ):
            interrupted, now = self.working(own)
            if own == "fits" or done or bad or interrupted or now:
                line = f"{_counted(done, noun)} done, {bad} failed, {interrupted} interrupted"
                told.append(line + (f", {now} running now" if now else ""))
        if not cells and not failed and len(told) > 1:
            told = told[1:]
        told += [f"learnt  {name}" for name in self.learnt]
        told += [f"{what} ({reader})" for what, reader in self.beside()]
        if (count := self.unmeasured) and not failed:
            told.append(f"{_counted(count, 'fit')} without a cell; run the same fit again to measure")
        if there := [name for name in FILES if (self.root / name).exists()]:
            told.append(f"also {', '.join(there)}")
        told += [f"harmed  {sentence}" for sentence in self.harmed]
        return [*told, *(f"failed  {failure}" for failure in self.failures)]

    def instead(self) -> str:
        """What is there for a verb that asked for something else, and what reads it: a phrase."""
        told = []
        if cells := len(self.results.cells()):
            told.append(f"{_counted(cells, 'cell')} (unmix table and unmix report read them)")
        if self.learnt:
            names = ", ".join(self.learnt[:3]) + (" ..." if len(self.learnt) > 3 else "")
            told.append(f"{names}, learnt (unmix table, unmix probe and unmix export --encoder read it)")
        told += [f"{what} ({reader})" for what, reader in self.beside()]
        if (count := self.unmeasured) and not self.failures:
            told.append(f"{_counted(count, 'fit')} without a cell (run the same fit again to measure)")
        if self.failures:
            told.append(f"{_counted(len(self.failures), 'failure')} (unmix status names them)")
        return f"it holds {'; '.join(told)}" if told else "it is empty"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def nothing(root: str | Path, wanted: str, made_by: str) -> UsageError:
    """The refusal of a verb that reads what a run has not: wanted, and the command that makes it."""
    return UsageError(f"{root}: no {wanted} here, {Holdings(Path(root)).instead()}; make some with: {made_by}")
