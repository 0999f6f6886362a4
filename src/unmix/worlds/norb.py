"""Matrices in NORB's binary format, in which SmallNORB is published."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from unmix.core.array_files import why
from unmix.core.errors import Failure, UsageError

NORB_TYPES = {0x1E3D4C55: "<u1", 0x1E3D4C54: "<i4", 0x1E3D4C56: "<i2", 0x1E3D4C51: "<f4", 0x1E3D4C53: "<f8"}


def read_norb(path: Path) -> np.ndarray:
    """A matrix in NORB's binary format: little-endian magic number, number of dimensions, dimensions, values.

    Raises `UsageError` for a missing file and `Failure` for one that is cut off or of another kind.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise Failure(f"{path}: cannot be read ({why(error)}); copy it again") from None
    head = np.frombuffer(raw[:8], "<i4") if len(raw) >= 20 else np.zeros(2, int)
    count = int(head[1])
    if int(head[0]) not in NORB_TYPES or not 1 <= count <= 8 or len(raw) < 8 + 4 * max(3, count):
        raise Failure(f"{path}: not a matrix in NORB's format")
    shape = np.frombuffer(raw, "<i4", count, 8)
    kind = np.dtype(NORB_TYPES[int(head[0])])
    begin = 8 + 4 * max(3, count)
    if (shape < 0).any() or len(raw) != begin + kind.itemsize * math.prod(shape.tolist()):
        raise Failure(f"{path}: cut off, {len(raw)} bytes for {' x '.join(map(str, shape))} values")
    return np.frombuffer(raw, kind, offset=begin).reshape(shape)
