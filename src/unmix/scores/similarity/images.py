"""Images as one kind of tensor: what is accepted, grey values, sizes, and which images are copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.items import ImageItems

WANTED = "ImageItems, uint8 or bool [n, h, w] or [n, h, w, 1 or 3], or floats [n, h, w] or [n, 1 or 3, h, w]"


def as_images(images: Any) -> Tensor:
    """Images as float32 [n, c, h, w], c 1 or 3; bytes and masks become 0 .. 1, floats stay as they are.

    Raises `UsageError` for another shape or type, no images, or NaN.
    """
    if isinstance(images, ImageItems):
        images = images.images
    if isinstance(images, Tensor):
        images = images.detach().cpu().numpy()
    if not isinstance(images, np.ndarray) or images.ndim not in (3, 4) or not images.size:
        given = list(images.shape) if hasattr(images, "shape") else type(images).__name__
        raise UsageError(f"images: expected {WANTED}, got {given}")
    if images.dtype == bool:  # masks
        images = images.astype(np.uint8) * np.uint8(255)
    if images.ndim == 3:
        images = images[:, None]
    elif images.dtype == np.uint8:
        images = np.moveaxis(images, -1, 1)
    if images.shape[1] not in (1, 3) or not (images.dtype.kind == "f" or images.dtype == np.uint8):
        raise UsageError(f"images: expected {WANTED}, got {images.dtype} with {images.shape[1]} channels")
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    found = torch.from_numpy(np.ascontiguousarray(images).astype(np.float32) / np.float32(scale))
    if not bool(torch.isfinite(found.sum())) and not bool(torch.isfinite(found).all()):
        row = int((~torch.isfinite(found)).flatten(1).any(1).nonzero()[0, 0])
        raise UsageError(f"images: image {row} holds NaN or infinite values; drop or repair it first")
    return found


def grey(images: Tensor) -> Tensor:
    """Mean over the channels: [n, 1, h, w]."""
    return images.mean(1, keepdim=True)


def smaller(images: Tensor, side: int) -> Tensor:
    """Images whose longer side is at most `side`, by means over areas; small ones stay as they are."""
    h, w = images.shape[-2:]
    scale = side / max(h, w)
    if scale >= 1:
        return images
    return torch.nn.functional.adaptive_avg_pool2d(images, (max(1, round(h * scale)), max(1, round(w * scale))))
