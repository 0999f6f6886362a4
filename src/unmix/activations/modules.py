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

from unmix.activations.hooks import capture, layer_of, quiet
from unmix.activations.images import as_items, crops
from unmix.activations.models import find_model
from unmix.activations.shards import (
    DTYPES,
    SCHEMA,
    ShardRows,
    ShardWriter,
    check_folder,
    clear_folder,
    library_version,
)
from unmix.core.digest import array_digest, digest
from unmix.core.errors import Failure, UsageError
from unmix.core.items import ImageItems, Items, VectorItems
from unmix.core.recipe import Recipe
from unmix.core.sample import Sample
from unmix.core.watch import Watch
from unmix.scores.similarity.images import as_images

Positive = Annotated[float, Field(gt=0)]
MOST_SHOWN = 4 << 30  # bytes of items, which are made in memory


class ModuleActivations(Recipe):
    """h = pooled output of one layer at each datum: rows [n, d], or [n positions, d] with pooling="all".

    model: "my.module:build" (called with `arguments`), or what `find_model` takes. layer: dotted name; "" is the
    whole module. pooling: over the positions of an output [b, t, d] or [b, d, height, width]: mean, the centre
    one, the one numbered `position` (row by row), or all of them as rows; an output [b, d] has none.
    Images in bytes become 0 .. 1, channels first. channels: 3 repeats grey, 1 takes the mean of colours. side: they
    are made side x side (bicubic). mean, deviation: x becomes (x - mean) / deviation, one number or one a channel.
    crop: with pooling="all" the item of a row is a window around its position, of this share of the image's sides.
    """

    equation: ClassVar[str] = "h[i] = pool(layer(x[i]))"

    model: str
    layer: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)
    pooling: Literal["mean", "centre", "position", "all"] = "mean"
    position: int = Field(default=0, ge=0)
    side: int | None = Field(default=None, ge=1)
    channels: Literal[1, 3] | None = None
    mean: float | tuple[float, ...] = 0.0
    deviation: Positive | tuple[Positive, ...] = 1.0
    crop: float | None = Field(default=None, gt=0, le=1)
    batch: int = Field(default=256, ge=1)
    dtype: Literal["float32", "float16"] = "float32"

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
        x, items = _data(data)
        if self.crop is not None and not (isinstance(items, ImageItems) and self.pooling == "all"):
            raise UsageError(f"crop={self.crop}: cuts windows around positions; it needs images and pooling=all")
        source = find_model(self.model, self.arguments)
        data_digest = x.digest if hasattr(x, "blocks") else array_digest(x)
        if isinstance(items, ImageItems):  # what is shown with the rows is stored with them
            data_digest = digest([data_digest, array_digest(items.images), items.labels, items.names])
        recipe = {name: value for name, value in self.as_dict().items() if name not in ("model", "arguments")}
        key = digest({"schema": SCHEMA, "recipe": recipe, "weights": source.digest, "data": data_digest})
        if overwrite:
            clear_folder(folder)
        check_folder(folder, key)
        if (folder / "manifest.json").exists():
            return ShardRows(folder)
        model = source.load().to(device)
        layer = layer_of(model, self.layer) if self.layer else model
        n = x.shape[0]
        with quiet(model):
            probe, grid = self._probe(model, layer, self._read(x, 0, 1).to(device))
            each = len(probe)
            self._check_shown(items, each, grid)
            with ShardWriter(folder, probe.shape[1], self.dtype, key, shard_bytes=shard_bytes) as writer:
                # Whole batches are made again, so that an interrupted job gives the same bytes.
                begin = writer.rows // each // self.batch * self.batch
                skip = writer.rows - begin * each
                for first in range(begin, n, self.batch):
                    last = min(first + self.batch, n)
                    h = self._pooled(model, layer, self._read(x, first, last).to(device))[0].float().cpu()
                    bad = ~torch.isfinite(h).all(1)
                    if bad.any():
                        datum = first + int(bad.nonzero()[0, 0]) // each
                        raise Failure(f"layer={self.layer}: NaN or infinite at datum {datum}; leave that datum out")
                    writer.append(h[skip:])
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
                    "recipe": self.as_dict(),
                    "libraries": {"torch": library_version("torch")},
                }
                rows = writer.finish(self._shown(items, each, grid))
        watch.done()
        return rows

    def estimate(self, data: Any, device: str = "cpu") -> dict[str, float]:
        """What `collect` costs, from one measured batch: rows, bytes on disk, seconds, bytes of memory.

        Memory is the weights, the batch going in and what comes out; what the layers before hold comes on top.
        """
        x, items = _data(data)
        model = find_model(self.model, self.arguments).load().to(device)
        layer = layer_of(model, self.layer) if self.layer else model
        n = x.shape[0]
        with quiet(model):
            begun = time.perf_counter()
            batch = self._read(x, 0, min(self.batch, n)).to(device)
            h, _ = self._probe(model, layer, batch)
            spent = time.perf_counter() - begun
        each = len(h) // len(batch)
        rows, shown = n * each, self._size_shown(items, each)
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        return {
            "rows": rows,
            "bytes": rows * h.shape[1] * DTYPES[self.dtype].itemsize + shown,
            "seconds": spent / len(batch) * n,
            "memory": weights + batch.nbytes + h.nbytes + shown,
        }

    def _read(self, x: Any, first: int, last: int) -> Tensor:
        """Data first .. last as the model takes them."""
        x = _rows(x, first, last)
        if (self.side, self.channels, self.mean, self.deviation) == (None, None, 0.0, 1.0):
            return x
        if x.ndim != 4 or not x.is_floating_point():
            raise UsageError(
                "side, channels, mean, deviation: are for images [n, channels, h, w], the data are "
                f"{list(x.shape[1:])} of {str(x.dtype).removeprefix('torch.')}"
            )
        if self.channels is not None and x.shape[1] != self.channels:
            if x.shape[1] not in (1, 3):
                raise UsageError(f"channels={self.channels}: is made from 1 or 3, the images have {x.shape[1]}")
            x = x.mean(1, keepdim=True) if self.channels == 1 else x[:, :1].expand(-1, 3, -1, -1)
        if self.side is not None and x.shape[2:] != (self.side, self.side):
            x = nn.functional.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True)
        for name in ("mean", "deviation"):
            if (given := np.size(getattr(self, name))) not in (1, x.shape[1]):
                raise UsageError(f"{name}: {given} numbers for images of {x.shape[1]} channels")
        mean, deviation = (torch.tensor(part).view(-1, 1, 1) for part in (self.mean, self.deviation))
        return (x - mean) / deviation

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

    def _probe(self, model: nn.Module, layer: nn.Module, x: Tensor) -> tuple[Tensor, list[int] | None]:
        """As `_pooled`, the first time."""
        try:
            return self._pooled(model, layer, x)
        except RuntimeError as error:
            line = " ".join(str(error).split())[:200]
            raise UsageError(f"model={self.model}: does not take data {list(x.shape[1:])}: {line}") from error

    def _pooled(self, model: nn.Module, layer: nn.Module, x: Tensor) -> tuple[Tensor, list[int] | None]:
        """Rows of a batch, and height and width of the map they come from."""
        with capture(layer, stop=True) as captured:
            model(x)
        h = captured.value
        if h is None:
            raise UsageError(f"layer={self.layer}: does not run when the module reads the data; name another layer")
        if h.ndim < 2 or h.ndim > 4 or len(h) != len(x):
            raise UsageError(
                f"layer={self.layer}: gives {list(h.shape)} for {len(x)} data; expected [b, d], [b, t, d] or "
                "[b, d, height, width]"
            )
        if h.ndim == 2:
            return h, None
        grid = list(h.shape[2:]) if h.ndim == 4 else None
        centre = h.shape[1] // 2 if h.ndim == 3 else h.shape[2] // 2 * h.shape[3] + h.shape[3] // 2
        h = h if h.ndim == 3 else h.flatten(2).transpose(1, 2)
        if self.pooling == "mean":
            return h.mean(1), grid
        if self.pooling == "all":
            return h.flatten(0, 1), grid
        if self.pooling == "position" and self.position >= h.shape[1]:
            raise UsageError(f"position={self.position}: layer {self.layer} has {h.shape[1]} positions, from 0")
        return h[:, centre if self.pooling == "centre" else self.position], grid


def _data(data: Any) -> tuple[Any, Items]:
    """Array or rows [n, ...], and an item for each; images stay bytes, which are a quarter of the floats."""
    x = data.images if isinstance(data, ImageItems) else data.x if isinstance(data, Sample) else data
    if x is None or not hasattr(x, "shape") or len(x.shape) < 1 or not x.shape[0]:
        raise UsageError("data: expected images, an array [n, ...], Rows or a Sample with x, with at least one row")
    if _in_bytes(x):
        x = np.asarray(x)
    items = data if isinstance(data, ImageItems) else getattr(data, "items", None)
    if not hasattr(items, "take"):
        items = as_items(x) if _in_bytes(x) else VectorItems(np.arange(x.shape[0]))
    return x, items  # type: ignore[return-value]


def _in_bytes(x: Any) -> bool:
    """Whether an array holds images as bytes: [n, h, w] or [n, h, w, channels]."""
    return len(x.shape) in (3, 4) and str(getattr(x, "dtype", "")).removeprefix("torch.") == "uint8"


def _rows(x: Any, first: int, last: int) -> Tensor:
    if hasattr(x, "blocks"):
        return x.take(np.arange(first, last))
    part = x[first:last]
    if _in_bytes(part):
        return as_images(part)
    part = part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
    return part.float() if part.is_floating_point() else part
