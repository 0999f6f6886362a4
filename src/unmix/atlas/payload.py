"""How an atlas is stored: numbers made short, JSON that cannot break out of a script, PNG pictures."""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

_COLD, _PALE, _WARM = (np.array(c, dtype=np.float64) for c in ((33, 102, 172), (247, 247, 247), (178, 24, 43)))
LARGEST = 96  # pixels of the longer side of a shown picture; larger ones are averaged down


def rounded(value: Any, digits: int = 4) -> float | int | None:
    """A number with so many significant digits; NaN and infinity, which JSON lacks, become None."""
    number = float(value)
    if not math.isfinite(number):
        return None
    short = float(f"{number:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e9 else short


def script(name: str, value: Any) -> str:
    """A script that hands `value` to the page under `name`.

    Only ASCII is written and `<`, `>`, `&` are escaped, so that neither `</script>`, `<!--` nor the line separators
    U+2028 and U+2029 can end the script or the string. Raises `ValueError` for NaN.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return f"atlasData({json.dumps(name)},{text});\n"


def write_script(folder: Path, name: str, value: Any) -> None:
    """Write the script `name`.js."""
    (folder / f"{name}.js").write_text(script(name, value), encoding="ascii", newline="\n")


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of grey pixels [height, width] or colours [height, width, 3], uint8."""
    height, width = pixels.shape[:2]
    lines = np.zeros((height, 1 + pixels[0].size), np.uint8)
    lines[:, 1:] = pixels.reshape(height, -1)

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    body = part(b"IHDR", head) + part(b"IDAT", zlib.compress(lines.tobytes(), 6)) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def sheet(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Pictures [k, height, width(, 3)] side by side on one sheet, `columns` in a line."""
    count, height, width = pictures.shape[:3]
    lines = max(1, -(-count // columns))
    out = np.zeros((lines * columns, *pictures.shape[1:]), np.uint8)
    out[:count] = pictures
    out = out.reshape(lines, columns, *pictures.shape[1:]).swapaxes(1, 2)
    return out.reshape(lines * height, columns * width, *pictures.shape[3:])


def shrunk(pictures: np.ndarray, largest: int = LARGEST) -> np.ndarray:
    """Pictures [k, height, width(, 3)], averaged over square blocks until the longer side is at most `largest`."""
    height, width = pictures.shape[1:3]
    step = -(-max(height, width) // largest)
    if step <= 1:
        return pictures
    step = min(step, height, width)
    high, wide = height // step, width // step
    cut = pictures[:, : high * step, : wide * step]
    blocks = cut.reshape(len(cut), high, step, wide, step, *pictures.shape[3:])
    return blocks.mean((2, 4)).round().astype(np.uint8)


def diverging(atoms: np.ndarray) -> np.ndarray:
    """Atoms [k, height, width] as colours [k, height, width, 3]: blue below zero, red above, pale at zero.

    Atoms that have colours themselves, [k, height, width, 3], keep them about a middle grey.
    """
    top = np.abs(atoms).max(tuple(range(1, atoms.ndim)), keepdims=True)
    share = (atoms / np.where(top > 0, top, 1)).astype(np.float64)
    if atoms.ndim == 4:
        return (128 + 127 * share).round().astype(np.uint8)
    share = share[..., None]
    colours = np.where(share < 0, _PALE - share * (_COLD - _PALE), _PALE + share * (_WARM - _PALE))
    return colours.round().astype(np.uint8)
