"""Inside: a fit's features beside the model that its rows came from, and held-out input for the model to read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.activations.arrays import open_array, open_column
from unmix.activations.downstream import ArrayReader, Reader, TextReader, text_reader
from unmix.activations.hooks import layer_of
from unmix.activations.models import FolderModel, find_model
from unmix.activations.modules import ModuleActivations
from unmix.activations.reading import Reading
from unmix.activations.transforms import Affine, TransformedRows
from unmix.core.digest import array_digest
from unmix.core.errors import Failure, UsageError
from unmix.core.labels import plain
from unmix.core.rows import Rows, Subset
from unmix.core.seeds import Stream
from unmix.finders.features import Features
from unmix.study.cells import Cell, split, split_rows, swapped
from unmix.study.study import Results
from unmix.study.verbs import chosen


@dataclass(frozen=True, eq=False)
class Inside:
    """Features and a reader of held-out groups (passages of text, data).

    rows: of the fit, as its features saw them. raw: as the model gave them; `affine` leads from these to those.
    train, test: numbers of the rows fitted on and held out. about: the manifest of the activations.
    labels: what is known of the input, for a digest.
    """

    cell: Cell
    features: Features
    reader: Reader
    rows: Rows
    raw: Rows
    affine: Affine | None
    train: np.ndarray
    test: np.ndarray
    about: dict[str, Any]
    key: dict[str, Any]

    def seen(self, h: Tensor) -> Tensor:
        """Rows as the features see them, from rows [n, d] of the model."""
        return h if self.affine is None else self.affine(h)

    def reconstructed(self, h: Tensor, features: Features | None = None) -> Tensor:
        """decode(encode(h)): rows [n, d] of the model from rows of the model."""
        new = (features or self.features).reconstruct(self.seen(h))
        return new if self.affine is None else self.affine.inverse(new)

    def direction(self, feature: int) -> Tensor:
        """What a feature adds to a row of the model for a code of 1: [d]."""
        atom = self.features.atoms[feature]
        if self.affine is None:
            return atom
        return self.affine.inverse(atom) - self.affine.inverse(torch.zeros_like(atom))

    def code(self, h: Tensor, feature: int) -> Tensor:
        """The feature's codes [n] of rows [n, d] of the model."""
        return one_code(self.features, self.seen(h), feature)

    @property
    def mean(self) -> Tensor:
        """Mean of the model's rows that were fitted on: [d]."""
        total = torch.zeros(self.raw.shape[1], dtype=torch.float64)
        for block in Subset(self.raw, self.train).blocks(16384):
            total += block.double().sum(0)
        return (total / len(self.train)).float()

    def facts(self, results: Results) -> dict[str, Any]:
        """What a table says: finder, encoder, seed, model, layer, how much was read."""
        facts = {
            "finder": results.label(self.cell.finder),
            "encoder": self.features.encoder.recipe.kind,
            "seed": self.cell.seed,
            "model": self.about["model"],
            "layer": self.about["layer"],
            "kind": self.reader.kind,
            "groups": len(self.reader),
        }
        if isinstance(self.reader, TextReader):
            facts["tokens"] = int(self.reader.touched.sum())
            dropped = {name: counts["dropped"] for name, counts in self.about["tokens"].items() if counts["dropped"]}
            facts["untouched"] = sorted(dropped)
        return facts

    def limited(self, tokens: int | None, rows: np.ndarray | None = None) -> Inside:
        """At most about `tokens` tokens in whole passages (or so many data), drawn by name, the same each time.

        rows: of text, touch only the places of these held-out rows, in passages that have one.
        """
        reader = self.reader
        order = Stream(0, ("groups",)).numpy().permutation(len(reader))
        if not isinstance(reader, TextReader):
            assert isinstance(reader, ArrayReader)
            kept = np.sort(order[:tokens])
            labels = None if reader.labels is None else reader.labels[kept]
            fewer = dataclasses.replace(reader, data=reader.data.take(kept), labels=labels)
            return dataclasses.replace(self, reader=fewer)
        touched = reader.touched
        if rows is not None:
            touched = np.zeros_like(touched)
            touched[self.raw.items.places[rows]] = True  # type: ignore[attr-defined]
        sizes = _sizes(reader.text.bounds, touched)[reader.chosen]
        order = order[sizes[order] > 0]
        if tokens is not None:
            lengths = np.diff(reader.text.bounds)[reader.chosen]
            order = order[: 1 + int(np.searchsorted(lengths[order].cumsum(), tokens))]
        chosen_passages = np.sort(reader.chosen[order])
        inside = np.zeros_like(touched)
        for passage in chosen_passages:
            inside[reader.text.bounds[passage] : reader.text.bounds[passage + 1]] = True
        return dataclasses.replace(
            self, reader=dataclasses.replace(reader, chosen=chosen_passages, touched=touched & inside)
        )


def open_inside(
    run: str | Path,
    finder: str | None = None,
    seed: int | None = None,
    encoder: str | None = None,
    model: str | None = None,
    data: Any = None,
    labels: Any = None,
    device: str = "cpu",
) -> Inside:
    """The features of a fit beside the model its rows came from, with all held-out input.

    finder, seed: which fit, by default the one that explains most. encoder: one that `compare` tried on that fit;
    None is the finder's own. model: where the model is now, if it moved, or the code that builds it, where that is
    neither of unmix nor of a trusted package; its weights must be those that made the rows. data, labels: for a
    module, its input [n, ...] (an array or a path) and right classes [n]; where it is what the rows were made from,
    only held-out data are read.
    Raises `UsageError` where the run's rows are no activations, the model is another, or nothing is held out.
    """
    results = Results(run)
    cell, features, rows, items = chosen(results, finder, seed)
    if encoder is not None:
        features = _compared(results, cell, features, encoder)
    raw: Any = cell.world.open()
    about = getattr(raw, "about", {})
    if "layer" not in about:
        raise UsageError(
            f"{run}: its rows are {cell.world.path}, no activations of a model; make some with unmix activations"
        )
    wanted = {"text": ("context", "batch", "output", "call"), "module": ("batch",)}.get(str(about.get("kind")), ())
    if lacking := [name for name in ("model", "weights", "kind", "recipe") if name not in about] or [
        name for name in wanted if name not in about["recipe"]
    ]:
        raise Failure(f"{cell.world.path}: its manifest lacks {', '.join(lacking)}; collect the activations again")
    train, test = split_rows(raw, cell.test, items)
    source = find_model(model or about["model"], about["recipe"].get("arguments"), stored=model is None)
    if source.digest != about["weights"]:
        raise UsageError(f"model={model or about['model']}: its weights are not those that the rows were made with")
    key = {"fit": cell.fit_digest, "features": features.digest, "weights": source.digest}
    reader: Reader
    if about["kind"] == "text":
        if data is not None or labels is not None:
            raise UsageError("data: a language model reads the run's own held-out text; leave data and labels out")
        assert isinstance(source, FolderModel)
        if source.tokenizer_digest != about["tokenizer"]:
            raise UsageError(f"model={source.folder}: its tokenizer is not the one that the rows were made with")
        recipe = about["recipe"]
        named = (recipe["output"], recipe["call"])
        whole = text_reader(source, about["layer"], items, recipe["context"], recipe["batch"], device, *named)
        reader = dataclasses.replace(whole, chosen=_held_passages(whole, items.places, train))
    else:
        reader, more = _array_reader(source.load().to(device), about, data, labels, train, device)
        key |= more
    return Inside(cell, features, reader, rows, raw, _affine(rows), train, test, about, key)


def one_code(features: Features, x: Tensor, feature: int) -> Tensor:
    """Codes [n] of one feature for rows [n, d] as the features see them."""
    codes = features.encode(x)
    rows, columns, values = codes.nonzero()
    wanted = columns == feature
    return values.new_zeros(len(codes)).index_add_(0, rows[wanted], values[wanted])


def _compared(results: Results, cell: Cell, features: Features, encoder: str) -> Features:
    tried = {
        other.encoder.kind: other
        for other, _ in results.cells()
        if other.fit_digest == cell.fit_digest and other.encoder is not None
    }
    if encoder not in tried:
        known = ", ".join(sorted(tried)) or "none"
        raise UsageError(f"encoder={encoder}: not compared on this fit; known: {known} (unmix compare adds more)")
    return swapped(tried[encoder], features, split(tried[encoder]))


def _affine(rows: Any) -> Affine | None:
    if not isinstance(rows, TransformedRows):
        return None
    inner = _affine(rows.rows)
    return rows.affine if inner is None else inner.then(rows.affine)


def _sizes(bounds: np.ndarray, touched: np.ndarray) -> np.ndarray:
    """Touched tokens of every passage."""
    return np.diff(np.concatenate([[0], np.cumsum(touched)])[bounds])


def _held_passages(reader: TextReader, places: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Passages with rows, none of which was fitted on."""
    passage = np.searchsorted(reader.text.bounds, places, side="right") - 1
    fitted = np.zeros(len(reader.text), bool)
    fitted[passage[train]] = True
    held = np.setdiff1d(passage, np.flatnonzero(fitted))
    if len(held) < 2:
        raise UsageError(f"run: {len(held)} passages are held out, at least 2 are needed; collect more tokens")
    return held


def _array_reader(
    module: Any, about: dict[str, Any], data: Any, labels: Any, train: np.ndarray, device: str
) -> tuple[ArrayReader, dict[str, Any]]:
    if data is None:
        raise UsageError("data: a module needs its input; give data=FILE (and labels=FILE, where they are known)")
    inputs = ModuleActivations(**{name: value for name, value in about["recipe"].items() if name != "kind"}).inputs(
        open_array(data) if isinstance(data, (str, Path)) else data
    )
    held = np.arange(len(inputs))
    right = None
    if labels is not None:
        right = plain(open_column(labels) if isinstance(labels, (str, Path)) else np.asarray(labels).reshape(-1))
        if len(right) != len(inputs) or right.dtype.kind not in "biuf" or not np.equal(np.mod(right, 1), 0).all():
            raise UsageError(f"labels: expected {len(inputs)} whole numbers, one for each datum, got {len(right)}")
        right = right.astype(np.int64)
    if (found := inputs.digest) == about["data"]:
        held = np.setdiff1d(held, train // about["positions"])
        if len(held) < 2:
            raise UsageError(
                f"data: {len(held)} of these data have no row that was fitted on; give other data that are held out"
            )
    kept = None if right is None else right[held]
    layer = layer_of(module, about["layer"]) if about["layer"] else module
    reading, batch = Reading(**about["reading"]), about["recipe"]["batch"]
    reader = ArrayReader(module, layer, inputs.take(held), kept, reading, batch, device)
    return reader, {"data": found, "labels": None if right is None else array_digest(right)}
