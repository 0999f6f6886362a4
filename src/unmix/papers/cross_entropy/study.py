"""Cross-entropy and the data-generating process: where the theorem says so, where it does not, and real networks."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, get_args

from pydantic import Field

from unmix.core.recipe import Recipe
from unmix.papers.cross_entropy import grids, pretrained, sprites
from unmix.papers.parts import Part, run_parts
from unmix.study.engines import Engine, Processes
from unmix.study.runs import Store

SectionName = Literal["theorem", "tables", "violations", "objectives", "sprites", "pretrained"]
SECTIONS: tuple[SectionName, ...] = get_args(SectionName)


class CrossEntropy(Recipe):
    """Cross-entropy inverts the data-generating process: latents recovered up to a linear map, and when they are not.

    seeds: of world, initialisation and batches together; None takes 3 in the small study and 5 in the full one.
    sections: which parts to run: theorem (its four cases), tables (the paper's lines), violations (of the
    assumptions), objectives (contrastive ones on pairs), sprites, pretrained (a network trained on photographs).
    training: share of all training steps, below 1 for a trial run. photographs: zip or folder of photographs and
    objects: MATLAB file of the 92 objects or its folder, both for the section pretrained; None leaves that part out.
    """

    equation: ClassVar[str] = "beta <w_i - w_j, f(g(z))> = kappa <v_C(i) - v_C(j), z> at the optimum"
    reference: ClassVar[str] = "Reizinger et al. 2025, Cross-entropy is all you need, arXiv 2410.21869"
    name: ClassVar[str] = "cross-entropy"

    seeds: tuple[int, ...] | None = None
    sections: tuple[SectionName, ...] = SECTIONS
    training: float = Field(default=1.0, gt=0, le=1)
    photographs: str | None = None
    objects: str | None = None

    def chosen_seeds(self, small: bool) -> tuple[int, ...]:
        """The seeds of a study of this size."""
        return self.seeds if self.seeds is not None else (0, 1, 2) if small else (0, 1, 2, 3, 4)

    def grouped(self, small: bool) -> dict[str, list[tuple[str, Part]]]:
        """Section -> its pieces of work, each with the name of its line."""
        seeds, share = self.chosen_seeds(small), self.training
        found: dict[str, list[tuple[str, Part]]] = {}
        if "theorem" in self.sections:
            found["theorem"] = [("", part) for part in grids.theorem(seeds, small, share)]
        if "tables" in self.sections:
            found["tables"] = [(row.key, part) for row, part in grids.published(seeds, small, share)]
            found["improved"] = [(row.key, part) for row, part in grids.improved(seeds, small, share)]
        if "violations" in self.sections:
            found["violations"] = grids.violations(small, share)
        if "objectives" in self.sections:
            found["objectives"] = grids.objectives(seeds, small, share)
        if "sprites" in self.sections:
            found["sprites"] = [("", part) for part in sprites.parts(seeds, small, share)]
        if "pretrained" in self.sections:
            splits = 5 if small else 10
            made = pretrained.parts(self.photographs, self.objects, splits, small)
            found["pretrained"] = [("", part) for part in made]
        return found

    def parts(self, small: bool) -> list[Part]:
        """All pieces of work, the longest first."""
        found = {part.file(Path()).name: part for group in self.grouped(small).values() for _, part in group}
        return sorted(found.values(), key=lambda part: "learner" in part.settings)

    def plan(self, small: bool) -> str:
        """What would be run."""
        lines = []
        for section, group in self.grouped(small).items():
            steps = sum(part.settings["learner"]["steps"] for _, part in group if "learner" in part.settings)
            trained = f", {steps:,} training steps" if steps else ""
            lines.append(f"{section}: {len(group)} pieces of work{trained}")
        missing = [f"{name}=" for name in ("photographs", "objects") if getattr(self, name) is None]
        if "pretrained" in self.sections and missing:
            lines.append(f"pretrained: {' and '.join(missing)} not given, left out")
        return "\n".join(lines)

    def run(self, folder: str | Path, small: bool, engine: Engine | None = None) -> Path:
        """Run what is missing, write claims.json and the page; returns the page's path."""
        from unmix.papers.cross_entropy.page import write

        folder = Path(folder)
        Store(folder).create()
        # The networks are small: a process for each core does far more than threads inside one.
        run_parts(folder, self.parts(small), engine or Processes(workers=None))
        return write(self, folder, small)
