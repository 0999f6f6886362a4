"""SpritesWorld: one white or coloured shape, placed, turned and scaled; dSprites from its geometry."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.factors import Factor, Kind
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.kernels.sprites import SHAPES, SYMMETRY, render
from unmix.worlds.factor_grids import values_of
from unmix.worlds.sequences import SequenceWorld

FACTORS = ("shape", "scale", "orientation", "x", "y", "hue")
TURN = 2 * math.pi
SIDE, FIRST, REACH = 19.2, 15.5, 32.0


class SpritesWorld(SequenceWorld):
    """One filled shape on black, computed from its geometry: the images of dSprites, and variants, without a file.

    x: [n, channels, pixels, pixels] in [0, 1]. z: [n, f], the free factors in the order below.
    shapes: of square, ellipse, heart (dSprites) and triangle, star_4, spoke_4 (Natural Sprites); z is the place in
    this list. free: the factors that vary; all others stay at the value that the field of their name has, and the
    shape at the first of `shapes`. scale: .5 to 1 (6 values), the side of a square is 19.2 scale. orientation: 0 to
    2 pi (40 values, the last is the first again, as in the published file). x, y: 0 to 1 (32 values), the centre is
    at 15.5 + 32 x of 64 pixels. hue: 0 to 1 (8 values), a colour of full strength; free only with colour="hue".
    grid: True for those values, False for a continuum of the same ranges (shapes stay apart).
    pixels: width and height of the image. anti_alias: k x k points in each pixel. colour: white (one channel) or
    hue (three). transition, length, gap: sequences, see `SequenceWorld`.
    The orientation's symmetry is that of the shapes together: 4 for squares alone, 1 as soon as a heart is there;
    `symmetry` has that of each shape.
    """

    equation: ClassVar[str] = "pixel = 1 where R(orientation) (pixel - centre) / scale is inside the shape"
    reference: ClassVar[str] = "Matthey et al. 2017, dSprites; Klindt et al. 2021, arXiv 2007.10930"

    shapes: tuple[str, ...] = ("square", "ellipse", "heart")
    free: tuple[str, ...] = ("shape", "scale", "orientation", "x", "y")
    scale: float = Field(default=0.8, gt=0, le=1.5)
    orientation: float = 0.0
    x: float = 0.5
    y: float = 0.5
    hue: float = 0.0
    grid: bool = True
    pixels: int = Field(default=64, ge=8)
    anti_alias: int = Field(default=1, ge=1, le=16)
    colour: Literal["white", "hue"] = "white"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.shapes or len(set(self.shapes)) < len(self.shapes) or not set(self.shapes) <= set(SHAPES):
            raise ValueError(f"shapes={self.shapes}: name different ones of {', '.join(SHAPES)}")
        if not self.free or not set(self.free) <= set(FACTORS) or len(set(self.free)) < len(self.free):
            raise ValueError(f"free={self.free}: name different ones of {', '.join(FACTORS)}")
        if "hue" in self.free and self.colour != "hue":
            raise ValueError("free has hue, which shows only with colour='hue'")
        if self.free == ("shape",) and not self.grid:
            raise ValueError("free=('shape',): without a grid there is no continuous factor; set grid=True")
        if self.transition is not None:
            if self.transition.on_grid != self.grid:
                wanted = "grid=True" if self.transition.on_grid else "grid=False"
                raise ValueError(f"grid={self.grid}: {self.transition.kind} needs {wanted}")
            self.transition.check(self.factor_kinds)
        return self

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(name for name in FACTORS if name in self.free)

    @property
    def factor_kinds(self) -> tuple[Factor, ...]:
        return tuple(self._factor(name) for name in self.factors)

    @property
    def grids(self) -> tuple[np.ndarray, ...]:
        """The values of each free factor on the grid."""
        closed = np.linspace(0, TURN, 40)  # 39 steps make a turn, so that the last value is the first again
        return tuple(closed if f.name == "orientation" else values_of(f) for f in self.factor_kinds)

    @property
    def symmetry(self) -> tuple[int, ...]:
        """m of each shape: a turn by 2 pi / m leaves it as it was."""
        return tuple(SYMMETRY[shape] for shape in self.shapes)

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        latents, order = self._sequences(n, self._start, self.factor_kinds, as_stream(rng).child("sprites"))
        if self.grid:
            latents = np.stack([g[latents[:, i].astype(int)] for i, g in enumerate(self.grids)], 1)
        z = torch.from_numpy(latents)
        return Sample(x=self._images(z), z=z.float(), **order)

    def render(self, z: Any) -> Tensor:
        """Images of chosen latents [n, f] on the device of z: [n, channels, pixels, pixels].

        Raises `UsageError` for a wrong number of factors or a shape that is not in the list.
        """
        z = torch.as_tensor(z)
        if z.ndim != 2 or z.shape[1] != len(self.factors):
            raise UsageError(f"z: must be [n, {len(self.factors)}] ({', '.join(self.factors)}), got {list(z.shape)}")
        return self._images(z)

    def _images(self, z: Tensor) -> Tensor:
        value = {name: torch.full_like(z[:, 0], getattr(self, name)) for name in FACTORS if name != "shape"}
        value |= {name: z[:, i] for i, name in enumerate(self.factors)}
        known = torch.tensor([SHAPES.index(name) for name in self.shapes], device=z.device)
        chosen = value.get("shape", torch.zeros_like(z[:, 0])).round().long()
        if len(z) and not (int(chosen.min()) >= 0 and int(chosen.max()) < len(known)):
            raise UsageError(f"shape: must be in 0..{len(known) - 1}, the places of {', '.join(self.shapes)}")
        x, y = (FIRST + REACH * value[axis].double() for axis in ("x", "y"))
        images = render(
            known[chosen],
            SIDE * value["scale"].double(),
            value["orientation"],
            x,
            y,
            pixels=self.pixels,
            anti_alias=self.anti_alias,
        )[:, None]
        return images if self.colour == "white" else images * _rainbow(value["hue"])[:, :, None, None]

    def _start(self, n: int, draw: np.random.Generator) -> np.ndarray:
        """Independent latents [n, f]: value numbers on a grid, else values."""
        columns: list[np.ndarray] = []
        for factor in self.factor_kinds:
            if factor.size is not None:
                columns.append(draw.integers(factor.size, size=n))
            else:
                assert factor.low is not None and factor.high is not None
                columns.append(draw.uniform(factor.low, factor.high, n))
        return np.stack(columns, 1).astype(np.float64)

    def _factor(self, name: str) -> Factor:
        if name == "shape":
            return Factor("shape", "categorical", len(self.shapes))
        kind: Kind = "ordinal" if self.grid else "continuous"
        size = {"scale": 6, "orientation": 40, "x": 32, "y": 32, "hue": 8}[name] if self.grid else None
        if name == "orientation":
            shared = math.gcd(*(self.symmetry if "shape" in self.free else self.symmetry[:1]))
            return Factor(name, "circular", size, 0.0, TURN, shared)
        if name == "hue":
            return Factor(name, "circular", size, 0.0, 1.0)
        return Factor(name, kind, size, 0.5 if name == "scale" else 0.0, 1.0)


def _rainbow(hue: Tensor) -> Tensor:
    """Red, green and blue of a colour of full strength: hue [n] in turns to [n, 3]."""
    corner = torch.tensor([0.0, 1 / 3, 2 / 3], device=hue.device, dtype=hue.dtype)
    away = ((hue[:, None] - corner + 0.5) % 1 - 0.5).abs()
    return (2 - 6 * away).clamp(0, 1).float()


def contact_sheet(images: Tensor, columns: int = 8) -> Tensor:
    """Images [n, c, h, w] side by side in rows of `columns`, a grey line between them: [height, width, 3]."""
    count, _, height, width = images.shape
    rows = -(-count // columns)
    sheet = torch.full((rows * (height + 1), columns * (width + 1), 3), 0.5)
    for i, image in enumerate(images.cpu()):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        sheet[top : top + height, left : left + width] = image.expand(3, -1, -1).permute(1, 2, 0)
    return sheet
