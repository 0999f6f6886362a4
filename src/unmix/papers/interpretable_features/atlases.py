"""Atlases beside the page: features of a planted world and of the network's last layer, with their images."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from unmix.activations.images import as_items
from unmix.activations.transforms import Standardise
from unmix.atlas.bundle import write_atlas
from unmix.atlas.run import score_columns
from unmix.core.codes import Codes
from unmix.core.items import ImageItems
from unmix.core.rows import gather
from unmix.finders.dictionary import SparseCoding
from unmix.papers.interpretable_features.runs import images_of, layer_of
from unmix.scores.similarity.base import Alike, unit_rows
from unmix.scores.similarity.energy import OrientedEnergy
from unmix.scores.similarity.pixels import Pixels
from unmix.study.interpretable import halves_of_images
from unmix.study.interpreting import PURITY, feature_scores
from unmix.worlds.superposition import SuperpositionWorld

COUNT = 5  # exciting images of a feature
CLIPPED = 3.0  # planted images are shown between minus this and this


def planted_features(seed: int, samples: int, passes: int, draws: int) -> dict[str, Any]:
    """Sparse coding of superposed features whose patterns are gratings, so that one sees what a feature is.

    Gives what `write_planted` needs: atoms; codes, the row, feature and value of each that is not zero, of the images
    that were not fitted on; table, csv of `feature_scores` with planted (the feature that an atom is nearest to) and
    cosine; told, one sentence; about.
    """
    world = SuperpositionWorld(patterns="gabor", seed=seed)
    sample = world.sample(samples, seed)
    items = _planted_items(sample.x, sample.z)
    fit, score = halves_of_images(items, seed)
    finder, alike = SparseCoding(width=world.latents, penalty=0.05, passes=passes), Pixels().bind(sample.x[score])
    found, table = _found(finder, sample.h[fit], sample.h[score], alike, items.take(score), seed, draws)
    cosine, planted = (torch.nn.functional.normalize(torch.tensor(found["atoms"])) @ world.atoms.T).abs().max(1)
    table = table.assign(planted=[world.factors[j] for j in planted.tolist()], cosine=cosine.numpy())
    near = len(set(planted[cosine > 0.9].tolist()))
    told = f"{near} of {world.latents} planted features have an atom with a |cosine| above 0.9. "
    about = {"world": str(world), "finder": str(finder), "similarity": "Pixels"}
    return {**found, "table": table.to_csv(index=False), "told": told + found["told"], "about": about}


def layer_features(
    network: str,
    arguments: Mapping[str, Any],
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
    """Sparse coding of one layer over images, as `runs.network` has it; gives what `planted_features` does."""
    items = images_of(images, side, inside, limit)
    trained = layer_of(network, arguments, mean, deviation, layer)
    with tempfile.TemporaryDirectory() as folder:
        rows = gather(trained.collect(items, Path(folder) / "layer")).float()
    fit, score = halves_of_images(items)
    affine = Standardise().fit(rows[fit])
    given, shown = unit_rows(affine(rows[fit])), unit_rows(affine(rows[score]))
    kept = items.take(score)
    finder = SparseCoding(width=2 * rows.shape[1], active=4.0, passes=passes)
    found, table = _found(finder, given, shown, OrientedEnergy().bind(kept), kept, 0, draws)
    about = {"network": network, "layer": layer, "finder": str(finder), "similarity": "OrientedEnergy"}
    return {**found, "table": table.to_csv(index=False), "about": about}


def write_planted(folder: Path, settings: Mapping[str, Any], result: Mapping[str, Any]) -> Path:
    """The atlas of `planted_features` at a folder; returns its index.html."""
    world = SuperpositionWorld(patterns="gabor", seed=settings["seed"])
    sample = world.sample(settings["samples"], settings["seed"])
    items = _planted_items(sample.x, sample.z)
    title = f"{world.latents} features in {world.width} neurons"
    return _write(folder, title, items.take(halves_of_images(items, settings["seed"])[1]), result)


def write_layer(folder: Path, settings: Mapping[str, Any], result: Mapping[str, Any]) -> Path:
    """The atlas of `layer_features` at a folder; returns its index.html."""
    items = images_of(*(settings[name] for name in ("images", "side", "inside", "limit")))
    return _write(folder, f"Features of {settings['layer']}", items.take(halves_of_images(items)[1]), result)


def _planted_items(x: Tensor, z: Tensor) -> ImageItems:
    """Planted images to look at, labelled by the feature that is strongest in them."""
    there = z.max(1)
    labels = [f"z{j}" if value > 0 else "none" for value, j in zip(*(part.tolist() for part in there), strict=True)]
    return as_items(x.clamp(-CLIPPED, CLIPPED), labels)


def _found(
    finder: SparseCoding, given: Tensor, shown: Tensor, alike: Alike, items: ImageItems, seed: int, draws: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Features of given rows as plain values, read on the rows shown; and the table of their scores there."""
    features = finder.fit(given, seed)
    labels = items.labels if items.labels and len(set(items.labels)) > 1 else None
    table = feature_scores(features, given, shown, alike, labels, COUNT, draws, seed, items)
    rows, columns, values = (part.tolist() for part in features.encode(shown).nonzero())
    alike_more = int((table["q"] < 0.05).sum())
    told = f"The exciting images of {alike_more} of {len(table)} atoms are more alike than random sets (q < 0.05)."
    if "label_purity" in table:
        purity, z = table["label_purity"].mean(), table["label_purity_z"].mean()
        told += f" Of the {PURITY} most exciting ones {purity:.0%} share a label (mean z {z:.1f})."
    codes = {"rows": rows, "features": columns, "values": [float(f"{value:.5g}") for value in values]}
    atoms = [[float(f"{value:.5g}") for value in atom] for atom in features.atoms.tolist()]
    return {"atoms": atoms, "codes": codes, "told": told, "draws": draws}, table


def _write(folder: Path, title: str, items: ImageItems, result: Mapping[str, Any]) -> Path:
    table = pd.read_csv(io.StringIO(result["table"]))
    columns, notes = score_columns(table, COUNT)
    known = [name for name in ("planted", "cosine") if name in table]
    atoms, codes = torch.tensor(result["atoms"]), result["codes"]
    dense = torch.zeros(len(items), len(atoms))
    dense[codes["rows"], codes["features"]] = torch.tensor(codes["values"])
    null = f"{COUNT} of {len(items):,} images that were not fitted on; null: {result['draws']:,} random sets"
    return write_atlas(
        folder,
        title=title,
        subtitle=f"{len(atoms)} features of sparse coding",
        codes=Codes(dense, None, len(atoms)),
        items=items,
        atoms=atoms,
        table=pd.concat([table[known], columns], axis=1),
        notes=notes,
        about={**result["about"], "interpretability": null},
        verdict=result["told"],
    )
