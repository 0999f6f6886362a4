"""SlowVAE's study: a few latents under four laws of motion, sprites, a choice without the truth, and real motion."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from unmix.core.recipe import Recipe
from unmix.papers.costs import training
from unmix.papers.parts import Part, run_parts
from unmix.papers.slowvae import grids
from unmix.papers.slowvae.runs import tracks_of
from unmix.study.engines import Engine, Processes
from unmix.study.present import duration
from unmix.study.runs import Store

RUNS = "unmix.papers.slowvae.runs:"
SectionName = Literal["motion", "latents", "choice", "sprites"]
SECTIONS: tuple[SectionName, ...] = get_args(SectionName)
CHOSEN = (0.0, 1.0, 5.0, 50.0)
KEPT = 500
FRESH = 20
MORE_SCORES = ("mig", "sap", "modularity", "dci_disentanglement")


class SlowVaeStudy(Recipe):
    """SlowVAE beside its rivals and controls, where the truth is known, and the motion of real objects.

    seeds: of mixing, initialisation and draws; None takes ten, and in the small study 5 on the main world, 1 to 3
    elsewhere. sections: which parts to run. tracks: table of tracks of real objects (see `unmix
    check`); without it natural motion is left out. latents, mixing: of the low-dimensional worlds; mixing is linear
    or mlp. gamma: weight of SlowVAE's transitions there. steps, sprite_steps: of training; None takes 4,000 (2,000
    for the choice in the small study), and 3,000 for sprites of 32 pixels or the paper's 300,000 for 64. training:
    share of all steps, below 1 for a trial run. test: held-out rows that codes are scored on; ICA is fitted on ten
    times as many.
    """

    equation: ClassVar[str] = "p(z_t | z_{t-1}) = prod_i r / 2 exp(-r |z_ti - z_{t-1,i}|)"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"
    name: ClassVar[str] = "slowvae"

    seeds: tuple[int, ...] | None = None
    sections: tuple[SectionName, ...] = SECTIONS
    tracks: str | None = None
    latents: int = Field(default=4, ge=2)
    mixing: Literal["linear", "mlp"] = "linear"
    gamma: float = Field(default=5.0, gt=0)
    steps: int | None = Field(default=None, ge=1)
    sprite_steps: int | None = Field(default=None, ge=1)
    training: float = Field(default=1.0, gt=0, le=1)
    test: int = Field(default=10_000, ge=100)

    def chosen_seeds(self, small: bool, count: int, first: int = 0) -> tuple[int, ...]:
        """The seeds given, or in the small study `count` of them from `first` on, or ten."""
        return self.seeds if self.seeds is not None else tuple(range(first, first + (count if small else 10)))

    def trained_steps(self, of: str, small: bool) -> int:
        """Steps of training of a section."""
        if of == "sprites":
            whole = self.sprite_steps or (3000 if small else 300_000)
        else:
            whole = self.steps or (2000 if small and of == "choice" else 4000)
        return max(1, round(whole * self.training))

    def parts(self, small: bool) -> list[tuple[dict[str, Any], Part]]:
        """Every piece of work with what it is: section, law, method, seed (and gamma)."""
        makers = {"motion": self._motion, "latents": self._latents, "choice": self._choice, "sprites": self._sprites}
        return [made for section in SECTIONS if section in self.sections for made in makers[section](small)]

    def plan(self, small: bool) -> str:
        """What would be run, and what it costs: a few steps of every learner are taken to see."""
        told, parts = [], self.parts(small)
        for section in dict.fromkeys(what["section"] for what, _ in parts):
            mine = [(what, part) for what, part in parts if what["section"] == section]
            trained: dict[str, list[Part]] = {}
            for what, part in mine:
                if part.function == f"{RUNS}trained":
                    trained.setdefault(what["method"], []).append(part)
            flops = seconds = 0.0
            for alike in trained.values():
                once = training(alike[0].settings["world"], alike[0].settings["learner"])
                flops, seconds = (
                    total + len(alike) * cost for total, cost in zip((flops, seconds), once, strict=True)
                )
            cost = f", {flops:.1e} FLOPs, {duration(seconds)} of one core as busy as now" if trained else ""
            told.append(f"{section}: {len(mine)} pieces of work{cost}")
        return "\n".join([*told, *([] if self.tracks else ["natural motion is left out: give tracks=PATH"])])

    def run(self, folder: str | Path, small: bool, engine: Engine | None = None) -> Path:
        """Run what is missing, write claims.json and the page; returns the page's path."""
        from unmix.papers.slowvae.page import write

        folder, parts = Path(folder), [part for _, part in self.parts(small)]
        Store(folder).create()
        run_parts(folder, parts, engine or Processes(workers=None))
        return write(self, folder, small)

    def _settings(self, world: Any, learner: Any, seed: int) -> dict[str, Any]:
        return {"world": world.as_dict(), "learner": learner.as_dict(), "seed": seed, "test": self.test}

    def _found(self) -> str | None:
        return None if self.tracks is None else str(tracks_of(self.tracks))

    def _motion(self, small: bool) -> list[tuple[dict[str, Any], Part]]:
        path = self._found()
        return [] if path is None else [({"section": "motion"}, Part(f"{RUNS}motion", {"path": path}))]

    def _latents(self, small: bool) -> list[tuple[dict[str, Any], Part]]:
        found = []
        for law, motion in grids.transitions(self._found()).items():
            rate = grids.RATES.get(law, 2.0)
            learners = grids.latent_learners(self.latents, self.trained_steps("latents", small), self.gamma, rate)
            for method, learner in learners.items():
                pair = method in (grids.SLOW, grids.BETA)
                if small and not pair and law not in ("Laplace", "Gaussian"):
                    continue
                for seed in self.chosen_seeds(small, _count(pair, law)):
                    world = grids.latent_world(motion, self.latents, self.mixing, seed)
                    settings = self._settings(world, learner, seed)
                    found.append((_what("latents", law, method, seed), Part(f"{RUNS}trained", settings)))
            for seed in self.chosen_seeds(small, _count(True, law)):
                world = grids.latent_world(motion, self.latents, self.mixing, seed)
                for on in ("differences", "frames"):
                    settings = {"world": world.as_dict(), "seed": seed, "on": on, "test": self.test}
                    found.append((_what("latents", law, f"ICA of {on}", seed), Part(f"{RUNS}ica", settings)))
        # An interrupted run has the main contrast under every law before the rivals.
        main = (grids.SLOW, grids.BETA, "ICA of differences", "ICA of frames")
        return sorted(found, key=lambda made: made[0]["method"] not in main)

    def _choice(self, small: bool) -> list[tuple[dict[str, Any], Part]]:
        found = []
        world = grids.latent_world(grids.transitions(None)["Laplace"], self.latents, self.mixing, 0)
        steps = self.trained_steps("choice", small)
        slow = grids.latent_learners(self.latents, steps, self.gamma, 2.0)[grids.SLOW]
        for gamma in CHOSEN:
            for seed in self.chosen_seeds(small, 3):
                settings = {**self._settings(world, slow.but(gamma=gamma), seed), "keep": KEPT}
                what = {**_what("choice", "Laplace", grids.SLOW, seed), "gamma": gamma}
                found.append((what, Part(f"{RUNS}trained", settings)))
        return found

    def _sprites(self, small: bool) -> list[tuple[dict[str, Any], Part]]:
        found = []
        for law, world in grids.sprite_worlds(small, self._found()).items():
            learners = grids.sprite_learners(small, self.trained_steps("sprites", small))
            for method, learner in learners.items():
                # The settings of small sprites were found with the truth in view, on seeds below FRESH.
                count = 3 if method in (grids.SLOW, grids.BETA, grids.PCL) else 1
                for seed in self.chosen_seeds(small, count, FRESH if small else 0):
                    settings = self._settings(world, learner, seed)
                    more = {"measures": ["mig"] if small else list(MORE_SCORES)}
                    found.append((_what("sprites", law, method, seed), Part(f"{RUNS}trained", {**settings, **more})))
        return found


def _count(main: bool, law: str) -> int:
    """Seeds in the small study: most on the main world, for the learners that are compared."""
    return (5 if main else 3) if law == "Laplace" else 2 if main else 1


def _what(section: str, law: str, method: str, seed: int) -> dict[str, Any]:
    return {"section": section, "law": law, "method": method, "seed": seed}
