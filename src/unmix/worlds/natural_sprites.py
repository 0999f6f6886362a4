"""NaturalSprites: pairs of frames of real objects, drawn as sprites; from the published table."""

from __future__ import annotations

import ast
import math
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from unmix.core.errors import Failure, UsageError
from unmix.core.factors import Factor
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.core.text_tables import TextTable
from unmix.kernels.sprites import SHAPES, SYMMETRY, render
from unmix.worlds.files import FileWorld

KINDS = ("square", "triangle", "star_4", "spoke_4")
ANGLES = 40


class NaturalSprites(FileWorld):
    """Natural Sprites: position and area from YouTube-VOS objects in neighbouring frames, shape and angle at random.

    x: [n, 1, 64, 64]. z: x, y and scale as shares of the image (scale is the root of the area), angle in radians,
    shape; angle and shape are the same in the rows of one pair. Rows come in pairs: group, and time 0, 1.
    path: downscale_keepaspect.csv: id, cat_id, t_0, t_1 ...; each cell empty, or a list with (y, x, area) or None
    for each of three windows. content: digest that it must have. quantile: share of areas left out at each end, in
    either frame. anti_alias: k x k points in each pixel.
    The published renderer draws y upwards; here it points down, as in the masks.
    """

    equation: ClassVar[str] = "x_t = sprite(shape, angle, (x, y)_t, sqrt(area_t)),  t, t + 1 real frames"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930; Watters et al. 2019, Spriteworld"
    provides: ClassVar[frozenset[str]] = frozenset({"x", "z", "index", "group", "time"})

    quantile: float = Field(default=0.05, ge=0, lt=0.5)
    anti_alias: int = Field(default=5, ge=1, le=16)

    @property
    def factors(self) -> tuple[str, ...]:
        return ("x", "y", "scale", "angle", "shape")

    @property
    def factor_kinds(self) -> tuple[Factor, ...]:
        shared = math.gcd(*(SYMMETRY[kind] for kind in KINDS))
        turn = Factor("angle", "circular", ANGLES, 0.0, 2 * math.pi, shared)
        places = (Factor(name, low=0.0, high=1.0) for name in ("x", "y", "scale"))
        return (*places, turn, Factor("shape", "categorical", len(KINDS)))

    @property
    def size(self) -> int:
        """Number of rows: two for each pair."""
        return 2 * len(self.pairs)

    @cached_property
    def pairs(self) -> np.ndarray:
        """x, y, area in pixels in two neighbouring frames, after the filter: [pairs, 2, 3]."""
        found = read_windows(self._opened())
        low, high = np.quantile(found[:, :, 2], [self.quantile, 1 - self.quantile], axis=0)
        kept = found[((found[:, :, 2] >= low) & (found[:, :, 2] <= high)).all(1)]
        if not len(kept):
            raise UsageError(f"NaturalSprites.path={self.path}: no pair is left after the filter of areas")
        return kept

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        if n < 1 or n % 2:
            raise UsageError(f"n={n}: rows come in pairs; give an even number")
        draw = as_stream(rng).child("natural sprites").numpy()
        chosen = draw.integers(len(self.pairs), size=n // 2)
        kind, angle = draw.integers(len(KINDS), size=n // 2), draw.integers(ANGLES, size=n // 2) * 2 * np.pi / ANGLES
        place = self.pairs[chosen].reshape(n, 3)
        kind, angle = np.repeat(kind, 2), np.repeat(angle, 2)
        side = np.sqrt(place[:, 2])
        shape = torch.tensor([SHAPES.index(name) for name in KINDS])[torch.from_numpy(kind)]
        size, turn, across, down = (torch.from_numpy(value) for value in (side, angle, place[:, 0], place[:, 1]))
        x = render(shape, size, turn, across, down, anti_alias=self.anti_alias)
        z = np.column_stack([place[:, 0] / 64, place[:, 1] / 64, side / 64, angle, kind]).astype(np.float32)
        return Sample(
            x=x[:, None],
            z=torch.from_numpy(z),
            index=torch.from_numpy(np.repeat(2 * chosen, 2) + np.tile([0, 1], n // 2)),
            group=torch.arange(n // 2).repeat_interleave(2),
            time=torch.arange(2).repeat(n // 2),
        )


def read_windows(path: Path) -> np.ndarray:
    """x, y, area of the same object and window in neighbouring frames, from the published table: [pairs, 2, 3].

    Raises `UsageError` for another table and `Failure` for a cell that cannot be read.
    """
    table = TextTable(path, "path")
    if table.names[:3] != ("id", "cat_id", "t_0"):
        got = ", ".join(table.names[:3]) or "none"
        raise UsageError(f"{path}: columns must be id, cat_id, t_0, t_1 ..., got {got}")
    pairs = []
    for number, row in table.records():
        before: list[Any] = []
        for cell in row[2:]:
            try:
                now = list(ast.literal_eval(cell)) if cell else []
                pairs += [(a, b) for a, b in zip(before, now, strict=False) if a and b]
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                raise Failure(f"{path}, line {number}: {cell[:40]!r} is no list of (y, x, area)") from None
            before = now
    found = np.array(pairs, dtype=np.float64)
    if found.ndim != 3 or found.shape[1:] != (2, 3) or not np.isfinite(found).all() or (found[..., 2] <= 0).any():
        raise UsageError(
            f"{path}: no two neighbouring frames with (y, x, area) of the same window and positive areas"
        )
    return found[:, :, [1, 0, 2]]
