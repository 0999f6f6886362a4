"""Published data with known factors, read from files that a user has: finite worlds, one class for each format."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core.array_files import read_arrays, read_mat, read_npy
from unmix.core.errors import UsageError, notice
from unmix.core.factors import Factor
from unmix.core.image_arrays import in_order
from unmix.core.pictures import is_hidden, natural
from unmix.worlds.factor_grids import GridWorld, index_of
from unmix.worlds.files import FileWorld
from unmix.worlds.norb import read_norb

LOOKED_AT = 1000  # images of a file that say what white is


class PublishedGrid(FileWorld, GridWorld):
    """A published grid of images: x [n, channels, height, width] in [0, 1], z values of the factors, index.

    path: the file or folder. content: digest that it must have. sizes: numbers of values of the factors, where the
    file holds another grid than the published one. transition, length, gap: sequences, see `SequenceWorld`.
    Copies are read as the published files are: with axes [n, c, h, w] or numbers from 0 to 1, and in another order by
    their own labels. Raises `UsageError` for another number of images, labels that are no grid, or images whose white
    is not known, and `Failure` for a file that is not whole.
    """

    published: ClassVar[tuple[Factor, ...]] = ()

    sizes: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.sizes is not None and (len(self.sizes) != len(self.published) or min(self.sizes) < 1):
            names = ", ".join(factor.name for factor in self.published)
            raise ValueError(f"sizes={self.sizes}: give one number of values for each of {names}")
        if self.transition is not None:
            if not self.transition.on_grid:
                raise ValueError(
                    f"transition={self.transition.kind}: images are a grid; give LaplaceGrid, UniformChange"
                )
            self.transition.check(self.factor_kinds)
        return self

    @property
    def factor_kinds(self) -> tuple[Factor, ...]:
        if self.sizes is None:
            return self.published
        pairs = zip(self.published, self.sizes, strict=True)
        return tuple(Factor(f.name, f.kind, size, f.low, f.high, f.symmetry) for f, size in pairs)

    @abstractmethod
    def _load(self, path: Path) -> tuple[Any, np.ndarray | None]:
        """All images [size, height, width (, channels)], and the codes [size, f] of their factors, in any order.

        None where the file has no labels: the images are in the order of the grid.
        """

    @cached_property
    def _images(self) -> tuple[Any, np.ndarray | None, float]:
        """Images [size, height, width, channels], the place of each observation or None, and the value of white."""
        images, codes = self._load(self._opened())
        where = f"{self.kind}.path={self.path}"
        if len(images) != self.size or images.ndim not in (3, 4):
            raise UsageError(
                f"{where}: has images {list(images.shape)}, but the grid "
                f"{' x '.join(map(str, self.grid))} has {self.size}; give sizes for another grid"
            )
        first = images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3)
        ordered = in_order(images, where, "nhw" if images.ndim == 3 else "nchw" if first else "nhwc")
        white = self._white(np.asarray(ordered[:: max(1, self.size // LOOKED_AT)]), where)
        return ordered, None if codes is None else self._places(codes, where), white

    def _white(self, some: np.ndarray, where: str) -> float:
        """The value of white, from some of the images; bytes of 255 as published, or numbers from 0 to 1."""
        high = float(some.max())
        if some.dtype == np.uint8 and high > 1:
            return 255.0
        if some.dtype.kind == "f" and some.min() >= 0 and high <= 1:
            return 1.0
        told = f"images are {some.dtype} from {some.min()} to {some.max()}"
        raise UsageError(f"{where}: {told}; expected bytes from 0 to 255, or numbers from 0 to 1")

    def _codes(self, labels: np.ndarray, where: str) -> np.ndarray:
        """Codes [n, f] from labels [n, f] of any numbers, the least value of each factor being 0."""
        if labels.ndim != 2 or labels.shape[1] != len(self.grid) or labels.dtype.kind not in "iuf":
            raise UsageError(
                f"{where} must be numbers [n, {len(self.grid)}], got {labels.dtype} {list(labels.shape)}"
            )
        found = [np.unique(column, return_inverse=True) for column in labels.T]
        if (counts := tuple(len(values) for values, _ in found)) != self.grid:
            have, wanted = (" x ".join(map(str, sizes)) for sizes in (counts, self.grid))
            raise UsageError(f"{where} have {have} values, but the grid is {wanted}; give sizes for another grid")
        return np.stack([places.reshape(-1) for _, places in found], 1)

    def _places(self, codes: np.ndarray, where: str) -> np.ndarray | None:
        """Where in the file each observation is; None for the order of the grid."""
        if len(codes) != self.size or (codes < 0).any() or (codes >= np.asarray(self.grid)).any():
            raise UsageError(f"{where}: its labels do not fit the grid {' x '.join(map(str, self.grid))}")
        index = index_of(codes, self.grid)
        if wrong := int((np.bincount(index, minlength=self.size) != 1).sum()):
            raise UsageError(f"{where}: {wrong} of {self.size} combinations are not there exactly once")
        return None if (index == np.arange(self.size)).all() else np.argsort(index)

    def _observations(self, index: np.ndarray) -> Tensor:
        images, places, white = self._images
        found = images[index if places is None else places[index]]
        if white == 1 and not (found.min() >= 0 and found.max() <= 1):
            raise UsageError(f"{self.kind}.path={self.path}: has images with values outside 0 to 1, or NaN")
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(found, 3, 1)).astype(np.float32)) / white


class DSprites(PublishedGrid):
    """dSprites from its published .npz: 737,280 images 64 x 64 of 3 shapes, 6 scales, 40 angles, 32 x 32 places.

    path: dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz; of its arrays only imgs and latents_classes are read, for
    metadata is a pickle. Masks of 0 and 255 and of bool are read as well. content, sizes, transition, length, gap:
    see `PublishedGrid`.
    Angle 39 is angle 0 again, so that 1 in 40 images is there twice.
    """

    equation: ClassVar[str] = "x = image(shape, scale, orientation, x, y)"
    reference: ClassVar[str] = "Matthey et al. 2017, github.com/google-deepmind/dsprites-dataset"
    published: ClassVar[tuple[Factor, ...]] = (
        Factor("shape", "categorical", 3),
        Factor("scale", "ordinal", 6, 0.5, 1.0),
        Factor("orientation", "circular", 40, 0.0, 2 * math.pi),
        Factor("x", "ordinal", 32, 0.0, 1.0),
        Factor("y", "ordinal", 32, 0.0, 1.0),
    )

    @property
    def grids(self) -> tuple[np.ndarray, ...]:
        """The values of each factor; angles reach 2 pi, which is 0 again."""
        angles = np.linspace(0, 2 * math.pi, self.grid[2])
        return tuple(angles if i == 2 else values for i, values in enumerate(super().grids))

    def _white(self, some: np.ndarray, where: str) -> float:
        return 1.0 if some.dtype == bool or some.max() <= 1 else super()._white(some, where)

    def _load(self, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
        found = read_arrays(path, {"imgs": True, "latents_classes": True})
        classes = found["latents_classes"]
        if classes.ndim != 2 or classes.shape[1] != 6 or len(classes) != len(found["imgs"]):
            raise UsageError(f"{path}: latents_classes must be [n, 6] like imgs, got {list(classes.shape)}")
        return found["imgs"], classes[:, 1:].astype(np.int64) if len(classes) == self.size else None


class Shapes3D(PublishedGrid):
    """3D Shapes from its published .h5 (needs the package h5py), or an .npz with the same arrays.

    path: 3dshapes.h5: images [480000, 64, 64, 3], labels [480000, 6]; where labels are missing, the order is taken
    for the published one and a `Notice` says so. content, sizes, transition, length, gap: see `PublishedGrid`.
    """

    equation: ClassVar[str] = "x = image(floor, wall, object, scale, shape, orientation)"
    reference: ClassVar[str] = "Burgess, Kim 2018, github.com/google-deepmind/3d-shapes"
    published: ClassVar[tuple[Factor, ...]] = (
        Factor("floor hue", "circular", 10, 0.0, 1.0),
        Factor("wall hue", "circular", 10, 0.0, 1.0),
        Factor("object hue", "circular", 10, 0.0, 1.0),
        Factor("scale", "ordinal", 8, 0.75, 1.25),
        Factor("shape", "categorical", 4),
        Factor("orientation", "ordinal", 15, -30.0, 30.0),
    )

    def _load(self, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
        found = read_arrays(path, {"images": True, "labels": False})
        if "labels" not in found:
            notice(f"{path}: has no labels; its images are taken to be in the published order")
            return found["images"], None
        return found["images"], self._codes(found["labels"], f"{path}: labels")


class MPI3D(PublishedGrid):
    """MPI3D from its published .npz (images), or the same array as .npy, which is read piece by piece.

    path: mpi3d_real.npz or another of its kind: images [1036800, 64, 64, 3], or [6, 6, 2, 3, 3, 40, 40, 64, 64, 3];
    the labels [n, 7] of a copy that has them are followed. content, sizes, transition, length, gap: see
    `PublishedGrid`. mpi3d_toy of the first release has sizes=(4, 4, 2, 3, 3, 40, 40).
    """

    equation: ClassVar[str] = "x = image(colour, shape, size, camera height, background, horizontal, vertical)"
    reference: ClassVar[str] = "Gondal et al. 2019, arXiv 1906.03292"
    published: ClassVar[tuple[Factor, ...]] = (
        Factor("colour", "categorical", 6),
        Factor("shape", "categorical", 6),
        Factor("size", "ordinal", 2),
        Factor("camera height", "ordinal", 3),
        Factor("background", "categorical", 3),
        Factor("horizontal", "ordinal", 40),
        Factor("vertical", "ordinal", 40),
    )

    def _load(self, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
        found: dict[str, Any]
        if path.suffix == ".npy":
            found = {"images": read_npy(path, "path")}
        else:
            found = read_arrays(path, {"images": True, "labels": False})
        images, labels = found["images"], found.get("labels")
        if images.ndim > 4:
            if images.shape[:-3] != self.grid:
                raise UsageError(f"{path}: images {list(images.shape)} must begin with the grid {list(self.grid)}")
            images = images.reshape(-1, *images.shape[-3:])
        return images, None if labels is None else self._codes(labels, f"{path}: labels")


class Cars3D(PublishedGrid):
    """Cars3D from the folder of .mat files of its archive, one car each; resized to `pixels` by an area average.

    path: the folder. Cars are numbered by file name, in order. content, sizes, transition, length, gap: see
    `PublishedGrid`. pixels: width and height of x. Published results resized with PIL's Lanczos filter.
    """

    equation: ClassVar[str] = "x = image(elevation, azimuth, car)"
    reference: ClassVar[str] = "Reed et al. 2015, Deep Visual Analogy-Making"
    published: ClassVar[tuple[Factor, ...]] = (
        Factor("elevation", "ordinal", 4),
        Factor("azimuth", "circular", 24, 0.0, 360.0),
        Factor("car", "categorical", 183),
    )

    pixels: int = Field(default=64, ge=1)

    def _load(self, path: Path) -> tuple[np.ndarray, None]:
        found = [file for file in path.glob("*.mat") if not is_hidden(file.name)]
        files = sorted(found, key=lambda file: natural(file.name))
        if len(files) != self.grid[2]:
            raise UsageError(f"{path}: has {len(files)} .mat files; the grid has {self.grid[2]} cars")
        elevations, azimuths, cars = self.grid
        images = np.empty((elevations, azimuths, cars, self.pixels, self.pixels, 3), np.uint8)
        for number, file in enumerate(files):
            mesh = read_mat(file, "im")
            if mesh is None or mesh.shape[2:] != (3, azimuths, elevations) or mesh.dtype != np.uint8:
                given = "nothing" if mesh is None else f"{mesh.dtype} {list(mesh.shape)}"
                raise UsageError(
                    f"{file}: im must be bytes [height, width, 3, {azimuths}, {elevations}], got {given}"
                )
            flat = np.einsum("hwcae->eahwc", mesh).reshape(-1, *mesh.shape[:3])
            images[:, :, number] = resized(flat, self.pixels).reshape(elevations, azimuths, *images.shape[3:])
        return images.reshape(-1, *images.shape[3:]), None


class SmallNORB(PublishedGrid):
    """SmallNORB from its published binary matrices: the left camera, training and test instances together.

    path: the folder of smallnorb-*-{training,testing}-{dat,cat,info}.mat, as they are or with .gz. content, sizes,
    transition, length, gap: see `PublishedGrid`. pixels: width and height of x (96 in the files), by area average.
    """

    equation: ClassVar[str] = "x = image(category, instance, elevation, azimuth, lighting)"
    reference: ClassVar[str] = "LeCun, Huang, Bottou 2004"
    published: ClassVar[tuple[Factor, ...]] = (
        Factor("category", "categorical", 5),
        Factor("instance", "categorical", 10),
        Factor("elevation", "ordinal", 9, 30.0, 70.0),
        Factor("azimuth", "circular", 18, 0.0, 360.0),
        Factor("lighting", "categorical", 6),
    )

    pixels: int = Field(default=64, ge=1)

    def _load(self, path: Path) -> tuple[np.ndarray, None]:
        images = np.zeros((self.size, self.pixels, self.pixels), np.uint8)
        seen = np.zeros(self.size, int)
        files = sorted([*path.glob("smallnorb-*-dat.mat"), *path.glob("smallnorb-*-dat.mat.gz")])
        if not files:
            raise UsageError(f"{path}: no smallnorb-*-dat.mat in this folder")
        for file in files:
            parts = {kind: read_norb(Path(str(file).replace("-dat.mat", f"-{kind}.mat"))) for kind in ("cat", "info")}
            pictures, count = read_norb(file), len(parts["cat"])
            if parts["cat"].ndim != 1 or parts["info"].shape != (count, 4):
                raise UsageError(
                    f"{file}: cat must be [n] and info [n, 4], got {[list(p.shape) for p in parts.values()]}"
                )
            if pictures.ndim != 4 or pictures.shape[:2] != (count, 2) or pictures.dtype != np.uint8:
                told = f"{pictures.dtype} {list(pictures.shape)}"
                raise UsageError(f"{file}: must be bytes [{count}, 2, height, width], got {told}")
            codes = np.column_stack([parts["cat"], parts["info"]]).astype(np.int64)
            codes[:, 3] //= 2  # azimuths are numbered 0, 2, .. 34
            if (codes < 0).any() or (codes >= np.array(self.grid)).any():
                raise UsageError(f"{file}: its labels do not fit the grid {' x '.join(map(str, self.grid))}")
            index = index_of(codes, self.grid)
            for begin in range(0, len(index), 1024):
                rows = index[begin : begin + 1024]
                images[rows] = resized(pictures[begin : begin + 1024, 0, :, :, None], self.pixels)[..., 0]
            np.add.at(seen, index, 1)
        if (seen != 1).any():
            raise UsageError(
                f"{path}: {int((seen != 1).sum())} of {self.size} combinations are not there exactly once"
            )
        return images, None


def resized(images: np.ndarray, pixels: int) -> np.ndarray:
    """Images uint8 [n, h, w, c] at another resolution by averaging over areas: [n, pixels, pixels, c]."""
    if images.shape[1:3] == (pixels, pixels):
        return images
    first = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.interpolate(first, (pixels, pixels), mode="area")
    return small.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
