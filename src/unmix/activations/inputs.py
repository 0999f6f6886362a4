"""Inputs: data as a torch module takes them, batch by batch, with an item to show for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmix.activations.images import as_items
from unmix.core.digest import array_digest, digest
from unmix.core.errors import UsageError
from unmix.core.image_arrays import full_range, in_order
from unmix.core.items import ImageItems, Items, VectorItems
from unmix.core.sample import Sample
from unmix.scores.similarity.images import as_images


@dataclass(frozen=True, eq=False)
class Inputs:
    """Data [n, ...] in the order of their items.

    x: an array (numpy or torch) or `Rows`. items: [n]. side, channels, mean, deviation: how images are prepared, as
    in `ModuleActivations`.
    """

    x: Any
    items: Items
    side: int | None = None
    channels: int | None = None
    mean: float | tuple[float, ...] = 0.0
    deviation: float | tuple[float, ...] = 1.0

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def digest(self) -> str:
        """Digest of the data and, where they are images, of what is shown of them."""
        found = self.x.digest if hasattr(self.x, "blocks") else array_digest(self.x)
        if isinstance(self.items, ImageItems):
            return digest([found, array_digest(self.items.images), self.items.labels, self.items.names])
        return found

    @property
    def images(self) -> bool:
        """Whether they are images [b, channels, height, width] when a module reads them."""
        return _in_bytes(self.x) or self._prepares

    @property
    def _prepares(self) -> bool:
        return (self.side, self.channels, self.mean, self.deviation) != (None, None, 0.0, 1.0)

    def take(self, numbers: np.ndarray) -> Inputs:
        """Only these data."""
        rows = self.x.take(numbers) if hasattr(self.x, "blocks") else self.x[numbers]
        return replace(self, x=rows, items=self.items.take(numbers))

    def batch(self, first: int, last: int, model: nn.Module, device: str = "cpu") -> Tensor:
        """Data first .. last as the model takes them: floats in the dtype of its weights, whole numbers in int64."""
        return taken_by(model, self._prepared(_rows(self.x, first, last)), device)

    def some(self, count: int, model: nn.Module, device: str = "cpu") -> Tensor:
        """The first data, as `batch`, from the start again where there are fewer."""
        x = self._prepared(_rows(self.x, 0, min(count, len(self))))
        return taken_by(model, x[torch.arange(count) % len(x)], device)

    def _prepared(self, x: Tensor) -> Tensor:
        if not self._prepares:
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


def inputs_of(data: Any, **prepare: Any) -> Inputs:
    """Inputs from images, an array, rows or a sample, with an item for each; images stay bytes until they are read.

    Bytes [n, h, w, c] or [n, c, h, w] are images, those of 0 and 1 masks. prepare: fields of `Inputs`. Raises
    `UsageError` for anything else, and for no data.
    """
    x = data.images if isinstance(data, ImageItems) else data.x if isinstance(data, Sample) else data
    if x is None or not hasattr(x, "shape") or len(x.shape) < 1 or not x.shape[0]:
        raise UsageError("data: expected images, an array [n, ...], Rows or a Sample with x, with at least one row")
    if isinstance(x, Tensor) and (x.is_nested or x.layout != torch.strided):
        raise UsageError("data: is sparse or nested; give a dense tensor [n, ...]")
    if not hasattr(x, "blocks") and not isinstance(x, Tensor):
        x = x if isinstance(x, np.ndarray) else np.asarray(x)
        if x.dtype.kind not in "biufc":
            raise UsageError(f"data: must be numbers, got {x.dtype}")
    if _in_bytes(x) and not isinstance(data, ImageItems):
        x = np.asarray(x)
        first = x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] not in (1, 3)
        x = full_range(in_order(x, "data", "nchw") if first else x, "data")
    items = data if isinstance(data, ImageItems) else getattr(data, "items", None)
    if not hasattr(items, "take"):
        items = as_items(x) if _in_bytes(x) else VectorItems(np.arange(x.shape[0]))
    return Inputs(x, items, **prepare)  # type: ignore[arg-type]


def taken_by(model: nn.Module, x: Tensor, device: str = "cpu") -> Tensor:
    """Data as a model takes them: floats in the dtype of its first floating weights, float32 where it has none."""
    if x.is_floating_point():
        return x.to(device, next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32))
    return x.to(device, x.dtype if x.is_complex() or x.dtype == torch.bool else torch.int64)


def _in_bytes(x: Any) -> bool:
    """Whether an array holds images as bytes: [n, h, w] or [n, h, w, channels]."""
    return len(x.shape) in (3, 4) and str(getattr(x, "dtype", "")).removeprefix("torch.") == "uint8"


def _rows(x: Any, first: int, last: int) -> Tensor:
    if hasattr(x, "blocks"):
        return x.take(np.arange(first, last))
    part = x[first:last]
    if _in_bytes(part):
        return as_images(part)
    if isinstance(part, Tensor):
        return part
    # torch knows neither another byte order nor the wider floats and unsigned numbers of numpy.
    wide = {"f": np.float64 if part.dtype.itemsize > 4 else np.float32, "u": np.int64, "i": np.int64}
    return torch.from_numpy(np.array(part, wide.get(part.dtype.kind, part.dtype.newbyteorder("="))))
