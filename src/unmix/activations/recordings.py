"""Recordings: responses of neurons to images, with trials, time windows, repeats, and how reliable they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unmix.activations.images import as_items, open_images
from unmix.activations.shards import SCHEMA, ShardRows, ShardWriter, check_folder, clear_folder
from unmix.core.array_files import read_npy
from unmix.core.digest import array_digest, digest
from unmix.core.errors import UsageError
from unmix.core.items import ImageItems
from unmix.core.rows import as_array
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream


@dataclass(frozen=True, eq=False)
class Recording:
    """Responses [n, d] of d neurons to n images (means over the repeats), with the images.

    repeats: [n, d, r] single presentations, NaN where there was none; None where only means are known.
    """

    responses: np.ndarray
    items: ImageItems
    repeats: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.responses.ndim != 2 or len(self.responses) != len(self.items):
            raise UsageError(
                f"recording: responses must be [images, neurons] for {len(self.items)} images, got "
                f"{list(self.responses.shape)}; a [neurons, images] array must be transposed"
            )
        if not np.isfinite(self.responses).all():
            row, column = np.argwhere(~np.isfinite(self.responses))[0]
            raise UsageError(f"recording: neuron {column} has no response to image {row}; leave the image out")
        if self.repeats is not None and self.repeats.shape[:2] != self.responses.shape:
            raise UsageError(f"recording: repeats must be [n, d, r], got {list(self.repeats.shape)}")

    @property
    def digest(self) -> str:
        """Digest of the responses."""
        return array_digest(self.responses)

    def rows(self, standardise: bool = True, unit: bool = True, by: Any = None) -> np.ndarray:
        """Rows for finders [n, d] float32: each neuron with mean 0 and deviation 1, then each row of unit norm.

        by: numbers of the images whose mean and deviation count, such as those that are fitted on; None takes all.
        Neurons that do not vary become 0.
        """
        found = self.responses.astype(np.float64)
        if standardise:
            known = found if by is None else found[np.asarray(by)]
            deviation = known.std(0)
            found = (found - known.mean(0)) / np.where(deviation > 0, deviation, 1.0)
        if unit:
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found.astype(np.float32)

    def sample(self) -> Sample:
        """All rows as given, with their images."""
        return Sample(h=self.responses.astype(np.float32), index=np.arange(len(self.responses)), items=self.items)


def open_recording(responses: str | Path, images: str | Path, repeats: str | Path | None = None) -> Recording:
    """A recording from .npy arrays and a folder or zip of images, in the order of their names.

    responses: [images, neurons] or [neurons, images], told apart by the number of images. repeats: [images, neurons,
    r] or [neurons, images, r], NaN where there was no repeat. Raises `UsageError` where neither side fits, or both
    do; then `Recording(responses, open_images(images))` takes [images, neurons] as they are.
    """
    items = open_images(images)
    found = _stimuli_first(_array(responses), len(items), "responses")
    raw = None if repeats is None else _stimuli_first(_array(repeats), len(items), "repeats")
    return Recording(found, items, raw)


def from_trials(
    responses: Any, stimulus: Any, images: Any, window: tuple[float, float] | None = None, bin: float = 1.0
) -> Recording:
    """A recording from single trials in any order.

    responses: [t, d], or [t, d, bins] spikes or rates over time, averaged over the window. stimulus: [t] number of
    the image that was shown. images: `ImageItems` or an array. window: (begin, end) in the unit of `bin`, the width
    of one bin, begin included and end not; None takes the whole trial.
    Raises `UsageError` for an image that was never shown, a number that no image has, or an empty window.
    """
    found, shown = np.asarray(responses, dtype=np.float64), np.asarray(stimulus)
    items = images if isinstance(images, ImageItems) else as_items(images)
    if found.ndim == 3:
        begin, end = (0, found.shape[2]) if window is None else (int(np.ceil(edge / bin)) for edge in window)
        if not 0 <= begin < end <= found.shape[2]:
            raise UsageError(f"window={window}: must lie in 0 .. {found.shape[2] * bin} and hold a bin of {bin}")
        found = found[:, :, begin:end].mean(2)
    if found.ndim != 2 or shown.shape != (len(found),) or shown.dtype.kind not in "iu":
        raise UsageError(f"trials: responses {list(found.shape)}, stimulus {list(shown.shape)}; [t, d] and [t]")
    if shown.min() < 0 or shown.max() >= len(items):
        raise UsageError(f"stimulus: numbers must be 0 .. {len(items) - 1}, got {shown.min()} .. {shown.max()}")
    counts = np.bincount(shown, minlength=len(items))
    if not counts.all():
        raise UsageError(f"stimulus: image {int((counts == 0).argmax())} was never shown; leave it out")
    order = np.argsort(shown, kind="stable")
    place = np.arange(len(shown)) - np.repeat(np.cumsum(counts) - counts, counts)
    repeats = np.full((len(items), found.shape[1], counts.max()), np.nan)
    repeats[shown[order], :, place] = found[order]
    known = np.isfinite(repeats).sum(2)
    if not known.all():
        image, neuron = np.argwhere(known == 0)[0]
        raise UsageError(f"trials: neuron {neuron} has no response to image {image}; leave the image out")
    return Recording(np.nanmean(repeats, axis=2), items, repeats)


def collect_recording(
    responses: str | Path,
    images: str | Path,
    folder: str | Path,
    repeats: str | Path | None = None,
    stimulus: str | Path | None = None,
    window: tuple[float, float] | None = None,
    bin: float = 1.0,
    overwrite: bool = False,
) -> ShardRows:
    """Responses as rows with their images, in a folder of shards that finders read: one row an image.

    responses: .npy, means as `open_recording` takes them or, with stimulus (a .npy [t] of image numbers), single
    trials [t, d] or [t, d, bins] as `from_trials` does; or .nwb, with the column stimulus and the window in seconds
    of `open_nwb`. repeats, window, bin: as these take them. Where single presentations are known, the manifest's
    `about` has the reliability of every neuron: half, full and ceiling.
    Made once; found again where nothing has changed. Raises as these do, and `UsageError` for a folder that holds
    something else, or an option that belongs to the other kind.
    """
    if Path(responses).suffix.lower() == ".nwb":
        if stimulus is None or window is None:
            raise UsageError("stimulus, window: of an .nwb file both are needed: a column, and seconds [0.05,0.25]")
        from unmix.activations.nwb import open_nwb

        found = open_nwb(responses, open_images(images), str(stimulus), (window[0], window[1]))
    elif stimulus is None:
        if window is not None or bin != 1.0:
            raise UsageError(
                "window, bin: are for single trials; give stimulus=FILE, the number of each trial's image"
            )
        found = open_recording(responses, images, repeats)
    else:
        if repeats is not None:
            raise UsageError("repeats: trials hold their repeats already; give stimulus or repeats")
        found = from_trials(_array(responses), _numbers(stimulus), open_images(images), window, bin)
    folder = Path(folder)
    known = None if found.repeats is None else array_digest(found.repeats)
    shown = found.items
    facts = [found.digest, known, array_digest(shown.images), shown.labels, shown.names]
    key = digest({"schema": SCHEMA, "recording": facts})
    if overwrite:
        clear_folder(folder)
    check_folder(folder, key)
    if (folder / "manifest.json").exists():
        return ShardRows(folder)
    about: dict[str, Any] = {"kind": "recording", "neurons": found.responses.shape[1], "images": len(found.items)}
    if found.repeats is not None and found.repeats.shape[2] > 1:
        reliable = split_half(found.repeats)
        about["reliability"] = {
            name: [None if np.isnan(x) else round(float(x), 5) for x in getattr(reliable, name)]
            for name in ("half", "full", "ceiling")
        }
        about["unreliable"] = int(reliable.unreliable().sum())
    with ShardWriter(folder, found.responses.shape[1], "float32", key, about) as writer:
        writer.append(found.responses.astype(np.float32))
        return writer.finish(found.items)


@dataclass(frozen=True, eq=False)
class Reliability:
    """How far the responses of d neurons would come again.

    half: [d] correlation over the images of the means of two random halves of the repeats, averaged over the splits.
    full: [d] the same of two full sets of repeats, 2 half / (1 + half) (Spearman, Brown). ceiling: [d] the largest
    correlation that a model can have with the mean responses, sqrt(full), 0 where full is negative. interval: [d, 2]
    of half, over the splits. images: images with at least two repeats, which alone count.
    """

    half: np.ndarray
    full: np.ndarray
    ceiling: np.ndarray
    interval: np.ndarray
    images: int

    def unreliable(self, threshold: float = 0.3) -> np.ndarray:
        """Neurons [d] whose `full` is below a threshold, or that cannot be judged."""
        return ~(self.full >= threshold)


def split_half(repeats: Any, splits: int = 100, rng: int | Stream = 0) -> Reliability:
    """Reliability of every neuron from single presentations, halves drawn anew for every image in every split.

    repeats: [n, d, r], NaN where a presentation is missing, in all neurons or in some. A neuron that does not vary
    has NaN. Raises `UsageError` where fewer than 3 images have two repeats for a neuron.
    """
    given = np.asarray(repeats, dtype=np.float64)
    if given.ndim != 3 or given.shape[2] < 2:
        raise UsageError(f"repeats: must be [images, neurons, at least 2], got {list(given.shape)}")
    there = np.isfinite(given)
    enough = there.sum(2) >= 2
    if enough.sum(0).min() < 3:
        raise UsageError(f"repeats: neuron {int(enough.sum(0).argmin())} has fewer than 3 images with two repeats")
    filled, draw = np.where(there, given, 0.0), as_stream(rng).child("halves").numpy()
    found = np.empty((splits, given.shape[1]))
    for split in range(splits):
        # Missing ones come last, so that both halves of what is there differ by one presentation at most.
        rank = np.where(there, draw.random(given.shape), 2.0).argsort(2).argsort(2)
        size = there.sum(2, keepdims=True)
        first = (rank < size // 2) & there
        second = ~first & there
        one, other = ((filled * half).sum(2) / np.maximum(half.sum(2), 1) for half in (first, second))
        found[split] = _correlation(one, other, enough)
    half = found.mean(0)
    full = 2 * half / (1 + half)
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    ceiling = np.sqrt(np.clip(full, 0, 1))
    return Reliability(half, full, ceiling, np.stack([low, high], 1), int(enough.all(1).sum()))


def _correlation(a: np.ndarray, b: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Correlation over the kept images, neuron by neuron: [d]; NaN where one does not vary."""
    count = keep.sum(0)
    a = np.where(keep, a - (a * keep).sum(0) / count, 0)
    b = np.where(keep, b - (b * keep).sum(0) / count, 0)
    scale = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.where(scale > 1e-12, (a * b).sum(0) / np.maximum(scale, 1e-300), np.nan)


def _array(path: str | Path) -> np.ndarray:
    found = as_array(read_npy(path, "recording", mapped=False), f"recording={path}")
    return np.asarray(found, dtype=np.float64)


def _numbers(path: str | Path) -> np.ndarray:
    found = _array(path)
    if not np.equal(np.mod(found, 1), 0).all():
        raise UsageError(f"stimulus={path}: must be whole numbers of images")
    return found.astype(np.int64)


def _stimuli_first(array: np.ndarray, count: int, name: str) -> np.ndarray:
    sides = array.shape[:2]
    if sides == (count, count):
        raise UsageError(
            f"{name}: as many neurons as images, {count}: the axes cannot be told apart; leave a neuron out, or "
            "make a Recording of [images, neurons] in Python"
        )
    if array.ndim < 2 or count not in sides:
        raise UsageError(f"{name}: one of the first two axes must be the {count} images, got {list(array.shape)}")
    return array if array.shape[0] == count else np.swapaxes(array, 0, 1)
