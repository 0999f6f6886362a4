"""MaskWorld: masks of real objects over time; their place and area are the latents."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from unmix.core.array_files import read_arrays
from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.worlds.files import FileWorld
from unmix.worlds.stretches import spans, stretches

SIDE = 64


class MaskWorld(FileWorld):
    """Masks [64, 64] of real objects over time, in pairs or sequences: DAVIS masks, KITTI Masks.

    x: [n, 1, 64, 64], 0 or 1. z: x and y of the centre of mass in pixels and the area in pixels, of the mask itself.
    path: .npz or .safetensors with masks ([n, 64, 64], or bit-packed [n, 512]), frame [n], sequence [n] and, where
    there is one, object [n]; one row for each frame. The published KITTI Masks are a pickle, which is never opened:
    convert it. content: digest that the file must have.
    length: rows of a sequence, of one object; 1 gives single frames. gap: neighbouring rows are 1 .. gap frames
    apart, uniformly.
    split: train, test or all. held: share of the sequences (videos) that are test; a video is never in both.
    seed: which videos are held out.
    """

    equation: ClassVar[str] = "z = (mean column, mean row, sum) of the mask"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"

    length: int = Field(default=2, ge=1)
    gap: int = Field(default=1, ge=1)
    split: Literal["train", "test", "all"] = "train"
    held: float = Field(default=0.2, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if Path(self.path).suffix not in (".npz", ".safetensors", ".pickle", ".pkl"):
            raise ValueError(f"path={self.path}: .npz or .safetensors")
        return self

    @property
    def provides(self) -> frozenset[str]:  # type: ignore[override]
        """What a sample holds."""
        return frozenset({"x", "z", "index", "group", "time"})

    @property
    def factors(self) -> tuple[str, ...]:
        return ("x", "y", "area")

    @property
    def factor_kinds(self) -> tuple[Factor, ...]:
        return (
            Factor("x", low=0, high=SIDE - 1),
            Factor("y", low=0, high=SIDE - 1),
            Factor("area", low=0, high=SIDE**2),
        )

    @property
    def size(self) -> int:
        """Number of frames of the split."""
        return int(self._kept.sum())

    @property
    def held_out(self) -> MaskWorld:
        return self.but(split="test") if self.split == "train" else self

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        """masks bool, sequence, track, frame: rows ordered by track, then frame."""
        return read_masks(self._opened())

    @cached_property
    def _kept(self) -> np.ndarray:
        """Which rows belong to the split: [rows] bool."""
        videos = np.unique(self._arrays["sequence"])
        if self.split == "all":
            return np.ones(len(self._arrays["frame"]), bool)
        if len(videos) < 2:
            raise UsageError(
                f"MaskWorld.split={self.split}: {self.path} has one sequence; only split='all' is possible"
            )
        order = Stream(self.seed, ("masks", "split")).numpy().permutation(len(videos))
        test = videos[order[: min(len(videos) - 1, max(1, round(self.held * len(videos))))]]
        return np.isin(self._arrays["sequence"], test) == (self.split == "test")

    @cached_property
    def _spans(self) -> np.ndarray:
        """How many consecutive frames of the same track follow each row: [rows]."""
        return spans(self._arrays["track"], self._arrays["frame"])

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        """n rows: stretches of consecutive frames from uniform starts. Raises `UsageError` where there is none."""
        if n < 1 or n % self.length:
            raise UsageError(f"n={n}: rows come in sequences of length={self.length}; give a multiple of it")
        stream, count = as_stream(rng).child("masks"), n // self.length
        rows, time = stretches(self._spans, self._kept, count, self.length, self.gap, stream, self.kind, self.split)
        rows = rows.reshape(-1)
        masks = self._arrays["masks"][rows]
        return Sample(
            x=torch.from_numpy(masks[:, None].astype(np.float32)),
            z=torch.from_numpy(latents_of(masks).astype(np.float32)),
            index=torch.from_numpy(rows),
            group=torch.from_numpy(np.repeat(np.arange(count), self.length)),
            time=torch.from_numpy(time.reshape(-1)),
        )


def latents_of(masks: np.ndarray) -> np.ndarray:
    """Column and row of the centre of mass, and the number of pixels: masks [n, h, w] bool to [n, 3] float64."""
    masks = np.asarray(masks)
    area = masks.sum((1, 2), dtype=np.float64)
    across, down = masks.sum(1, dtype=np.float64), masks.sum(2, dtype=np.float64)
    safe = np.maximum(area, 1)
    return np.stack([across @ np.arange(masks.shape[2]) / safe, down @ np.arange(masks.shape[1]) / safe, area], 1)


def read_masks(path: Path) -> dict[str, np.ndarray]:
    """masks [n, 64, 64] bool, sequence [n], track [n] (a number for each object of a sequence), frame [n]; sorted.

    Raises `UsageError` for a wrong shape, an empty mask or a frame that is there twice.
    """
    found = read_arrays(path, {"masks": True, "sequence": True, "frame": True, "object": False})
    masks = found["masks"]
    if masks.ndim == 2 and masks.shape[1] == SIDE * SIDE // 8 and masks.dtype == np.uint8:
        masks = np.unpackbits(masks, axis=1).reshape(-1, SIDE, SIDE)
    if masks.ndim != 3 or masks.shape[1:] != (SIDE, SIDE) or not len(masks):
        raise UsageError(f"{path}: masks must be [n, 64, 64] or bit-packed uint8 [n, 512], got {list(masks.shape)}")
    rows = {name: np.asarray(found[name]) for name in ("sequence", "frame", "object") if name in found}
    if rows["frame"].dtype.kind not in "iuf" or not (rows["frame"] == np.round(rows["frame"])).all():
        raise UsageError(f"{path}: frame must be whole numbers, as consecutive frames are 1 apart")
    for name, value in rows.items():
        if value.shape != (len(masks),):
            raise UsageError(f"{path}: {name} must be [{len(masks)}] like masks, got {list(value.shape)}")
    if masks.dtype.kind not in "biuf" or not any(((masks == 0) | (masks == on)).all() for on in (1, 255)):
        raise UsageError(
            f"{path}: masks must be 0 and 1 (or 255), they are {masks.dtype} from {masks.min()} to {masks.max()}; "
            "cut them at a threshold, or take one object of several"
        )
    masks = masks.astype(bool)
    if not masks.any((1, 2)).all():
        raise UsageError(f"{path}: {int((~masks.any((1, 2))).sum())} masks are empty; leave such frames out")
    thing = np.char.add(
        np.char.add(rows["sequence"].astype(str), "/"), rows.get("object", np.zeros(len(masks), int)).astype(str)
    )
    track = np.unique(thing, return_inverse=True)[1]
    order = np.lexsort((rows["frame"], track))
    track, frame = track[order], rows["frame"][order].astype(np.int64)
    if ((np.diff(track) == 0) & (np.diff(frame) == 0)).any():
        raise UsageError(f"{path}: a frame of the same object is there twice")
    return {"masks": masks[order], "sequence": rows["sequence"][order].astype(str), "track": track, "frame": frame}
