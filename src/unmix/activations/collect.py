"""Collect: a language model's activations on a text, to shards; special tokens are handled by name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from unmix.activations.hooks import layer_of, quiet
from unmix.activations.models import FolderModel, find_model
from unmix.activations.outputs import OutputPath
from unmix.activations.passes import buckets, forward
from unmix.activations.reading import tell_rounding
from unmix.activations.shards import (
    DTYPES,
    SCHEMA,
    ShardRows,
    ShardWriter,
    check_folder,
    clear_folder,
    library_version,
)
from unmix.activations.text import Corpus, mended, open_text
from unmix.activations.text_layer import TextLayer, find_text_layer, passage_limit, require_embedded
from unmix.activations.tokens import END, ROLES, START, Passages, passages, readable_vocabulary
from unmix.core.digest import digest
from unmix.core.errors import UsageError
from unmix.core.items import TextItems
from unmix.core.recipe import Recipe
from unmix.core.watch import Watch

BATCHES_PER_WINDOW = 8
FIRST_PASSAGES = 32  # of which the median norm is taken, whatever the batch
Choice = Literal["exclude", "keep"]


class TextActivations(Recipe):
    """h = the output of one layer at each token of a text: rows [n, d] in the order of the text.

    model: a transformers folder, or an installed package that carries one. layer: dotted name, "encoder.layer.3".
    output: which tensor of an output that has several, by its path: "1". call: which run of a layer that runs several
    times in a pass, from 0. Where one of these is None and the model does not show it, `collect` asks for it.
    tokens: ordinary tokens of text to read, at most (start and end tokens do not count). context: tokens the model
    reads at once. batch: passages at once; they are bucketed by length, their rows stay in the text's order.
    start, end: [CLS] or BOS, [SEP] or EOS. special: other special tokens in the text, such as [UNK]. padding can
    only be excluded. massive: tokens, neither start nor end, with a norm over `massive_factor` times the median
    norm of the first 32 passages (arXiv 2402.17762). dtype: of the stored rows.
    """

    equation: ClassVar[str] = "h[t] = layer(text)[t]"
    reference: ClassVar[str] = "massive activations: Sun, Chen, Kolter, Liu 2024, arXiv 2402.17762"

    model: str
    layer: str = Field(min_length=1)
    output: OutputPath | None = None
    call: int | None = Field(default=None, ge=0)
    tokens: int = Field(default=100_000, ge=1)
    context: int = Field(default=128, ge=1)
    batch: int = Field(default=32, ge=1)
    start: Choice = "exclude"
    end: Choice = "exclude"
    special: Choice = "keep"
    padding: Literal["exclude"] = "exclude"
    massive: Choice = "exclude"
    massive_factor: float = Field(default=10.0, gt=1)
    dtype: Literal["float32", "float16"] = "float32"

    def collect(
        self,
        data: Corpus | str | Path,
        folder: str | Path,
        watch: Watch | None = None,
        overwrite: bool = False,
        device: str = "cpu",
        shard_bytes: int = 64 << 20,
    ) -> ShardRows:
        """The rows, made once for the same recipe, weights, tokenizer and data, and found again from then on.

        data: [(title, text)], or what `open_text` takes. An interrupted job goes on after its last whole shard and
        gives the same bytes. Raises `UsageError` for a wrong layer, an empty text or a folder with other work
        (unless `overwrite`), and `Failure` for a NaN or infinite activation.
        """
        folder, watch = Path(folder), watch or Watch()
        data = _corpus(data)
        source = self._source()
        key = digest(
            {
                "schema": SCHEMA,
                "recipe": {name: value for name, value in self.as_dict().items() if name != "model"},
                "weights": source.digest,
                "tokenizer": source.tokenizer_digest,
                "data": (data_digest := digest([list(pair) for pair in data])),
            }
        )
        if overwrite:
            clear_folder(folder)
        check_folder(folder, key)
        if (folder / "manifest.json").exists():
            return ShardRows(folder)
        tokenizer, model, missing, text = self._open(source, data, device)
        with quiet(model):
            layer = self._layer(model, missing, text, device)
            width = layer.run(text.stream[None, : text.bounds[1]]).shape[2]
            with ShardWriter(folder, width, self.dtype, key, shard_bytes=shard_bytes) as writer:
                wanted, median = self._write(writer, layer, text, watch)
                writer.about = {
                    "kind": "text",
                    "model": self.model,
                    "layer": self.layer,
                    "weights": source.digest,
                    "tokenizer": source.tokenizer_digest,
                    "data": data_digest,
                    "documents": len(text.titles),
                    "passages": len(text),
                    "unread": text.unread,
                    "tokens": self._counts(layer, text, wanted, np.asarray(writer.state["massive"], np.int64)),
                    "median_norm": median,
                    "reading": {**layer.reading.as_dict(), "tower": layer.tower, "padded": layer.padded},
                    "taken": layer.told,
                    "recipe": self.as_dict(),
                    "libraries": {name: library_version(name) for name in ("torch", "transformers", "tokenizers")},
                }
                vocabulary = readable_vocabulary(tokenizer)
                rows = writer.finish(TextItems(text.stream, text.starts, wanted, vocabulary, text.titles))
        watch.done()
        return rows

    def estimate(self, data: Corpus | str | Path, device: str = "cpu") -> dict[str, float]:
        """What `collect` costs, from a few measured batches: rows, bytes on disk, seconds, bytes of memory.

        Rows are an upper bound where massive tokens are excluded. Memory is the weights, about sixteen rows for each
        token of a batch, the rows of a window and the text's ids; Python and torch themselves come on top.
        """
        _, model, missing, text = self._open(self._source(), _corpus(data), device)
        some = np.unique(np.linspace(0, len(text) - 1, 3 * self.batch).astype(int))
        with quiet(model):
            layer = self._layer(model, missing, text, device)
            width = forward(layer, text, some[:4], self.batch).shape[1]
            begun = time.perf_counter()
            read = len(forward(layer, text, some, self.batch))
            spent = time.perf_counter() - begun
        rows = int(self._candidates(text).sum())
        most = max(FIRST_PASSAGES, BATCHES_PER_WINDOW * self.batch)
        window = min(len(text.stream), most * self.context)
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        batch = 16 * self.batch * self.context * width * 4
        return {
            "rows": rows,
            "bytes": rows * width * DTYPES[self.dtype].itemsize + 12 * len(text.stream),
            "seconds": spent / read * len(text.stream),
            "memory": weights + batch + 2 * window * width * 4 + 20 * len(text.stream),
        }

    def _source(self) -> FolderModel:
        source = find_model(self.model)
        if not isinstance(source, FolderModel):
            raise UsageError(
                f"model={self.model}: a text needs a tokenizer; give a transformers folder or package, "
                "or use ModuleActivations on arrays"
            )
        return source

    def _open(self, source: FolderModel, data: Corpus, device: str) -> tuple[Any, nn.Module, list[str], Passages]:
        """Tokenizer, model, names of its weights that the folder lacks, and passages that fit."""
        tokenizer, (model, missing) = source.tokenizer(), source.opened()
        layer_of(model, self.layer)
        limits = {
            "its positions": passage_limit(model),
            "model_max_length of its tokenizer": tokenizer.model_max_length,
        }
        for what, limit in limits.items():
            if limit and 0 < limit < self.context:
                raise UsageError(
                    f"context={self.context}: {self.model} reads at most {int(limit)} tokens ({what}); give at most "
                    f"context={int(limit)}"
                )
        text = passages(data, tokenizer, self.tokens, self.context)
        require_embedded(model, text.stream, tokenizer)
        return tokenizer, model.to(device), missing, text

    def _layer(self, model: nn.Module, missing: list[str], text: Passages, device: str) -> TextLayer:
        """The layer, found over the longest passage."""
        longest = int(np.diff(text.bounds).argmax())
        passage = text.stream[text.bounds[longest] : text.bounds[longest + 1]]
        return find_text_layer(model, self.layer, passage, self.output, self.call, self.batch, device, missing)

    def _windows(self, text: Passages) -> Iterator[tuple[int, np.ndarray]]:
        size = BATCHES_PER_WINDOW * self.batch
        edges = [0, *range(FIRST_PASSAGES, len(text), size), len(text)]
        for number, (first, last) in enumerate(pairwise(edges)):
            yield number, np.arange(first, last)

    def _candidates(self, text: Passages) -> np.ndarray:
        """Which places of the stream get a row by the name of their token: [t] of bool."""
        dropped = [role for role, name in enumerate(ROLES) if role and getattr(self, name) == "exclude"]
        wanted = ~np.isin(text.roles, dropped)
        if not wanted.any():
            raise UsageError("data: only start, end or special tokens are left; give a text with words in it")
        return wanted

    def _write(self, writer: ShardWriter, layer: TextLayer, text: Passages, watch: Watch) -> tuple[np.ndarray, float]:
        """Fill the shards; the places in the stream that have a row, and the median norm."""
        wanted = self._candidates(text)
        edges = (text.roles == START) | (text.roles == END)
        state = writer.state or {"window": 0, "rows": 0, "massive": [], "median": None}
        skip, done, massive, median = writer.rows - state["rows"], state["rows"], state["massive"], state["median"]
        for number, chosen in self._windows(text):
            if number < state["window"]:
                continue
            # With every whole shard goes what is needed to make the window that it ended in once more.
            writer.state = {"window": number, "rows": done, "massive": list(massive), "median": median}
            first, last = int(text.bounds[chosen[0]]), int(text.bounds[chosen[-1] + 1])
            h = forward(layer, text, chosen, self.batch)
            norms = np.linalg.norm(h.astype(np.float64), axis=1)
            plain = wanted[first:last] & ~edges[first:last]
            if median is None and plain.any():
                median = float(np.median(norms[plain]))
            over = np.zeros(len(h), bool) if median is None else plain & (norms > self.massive_factor * median)
            massive = massive + (first + np.flatnonzero(over)).tolist()
            keep = wanted[first:last] & ~over if self.massive == "exclude" else wanted[first:last]
            if not number:
                tell_rounding(torch.from_numpy(h[keep]), self.dtype, self.layer)
            writer.append(h[keep][skip:])
            skip, done = 0, done + int(keep.sum())
            watch.on_step(last, len(text.stream), {"rows": done})
        writer.state = {**writer.state, "massive": massive}
        if self.massive == "exclude":
            wanted = wanted.copy()
            wanted[massive] = False
        return np.flatnonzero(wanted), float(median or 0.0)

    def _counts(
        self, layer: TextLayer, text: Passages, places: np.ndarray, massive: np.ndarray
    ) -> dict[str, dict[str, int]]:
        """Tokens kept and dropped, by name; massive ones are counted apart from the ordinary."""
        kept = np.zeros(len(text.stream), bool)
        kept[places] = True
        names = np.asarray([*ROLES, "massive"])[text.roles]
        names[massive] = "massive"
        counts = {
            name: {"kept": int((kept & (names == name)).sum()), "dropped": int((~kept & (names == name)).sum())}
            for name in (*ROLES, "massive")
        }
        lengths, padded = np.diff(text.bounds), 0
        for _, chosen in self._windows(text):
            padded += sum(int(lengths[b].max() * len(b)) for b in buckets(lengths, chosen, self.batch, layer.padded))
        return {**counts, "padding": {"kept": 0, "dropped": padded - len(text.stream)}}


def _corpus(data: Corpus | str | Path) -> Corpus:
    if isinstance(data, (str, Path)):
        return mended(open_text(str(data)))
    pairs: Sequence[Any] = data
    for number, pair in enumerate(pairs):
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise UsageError(f"data: entry {number} must be (title, text), got {type(pair).__name__}")
    return mended(data)
