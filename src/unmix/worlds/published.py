"""Published data with known factors, read from files that a user has: finite worlds, one class for each format."""

from __future__ import annotations

import gzip
import math
from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core.errors import Failure, UsageError
from unmix.core.factors import Factor
from unmix.worlds.factor_grids import GridWorld, codes_of, index_of
from unmix.worlds.files import FileWorld, read_arrays

NORB_TYPES = {0x1E3D4C55: "<u1", 0x1E3D4C54: "<i4", 0x1E3D4C56: "<i2", 0x1E3D4C51: "<f4", 0x1E3D4C53: "<f8"}


class PublishedGrid(FileWorld, GridWorld):
    """A published grid of images: x [n, channels, height, width] in [0, 1], z values of the factors, index.

    path: the file or folder. content: digest that it must have. sizes: numbers of values of the factors, where the
    file holds another grid than the published one. transition, length, gap: sequences, see `SequenceWorld`.
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
    def _load(self, path: Path) -> Any:
        """All images, uint8 [size, height, width] or [size, height, width, channels], in the order of the grid."""

    @cached_property
    def _images(self) -> Any:
        images = self._load(self._opened())
        if len(images) != self.size or len(images.shape) not in (3, 4):
            raise UsageError(
                f"{self.kind}.path={self.path}: has images {list(images.shape)}, but the grid "
                f"{' x '.join(map(str, self.grid))} has {self.size}; give sizes for another grid"
            )
        return images

    def _observations(self, index: np.ndarray) -> Tensor:
        images = torch.from_numpy(np.ascontiguousarray(self._images[index]))
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        return images.float().contiguous() / self._white

    @property
    def _white(self) -> float:
        return 255.0


class DSprites(PublishedGrid):
    """dSprites from its published .npz: 737,280 images 64 x 64 of 3 shapes, 6 scales, 40 angles, 32 x 32 places.

    path: dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz; of its arrays only imgs and latents_classes are read, for
    metadata is a pickle. content, sizes, transition, length, gap: see `PublishedGrid`.
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

    @property
    def _white(self) -> float:
        return 1.0

    def _load(self, path: Path) -> np.ndarray:
        found = read_arrays(path, {"imgs": True, "latents_classes": True})
        classes = found["latents_classes"]
        if classes.ndim != 2 or classes.shape[1] != 6 or len(classes) != len(found["imgs"]):
            raise UsageError(f"{path}: latents_classes must be [n, 6] like imgs, got {list(classes.shape)}")
        expected = codes_of(np.arange(self.size), self.grid)
        if len(classes) == self.size and not np.array_equal(classes[:, 1:], expected):
            raise UsageError(f"{path}: images are not in the order of their classes")
        return found["imgs"]


class Shapes3D(PublishedGrid):
    """3D Shapes from its published .h5 (needs the package h5py), or an .npz with the same arrays.

    path: 3dshapes.h5: images [480000, 64, 64, 3]. content, sizes, transition, length, gap: see `PublishedGrid`.
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

    def _load(self, path: Path) -> np.ndarray:
        if path.suffix == ".npz":
            return read_arrays(path, {"images": True})["images"]
        try:
            import h5py
        except ModuleNotFoundError:
            raise UsageError(f"{path}: an HDF5 file needs h5py: pip install h5py; or convert it to .npz") from None
        with h5py.File(path, "r") as opened:
            if "images" not in opened:
                raise UsageError(f"{path}: has no array images; it has {', '.join(opened) or 'nothing'}")
            return opened["images"][()]


class MPI3D(PublishedGrid):
    """MPI3D from its published .npz (images), or the same array as .npy, which is read piece by piece.

    path: mpi3d_real.npz or another of its kind: images [1036800, 64, 64, 3], in any leading shape.
    content, sizes, transition, length, gap: see `PublishedGrid`. mpi3d_toy of the first release has
    sizes=(4, 4, 2, 3, 3, 40, 40).
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

    def _load(self, path: Path) -> np.ndarray:
        if path.suffix == ".npy":
            try:
                images = np.load(path, mmap_mode="r", allow_pickle=False)
            except ValueError as error:
                raise Failure(f"{path}: not a whole array ({error})") from None
        else:
            images = read_arrays(path, {"images": True})["images"]
        return images.reshape(-1, *images.shape[-3:])


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

    def _load(self, path: Path) -> np.ndarray:
        from scipy import io

        files = sorted(path.glob("*.mat"))
        if len(files) != self.grid[2]:
            raise UsageError(f"{path}: has {len(files)} .mat files; the grid has {self.grid[2]} cars")
        elevations, azimuths, cars = self.grid
        images = np.empty((elevations, azimuths, cars, self.pixels, self.pixels, 3), np.uint8)
        for number, file in enumerate(files):
            mesh = io.loadmat(file, variable_names=["im"]).get("im")
            if mesh is None or mesh.ndim != 5 or mesh.shape[2:] != (3, azimuths, elevations):
                found = "nothing" if mesh is None else list(mesh.shape)
                raise UsageError(f"{file}: im must be [height, width, 3, {azimuths}, {elevations}], got {found}")
            flat = np.einsum("hwcae->eahwc", mesh).reshape(-1, *mesh.shape[:3])
            images[:, :, number] = resized(flat, self.pixels).reshape(elevations, azimuths, *images.shape[3:])
        return images.reshape(-1, *images.shape[3:])


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

    def _load(self, path: Path) -> np.ndarray:
        images = np.zeros((self.size, self.pixels, self.pixels), np.uint8)
        seen = np.zeros(self.size, int)
        files = sorted([*path.glob("smallnorb-*-dat.mat"), *path.glob("smallnorb-*-dat.mat.gz")])
        if not files:
            raise UsageError(f"{path}: no smallnorb-*-dat.mat in this folder")
        for file in files:
            parts = {kind: read_norb(Path(str(file).replace("-dat.mat", f"-{kind}.mat"))) for kind in ("cat", "info")}
            codes = np.column_stack([parts["cat"], parts["info"]]).astype(np.int64)
            codes[:, 3] //= 2  # azimuths are numbered 0, 2, .. 34
            if codes.shape[1] != 5 or (codes < 0).any() or (codes >= np.array(self.grid)).any():
                raise UsageError(f"{file}: its labels do not fit the grid {' x '.join(map(str, self.grid))}")
            index = index_of(codes, self.grid)
            pictures = read_norb(file)
            for begin in range(0, len(index), 1024):
                rows = index[begin : begin + 1024]
                images[rows] = resized(pictures[begin : begin + 1024, 0, :, :, None], self.pixels)[..., 0]
            np.add.at(seen, index, 1)
        if (seen != 1).any():
            raise UsageError(
                f"{path}: {int((seen != 1).sum())} of {self.size} combinations are not there exactly once"
            )
        return images


def read_norb(path: Path) -> np.ndarray:
    """A matrix in NORB's binary format: little-endian magic number, number of dimensions, dimensions, values.

    Raises `UsageError` for a missing file and `Failure` for one that is cut off or of another kind.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    head = np.frombuffer(raw[:8], "<i4") if len(raw) >= 20 else np.zeros(2, int)
    if int(head[0]) not in NORB_TYPES:
        raise Failure(f"{path}: not a matrix in NORB's format")
    count = int(head[1])
    shape = np.frombuffer(raw, "<i4", count, 8)
    kind = np.dtype(NORB_TYPES[int(head[0])])
    begin = 8 + 4 * max(3, count)
    if len(raw) != begin + kind.itemsize * int(np.prod(shape)):
        raise Failure(f"{path}: cut off, {len(raw)} bytes for {' x '.join(map(str, shape))} values")
    return np.frombuffer(raw, kind, offset=begin).reshape(shape)


def resized(images: np.ndarray, pixels: int) -> np.ndarray:
    """Images uint8 [n, h, w, c] at another resolution by averaging over areas: [n, pixels, pixels, c]."""
    if images.shape[1:3] == (pixels, pixels):
        return images
    first = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.interpolate(first, (pixels, pixels), mode="area")
    return small.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
