"""The study of trust: what matched worlds promise, beside what is recovered on worlds that differ from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe
from unmix.papers.parts import Part, run_parts
from unmix.papers.trust import grids
from unmix.study.engines import Engine, Processes
from unmix.study.runs import Store

RUNS = "unmix.papers.trust.runs:"
SectionName = Literal["features", "classifiers", "motion"]
SECTIONS: tuple[SectionName, ...] = get_args(SectionName)
MORE = 2  # atoms for each true one, where a finder has too many


class TrustStudy(Recipe):
    """What `unmix trust` promises beside what was recovered, on worlds that the matched one does not resemble.

    seeds: of worlds, fits and draws; None takes five, and two in the small study. sections: features (dictionaries of
    sparse worlds), classifiers (of labels and of numbers, on cluster worlds), motion (SlowVAE on latents that move).
    worlds: only these, by name; None takes all. samples: rows to fit features on. training: share of all steps,
    below 1 for a trial run.
    """

    equation: ClassVar[str] = "error = promised - real recovery, over worlds"
    reference: ClassVar[str] = "unmix"
    name: ClassVar[str] = "trust"

    seeds: tuple[int, ...] | None = None
    sections: tuple[SectionName, ...] = SECTIONS
    worlds: tuple[str, ...] | None = None
    samples: tuple[int, ...] = (4096,)
    training: float = Field(default=1.0, gt=0, le=1)

    def chosen_seeds(self, small: bool) -> tuple[int, ...]:
        """The seeds given, or the first two or five."""
        return self.seeds if self.seeds is not None else tuple(range(2 if small else 5))

    def parts(self, small: bool) -> list[tuple[dict[str, Any], Part]]:
        """Every piece of work with what it is: section, world, method, seed (and width and samples)."""
        makers = {"features": self._features, "classifiers": self._learned, "motion": self._learned}
        parts = [made for section in SECTIONS if section in self.sections for made in makers[section](section, small)]
        if self.worlds is None:
            return parts
        known = dict.fromkeys(what["world"] for what, _ in parts)
        for name in self.worlds:
            if name not in known:
                raise UsageError(f"worlds={name}: no such one in these sections; known: {', '.join(known)}")
        return [(what, part) for what, part in parts if what["world"] in self.worlds]

    def plan(self, small: bool) -> str:
        """What would be run."""
        parts = self.parts(small)
        counts = {section: sum(what["section"] == section for what, _ in parts) for section in self.sections}
        return "\n".join(f"{section}: {count} promises" for section, count in counts.items())

    def run(self, folder: str | Path, small: bool, engine: Engine | None = None) -> Path:
        """Run what is missing, write claims.json and the page; returns the page's path."""
        from unmix.papers.trust.page import write

        folder, parts = Path(folder), [part for _, part in self.parts(small)]
        Store(folder).create()
        run_parts(folder, parts, engine or Processes(workers=None))
        return write(self, folder, small)

    def _features(self, section: str, small: bool) -> list[tuple[dict[str, Any], Part]]:
        found = []
        for seed in self.chosen_seeds(small):
            for name, world in grids.sparse_worlds(seed).items():
                for width in (grids.LATENTS, MORE * grids.LATENTS):
                    if small and width > grids.LATENTS and seed != self.chosen_seeds(small)[0]:
                        continue
                    for method, finder in grids.finders(width, self.training).items():
                        for samples in self.samples:
                            what = {"section": section, "world": name, "method": method, "seed": seed}
                            given = {"world": world.as_dict(), "finder": finder.as_dict(), "seed": seed}
                            part = Part(f"{RUNS}promised", {**given, "samples": samples})
                            found.append(({**what, "width": width, "samples": samples}, part))
        return found

    def _learned(self, section: str, small: bool) -> list[tuple[dict[str, Any], Part]]:
        found = []
        for seed in self.chosen_seeds(small):
            tried = {
                "classifiers": (
                    (grids.labelled_worlds(seed), grids.classifier(self.training)),
                    (grids.numbered_worlds(seed), grids.discriminator(self.training)),
                ),
                "motion": ((grids.moving_worlds(seed), grids.slow(self.training)),),
            }
            for worlds, learner in tried[section]:
                for name, world in worlds.items():
                    what = {"section": section, "world": name, "method": learner.kind, "seed": seed}
                    settings = {"world": world.as_dict(), "learner": learner.as_dict(), "seed": seed}
                    found.append((what, Part(f"{RUNS}foretold", settings)))
        return found
