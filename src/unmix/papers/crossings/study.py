"""The study of crossings: which crossings there are, which are refused and why, and what is run."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe
from unmix.papers.crossings import grids
from unmix.papers.parts import Part, run_parts
from unmix.study.engines import Engine, Processes
from unmix.study.runs import Store

CROSSED = "unmix.papers.crossings.runs:crossed"


class Crossings(Recipe):
    """Every learner, start, finder and encoder on every world, scored against the truth where there is one.

    seeds: of worlds, fits and draws; None takes five, and two in the small study. worlds: sparse, clusters, motion,
    sprites, digits, activations, recordings. activations: rows of a model, any path that `unmix fit` takes.
    recordings: an array of responses [stimuli, neurons]. Without a path such a world is left out. learners,
    starts, finders, encoders: by name; x itself and the untrained network are always there. samples, test: rows
    that finders are fitted and scored on. training: share of all steps, below 1 for a trial run.
    """

    equation: ClassVar[str] = "world x learner x start x finder x encoder -> codes -> scores beside the truth"
    reference: ClassVar[str] = "unmix"
    name: ClassVar[str] = "crossings"

    seeds: tuple[int, ...] | None = None
    worlds: tuple[str, ...] = grids.WORLDS
    activations: str | None = None
    recordings: str | None = None
    learners: tuple[str, ...] = grids.LEARNERS
    starts: tuple[str, ...] = grids.STARTS
    finders: tuple[str, ...] = grids.FINDERS
    encoders: tuple[str, ...] = grids.ENCODERS
    samples: int = Field(default=4096, ge=100)
    test: int = Field(default=2000, ge=100)
    training: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _named(self) -> Self:
        for field in ("worlds", "learners", "starts", "finders", "encoders"):
            known = getattr(grids, field.upper())
            for name in getattr(self, field):
                if name not in known:
                    raise ValueError(f"{field}={name}: no such one here; known: {', '.join(known)}")
        return self

    def chosen_seeds(self, small: bool) -> tuple[int, ...]:
        """The seeds given, or the first two or five."""
        return self.seeds if self.seeds is not None else tuple(range(2 if small else 5))

    @property
    def missing(self) -> tuple[str, ...]:
        """Worlds that are asked for and need a path that was not given."""
        return tuple(name for name in self.worlds if name in grids.GIVEN and getattr(self, name) is None)

    @property
    def present(self) -> tuple[str, ...]:
        """Worlds that can be run."""
        return tuple(name for name in self.worlds if name not in self.missing)

    def check(self) -> list[dict[str, str]]:
        """What is refused before anything runs: world, what (a learner, a score or a start) and why."""
        return list(_refusals(self))

    def parts(self, small: bool) -> list[tuple[dict[str, Any], Part]]:
        """Every piece of work with what it is: world, learner, start, seed."""
        refused = {(row["world"], row["what"]) for row in self.check()}
        found = []
        for seed in self.chosen_seeds(small):
            for name in self.present:
                at = grids.place(name, seed, self._paths)
                possible = [method for method in self.learners if (name, method) not in refused]
                jobs: list[tuple[str, str]] = [(grids.RAW, "")]
                jobs += [(grids.UNTRAINED, "")] if possible else []
                jobs += [(method, start) for method in possible for start in self.starts]
                for method, start in jobs:
                    what = {"world": name, "learner": method, "start": start, "seed": seed}
                    found.append((what, self._part(at, method, start, possible, seed)))
        return found

    def plan(self, small: bool) -> str:
        """What would be run, and what is refused."""
        parts, cells = self.parts(small), self._cells()
        lines = [f"{len(parts)} representations, with up to {cells} finders and encoders each"]
        lines += [f"{name} is left out: give {name}=PATH" for name in self.missing]
        lines += [f"refused  {row['world']} x {row['what']}: {row['why']}" for row in self.check()]
        return "\n".join(lines)

    def run(self, folder: str | Path, small: bool, engine: Engine | None = None) -> Path:
        """Run what is missing, write claims.json and the page; returns the page's path.

        Raises `UsageError`, before anything runs, where no world is left or a path cannot be read.
        """
        from unmix.papers.crossings.page import write

        if not self.present:
            raise UsageError(f"worlds={','.join(self.worlds)}: none can be run; give {' and '.join(grids.GIVEN)}")
        folder, parts = Path(folder), [part for _, part in self.parts(small)]
        Store(folder).create()
        run_parts(folder, parts, engine or Processes(workers=None))
        return write(self, folder, small)

    @property
    def _paths(self) -> dict[str, str | None]:
        return {name: getattr(self, name) for name in grids.GIVEN}

    def _cells(self) -> int:
        """Cells of one representation: its columns, every finder, every encoder of every dictionary."""
        swapped = len(set(self.finders) & set(grids.DICTIONARIES)) * len(self.encoders)
        return 1 + len(self.finders) + swapped

    def _part(self, at: grids.Place, method: str, start: str, possible: list[str], seed: int) -> Part:
        learner = None
        if method == grids.UNTRAINED:
            learner = grids.learner(possible[-1], "Balanced", at, self.training)
        elif method != grids.RAW:
            learner = grids.learner(method, start, at, self.training)
        d = at.width if learner is not None else _columns(at.world)
        measured = [name for name, why in grids.scores_of(at, learner is not None).items() if why is None]
        settings = {
            "world": at.world.as_dict(),
            "learner": None if learner is None else learner.as_dict(),
            "representation": method,
            "finders": [grids.finder(name, at, d, self.training).as_dict() for name in self.finders],
            "encoders": [grids.encoder(name, at).as_dict() for name in self.encoders],
            "scores": measured,
            "active": at.active,
            "seed": seed,
            "samples": self.samples,
            "test": self.test,
        }
        return Part(CROSSED, settings)


def _columns(world: Any) -> int:
    """Number of entries of one observation."""
    if world.kind == "Data":
        return int(world.open().shape[1])
    return int(world.sample(2, 0).x.flatten(1).shape[1])


@functools.lru_cache(maxsize=8)
def _refusals(study: Crossings) -> tuple[dict[str, str], ...]:
    rows = []
    for name in study.present:
        at = grids.place(name, 0, study._paths)
        for method in study.learners:
            if (why := grids.refused(at, method, study.training)) is not None:
                rows.append({"world": name, "what": method, "why": why})
        scores = grids.scores_of(at, learned=False)
        rows += [{"world": name, "what": score, "why": why} for score, why in scores.items() if why is not None]
        after = grids.scores_of(at, learned=True)
        for score, why in after.items():
            if why is not None and scores[score] is None:
                rows.append({"world": name, "what": f"{score} after a learner", "why": why})
    return tuple(rows)
