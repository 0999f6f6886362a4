"""Layers of a network side by side, trained and untrained: how interpretable the bases of each are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from unmix.activations.modules import ModuleActivations
from unmix.core.errors import UsageError
from unmix.core.watch import Watch
from unmix.scores.similarity import SIMILARITIES
from unmix.scores.similarity.base import Alike
from unmix.study.interpretable import compare_bases


def compare_layers(
    trained: ModuleActivations,
    untrained: ModuleActivations | None,
    images: Any,
    layers: Iterable[str],
    folder: str | Path,
    finders: Iterable[Any] = (),
    similarity: Any = "OrientedEnergy",
    watch: Watch | None = None,
    **options: Any,
) -> pd.DataFrame:
    """The table of `compare_bases` for every layer of a network, the untrained network among its controls.

    trained: recipe of the activations; its layer is replaced by each of `layers`. untrained: the same with other
    weights, or None. images: `ImageItems` or bytes [n, h, w] or [n, h, w, 3]. folder: where activations are kept, one
    folder for a layer and network; found again where nothing has changed. finders, similarity and options: as
    `compare_bases` takes them. Gives its columns behind `layer`. Raises `UsageError` as it does, and for a pooling
    that gives an image several rows.
    Source: Klindt et al. 2023, arXiv 2310.11431 (layers; the untrained network as control).
    """
    names, watch = list(layers), watch or Watch()
    for recipe in (trained, untrained):
        if recipe is not None and recipe.pooling == "all":
            raise UsageError("pooling=all: gives an image several rows; take mean, centre or position here")
    pictures = getattr(images, "images", images)
    alike = similarity if isinstance(similarity, Alike) else SIMILARITIES.make(similarity).bind(images)
    chosen, found = list(finders), []
    for number, name in enumerate(names):
        rows = trained.but(layer=name).collect(images, Path(folder) / f"trained-{name}")
        start = (
            None
            if untrained is None
            else untrained.but(layer=name).collect(images, Path(folder) / f"untrained-{name}")
        )
        table = compare_bases(rows, pictures, chosen, alike, untrained=start, **options)
        table.insert(0, "layer", name)
        found.append(table)
        watch.on_step(number + 1, len(names), {"neurons": rows.shape[1]})
    if not found:
        raise UsageError("layers: name at least one")
    watch.done()
    return pd.concat(found, ignore_index=True)
