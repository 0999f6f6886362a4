"""Real representations: the same finders and encoders on activations, where no truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from unmix.activations.collect import TextActivations
from unmix.activations.data import Data
from unmix.core.errors import UsageError
from unmix.core.watch import Progress
from unmix.encoders.amortised import MLP, Linear, TopK
from unmix.encoders.composed import Refine
from unmix.encoders.greedy import Omp
from unmix.encoders.iterative import Fista
from unmix.finders.dictionary import SparseCoding
from unmix.finders.sae import SAE
from unmix.finders.topk_sae import TopKSAE
from unmix.scores.autointerp import AutoInterp
from unmix.study import verbs
from unmix.study.agreement import agreement
from unmix.study.downstream import Downstream, downstream
from unmix.study.engines import Engine
from unmix.study.explain import Explanations, explain
from unmix.study.study import Results


@dataclass(frozen=True)
class Representation:
    """What was found in one representation; losses and judgements are missing where there is no model or no text."""

    name: str
    results: Results
    names: dict[str, str]
    agreement: pd.DataFrame
    losses: dict[str, Downstream]
    judged: dict[str, Explanations]


def sizes(small: bool) -> tuple[int, int, int]:
    """Rows of the sentence encoder, number of atoms, active codes of a row."""
    return (30_000, 512, 16) if small else (200_000, 2048, 32)


def finders(small: bool, training: float = 1.0) -> dict[str, Any]:
    """Name -> recipe."""
    _, width, k = sizes(small)
    steps = max(1, round((1000 if small else 2000) * training))
    dense = {"width": width, "active": k, "steps": steps, "batch": 512}
    return {
        "SAE": SAE(encoder=Linear(), **dense),
        "MLP": SAE(encoder=MLP(hidden=width), **dense),
        "TopK SAE": TopKSAE(width=width, k=k, steps=steps),
        "sparse coding": SparseCoding(width=width, active=k, passes=3 if small else 5),
    }


def encoders(small: bool) -> tuple[Any, ...]:
    """The encoders that every dictionary is read with, at one sparsity."""
    k = sizes(small)[2]
    return (TopK(k=k), Fista(), Refine(first=TopK(k=k), then=Fista()), Omp(k=k))


def plan(study: Any, small: bool) -> str:
    """What would be run, in one line."""
    rows, width, k = sizes(small)
    places = ", ".join(["the sentence encoder", *(Path(path).name for path in study.data)])
    return (
        f"{len(finders(small))} finders with {width} atoms, {k} active, on {places} ({study.tokens or rows:,} tokens)"
    )


def run(study: Any, folder: Path, small: bool, engine: Engine) -> list[Representation]:
    """Fit, swap encoders, compare seeds, measure losses in the model and judge explanations; all of it resumes."""
    rows = sizes(small)[0]
    worlds = {}
    if study.model:
        recipe = TextActivations(model=study.model, layer=study.layer, tokens=study.tokens or rows)
        held = folder / "activations"
        recipe.collect(study.texts, held, Progress("activations"))
        worlds[study.model] = Data(path=str(held.resolve()))
    for path in study.data:
        if not Path(path).exists():
            raise UsageError(
                f"data={path}: no such folder; make one with: unmix activations MODEL --layer L ... -o {path}"
            )
        worlds[Path(path).name] = Data(path=str(Path(path).resolve()))
    recipes = finders(small, study.training)
    return [_one(name, world, folder / "real" / name, recipes, small, engine) for name, world in worlds.items()]


def _one(
    name: str, world: Data, folder: Path, recipes: dict[str, Any], small: bool, engine: Engine
) -> Representation:
    verbs.fit(world, list(recipes.values()), folder, (0, 1), engine=engine)
    results = verbs.compare(folder, encoders(small), sizes(small)[2], (0,), engine)
    names = {recipe.digest: key for key, recipe in recipes.items()}
    labels = {key: results.label(recipe) for key, recipe in recipes.items()}
    losses: dict[str, Downstream] = {}
    judged: dict[str, Explanations] = {}
    items = getattr(world.open(), "items", None)
    if getattr(items, "kind", "") == "text":
        for key, label in labels.items():
            watch = Progress(f"model under codes of {key}")
            losses[key] = downstream(folder, finder=label, seed=0, tokens=4096 if small else 32_768, watch=watch)
            judged[key] = explain(folder, label, 0, AutoInterp(features=40 if small else 200))
    return Representation(name, results, names, agreement(results), losses, judged)


def frame(found: Representation) -> pd.DataFrame:
    """One row for every cell: method, encoder ("own" or its kind), seed, l0, fvu, dead, FLOPs."""
    rows = []
    for cell, outcome in found.results.cells():
        scores = {name: numbers["value"] for name, numbers in outcome["scores"].items()}
        rows.append(
            {
                "method": found.names.get(cell.finder.digest, cell.finder.kind),
                "encoder": "own" if cell.encoder is None else cell.encoder.kind,
                "seed": cell.seed,
                "encode_flops": outcome["encode_flops"],
                "fit_flops": outcome["fit_flops"],
                "fit_seconds": outcome["fit_seconds"],
                **scores,
            }
        )
    return pd.DataFrame(rows)
