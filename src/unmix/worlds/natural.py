"""Natural: transitions resampled from tracks of real objects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from unmix.core.digest import digest
from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.worlds.files import digest_of
from unmix.worlds.increments import Increments
from unmix.worlds.tracks import read_tracks

PIXELS = {"x": 32.0, "y": 32.0, "scale": 9.6}


class Natural(Increments):
    """Steps resampled from differences of consecutive frames of real tracks.

    A factor named x, y or scale takes the differences of x, y and of the root of the area, brought from pixels to
    its range by dSprites' geometry (32 pixels, 32 pixels, 9.6 pixels); angles stay, as in Natural Sprites. Other
    factors take the columns in turn, each scaled to a mean |d| of `size`.
    path: tracks as `read_tracks` takes them, with x, y and area. source: only the tracks of one source, "" for all.
    joint: differences of one row come from one pair of frames; False draws each by itself, and keeps only their
    marginal laws. size: see above. content: digest that the file must have; None takes what is there.
    """

    equation: ClassVar[str] = "d = v(t + 1) - v(t) of a pair of frames drawn at random"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"

    path: str
    source: str = ""
    joint: bool = False
    size: float = Field(default=0.5, gt=0)
    content: str | None = None

    @property
    def digest(self) -> str:
        """Digest of the fields and the content of the file, not of its place."""
        return digest({**self.as_dict(), "path": ""})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the content's digest filled in where the file is there."""
        return {**super().as_dict(), "content": self._found}

    @cached_property
    def _found(self) -> str | None:
        return self.content or digest_of(self.path)

    @cached_property
    def _columns(self) -> np.ndarray:
        """Differences of x, y and the root of the area, in pixels: [pairs, 3]."""
        if self.content is not None and digest_of(self.path) not in (None, self.content):
            raise UsageError(f"Natural.content={self.content}: {self.path} has other content")
        tracks = read_tracks(self.path)
        if missing := [name for name in ("x", "y", "area") if name not in tracks.names]:
            raise UsageError(f"Natural.path={self.path}: no latent {missing[0]}; tracks have x, y and area")
        tracks = tracks.of(self.source) if self.source else tracks
        values = np.stack([tracks.values[:, tracks.names.index(name)] for name in ("x", "y", "area")], 1)
        values[:, 2] = np.sqrt(np.maximum(values[:, 2], 0))
        rows = tracks.steps()
        if not len(rows):
            raise UsageError(f"Natural.path={self.path}: no two consecutive frames of one track")
        found = values[rows + 1] - values[rows]
        if (found == 0).all(0).any():
            raise UsageError(f"Natural.path={self.path}: one of x, y and area never moves")
        return found

    def _draw(self, n: int, factors: Sequence[Factor], draw: np.random.Generator) -> np.ndarray:
        found = self._columns
        rows = draw.integers(len(found), size=(n, 1 if self.joint else len(factors)))
        columns = []
        for i, factor in enumerate(factors):
            column = list(PIXELS).index(factor.name) if factor.name in PIXELS else i % 3
            steps = found[rows[:, 0 if self.joint else i], column]
            if factor.kind == "circular":
                columns.append(np.zeros(n))
            elif factor.name in PIXELS and factor.low is not None:
                columns.append(steps / PIXELS[factor.name])
            else:
                columns.append(steps * self.size / np.abs(found[:, column]).mean())
        return np.stack(columns, 1)
