"""The pieces of work: bases of a planted world, of a recording and of a layer; people; stimuli of units."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unmix.activations.images import open_images
from unmix.activations.modules import ModuleActivations
from unmix.activations.recordings import open_recording
from unmix.activations.reliability import split_half
from unmix.core.errors import Failure, UsageError
from unmix.core.items import ImageItems
from unmix.core.seeds import Stream
from unmix.finders import FINDERS
from unmix.finders.clusters import SphericalKMeans
from unmix.finders.dictionary import SparseCoding
from unmix.finders.linear import PCA, FastICA
from unmix.scores.interpretability.human import accuracy, noise_ceiling, read_choices
from unmix.scores.interpretability.sets import interpretability_index
from unmix.scores.interpretability.stimuli import leave_one_out
from unmix.scores.matching import dictionary_mcc
from unmix.scores.similarity import SIMILARITIES
from unmix.scores.similarity.base import labelled
from unmix.scores.similarity.energy import OrientedEnergy
from unmix.scores.similarity.pixels import Pixels
from unmix.study.interpretable import compare_bases, findings, halves_of_images, over_splits
from unmix.study.layers import compare_layers
from unmix.worlds.superposition import SuperpositionWorld

SEEN = ("OrientedEnergy", "ColourHistogram", "MeanColour", "Brightness", "Structural")
SHUFFLES = 20


def planted(latents: int, seed: int, samples: int, passes: int, draws: int, width: int = 16) -> dict[str, Any]:
    """Bases of a world whose features are known; with as many neurons as features each neuron is one.

    A row of zeros means that nothing is there, so k-means takes rows about 0. Gives table (means of `compare_bases`),
    told (`findings`), dictionary (name of the finder -> value and chance of dictionary_mcc with the true directions),
    truth (index of the true features by themselves and by projection) and centred (rows of the table of k-means about
    the mean, with its dictionary).
    """
    world = SuperpositionWorld(
        latents=latents, width=width, dictionary="identity" if latents == width else "gaussian", seed=seed
    )
    sample = world.sample(samples, seed)
    finders = {
        "sparse coding": SparseCoding(width=latents, penalty=0.05, passes=passes),
        "k-means": SphericalKMeans(width=latents, centre=False, starts=10),
        "ICA": FastICA(width=width),
        "PCA": PCA(width=width),
    }
    centred = {"k-means": SphericalKMeans(width=latents, starts=10)}
    alike = Pixels().bind(sample.x)
    found = _compared(sample.h, sample.x, finders, alike, rng=seed, draws=draws)
    other = _compared(sample.h, sample.x, centred, alike, rng=seed, draws=draws)
    fit, score = halves_of_images(sample.x, seed)
    recovered = {}
    for name, finder in finders.items():
        outcome = dictionary_mcc(finder.fit(sample.h[fit], seed).atoms, world.atoms)
        recovered[name] = {"value": float(outcome.value), "chance": float(outcome.chance)}
    there = alike.take(score)
    truth = {
        "features": interpretability_index(sample.z[score], there, rng=seed, draws=draws),
        "projections": interpretability_index(sample.h[score] @ world.atoms.T, there, rng=seed, draws=draws),
    }
    known = {name: {"value": judged.mean, "z": judged.mean_z} for name, judged in truth.items()}
    mcc = float(dictionary_mcc(centred["k-means"].fit(sample.h[fit], seed).atoms, world.atoms).value)
    rows = [row for row in other["table"] if row["basis"].startswith("k-means")]
    return {**found, "dictionary": recovered, "truth": known, "centred": {"table": rows, "dictionary": mcc}}


def recorded(
    folder: str, session: str, splits: int, draws: int, whiten: float | None, everything: bool
) -> dict[str, Any]:
    """Bases of a session's neurons over its images; everything: sparse coding and ICA beside k-means and PCA.

    ICA is left out where it does not converge on the rows of some split; then left_out says so.
    """
    recording = open_recording(Path(folder) / f"responses_{session}.npy", _pictures(Path(folder), session))
    d = recording.responses.shape[1]
    finders: dict[str, Any] = {"k-means": SphericalKMeans(width=d), "PCA": PCA(width=d)}
    if everything:
        finders["sparse coding"] = SparseCoding(width=d, active=4.0, passes=30)
        finders["ICA"] = FastICA(width=d, max_iterations=5000, tolerance=1e-3)
    alike = OrientedEnergy().bind(recording.items)
    options: dict[str, Any] = {"splits": splits, "standardise": True, "whiten": whiten, "draws": draws}
    facts = {"neurons": d, "images": len(recording.items), "left_out": ""}
    try:
        return {**_compared(recording.responses, recording.items, finders, alike, **options), **facts}
    except Failure as failure:
        if finders.pop("ICA", None) is None:
            raise
        facts["left_out"] = str(failure)
    return {**_compared(recording.responses, recording.items, finders, alike, **options), **facts}


def reliable(folder: str, session: str) -> dict[str, Any]:
    """Split-half reliability and z score of every neuron: half, full, ceiling, z, each [d]; images, unreliable."""
    root = Path(folder)
    recording = open_recording(
        root / f"responses_{session}.npy", _pictures(root, session), root / f"responses_raw_{session}.npy"
    )
    found = split_half(recording.repeats)
    alike = OrientedEnergy().bind(recording.items)
    z = interpretability_index(recording.rows(), alike).z
    columns = {"half": found.half, "full": found.full, "ceiling": found.ceiling, "z": z}
    plain = {name: [None if np.isnan(x) else round(float(x), 5) for x in values] for name, values in columns.items()}
    return {**plain, "images": found.images, "unreliable": int(found.unreliable().sum())}


def people(folder: str) -> dict[str, Any]:
    """Accuracies of people in the two experiments, and how well half of them predict the others.

    Experiment I by instruction, experiment II by instruction in the condition with a single reference.
    Raises `UsageError` where the folder lacks a table.
    """
    found: dict[str, Any] = {"accuracies": [], "ceilings": []}
    for experiment in ("I", "II"):
        files = sorted(Path(folder).glob(f"experiment_{experiment}_*.csv"))
        if not files:
            raise UsageError(f"choices={folder}: no experiment_{experiment}_*.csv in it")
        choices = read_choices(files[0])
        if experiment == "II":
            choices = choices[choices["condition_name"] == "Max-1"]
        for kind in ("natural", "optimized"):
            part = choices[choices["instr_type"] == kind]
            row = accuracy(part).iloc[0]
            facts = {name: float(row[name]) for name in ("accuracy", "error", "people", "trials")}
            found["accuracies"].append({"experiment": experiment, "images": kind, **facts})
            ceiling = noise_ceiling(part, rng=0)
            found["ceilings"].append({"experiment": experiment, "images": kind, **ceiling})
    return found


def stimuli(path: str) -> dict[str, Any]:
    """How often each similarity tells a unit's most from its least exciting images, of those left out; and by chance.

    Gives units, images (of each), right (similarity -> share for every unit) and shuffled (mean share of oriented
    energy where it is drawn which images are the exciting ones). Raises `UsageError` for other folders.
    """
    items = open_images(path)
    names = [Path(name) for name in items.names or ()]
    units: dict[str, dict[str, list[int]]] = {}
    for number, name in enumerate(names):
        if name.parent.name == "natural_images" and (kind := name.stem[:3]) in ("max", "min"):
            units.setdefault(str(name.parent), {"max": [], "min": []})[kind].append(number)
    if not units:
        raise UsageError(f"stimuli={path}: no UNIT/natural_images/max_i and min_i in it")
    natural = sorted(number for sides in units.values() for kind in sides.values() for number in kind)
    place = {number: row for row, number in enumerate(natural)}
    kept = items.take(np.array(natural))
    sides = [tuple(np.array([place[n] for n in unit[kind]]) for kind in ("max", "min")) for unit in units.values()]
    right, shuffled = {}, []
    for similarity in SEEN:
        alike = SIMILARITIES.make(similarity).bind(kept)
        right[similarity] = [float(leave_one_out(alike, a, b)) for a, b in sides]
        if similarity == "OrientedEnergy":
            draw = Stream(0).child("shuffled stimuli").numpy()
            for a, b in sides:
                for _ in range(SHUFFLES):
                    both = draw.permutation(np.concatenate([a, b]))
                    shuffled.append(float(leave_one_out(alike, both[: len(a)], both[len(a) :])))
    return {"units": len(sides), "images": len(sides[0][0]), "right": right, "shuffled": float(np.mean(shuffled))}


def network(
    network: str,
    arguments: Mapping[str, Any],
    untrained: Mapping[str, Any] | None,
    images: str,
    inside: str,
    side: int | None,
    mean: list[float],
    deviation: list[float],
    limit: int | None,
    draws: int,
    passes: int,
    layer: str,
) -> dict[str, Any]:
    """Bases of one layer over images, beside the untrained network: by oriented energy, and by label where known.

    Gives energy and label (each table and told; label is None without labels), images and width.
    """
    items = images_of(images, side, inside, limit)
    trained = layer_of(network, arguments, mean, deviation, layer)
    before = None if untrained is None else trained.but(arguments=dict(untrained))
    found: dict[str, Any] = {"images": len(items)}
    with tempfile.TemporaryDirectory() as folder:
        d = trained.collect(items, Path(folder) / f"trained-{layer}").shape[1]
        found["width"] = d
        finders = {
            "k-means": SphericalKMeans(width=d),
            "sparse coding": SparseCoding(width=2 * d, active=4.0, passes=passes),
            "PCA": PCA(width=d),
        }
        kinds = {"energy": OrientedEnergy().bind(items), "label": _by_label(items)}
        for kind, alike in kinds.items():
            if alike is None:
                found[kind] = None
                continue
            table = compare_layers(
                trained, before, items, [layer], folder, finders.values(), alike, standardise=True, draws=draws
            )
            found[kind] = _plain(table.drop(columns="layer"), finders)
    return found


def images_of(images: str, side: int | None, inside: str, limit: int | None) -> ImageItems:
    """The images that a network looks at; limit: so many, evenly over the names."""
    items = open_images(images, side, inside)
    if limit is None or limit >= len(items):
        return items
    return items.take(np.unique(np.linspace(0, len(items) - 1, limit).round().astype(int)))


def layer_of(
    network: str, arguments: Mapping[str, Any], mean: list[float], deviation: list[float], layer: str
) -> ModuleActivations:
    """The recipe of a layer's activations, means over positions."""
    return ModuleActivations(
        model=network, arguments=dict(arguments), layer=layer, mean=tuple(mean), deviation=tuple(deviation)
    )


def _compared(rows: Any, images: Any, finders: Mapping[str, Any], alike: Any, **options: Any) -> dict[str, Any]:
    return _plain(compare_bases(rows, images, finders.values(), alike, **options), finders)


def _plain(table: pd.DataFrame, finders: Mapping[str, Any]) -> dict[str, Any]:
    """Means over the splits and sentences, finders by their short names."""
    names: dict[str, str] = {}
    for name, finder in finders.items():
        recipe = str(FINDERS.make(finder))
        names |= {recipe: name, f"{recipe} on shuffled neurons": f"{name} on shuffled neurons"}
    table = table.assign(basis=table["basis"].replace(names))
    records: list[dict[Any, Any]] = over_splits(table).to_dict("records")
    rows = [
        {str(key): None if isinstance(value, float) and np.isnan(value) else value for key, value in row.items()}
        for row in records
    ]
    return {"table": rows, "told": findings(table)}


def _by_label(items: ImageItems) -> Any:
    return None if items.labels is None or len(set(items.labels)) < 2 else labelled(items.labels)


def _pictures(folder: Path, session: str) -> Path:
    archive = folder / f"images_{session}.zip"
    return archive if archive.is_file() else folder / f"images_{session}"
