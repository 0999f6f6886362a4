"""Study: a grid of cells with a check before, a store below and a table after."""

from __future__ import annotations

import functools
import itertools
import traceback
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BeforeValidator, Field

from unmix.core import parallel
from unmix.core.errors import UnmixError, UsageError, reason, suggest
from unmix.core.recipe import Recipe, Table, told_apart
from unmix.core.store import write_json
from unmix.encoders import ENCODERS
from unmix.finders import FINDERS
from unmix.scores import SCORES
from unmix.study.cells import Cell, measure, split
from unmix.study.engines import Engine, Lost, Serial
from unmix.study.runs import Store, made_of
from unmix.worlds import WORLDS


def _each(table: Table, optional: bool = False) -> BeforeValidator:
    def make(values: Any) -> tuple[Any, ...]:
        values = values if isinstance(values, (list, tuple)) else (values,)
        return tuple(None if optional and value is None else table.make(value) for value in values)

    return BeforeValidator(make)


class Study(Recipe):
    """Every combination of worlds, sample sizes, finders, encoders and seeds; its one verb is `run`.

    worlds, finders: recipes. encoders: recipes, None for the finder's own. samples: rows to fit on; None takes all.
    l0: mean number of active codes that encoders other than the finder's own are set to. test: held-out rows.
    start: folder and digest of features that every fit goes on from.
    """

    name: str = "study"
    worlds: Annotated[tuple[Any, ...], _each(WORLDS)]
    finders: Annotated[tuple[Any, ...], _each(FINDERS)]
    encoders: Annotated[tuple[Any, ...], _each(ENCODERS, optional=True)] = (None,)
    samples: tuple[int | None, ...] = (None,)
    l0: float | None = Field(default=None, gt=0)
    seeds: tuple[int, ...] = (0,)
    test: int = Field(default=8192, ge=3)
    scores: tuple[str, ...] = ("fvu", "l0", "dead")
    start: tuple[str, str] | None = None

    def cells(self) -> list[Cell]:
        """All cells of the grid, the possible and the impossible ones."""
        for name in self.scores:
            if name not in SCORES:
                raise UsageError(f"scores: no score {name}; {suggest(name, SCORES)}")
        return [
            Cell(
                world=world,
                finder=finder,
                encoder=encoder,
                samples=samples,
                l0=None if encoder is None else self.l0,
                seed=seed,
                test=self.test,
                scores=self.scores,
                start=self.start,
            )
            for world, samples, finder, seed, encoder in itertools.product(
                self.worlds, self.samples, self.finders, self.seeds, self.encoders
            )
        ]

    def check(self) -> list[str]:
        """One sentence for every cell that cannot be run; empty where all can."""
        return [reason for cell in self.cells() if (reason := cell.refusal())]

    def run(self, folder: str | Path, engine: Engine | None = None) -> Results:
        """Run what is missing and give all results of the folder; done cells are not run again.

        Raises `UsageError`, before anything runs, where a cell is impossible.
        """
        if refused := self.check():
            raise UsageError(f"{self.name}: {len(refused)} cells cannot be run; first: {refused[0]}")
        store = Store(folder).create()
        groups: dict[str, list[Cell]] = {}
        for cell in (cell for cell in self.cells() if not _done(store, cell)):
            groups.setdefault(cell.fit_digest, []).append(cell)
        _sweep(store, list(groups.values()), engine or Serial())
        return Results(folder)


def _sweep(store: Store, groups: list[list[Cell]], engine: Engine) -> None:
    """Run groups of cells that share a fit; cells that no worker survives are stored as failures."""
    alone: list[list[Cell]] = []
    for cells, outcome in engine.map(functools.partial(run_cells, store.root.resolve()), groups):
        if isinstance(outcome, Lost):
            left = [cell for cell in cells if not _done(store, cell)]
            if len(left) > 1 and store.has_fit(left[0]):
                alone += [[cell] for cell in left]  # the fit is there: one cell killed the workers, not all of them
                continue
            for cell in left:
                store.keep(cell, {"error": outcome.reason, "world": cell.label})
    if alone:
        _sweep(store, alone, engine)


def run_cells(root: Path, cells: list[Cell]) -> int:
    """Fit once and measure every cell of one fit; a cell that fails is stored with its reason. Number done.

    Cells that are done are left alone: a worker that died may have had some of them. Under torchrun every process
    fits, and the first one measures and stores.
    """
    parallel.join()
    store = Store(root)
    with store.locked(cells[0].fit_digest, cells[0].label):
        return _run(store, [cell for cell in cells if not _done(store, cell)])


def _done(store: Store, cell: Cell) -> bool:
    """Whether a cell's outcome and the features that it was measured with are there."""
    return store.outcome(cell) is not None and store.has_fit(cell)


def _run(store: Store, cells: list[Cell]) -> int:
    done, part, features = 0, None, None
    for cell in cells:
        try:
            part = part or split(cell)
            features = features or store.fit(cell, part)
            if parallel.rank():
                continue
            outcome = measure(cell, features, part)
            done += 1
        except Exception as error:  # a finder of one's own, a matrix that cannot be factored: the sweep goes on
            outcome = {"error": reason(error), "world": cell.label}
            if not isinstance(error, UnmixError):
                outcome["traceback"] = traceback.format_exc()
        if not parallel.rank():
            store.keep(cell, outcome)
    return done


class Results:
    """All results of a run folder, as tables."""

    def __init__(self, folder: str | Path) -> None:
        self.store: Store = Store.open(folder)

    @property
    def failures(self) -> list[str]:
        """One sentence for every cell that failed."""
        return [f"{o['world']}: {o['error']}" for o in self.store.outcomes() if "error" in o]

    def cells(self) -> list[tuple[Cell, dict[str, Any]]]:
        """Every cell that ended well, with its outcome.

        One whose recipes cannot be made here is left out, with a notice; raises `UsageError` where all are such.
        """
        ended = [outcome for outcome in self.store.outcomes() if "error" not in outcome]
        return made_of(Cell, [(outcome["cell"], outcome) for outcome in ended], self.store.root)

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        return told_apart(cell.finder for cell, _ in self.cells())

    def label(self, finder: Any) -> str:
        """A finder's name in tables: its kind, and the fields in which those of its kind differ in this run."""
        return self._names.get(finder.digest, finder.kind)

    def is_called(self, finder: Any, name: str | None) -> bool:
        """Whether a name means this finder: its kind, its name in tables or its whole recipe; None means any."""
        return name in (None, finder.kind, self.label(finder), str(finder))

    def table(self) -> pd.DataFrame:
        """One row for every cell: facts, then for every score NAME, NAME_chance, NAME_low, NAME_high, and
        NAME_minimum where the score has one.

        A finder or an encoder goes by its kind, and by the fields in which those of its kind differ in this run;
        recipe and encoder_recipe are whole. amortised and control say what kind of encoder and of finder it is.
        """
        rows, ended = [], self.cells()
        encoders = told_apart(cell.encoder for cell, _ in ended if cell.encoder is not None)
        for cell, outcome in ended:
            row = {key: value for key, value in outcome.items() if key not in ("cell", "scores")}
            row["finder"], row["recipe"] = self.label(cell.finder), str(cell.finder)
            row["control"], row["encoder_recipe"] = cell.finder.control, row["encoder"]
            if cell.encoder is not None:
                row["encoder"], row["encoder_recipe"] = encoders[cell.encoder.digest], str(cell.encoder)
            for name, numbers in outcome["scores"].items():
                row[name] = numbers["value"]
                parts = ("chance", "low", "high", *(("minimum",) if "minimum" in numbers else ()))
                row.update({f"{name}_{part}": numbers[part] for part in parts})
            rows.append(row)
        frame = pd.DataFrame(rows)
        order = [name for name in ("world", "samples", "finder", "encoder", "own", "seed") if name in frame]
        return frame.sort_values(order, kind="stable").reset_index(drop=True) if len(frame) else frame

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return self.table().to_html(index=False)

    def write_claims(self, claims: list[dict[str, Any]]) -> Path:
        """claims.json beside the results; raises `UsageError` for a claim without its parts."""
        parts = {"claim", "source", "published", "measured", "seeds", "interval", "verdict", "why"}
        verdicts = {"replicates", "differs", "not comparable"}
        for claim in claims:
            if claim.keys() != parts or claim["verdict"] not in verdicts:
                raise UsageError(
                    f"claim {claim.get('claim')!r}: needs {sorted(parts)}, a verdict of {sorted(verdicts)}"
                )
        path = self.store.root / "claims.json"
        write_json(path, claims)
        return path
