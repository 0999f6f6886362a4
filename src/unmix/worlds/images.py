"""Images from a folder, a zip, an array or scikit-learn's digits, as a finite world with the number of each."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unmix.core.errors import Failure, UsageError
from unmix.core.pictures import SUFFIXES, contents, is_picture, opened, picture_names
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream, untouched
from unmix.worlds.files import FileWorld, read_arrays

DIGITS = "digits"
HELD = ("test", "val", "valid", "validation")


class Pictures(NamedTuple):
    """values: [N, channels, height, width] uint8 or float32. labels: [N], -1 where there is none, or None.
    names: of the classes. files: [N] names, or None. aside: [N], which are for tests where the files say so, or None.
    """

    values: Tensor
    labels: np.ndarray | None
    names: tuple[str, ...]
    files: tuple[str, ...] | None
    aside: np.ndarray | None = None


class Images(FileWorld):
    """Images without known latents; every one has its own number, which stays the same whatever is drawn.

    path: a folder or .zip of pictures (the folder that a picture is in names its class where there are several), an
    array .npy [N, height, width (, channels)], an .npz or .safetensors with `images` and, if known, `labels`, or
    "digits".
    content: digest that it must have. within: only files of a folder or zip whose path begins so. side: pictures are
    cropped to a square and scaled to it; None leaves them, and all must be alike. held: share held out for tests, of
    every class alike; of a folder or zip that is wholly divided into `train` and `test` (or `val`), what is not in
    `train` is held out, and 0 holds nothing out. part: the training rows, those held out, or all. most: training rows
    at most, of every class alike. seed: fixes which rows these are. Training rows are numbered from 0 in the order of
    the files; those held out come after them.
    Values lie in [0, 1]. Raises `UsageError` for no picture, fewer than 2, or unlike sizes without side, and
    `Failure` that names a picture that cannot be read.
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

    @cached_property
    def _found(self) -> str | None:
        return DIGITS if self.path == DIGITS else super()._found

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the content's digest filled in; without `most` where there is none."""
        # Digests from before there was `most` stay what they were.
        return {name: value for name, value in super().as_dict().items() if name != "most" or value is not None}

    @cached_property
    def pictures(self) -> Pictures:
        """All pictures, in the order of the files."""
        path = DIGITS if self.path == DIGITS else str(self._opened())
        return _read(path, self._found, self.within, self.side)

    @cached_property
    def numbers(self) -> np.ndarray:
        """Which pictures this part has, by their place in the order of files: [size]."""
        if self.part == "all":
            return np.arange(len(self.pictures.values))
        return np.flatnonzero(self._aside) if self.part == "held-out" else self._train

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
        for label in np.unique(kinds):
            here = draw.permutation(np.flatnonzero(kinds == label))
            aside[here[: round(self.held * len(here))]] = True
        return aside

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
        seen: dict[bytes, int] = {}
        pairs = []
        for place, picture in enumerate(self.pictures.values.numpy()):
            first = seen.setdefault(picture.tobytes(), place)
            if first != place:
                pairs.append((first, place))
        return tuple(pairs)

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
def _read(path: str, content: str | None, within: str, side: int | None) -> Pictures:
    if path == DIGITS:
        with untouched():
            from sklearn.datasets import load_digits
        found = load_digits()
        values = torch.from_numpy(found.images.astype(np.float32) / 16)[:, None]
        return Pictures(values, found.target.astype(np.int64), tuple(map(str, found.target_names)), None)
    file = Path(path)
    if file.is_dir() or file.suffix.lower() == ".zip":
        return _files(file, within, side)
    if side is not None:
        raise UsageError(f"Images.side={side}: is for files of pictures; scale the array yourself")
    return _array(file)


def _array(path: Path) -> Pictures:
    if path.suffix == ".npy":
        try:
            found = {"images": np.load(path, allow_pickle=False)}
        except (ValueError, EOFError) as error:
            raise Failure(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    else:
        found = read_arrays(path, {"images": True, "labels": False})
    values = found["images"]
    if values.ndim not in (3, 4) or values.dtype.kind not in "uif" or (values.ndim == 4 and values.shape[3] > 4):
        raise UsageError(f"{path}: images must be [N, height, width (, channels)], got {list(values.shape)}")
    values = values[:, :, :, None] if values.ndim == 3 else values
    if values.dtype != np.uint8:
        values = values.astype(np.float32)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise UsageError(f"{path}: images must be bytes, or numbers from 0 to 1")
    names: tuple[str, ...] = ()
    labels = found.get("labels")
    if labels is not None:
        if labels.shape != (len(values),):
            raise UsageError(f"{path}: {list(labels.shape)} labels for {len(values)} images")
        kinds, labels = np.unique(labels, return_inverse=True)
        names = tuple(str(kind) for kind in kinds)
    return _enough(Pictures(torch.from_numpy(values).movedim(3, 1).contiguous(), labels, names, None), path)


def _files(path: Path, within: str, side: int | None) -> Pictures:
    names = [name for name in picture_names(path) if name.startswith(within)]
    found: list[np.ndarray] = []
    for name, content in zip(names, contents(path, names), strict=True):
        found.append(_pixels(name, content, side))
        if found[-1].shape != found[0].shape:
            raise UsageError(
                f"{path}: {names[0]} is {list(found[0].shape[:2])} and {name} is {list(found[-1].shape[:2])}; "
                "give side=32 to scale them"
            )
    if not names:
        raise UsageError(f"{path}: holds no picture ({', '.join(SUFFIXES)}) below {within!r}")
    values = torch.from_numpy(np.stack(found)).movedim(3, 1).contiguous()
    aside, below = _divided(names)
    folders = [name.rpartition("/")[0] for name in below]
    kinds = sorted({folder for folder in folders if folder})
    labels = None
    if len(set(folders)) > 1:
        labels = np.asarray([kinds.index(folder) if folder else -1 for folder in folders], np.int64)
    classes = tuple(kind.rpartition("/")[2] for kind in kinds) if labels is not None else ()
    return _enough(Pictures(values, labels, classes, tuple(names), aside), path)


def _divided(names: list[str]) -> tuple[np.ndarray | None, list[str]]:
    """Which pictures are for tests, and their names below `train` and `test`; None where the files do not say."""
    parts = [name.split("/") for name in names]
    depth = 0
    while all(len(part) > depth + 1 for part in parts):
        here = {part[depth] for part in parts}
        if "train" in here and len(here) > 1 and here <= {"train", *HELD}:
            aside = np.asarray([part[depth] != "train" for part in parts])
            return aside, ["/".join(part[depth + 1 :]) for part in parts]
        if len(here) > 1:
            break
        depth += 1
    return None, names


def _pixels(name: str, content: bytes, side: int | None) -> np.ndarray:
    from PIL import Image, ImageOps

    picture = opened(content, name)
    return np.asarray(picture if side is None else ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC))


def holds_images(path: str) -> bool:
    """Whether a path is a folder or zip with pictures, an array of images, or the digits."""
    if path == DIGITS:
        return True
    file = Path(path)
    if file.is_dir():
        return any(is_picture(p.relative_to(file).as_posix()) for p in file.rglob("*"))
    if file.suffix.lower() == ".zip":
        return file.is_file()
    if not file.is_file() or file.suffix not in (".npy", ".npz"):
        return False
    try:
        if file.suffix == ".npy":
            return np.load(file, mmap_mode="r", allow_pickle=False).ndim >= 3
        with np.load(file, allow_pickle=False) as opened:
            return "images" in opened.files
    except (ValueError, EOFError, OSError, zipfile.BadZipFile):
        return False


def _enough(pictures: Pictures, path: Any) -> Pictures:
    if len(pictures.values) < 2:
        raise UsageError(f"{path}: holds {len(pictures.values)} picture; at least 2 are needed")
    return pictures
