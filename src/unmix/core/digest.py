"""Digests of recipes, arrays and files: content and schema, never a path."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

SCHEMA = 1


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits of plain JSON values; keys are sorted, the schema version is covered."""
    text = json.dumps({"schema": SCHEMA, "value": value}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def array_digest(array: Any) -> str:
    """Sixteen hexadecimal digits of an array's dtype, shape and bytes (any layout; numpy or torch)."""
    import numpy as np

    if hasattr(array, "detach"):
        array = array.detach().cpu()
        try:
            array = array.numpy()
        except TypeError:  # numpy has no bfloat16
            array = array.float().numpy()
    state = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    step = max(1, (1 << 24) // max(1, array[:1].nbytes)) if array.ndim else 1
    for start in range(0, len(array) if array.ndim else 1, step):
        state.update(np.ascontiguousarray(array[start : start + step] if array.ndim else array).data)
    return state.hexdigest()[:16]


def file_digest(*paths: Path) -> str:
    """Sixteen hexadecimal digits of the bytes of files, in the order given."""
    state = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                state.update(block)
        state.update(b"\0")
    return state.hexdigest()[:16]
