"""Images of sprites 64 x 64, rendered from their factors or read from files; one unit of work is one image.

The files are written from the same sprites: a compressed .npz is decompressed whole, as it must be for any of its
images; a memory map is read at random rows.
"""

from __future__ import annotations

import importlib.util
import math
import tempfile
from pathlib import Path

import numpy as np
import torch

SIZES = {"bytes": {"n": 4096, "dtype": "uint8"}, "floats": {"n": 4096, "dtype": "float32"}}
QUICK = {"small": {"n": 512, "dtype": "uint8"}}
FLOOR = "memory map"
UNIT = "image"


class Sprites:
    """The factors of n dSprites, drawn at random."""

    backend = "numba"

    def __init__(self, size: dict) -> None:
        draw = np.random.default_rng(0)
        self.n, self.dtype = size["n"], getattr(torch, size["dtype"])
        codes = [draw.integers(count, size=self.n) for count in (3, 6, 40, 32, 32)]
        self.given = [
            torch.from_numpy(values)
            for values in (
                codes[0],
                19.2 * np.linspace(0.5, 1, 6)[codes[1]],
                2 * math.pi * codes[2] / 39,
                15.5 + 32 * codes[3] / 31,
                15.5 + 32 * codes[4] / 31,
            )
        ]
        self.out = torch.empty(self.n, 64, 64, dtype=self.dtype)
        self.build()

    def build(self) -> None:
        pass

    def rendered(self, out: torch.Tensor) -> torch.Tensor:
        from unmix.kernels.sprites import render

        return render(*self.given, dtype=out.dtype, out=out, backend=self.backend)

    def run(self) -> dict:
        self.images = self.rendered(self.out)
        return {"units": len(self.images)}

    def check(self) -> dict:
        return {"mean": float(self.images[: self.n].double().mean()), "images": len(self.images)}


class Torch(Sprites):
    backend = "torch"


class Vectorised(Sprites):
    """What one would write in numpy: every pixel of every image, all shapes, chosen at the end."""

    def run(self) -> dict:
        from unmix.kernels.sprites import outline

        shape, side, angle, x, y = (value.numpy() for value in self.given)
        image = np.empty((self.n, 64, 64), bool)
        grid = np.arange(64.0)
        for kind in range(3):
            rows = np.flatnonzero(shape == kind)
            across, down = (grid - x[rows, None])[:, None, :], (grid - y[rows, None])[:, :, None]
            cos, sin = np.cos(angle[rows])[:, None, None], np.sin(angle[rows])[:, None, None]
            u, v = (cos * across - sin * down), (sin * across + cos * down)
            u, v = u / side[rows, None, None], v / side[rows, None, None]
            if kind == 0:
                image[rows] = (np.abs(u) <= 0.5) & (np.abs(v) <= 0.5)
            elif kind == 1:
                image[rows] = (1.5 * u) ** 2 + (v / 0.375) ** 2 <= 1
            else:
                inside = np.zeros(u.shape, bool)
                corners = outline("heart")
                for (au, av), (bu, bv) in zip(corners, np.roll(corners, -1, 0), strict=True):
                    inside ^= ((av > v) != (bv > v)) & (u < (bu - au) * (v - av) / ((bv - av) or 1) + au)
                image[rows] = inside
        self.images = torch.from_numpy(image).to(self.dtype)
        return {"units": self.n}


class Compressed(Sprites):
    def build(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "sprites.npz"
        np.savez_compressed(self.path, imgs=self.rendered(torch.empty(self.n, 64, 64, dtype=torch.uint8)).numpy())

    def run(self) -> dict:
        with np.load(self.path) as found:
            self.images = torch.from_numpy(found["imgs"]).to(self.dtype)
        return {"units": self.n}


class Mapped(Sprites):
    def build(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "sprites.npy"
        np.save(path, self.rendered(torch.empty(self.n, 64, 64, dtype=torch.uint8)).numpy())
        self.stored = np.load(path, mmap_mode="r")
        self.rows = np.random.default_rng(1).permutation(self.n)

    def run(self) -> dict:
        self.images = self.out.copy_(torch.from_numpy(self.stored[self.rows]))
        return {"units": self.n}


class Disent(Sprites):
    """disent's XYObjectData, one square at a time: its way of making images without a file."""

    def build(self) -> None:
        if importlib.util.find_spec("disent") is None:
            raise RuntimeError("disent is not installed")
        from disent.dataset.data import XYObjectData

        self.data = XYObjectData(grid_size=64, min_square_size=10, max_square_size=20, rgb=False)
        self.rows = np.random.default_rng(1).integers(len(self.data), size=self.n)

    def run(self) -> dict:
        self.images = torch.from_numpy(np.stack([self.data[row] for row in self.rows]))
        return {"units": self.n}


CONTENDERS = {
    FLOOR: Mapped,
    "unmix": Sprites,
    "unmix, torch only": Torch,
    "numpy, vectorised": Vectorised,
    "compressed npz": Compressed,
    "disent": Disent,
}
# (contender, other, the ratio other / contender that is wanted at least)
GOALS = {"bytes": [("unmix", "compressed npz", 5.0), ("unmix", "numpy, vectorised", 20.0)]}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    """Contenders that draw other sprites than ours: name -> why. disent draws squares of its own."""
    wanted = checks.get("unmix", {}).get("mean")
    wrong = {}
    for name, facts in checks.items():
        if name != "disent" and facts and wanted is not None and abs(facts["mean"] - wanted) > 1e-3 * wanted:
            wrong[name] = f"its images have mean {facts['mean']:.5f}, not {wanted:.5f}"
    return wrong
