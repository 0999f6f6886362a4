"""DIET's study: objectives at equal compute, what DIET is sensitive to, its linear case, and known latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe
from unmix.papers.diet import grids
from unmix.papers.parts import Part, run_parts
from unmix.study.engines import Engine, Processes
from unmix.study.runs import Store
from unmix.worlds.images import Images, holds_images

HERE = "unmix.papers.diet."
SectionName = Literal["digits", "images", "sensitivity", "linear", "latents"]
SECTIONS: tuple[SectionName, ...] = get_args(SectionName)
LOOKS, SHOWN = 7, 8


class DietStudy(Recipe):
    """DIET beside other objectives on scikit-learn's digits, on pictures of your own, and where the truth is known.

    sections: which parts to run. images: a folder, .zip or array of labelled pictures (see `unmix learn`); without it
    that section is left out. side: they are scaled to, where they are unlike. seeds: None takes 3, and in the small
    study 2 of ClusterWorld and 1 of sensitivity. image_seeds: None takes 3, in the small study 1. compute:
    floating-point operations of training that every objective may use on digits, counted; None takes 5e11, in the
    full study 2e12; half of it for each setting that is varied. image_compute: of each objective on pictures; None
    takes 1.5e13, some 5 minutes of two cores, in the small study 1e12. most: pictures to learn from, None takes all,
    in the small study 4,000. training: share of all compute, below 1 for a trial run.
    """

    equation: ClassVar[str] = "L = mean CE_eps(beta W f(T(x_n)), n),  target (1 - eps) e_n + eps / N"
    reference: ClassVar[str] = "Ibrahim et al. 2023, arXiv 2302.10260; Balestriero et al. 2024, arXiv 2406.10743"
    name: ClassVar[str] = "diet"

    sections: tuple[SectionName, ...] = SECTIONS
    images: str | None = None
    side: int | None = Field(default=None, ge=1)
    seeds: tuple[int, ...] | None = None
    image_seeds: tuple[int, ...] | None = None
    compute: float | None = Field(default=None, gt=0)
    image_compute: float | None = Field(default=None, gt=0)
    most: int | None = Field(default=None, ge=2)
    training: float = Field(default=1.0, gt=0, le=1)

    def chosen_seeds(self, section: str, small: bool) -> tuple[int, ...]:
        """The seeds given, or as many as a section takes."""
        given = self.image_seeds if section == "images" else self.seeds
        count = {"images": 1, "sensitivity": 1, "latents": 2}.get(section, 3) if small else 3
        return given if given is not None else tuple(range(count))

    def used_compute(self, section: str, small: bool) -> float:
        """Floating-point operations of each piece of training of a section."""
        if section == "images":
            whole = self.image_compute or (1e12 if small else 1.5e13)
        else:
            whole = self.compute or (5e11 if small else 2e12)
        return whole * self.training * (0.5 if section == "sensitivity" else 1.0)

    def world(self, section: str) -> Images:
        """The pictures of a section; raises `UsageError` where they are not there or have no labels."""
        if section != "images":
            return grids.digits()
        if not holds_images(str(self.images)):
            raise UsageError(f"images={self.images}: no folder, .zip or array of pictures; see unmix learn --help")
        world = Images(path=str(Path(str(self.images)).resolve()), side=self.side)
        if world.classes is None or world.classes < 2:
            raise UsageError(f"images={self.images}: has no classes; probes need a folder for each class, or labels")
        return world

    def fields(self, section: str) -> dict[str, Any]:
        """What all learners of a section share."""
        return grids.image_fields() if section == "images" else grids.digits_fields()

    def parts(self, small: bool) -> list[tuple[dict[str, Any], Part]]:
        """Every piece of work with what it is: section, method (or factor and value), seed."""
        makers = {
            "digits": self._compared,
            "images": self._compared,
            "sensitivity": self._sensitivity,
            "linear": self._linear,
            "latents": self._latents,
        }
        wanted = [s for s in SECTIONS if s in self.sections and (s != "images" or self.images is not None)]
        return [made for section in wanted for made in makers[section](section, small)]

    def plan(self, small: bool) -> str:
        """What would be run."""
        counts: dict[str, int] = {}
        for what, _ in self.parts(small):
            counts[what["section"]] = counts.get(what["section"], 0) + 1
        trained = ("digits", "images", "sensitivity")
        told = [
            f"{section}: {count} pieces of work"
            + (f", {self.used_compute(section, small):.2g} operations each" if section in trained else "")
            for section, count in counts.items()
        ]
        return "\n".join([*told, *([] if self.images else ["pictures are left out: give images=PATH"])])

    def run(self, folder: str | Path, small: bool, engine: Engine | None = None) -> Path:
        """Run what is missing, write claims.json and the page; returns the page's path."""
        from unmix.papers.diet.page import write

        folder, parts = Path(folder), [part for _, part in self.parts(small)]
        Store(folder).create()
        run_parts(folder, parts, engine or Processes(workers=None))
        return write(self, folder, small)

    def _compared(self, section: str, small: bool) -> list[tuple[dict[str, Any], Part]]:
        world, fields = self.world(section), self.fields(section)
        own = grids.ON_IMAGES if section == "images" else {}
        most = self.most or (4000 if small else None) if section == "images" else None
        given = {"world": world.as_dict(), **({} if most is None or most >= world.size else {"most": most})}
        made, found = grids.objectives(fields, own), []
        for seed in self.chosen_seeds(section, small):
            shown = {"pictures": SHOWN} if seed == self.chosen_seeds(section, small)[0] else {}
            for method, learner in made.items():
                settings = {**given, "learner": learner.as_dict(), "seed": seed}
                settings["compute"] = self.used_compute(section, small)
                settings |= {"looks": LOOKS, **shown} if method == grids.DIET else {}
                found.append((_what(section, seed, method=method), Part(f"{HERE}runs:trained", settings)))
            start = {"world": given["world"], "learner": made[grids.DIET].as_dict(), "seed": seed}
            found.append((_what(section, seed, method=grids.UNTRAINED), Part(f"{HERE}runs:baseline", start)))
        raw = {"world": given["world"], "learner": None, "seed": 0, "pictures": SHOWN}
        return [*found, (_what(section, 0, method=grids.RAW), Part(f"{HERE}runs:baseline", raw))]

    def _sensitivity(self, section: str, small: bool) -> list[tuple[dict[str, Any], Part]]:
        world, found = self.world(section), []
        for factor, value, learner, most in grids.settings(self.fields(section), world.size):
            for seed in self.chosen_seeds(section, small):
                settings = {"world": world.as_dict(), "learner": learner.as_dict(), "seed": seed}
                settings["compute"] = self.used_compute(section, small)
                settings |= {} if most is None else {"most": most}
                what = _what(section, seed, factor=factor, value=value)
                found.append((what, Part(f"{HERE}runs:trained", settings)))
        return found

    def _linear(self, section: str, small: bool) -> list[tuple[dict[str, Any], Part]]:
        return [(_what(section, 0), Part(f"{HERE}linear:check", {"data": 60 if small else 200}))]

    def _latents(self, section: str, small: bool) -> list[tuple[dict[str, Any], Part]]:
        found, steps = [], max(2, round((1000 if small else 4000) * self.training))
        for seed in self.chosen_seeds(section, small):
            for method, world, learner in grids.known_worlds(seed, steps):
                settings = {"world": world.as_dict(), "learner": learner.as_dict(), "seed": seed}
                found.append((_what(section, seed, method=method), Part(f"{HERE}runs:known_latents", settings)))
        return found


def _what(section: str, seed: int, **more: Any) -> dict[str, Any]:
    return {"section": section, "seed": seed, **more}
