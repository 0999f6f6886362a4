"""The atlas as a folder: one summary of all features, details in chunks, and the page that shows them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unmix.atlas.payload import diverging, png, rounded, sheet, shrunk, write_script
from unmix.atlas.turned import Turned, companions, nearest
from unmix.atlas.views import SHEET_COLUMNS, Shown, View, view_of
from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.items import ImageItems, TextItems, VectorItems
from unmix.core.seeds import Stream, as_stream
from unmix.core.store import replacing

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 64  # features in one file of details
BINS = 28
LISTED = 5  # tokens or labels of a feature that the list shows
BANDS = ("high", "middle", "low")
SILENT = "silent"
STATIC = ("index.html", "atlas.css", "atlas.js", "page.js")


def write_atlas(
    folder: str | Path,
    *,
    title: str,
    subtitle: str,
    codes: Codes,
    items: TextItems | ImageItems | VectorItems,
    atoms: Tensor,
    table: pd.DataFrame | None = None,
    notes: dict[str, list[str]] | None = None,
    about: dict[str, str] | None = None,
    verdict: str,
    contexts: int = 20,
    neighbours: int = 8,
    atom_images: bool = False,
    rng: int | Stream | None = None,
) -> Path:
    """Write a folder that shows every feature in a browser, from disk, without a server; returns its index.html.

    codes: n rows of m features; items: how to show the n rows; atoms: [m, d].
    table: one row per feature, in order; its columns are shown, searched and sorted by ("name" names the feature).
    notes: column of the table -> a few words under each of its values, such as the null of a score.
    about: facts for the About page; verdict: one sentence on how far to trust the features.
    contexts: top contexts of a feature (half above and half below zero, where it has both signs), drawn by `rng`
        among rows of equal activation, which the page says; a quarter as many are drawn from each third of its
        activations.
    neighbours: how many nearest features, by cosine of atoms and by firing together.
    atom_images: show atoms as pictures, where d is the number of values of an image.
    The same inputs give the same bytes. An older atlas at `folder` is replaced when the new one is whole.
    Raises `UsageError` for inputs of unlike sizes, NaN in codes or atoms, or a folder that holds something else.
    """
    folder = Path(folder)
    _check(folder, codes, items, atoms, table, contexts, neighbours, atom_images)
    rows, width = codes.shape
    turned, view = Turned(codes), view_of(items)
    atoms = atoms.detach().cpu().float()
    stream = as_stream(rng).child("atlas")
    summary: dict[str, list[Any]] = {key: [] for key in ("rate", "count", "mean", "peak", "labels", "bins")}
    words: list[list[int]] = []
    with replacing(folder) as part:
        data = part / "data"
        data.mkdir(parents=True)
        for number, first in enumerate(range(0, width, CHUNK)):
            last = min(first + CHUNK, width)
            near = _neighbours(turned, atoms, first, last, neighbours)
            details = []
            for feature, (where, values) in enumerate(turned.features(first, last), first):
                detail = _evidence(view, where, values, rows, contexts, stream.child(feature))
                _summarise(summary, where, values, rows, detail["common"])
                words.append(_words(detail["top"]) if view.facts.get("documents") else [])
                details.append(detail | next(near))
            write_script(data, f"detail-{number:03d}", details)
            view.end_chunk(data, number)
            if atom_images:
                _write_atoms(data / f"atoms-{number:03d}.png", atoms[first:last], items)
        view.end(data)
        write_script(data, "words", words)
        facts = {
            "title": title,
            "subtitle": subtitle,
            "verdict": verdict,
            "about": [[str(key), str(value)] for key, value in (about or {}).items()],
            "kind": items.kind,
            "rows": rows,
            "width": width,
            "chunk": CHUNK,
            "signed": any(low < 0 for low, _, _ in summary["bins"]),
            "atoms": _atom_size(items) if atom_images else None,
            **_map(atoms),
            **view.facts,
            **_columns(table, notes or {}),
            **summary,
        }
        write_script(data, "summary", facts)
        for name in STATIC:
            (part / name).write_bytes((files("unmix.atlas") / "static" / name).read_bytes())
    return folder / "index.html"


def _check(
    folder: Path,
    codes: Codes,
    items: TextItems | ImageItems | VectorItems,
    atoms: Tensor,
    table: pd.DataFrame | None,
    contexts: int,
    neighbours: int,
    atom_images: bool,
) -> None:
    rows, width = codes.shape
    if not rows or not width:
        raise UsageError(f"codes: an atlas needs rows and features, got {rows} x {width}")
    if len(items) != rows:
        raise UsageError(f"items: {len(items)} items for {rows} rows of codes; give the items of the same rows")
    if atoms.ndim != 2 or len(atoms) != width:
        raise UsageError(f"atoms: expected [{width}, d], one for each feature, got {list(atoms.shape)}")
    if not torch.isfinite(atoms).all():
        feature = int((~torch.isfinite(atoms)).any(1).nonzero()[0])
        raise UsageError(f"atoms: atom {feature} holds NaN or infinite values; fit again before writing an atlas")
    if table is not None and len(table) != width:
        raise UsageError(f"table: {len(table)} lines for {width} features; give one line for each, in order")
    if contexts < 1 or neighbours < 0:
        raise UsageError(f"contexts: at least 1 (and neighbours at least 0), got {contexts} and {neighbours}")
    if atom_images:
        if not isinstance(items, ImageItems):
            raise UsageError(f"atom_images: only for items that are images, got {items.kind} items")
        size = items.images.shape[1:]
        if atoms.shape[1] != np.prod(size):
            raise UsageError(f"atom_images: atoms of {atoms.shape[1]} values are no pictures of {list(size)} values")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "data" / "summary.js").is_file():
        raise UsageError(f"folder: {folder} holds something that is not an atlas; name a new or empty folder")
    if folder.is_file():
        raise UsageError(f"folder: {folder} is a file; name a new or empty folder")


def _evidence(
    view: View, where: np.ndarray, values: np.ndarray, rows: int, contexts: int, stream: Stream
) -> dict[str, Any]:
    """What one feature's page shows of its rows: top contexts, contexts of each third and, of pictures, some where it
    is silent; tokens or labels. Rows of equal activation come in random order, and `ties` says where that decides:
    [activation, how many rows have it]."""
    activations = np.zeros(rows, np.float32)
    activations[where] = values
    order = where[np.lexsort((stream.child("ties").numpy().random(len(values)), -np.abs(values)))]
    shown = Shown(view)
    above, below = order[activations[order] > 0], order[activations[order] < 0]
    lower = 0 if not len(below) else contexts // 2 if len(above) else contexts
    chosen, ties = [], []
    for part, limit in ((above, contexts - lower), (below, lower)):
        chosen += (side := shown.choose(part, limit))
        if len(side) == limit and (tie := _tie(activations, side, part)):
            ties.append(tie)
    top = [view.context(row, activations) for row in chosen]
    bands = []
    if len(order) >= len(BANDS):
        for name, band in zip(BANDS, np.array_split(order, len(BANDS)), strict=True):
            drawn = shown.choose(stream.child(name).numpy().permutation(band), max(1, contexts // 4))
            drawn.sort(key=lambda row: (-abs(activations[row]), row))
            reach = [rounded(abs(activations[row])) for row in (band[-1], band[0])]
            bands.append([name, *reach, len(band), [view.context(row, activations) for row in drawn]])
    silent = np.setdiff1d(np.arange(rows), where) if view.silent and len(where) else where[:0]
    if len(silent):
        drawn = shown.choose(stream.child(SILENT).numpy().permutation(silent), max(1, contexts // 4))
        bands.append([SILENT, 0, 0, len(silent), [view.context(row, activations) for row in drawn]])
    return {"top": top, "ties": ties, "bands": bands, "common": view.common(where, values)}


def _tie(activations: np.ndarray, chosen: list[int], rows: np.ndarray) -> list[Any]:
    """The activation of the last row chosen and how many of the rows have it, where not all of these were chosen."""
    if not chosen:
        return []
    last = activations[chosen[-1]]
    shared = int((activations[rows] == last).sum())
    return [rounded(last), shared] if shared > int((activations[chosen] == last).sum()) else []


def _summarise(
    summary: dict[str, list[Any]], where: np.ndarray, values: np.ndarray, rows: int, common: list[list[Any]]
) -> None:
    low, high = (min(0.0, float(values.min())), max(0.0, float(values.max()))) if len(values) else (0.0, 0.0)
    bins = np.histogram(values, BINS, (low, high))[0].tolist() if len(values) else []
    summary["rate"].append(rounded(len(where) / rows))
    summary["count"].append(len(where))
    summary["mean"].append(rounded(np.abs(values).mean(dtype=np.float64)) if len(values) else None)
    summary["peak"].append(rounded(values[np.abs(values).argmax()]) if len(values) else None)
    summary["labels"].append([entry[0] for entry in common[:LISTED]])
    summary["bins"].append([rounded(low), rounded(high), bins])


def _words(contexts: list[list[Any]]) -> list[int]:
    """Numbers of all tokens in a feature's top text contexts, for the search."""
    return sorted({token for context in contexts for token in context[4]})


def _neighbours(turned: Turned, atoms: Tensor, first: int, last: int, limit: int) -> Iterator[dict[str, Any]]:
    """Nearest and co-firing features of a chunk, one record per feature."""
    directions = torch.nn.functional.normalize(atoms, dim=1)
    near = nearest(directions, first, last, limit)
    both, counts = turned.together(first, last), turned.counts()
    for feature in range(first, last):
        together = companions(both[feature - first], feature, counts, turned.shape[0], limit)
        yield {
            "near": [[other, rounded(cosine, 3)] for other, cosine in near[feature - first]],
            "together": [[g, rounded(jaccard, 3), rounded(lift, 3), n] for g, jaccard, lift, n in together],
        }


def _map(atoms: Tensor) -> dict[str, Any]:
    """Places of the atoms on a plane: [m] x and y along the two principal axes of the unit atoms, and the share of
    their spread that these axes hold."""
    unit = torch.nn.functional.normalize(atoms, dim=1)
    centred = unit - unit.mean(0)
    values, axes = torch.linalg.eigh((centred.T @ centred).double())
    total = float(values.clamp_min(0).sum())
    if atoms.shape[1] < 2 or total <= 0:
        return {"map": None}
    axes = axes[:, -2:].flip(1)
    # The sign of an axis is arbitrary; its largest weight is made positive, so that equal atoms give equal maps.
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    places = [[rounded(value, 3) for value in column] for column in (centred.double() @ axes).T.tolist()]
    return {"map": places, "map_share": rounded(float(values[-2:].sum()) / total, 3)}


def _columns(table: pd.DataFrame | None, notes: dict[str, list[str]]) -> dict[str, Any]:
    """The table's columns as names, number or text, values and notes; NaN becomes None."""
    import pandas as pd

    names: list[str] | None = None
    columns: list[dict[str, Any]] = []
    for position in range(0 if table is None else table.shape[1]):
        column = table.iloc[:, position]  # type: ignore[union-attr]
        number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        values = [None if pd.isna(value) else rounded(value) if number else str(value) for value in column.tolist()]
        if str(column.name) == "name":
            names = ["" if value is None else str(value) for value in values]
        else:
            told = {"notes": list(notes[str(column.name)])} if str(column.name) in notes else {}
            columns.append({"name": str(column.name), "number": bool(number), "values": values, **told})
    return {"names": names, "columns": columns}


def _atom_size(items: TextItems | ImageItems | VectorItems) -> list[int]:
    """Width and height of an atom's picture, and pictures in a line of their sheet."""
    assert isinstance(items, ImageItems)
    height, width = shrunk(np.asarray(items.images[:1])).shape[1:3]
    return [width, height, SHEET_COLUMNS]


def _write_atoms(path: Path, atoms: Tensor, items: TextItems | ImageItems | VectorItems) -> None:
    assert isinstance(items, ImageItems)
    pictures = diverging(atoms.numpy().reshape(len(atoms), *items.images.shape[1:]))
    path.write_bytes(png(sheet(shrunk(pictures), SHEET_COLUMNS)))
