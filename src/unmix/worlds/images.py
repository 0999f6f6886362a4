"""Images from a folder, a zip, an array or scikit-learn's digits, as a finite world with the number of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unmix.core.array_files import array_names, read_arrays, read_npy
from unmix.core.copies import first_copies, hold_out
from unmix.core.errors import UnmixError, UsageError, notice
from unmix.core.image_arrays import image_array
from unmix.core.labels import numbered, plain
from unmix.core.pictures import SUFFIXES, divided, files_below, folder_labels, is_picture, picture_names
from unmix.core.pixels import Ground, read_pictures
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream, untouched
from unmix.worlds.files import FileWorld

if TYPE_CHECKING:
    from PIL.Image import Image

DIGITS = "digits"
LATER = ("most", "axes", "white", "ground")  # fields that are left out of digests at their defaults


class Pictures(NamedTuple):
    """values: [N, channels, height, width] uint8 or float32. labels: [N], -1 where there is none, or None.
    names: of the classes. files: [N] names, or None. first: [N] number of the first picture with the same pixels.
    aside: [N], which are for tests where the files say so, or None.
    """

    values: Tensor
    labels: np.ndarray | None
    names: tuple[str, ...]
    files: tuple[str, ...] | None
    first: np.ndarray
    aside: np.ndarray | None = None


class Images(FileWorld):
    """Images without known latents; every one has its own number, which stays the same whatever is drawn.

    path: a folder or .zip of pictures (the folder that a picture is in names its class where there are several), one
    picture of many frames, an array .npy [N, height, width (, channels)], an .npz or .safetensors with `images` and,
    if known, `labels` (-1, NaN and blanks are none), or "digits". Pictures come in natural order, 9.png before
    10.png. content: digest that it must have. within: only files of a folder or zip whose path begins so. side:
    pictures are cropped to a square and scaled to it; None leaves them, and all must be alike. held: share held out
    for tests, of every class alike; of a folder or zip that is wholly divided into `train` and `test` (or `val`),
    what is not in `train` is held out, and 0 holds nothing out. part: the training rows, those held out, or all.
    most: training rows at most, of every class alike. seed: fixes which rows these are. axes: of an array whose shape
    leaves them open, such as "nchw" or "hwcn". white: value that becomes 1, such as 4095 of 12 bits in 16; None as
    `core.image_arrays` and `core.pixels` say. ground: what transparent pictures are laid on.
    Training rows are numbered from 0 in the order of the files; those held out come after them. Pictures with the
    same pixels are on one side; where the files say which are for tests, copies of training rows are left out there.
    Values lie in [0, 1]. Raises `UsageError` for no picture, fewer than 2, unlike sizes without side, or arrays whose
    axes or white are not clear, and `Failure` that names a picture that cannot be read.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"x", "y", "index"})
    equation: ClassVar[str] = "x = pixels / 255, index = its number"
    reference: ClassVar[str] = "scikit-learn's digits: Alpaydin, Kaynak 1998, UCI"

    within: str = ""
    side: int | None = Field(default=None, ge=1)
    held: float = Field(default=0.2, ge=0, lt=1)
    part: Literal["train", "held-out", "all"] = "train"
    most: int | None = Field(default=None, ge=2)
    seed: int = 0
    axes: str | None = None
    white: int | None = Field(default=None, ge=1, le=65535)
    ground: Ground = "white"

    @cached_property
    def _found(self) -> str | None:
        return DIGITS if self.path == DIGITS else super()._found

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the content's digest filled in; without the fields in `LATER` at their defaults."""
        fields = type(self).model_fields
        found = super().as_dict().items()
        return {name: value for name, value in found if name not in LATER or value != fields[name].default}

    @cached_property
    def pictures(self) -> Pictures:
        """All pictures, in the order of the files."""
        path = DIGITS if self.path == DIGITS else str(self._opened())
        return _read(path, self._found, self.within, self.side, self.axes, self.white, self.ground)

    @cached_property
    def numbers(self) -> np.ndarray:
        """Which pictures this part has, by their place in the order of files: [size]."""
        if self.part == "all":
            return np.arange(len(self.pictures.values))
        return np.flatnonzero(self._aside & ~self._leaked) if self.part == "held-out" else self._train

    @property
    def row_labels(self) -> np.ndarray | None:
        """Number of the class of every picture of this part [size], -1 where it has none; None without classes."""
        return None if self.pictures.labels is None else self.pictures.labels[self.numbers]

    @cached_property
    def _train(self) -> np.ndarray:
        train = np.flatnonzero(~self._aside)
        if self.most is None or self.most >= len(train):
            return train
        rank, draw = np.zeros(len(train)), Stream(self.seed, (self.kind, "most")).numpy()
        kinds = self._kinds[train]
        for label in np.unique(kinds):
            here = draw.permutation(np.flatnonzero(kinds == label))
            rank[here] = (np.arange(len(here)) + 0.5) / len(here)
        return np.sort(train[np.argsort(rank, kind="stable")[: self.most]])

    @cached_property
    def _aside(self) -> np.ndarray:
        kinds = self._kinds
        aside, draw = np.zeros(len(kinds), bool), Stream(self.seed, (self.kind, "held")).numpy()
        if self.held and self.pictures.aside is not None:
            return self.pictures.aside
        first = self.pictures.first
        kinds = kinds[first]  # copies stay together, also where their labels differ
        for label in np.unique(kinds):
            here = draw.permutation(np.flatnonzero(kinds == label))
            aside[hold_out(here, first, round(self.held * len(here)))] = True
        return aside

    @cached_property
    def _leaked(self) -> np.ndarray:
        """Which pictures [N] the files keep for tests although they have the pixels of a training picture."""
        first = self.pictures.first
        leaked = self._aside & np.isin(first, first[~self._aside])
        if leaked.any():
            notice(f"{self.path}: {leaked.sum()} held-out pictures are copies of training pictures and are left out")
        return leaked

    @property
    def _kinds(self) -> np.ndarray:
        labels = self.pictures.labels
        return np.zeros(len(self.pictures.values), int) if labels is None else labels

    @property
    def size(self) -> int:
        """Number of pictures of this part."""
        return len(self.numbers)

    @property
    def instances(self) -> int:
        """Number of values of index that a learner of this part needs."""
        return self.size

    @property
    def classes(self) -> int | None:
        """Number of classes, None without labels."""
        return len(self.pictures.names) or None

    @property
    def held_out(self) -> Self:
        """The rows kept back; all the same where none are."""
        return self if self.part == "all" or self.held == 0 else self.but(part="held-out")

    @cached_property
    def duplicates(self) -> tuple[tuple[int, int], ...]:
        """Pairs of places of pictures with the same pixels, the first of them first; each keeps its own number."""
        first = self.pictures.first
        return tuple((int(first[place]), int(place)) for place in np.flatnonzero(first != np.arange(len(first))))

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        """n pictures without repeats, in random order; raises `UsageError` for more than there are."""
        if not 1 <= n <= self.size:
            raise UsageError(f"n={n}: this part of {self.path} has {self.size} pictures; give 1 to {self.size}")
        return self.rows(as_stream(rng).child(self.kind).numpy().permutation(self.size)[:n])

    def rows(self, places: np.ndarray | None = None) -> Sample:
        """The pictures of this part at these places [n], or all in order."""
        places = np.arange(self.size) if places is None else places
        chosen = self.numbers[places]
        pictures = self.pictures
        values = pictures.values[torch.from_numpy(chosen)]
        x = values.float() / 255 if values.dtype == torch.uint8 else values
        after = len(self._train) if self.part == "held-out" else 0
        y = None if pictures.labels is None else torch.from_numpy(pictures.labels[chosen])
        return Sample(x=x, y=y, index=torch.from_numpy(places + after))

    def batches(self, batch: int, steps: int, rng: Stream, start: int = 0) -> Iterator[tuple[int, Sample]]:
        """Passes through the pictures, each in a new order; a batch as large as the world is all of it."""
        per_pass, order, number = max(1, self.size // batch), np.zeros(0, int), -1
        for step in range(start, steps):
            if step // per_pass != number:
                number = step // per_pass
                order = rng.child(f"pass {number}").numpy().permutation(self.size)
            place = step % per_pass
            yield step, self.rows(order[place * batch : (place + 1) * batch])


# Every part of a world (and every copy with another field) shares one reading.
@lru_cache(maxsize=2)
def _read(
    path: str, content: str | None, within: str, side: int | None, axes: str | None, white: int | None, ground: Ground
) -> Pictures:
    if path == DIGITS:
        with untouched():
            from sklearn.datasets import load_digits
        found = load_digits()
        values = torch.from_numpy(found.images.astype(np.float32) / 16)[:, None]
        names = tuple(map(str, found.target_names))
        return Pictures(values, found.target.astype(np.int64), names, None, np.arange(len(values)))
    file = Path(path)
    if file.is_dir() or file.suffix.lower() == ".zip" or is_picture(file.name):
        if axes is not None:
            raise UsageError(f"Images.axes={axes}: is for arrays; files of pictures have their own")
        return _files(file, within, side, white, ground)
    if side is not None:
        raise UsageError(f"Images.side={side}: is for files of pictures; scale the array yourself")
    return _array(file, axes, white)


def _array(path: Path, axes: str | None, white: int | None) -> Pictures:
    if path.suffix.lower() == ".npy":
        found = {"images": read_npy(path, "path", mapped=False)}
    else:
        found = read_arrays(path, {"images": True, "labels": False})
    values = image_array(found["images"], str(path), axes, white)
    labels = None if "labels" not in found else plain(found["labels"], str(path))
    if labels is not None and len(labels) != len(values):
        raise UsageError(f"{path}: {list(labels.shape)} labels for {len(values)} images")
    return _made(values, labels, None, None, path)


def _files(path: Path, within: str, side: int | None, white: int | None, ground: Ground) -> Pictures:
    names = [name for name in picture_names(path) if name.startswith(within)]
    if not names:
        raise UsageError(f"{path}: holds no picture ({', '.join(SUFFIXES)}) below {within!r}")
    files, values = read_pictures(path, names, None if side is None else _square(side), white, ground)
    aside, below = divided(files)
    kinds = folder_labels(below)
    labels = np.asarray(kinds) if len(set(kinds)) > 1 else None
    return _made(values, labels, files, aside, path)


def _square(side: int) -> Callable[[Image], Image]:
    def cropped(picture: Image) -> Image:
        from PIL import Image, ImageOps

        return ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC)

    return cropped


def holds_images(path: str) -> bool:
    """Whether a path is a folder or zip with pictures, a picture, an array of images, or the digits."""
    if path == DIGITS:
        return True
    file = Path(path)
    if file.is_dir():
        return any(map(is_picture, files_below(file)))
    if is_picture(file.name):
        return file.is_file()
    if file.suffix.lower() == ".zip":
        return file.is_file()
    if not file.is_file():
        return False
    try:
        return read_npy(file).ndim >= 3 if file.suffix.lower() == ".npy" else "images" in array_names(file)
    except UnmixError:
        return False


def _made(
    values: np.ndarray, labels: np.ndarray | None, files: tuple[str, ...] | None, aside: np.ndarray | None, path: Path
) -> Pictures:
    """values: [N, height, width, channels]. labels: as `plain` gives them."""
    if len(values) < 2:
        raise UsageError(f"{path}: holds {len(values)} picture; at least 2 are needed")
    first = first_copies(values)
    if copies := int((first != np.arange(len(first))).sum()):
        notice(f"{path}: {copies} of {len(first)} pictures are copies of others; copies are on one side of a split")
    numbers, names = (None, ()) if labels is None else numbered(labels)
    return Pictures(torch.from_numpy(values).movedim(3, 1).contiguous(), numbers, names, files, first, aside)
