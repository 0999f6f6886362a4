"""The study of interpretable features: planted superposition, recordings, people, stimuli of units, and a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe
from unmix.papers.parts import Part, run_parts
from unmix.study.engines import Engine, Processes
from unmix.study.runs import Store

RUNS = "unmix.papers.interpretable_features.runs:"
ATLASES = "unmix.papers.interpretable_features.atlases:"
SectionName = Literal["planted", "recordings", "people", "stimuli", "network"]
SECTIONS: tuple[SectionName, ...] = get_args(SectionName)
GIVEN = {"recordings": "recordings", "people": "choices", "stimuli": "stimuli", "network": "network"}


class InterpretableFeatures(Recipe):
    """Interpretability of neurons and of other bases beside its controls, where the truth is known and where not.

    sections: which parts to run; those whose data are not given are left out. seeds: of planted worlds. samples:
    images of a world. recordings: folder of responses_SESSION.npy [neurons, images] with images_SESSION.zip or a
    folder images_SESSION, and for sessions with single presentations responses_raw_SESSION.npy. splits: of the images
    of a session into fitted and scored; None takes 3 and 5. choices: folder of tables of people's choices
    (experiment_I*.csv, experiment_II*.csv). stimuli: folder or .zip UNIT/natural_images/{max,min}_i.jpg. network:
    torch module by dotted path or file ("resnet20.py:build"), built with `arguments`, and with `untrained` for its
    random start (None leaves it out). images: folder or .zip that it looks at; inside: only names that begin so.
    side: of the images, None as they are. mean, deviation: of every channel. layers: of the network. limit: images,
    evenly over the names; None takes 2,000 and all. training: share of passes, splits and draws, below 1 for a trial.
    """

    equation: ClassVar[str] = "II(u) = 2 / (M (M - 1)) sum_(j<k) s(x_j, x_k) over the M most exciting images of u"
    reference: ClassVar[str] = "Klindt et al. 2023, arXiv 2310.11431"
    name: ClassVar[str] = "interpretable-features"

    sections: tuple[SectionName, ...] = SECTIONS
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int = Field(default=4000, ge=200)
    recordings: str | None = None
    splits: int | None = Field(default=None, ge=1)
    choices: str | None = None
    stimuli: str | None = None
    network: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    untrained: dict[str, Any] | None = None
    images: str | None = None
    inside: str = ""
    side: int | None = Field(default=None, ge=1)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    limit: int | None = Field(default=None, ge=100)
    training: float = Field(default=1.0, gt=0, le=1)

    @property
    def left_out(self) -> list[str]:
        """One sentence for every section that lacks its data."""
        lacking = [(section, GIVEN[section]) for section in self.sections if section in GIVEN]
        return [
            f"{section} is left out: give {option}=PATH"
            for section, option in lacking
            if getattr(self, option) is None
        ]

    def parts(self, small: bool) -> list[tuple[dict[str, Any], Part]]:
        """Every piece of work with what it is. Raises `UsageError` for paths that are not there."""
        makers = {
            "planted": self._planted,
            "recordings": self._recordings,
            "people": self._people,
            "stimuli": self._stimuli,
            "network": self._network,
        }
        found = [
            ({"section": section, **what}, Part(f"{RUNS}{function}", settings))
            for section in SECTIONS
            if section in self.sections
            for what, function, settings in makers[section](small)
        ]
        return found + [({"section": "atlas", **what}, part) for what, part in self._atlases(found)]

    def plan(self, small: bool) -> str:
        """What would be run."""
        counts: dict[str, int] = {}
        for what, _ in self.parts(small):
            counts[what["section"]] = counts.get(what["section"], 0) + 1
        return "\n".join([*(f"{name}: {count} pieces of work" for name, count in counts.items()), *self.left_out])

    def run(self, folder: str | Path, small: bool, engine: Engine | None = None) -> Path:
        """Run what is missing, write claims.json, the atlases and the page; returns the page's path."""
        from unmix.papers.interpretable_features.page import write

        folder, parts = Path(folder), [part for _, part in self.parts(small)]
        Store(folder).create()
        run_parts(folder, parts, engine or Processes(workers=None))
        return write(self, folder, small)

    def _draws(self) -> int:
        return max(20, round(1000 * self.training))

    def _planted(self, small: bool) -> list[tuple[dict[str, Any], str, dict[str, Any]]]:
        passes = max(1, round(100 * self.training))
        found = []
        for seed in self.seeds:
            for world, latents in (("superposition", 32), ("one neuron a feature", 16)):
                settings = {"latents": latents, "seed": seed, "samples": self.samples, "passes": passes}
                found.append(({"world": world, "seed": seed}, "planted", {**settings, "draws": self._draws()}))
        return found

    def _atlases(self, found: list[tuple[dict[str, Any], Part]]) -> list[tuple[dict[str, Any], Part]]:
        """Features to look at: of the planted world of the last seed, and of the network's last layer."""
        last = {what["section"]: part.settings for what, part in found}
        made = []
        for section, function, other in (
            ("planted", "planted_features", "latents"),
            ("network", "layer_features", "untrained"),
        ):
            if section in last:
                settings = {name: value for name, value in last[section].items() if name != other}
                made.append(({"of": section}, Part(f"{ATLASES}{function}", settings)))
        return made

    def _recordings(self, small: bool) -> list[tuple[dict[str, Any], str, dict[str, Any]]]:
        if self.recordings is None:
            return []
        folder = _there("recordings", self.recordings)
        sessions = [file.stem.removeprefix("responses_") for file in sorted(folder.glob("responses_*.npy"))]
        sessions = [session for session in sessions if not session.startswith("raw_")]
        if not sessions:
            raise UsageError(f"recordings={folder}: no responses_SESSION.npy in it")
        splits = self.splits or (3 if small else 5)
        found: list[tuple[dict[str, Any], str, dict[str, Any]]] = []
        for session in sessions:
            settings = {"folder": str(folder), "session": session}
            if (folder / f"responses_raw_{session}.npy").is_file():
                found.append(({"session": session, "whiten": None}, "reliable", settings))
            for whiten in (None, 0.1):
                more = {"splits": splits, "draws": self._draws(), "whiten": whiten, "everything": not small}
                found.append(({"session": session, "whiten": whiten}, "recorded", {**settings, **more}))
        return found

    def _people(self, small: bool) -> list[tuple[dict[str, Any], str, dict[str, Any]]]:
        if self.choices is None:
            return []
        folder = _there("choices", self.choices)
        return [({}, "people", {"folder": str(folder)})]

    def _stimuli(self, small: bool) -> list[tuple[dict[str, Any], str, dict[str, Any]]]:
        return [] if self.stimuli is None else [({}, "stimuli", {"path": str(_there("stimuli", self.stimuli))})]

    def _network(self, small: bool) -> list[tuple[dict[str, Any], str, dict[str, Any]]]:
        if self.network is None:
            return []
        if self.images is None:
            raise UsageError("images: the network needs images to look at; give images=PATH")
        shared = {
            "network": self.network,
            "arguments": self.arguments,
            "untrained": self.untrained,
            "images": str(_there("images", self.images)),
            "inside": self.inside,
            "side": self.side,
            "mean": list(self.mean),
            "deviation": list(self.deviation),
            "limit": self.limit or (2000 if small else None),
            "draws": self._draws(),
            "passes": max(1, round(30 * self.training)),
        }
        return [({"layer": layer}, "network", {**shared, "layer": layer}) for layer in self.layers]


def _there(name: str, path: str) -> Path:
    found = Path(path)
    if not found.exists():
        raise UsageError(f"{name}={path}: no such file or folder")
    return found.resolve()
