"""Modules: the activations of any torch module on arrays, to shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from unmix.activations.hooks import capture, layer_of, quiet
from unmix.activations.models import find_model
from unmix.activations.shards import SCHEMA, ShardRows, ShardWriter, check_folder, clear_folder, library_version
from unmix.core.digest import array_digest, digest
from unmix.core.errors import Failure, UsageError
from unmix.core.items import Items, VectorItems
from unmix.core.recipe import Recipe
from unmix.core.sample import Sample
from unmix.core.watch import Watch


class ModuleActivations(Recipe):
    """h = pooled output of one layer at each datum: rows [n, d], or [n positions, d] with pooling="all".

    model: "my.module:build" (called with `arguments`), or what `find_model` takes. layer: dotted name; "" is the
    whole module. pooling: over the positions of an output [b, t, d] or [b, d, height, width]: mean, the centre
    one, the one numbered `position` (row by row), or all of them as rows; an output [b, d] has none.
    """

    equation: ClassVar[str] = "h[i] = pool(layer(x[i]))"

    model: str
    layer: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)
    pooling: Literal["mean", "centre", "position", "all"] = "mean"
    position: int = Field(0, ge=0)
    batch: int = Field(256, ge=1)
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

        data: [n, ...] (numpy or torch), `Rows`, or a `Sample` with x (its items are kept). Raises as
        `TextActivations.collect` does.
        """
        folder, watch = Path(folder), watch or Watch()
        x, items = _data(data)
        source = find_model(self.model, self.arguments)
        data_digest = x.digest if hasattr(x, "blocks") else array_digest(x)
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
            probe = self._pooled(model, layer, _rows(x, 0, 1).to(device))
            each = len(probe)
            with ShardWriter(folder, probe.shape[1], self.dtype, key, shard_bytes=shard_bytes) as writer:
                # Whole batches are made again, so that an interrupted job gives the same bytes.
                begin = writer.rows // each // self.batch * self.batch
                skip = writer.rows - begin * each
                for first in range(begin, n, self.batch):
                    last = min(first + self.batch, n)
                    h = self._pooled(model, layer, _rows(x, first, last).to(device)).float().cpu()
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
                    "recipe": self.as_dict(),
                    "libraries": {"torch": library_version("torch")},
                }
                rows = writer.finish(items.take(np.repeat(np.arange(n), each)))
        watch.done()
        return rows

    def _pooled(self, model: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
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
            return h
        centre = h.shape[1] // 2 if h.ndim == 3 else h.shape[2] // 2 * h.shape[3] + h.shape[3] // 2
        h = h if h.ndim == 3 else h.flatten(2).transpose(1, 2)
        if self.pooling == "mean":
            return h.mean(1)
        if self.pooling == "all":
            return h.flatten(0, 1)
        if self.pooling == "position" and self.position >= h.shape[1]:
            raise UsageError(f"position={self.position}: layer {self.layer} has {h.shape[1]} positions, from 0")
        return h[:, centre if self.pooling == "centre" else self.position]


def _data(data: Any) -> tuple[Any, Items]:
    x = data.x if isinstance(data, Sample) else data
    if x is None or not hasattr(x, "shape") or len(x.shape) < 1 or not x.shape[0]:
        raise UsageError("data: expected an array [n, ...], Rows or a Sample with x, with at least one row")
    items = getattr(data, "items", None)
    return x, items if hasattr(items, "take") else VectorItems(np.arange(x.shape[0]))  # type: ignore[return-value]


def _rows(x: Any, first: int, last: int) -> Tensor:
    if hasattr(x, "blocks"):
        return x.take(np.arange(first, last))
    part = x[first:last]
    part = part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
    return part.float() if part.is_floating_point() else part
