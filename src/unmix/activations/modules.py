"""Modules: the activations of any torch module on images or arrays, to shards."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from unmix.activations.hooks import layer_of, quiet
from unmix.activations.images import crops
from unmix.activations.inputs import Inputs, inputs_of
from unmix.activations.models import find_model
from unmix.activations.outputs import OutputPath
from unmix.activations.reading import Reading, find_reading, run_to, seeded, tell_rounding
from unmix.activations.shards import (
    DTYPES,
    SCHEMA,
    ShardRows,
    ShardWriter,
    check_folder,
    clear_folder,
    library_version,
)
from unmix.core.digest import digest
from unmix.core.errors import Failure, UsageError
from unmix.core.items import ImageItems, Items
from unmix.core.named import foreign
from unmix.core.recipe import Recipe
from unmix.core.watch import Watch

Positive = Annotated[float, Field(gt=0)]
MOST_SHOWN = 4 << 30  # bytes of items, which are made in memory


class ModuleActivations(Recipe):
    """h = pooled output of one layer at each datum: rows [n, d], or [n positions, d] with pooling="all".

    model: "my.module:build" (called with `arguments`), or what `find_model` takes. layer: dotted name; "" is the
    whole module. output: which tensor of an output that has several, by its path: "1.0", "last_hidden_state".
    call: which run of a layer that runs several times in a pass, from 0. layout: the axes of the output, a letter
    each (b the data, c the features, others positions): "bchw", "bhwc", "btc". tokens: of class and register tokens
    in front of patches take "patches", "class" (the first) or "all"; a number leaves so many out. Where one of these
    four is None and the model does not show it, `collect` asks for it; what was taken is in the manifest.
    pooling: over the positions: mean, the centre one, the one numbered `position` (row by row), or all of them as
    rows; an output [b, d] has none.
    Images in bytes become 0 .. 1, channels first. channels: 3 repeats grey, 1 takes the mean of colours. side: they
    are made side x side (bicubic). mean, deviation: x becomes (x - mean) / deviation, one number or one a channel.
    crop: with pooling="all" the item of a row is a window around its position, of this share of the image's sides.
    """

    equation: ClassVar[str] = "h[i] = pool(layer(x[i]))"

    model: str
    layer: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)
    output: OutputPath | None = None
    call: int | None = Field(default=None, ge=0)
    layout: str | None = None
    tokens: Literal["all", "class", "patches"] | Annotated[int, Field(ge=0)] | None = None
    pooling: Literal["mean", "centre", "position", "all"] = "mean"
    position: int = Field(default=0, ge=0)
    side: int | None = Field(default=None, ge=1)
    channels: Literal[1, 3] | None = None
    mean: float | tuple[float, ...] = 0.0
    deviation: Positive | tuple[Positive, ...] = 1.0
    crop: float | None = Field(default=None, gt=0, le=1)
    batch: int = Field(default=256, ge=1)
    dtype: Literal["float32", "float16"] = "float32"

    @property
    def code(self) -> str | None:
        """What builds the model, unless it is of unmix or a folder."""
        return foreign(self.model) if ":" in self.model else None

    def collect(
        self,
        data: Any,
        folder: str | Path,
        watch: Watch | None = None,
        overwrite: bool = False,
        device: str = "cpu",
        shard_bytes: int = 64 << 20,
    ) -> ShardRows:
        """The rows, made once for the same recipe, weights and data, and found again from then on.

        data: `ImageItems`, bytes [n, h, w] or [n, h, w, 1 or 3], any other array [n, ...] (numpy or torch), `Rows`,
        or a `Sample` with x (its items are kept). The key is a digest of weights, recipe and the bytes of the data:
        where one changes, a folder of before is refused and never read. Raises as `TextActivations.collect` does.
        """
        folder, watch = Path(folder), watch or Watch()
        inputs = self.inputs(data)
        if self.crop is not None and not (isinstance(inputs.items, ImageItems) and self.pooling == "all"):
            raise UsageError(f"crop={self.crop}: cuts windows around positions; it needs images and pooling=all")
        source, data_digest = find_model(self.model, self.arguments), inputs.digest
        recipe = {name: value for name, value in self.as_dict().items() if name not in ("model", "arguments")}
        key = digest({"schema": SCHEMA, "recipe": recipe, "weights": source.digest, "data": data_digest})
        if overwrite:
            clear_folder(folder)
        check_folder(folder, key)
        if (folder / "manifest.json").exists():
            return ShardRows(folder)
        model, missing = source.opened()
        model, n = model.to(device), len(inputs)
        layer = layer_of(model, self.layer) if self.layer else model
        with quiet(model):
            reading, probe = self._reading(model, missing, layer, inputs, device)
            two, grid = reading.rows(probe), reading.grid(probe.shape)
            each, width = len(two) // 2, two.shape[1]
            self._check_shown(inputs.items, each, grid)
            with ShardWriter(folder, width, self.dtype, key, shard_bytes=shard_bytes) as writer:
                # Whole batches are made again, so that an interrupted job gives the same bytes.
                begin = writer.rows // each // self.batch * self.batch
                skip = writer.rows - begin * each
                for first in range(begin, n, self.batch):
                    last = min(first + self.batch, n)
                    with seeded(first):
                        x = inputs.batch(first, last, model, device)
                        h = run_to(model, layer, x, self.layer, reading.output, reading.call)
                    rows = _rows_of(reading, h, (last - first, each, width), self.layer, first)
                    if first == begin:
                        tell_rounding(rows, self.dtype, self.layer)
                    writer.append(rows.float()[skip:])
                    skip = 0
                    watch.on_step(last, n, {"rows": last * each})
                writer.about = {
                    "kind": "module",
                    "model": self.model,
                    "layer": self.layer,
                    "weights": source.digest,
                    "data": data_digest,
                    "positions": each,
                    "grid": grid,
                    "reading": reading.as_dict(),
                    "taken": reading.told(self.layer, probe.shape),
                    "recipe": self.as_dict(),
                    "libraries": {"torch": library_version("torch")},
                }
                found = writer.finish(self._shown(inputs.items, each, grid))
        watch.done()
        return found

    def estimate(self, data: Any, device: str = "cpu") -> dict[str, float]:
        """What `collect` costs, from one measured batch: rows, bytes on disk, seconds, bytes of memory.

        Memory is the weights, the batch going in and what comes out; what the layers before hold comes on top.
        """
        inputs = self.inputs(data)
        model, missing = find_model(self.model, self.arguments).opened()
        model, n = model.to(device), len(inputs)
        layer = layer_of(model, self.layer) if self.layer else model
        with quiet(model), seeded(0):
            reading, probe = self._reading(model, missing, layer, inputs, device)
            begun = time.perf_counter()
            batch = inputs.batch(0, min(self.batch, n), model, device)
            h = run_to(model, layer, batch, self.layer, reading.output, reading.call)
            spent = time.perf_counter() - begun
            two = reading.rows(probe)
        each, width = len(two) // 2, two.shape[1]
        rows, shown = n * each, self._size_shown(inputs.items, each)
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        return {
            "rows": rows,
            "bytes": rows * width * DTYPES[self.dtype].itemsize + shown,
            "seconds": spent / len(batch) * n,
            "memory": weights + batch.nbytes + h.nbytes + shown,
        }

    def inputs(self, data: Any) -> Inputs:
        """The data of `collect` as this recipe prepares them. Raises `UsageError` for what is no data."""
        prepare = {name: getattr(self, name) for name in ("side", "channels", "mean", "deviation")}
        return inputs_of(data, **prepare)

    def _size_shown(self, items: Items, each: int) -> int:
        """Bytes of the images shown with the rows."""
        return round(items.images.nbytes * each * (self.crop or 1) ** 2) if isinstance(items, ImageItems) else 0

    def _check_shown(self, items: Items, each: int, grid: list[int] | None) -> None:
        if not isinstance(items, ImageItems):
            return
        if self.crop is not None and grid is None:
            raise UsageError(f"crop={self.crop}: layer {self.layer} gives no map [b, d, height, width] to cut by")
        if each > 1 and (size := self._size_shown(items, each)) > MOST_SHOWN:
            raise UsageError(
                f"pooling={self.pooling}: {len(items)} images at {each} positions are {size / 2**30:.0f} GB of "
                "items; give crop=0.3 or less to keep a window for each, or fewer images"
            )

    def _shown(self, items: Items, each: int, grid: list[int] | None) -> Items:
        """An item for every row."""
        numbers = np.repeat(np.arange(len(items)), each)
        if self.crop is None or grid is None or not isinstance(items, ImageItems):
            return items.take(numbers)
        windows = crops(items, numbers, np.arange(len(numbers)) % each, grid, self.crop)
        return replace(items.take(numbers), images=windows)

    def _reading(
        self, model: nn.Module, missing: list[str], layer: nn.Module, inputs: Inputs, device: str
    ) -> tuple[Reading, Tensor]:
        """How rows are read, and what the layer gives for two data."""
        return find_reading(
            model,
            layer,
            lambda count: inputs.some(count, model, device),
            self.layer,
            self.output,
            self.call,
            self.layout,
            self.tokens,
            self.pooling,
            self.position,
            self.batch,
            inputs.images,
            missing,
        )


def _rows_of(reading: Reading, h: Tensor, wanted: tuple[int, int, int], name: str, first: int) -> Tensor:
    """Rows [b each, d] of an output for the data from `first` on, finite in float32. wanted: b, each and d."""
    count, each, width = wanted
    rows = reading.rows(h) if h.ndim == len(reading.layout) else h.new_empty(0, 0)
    if rows.shape != (count * each, width):
        raise UsageError(
            f"layer={name}: gives {list(h.shape)} for the {count} data from {first} on, and other sizes for the "
            "first ones; the size of its output must not depend on the data"
        )
    rows = rows.cpu()
    bad = ~torch.isfinite(rows.float()).all(1)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        datum = first + row // each
        if bool(torch.isfinite(rows[row]).all()):
            largest = float(rows[row].abs().max())
            raise Failure(f"layer={name}: {largest:.3g} at datum {datum} does not fit float32; scale the data")
        raise Failure(f"layer={name}: NaN or infinite at datum {datum}; leave that datum out")
    return rows
