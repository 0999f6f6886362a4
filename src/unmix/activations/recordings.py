"""Recordings: responses of neurons to images, with trials, time windows, repeats, and how reliable they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unmix.activations.arrays import open_column
from unmix.activations.images import as_items, open_images
from unmix.activations.presentations import image_numbers, listed, unknown
from unmix.activations.reliability import judged, split_half, varies
from unmix.activations.shards import SCHEMA, ShardRows, ShardWriter, check_folder, clear_folder
from unmix.core.array_files import read_npy
from unmix.core.digest import array_digest, digest
from unmix.core.errors import UsageError, notice
from unmix.core.items import ImageItems
from unmix.core.labels import plain
from unmix.core.rows import as_array
from unmix.core.sample import Sample


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
        Neurons that do not vary, but for rounding, become 0.
        """
        found = self.responses.astype(np.float64)
        if standardise:
            known = found if by is None else found[np.asarray(by)]
            deviation = np.where(varies(known), known.std(0), 0.0)
            found = np.where(deviation > 0, found - known.mean(0), 0.0) / np.where(deviation > 0, deviation, 1.0)
        if unit:
            norm = np.linalg.norm(found, axis=1, keepdims=True)
            found = found / np.where(norm > 0, norm, 1.0)
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
    if np.isinf(found).any():
        raise UsageError("trials: a response is infinite; NaN is one that is missing")
    if found.ndim == 3:
        if not bin > 0 or (window is not None and not np.isfinite(window).all()):
            raise UsageError(f"window={window}, bin={bin}: must be finite, and the width of a bin above 0")
        begin, end = (0, found.shape[2]) if window is None else (_bin(edge / bin) for edge in window)
        if not 0 <= begin < end <= found.shape[2]:
            raise UsageError(f"window={window}: must lie in 0 .. {found.shape[2] * bin} and hold a bin of {bin}")
        found = found[:, :, begin:end].mean(2)
    elif window is not None:
        raise UsageError(f"window={window}: is for responses over time [t, d, bins], got {list(found.shape)}")
    if found.ndim != 2 or not len(found) or shown.shape != (len(found),) or shown.dtype.kind not in "iu":
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
        raise UsageError(
            f"trials: {(known == 0).sum()} of {known.size} responses are missing, such as that of neuron {neuron} to "
            f"image {image}; leave out neurons or images that have none"
        )
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
    names: Sequence[Any] | str | Path | None = None,
    blank: Sequence[Any] = (),
    table: str = "trials",
    units: Sequence[int] | None = None,
) -> ShardRows:
    """Responses as rows with their images, in a folder of shards that finders read: one row an image.

    responses: .npy, means as `open_recording` takes them or, with stimulus, single trials [t, d] or [t, d, bins] as
    `from_trials` does; or .nwb, with stimulus, the window in seconds, table and units of `open_nwb`. stimulus: a
    column of the .nwb, else a file with a value for each trial ("trials.csv:image"): numbers of images, names of
    their files, or those of `names`. names: the value of each image, or a file of them. blank: values that are no
    image, whose trials are left out. repeats, window, bin: as these take them. Where single presentations are known,
    the manifest's `about` has the reliability of every neuron: half, full and ceiling.
    Made once; found again where nothing has changed. Raises as these do, and `UsageError` for a folder that holds
    something else, an option that belongs to the other kind, or responses that float32 does not tell apart.
    """
    words = open_column(names, "names").tolist() if isinstance(names, (str, Path)) else names
    if Path(responses).suffix.lower() == ".nwb":
        if stimulus is None or window is None:
            raise UsageError("stimulus, window: of an .nwb file both are needed: a column, and seconds [0.05,0.25]")
        if repeats is not None or bin != 1.0:
            raise UsageError("repeats, bin: are for .npy arrays; of an .nwb file spikes are counted in the window")
        from unmix.activations.nwb import open_nwb

        seconds = tuple(window)
        found = open_nwb(responses, open_images(images), str(stimulus), seconds, words, table, blank, units)  # type: ignore[arg-type]
    elif table != "trials" or units is not None:
        raise UsageError("table, units: are for .nwb files")
    elif stimulus is None:
        if window is not None or bin != 1.0 or words is not None or blank:
            raise UsageError(
                "window, bin, names, blank: are for single trials; give stimulus=FILE, the image of each trial"
            )
        found = open_recording(responses, images, repeats)
    else:
        if repeats is not None:
            raise UsageError("repeats: trials hold their repeats already; give stimulus or repeats")
        found = _trials(_array(responses), stimulus, open_images(images), window, bin, words, blank)
    _check_single(found.responses)
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
    if found.repeats is not None and judged(found.repeats).any():
        reliable = split_half(found.repeats)
        about["reliability"] = {
            name: [None if np.isnan(x) else round(float(x), 5) for x in getattr(reliable, name)]
            for name in ("half", "full", "ceiling")
        }
        about["unreliable"] = int(reliable.unreliable().sum())
    with ShardWriter(folder, found.responses.shape[1], "float32", key, about) as writer:
        writer.append(found.responses.astype(np.float32))
        return writer.finish(found.items)


def _check_single(responses: np.ndarray) -> None:
    """Raise for neurons whose differences float32 does not keep."""
    with np.errstate(over="ignore"):
        lost = np.abs(responses.astype(np.float32) - responses).max(0)
    bad = np.flatnonzero(varies(responses) & ~(lost <= 1e-4 * responses.std(0)))
    if len(bad):
        raise UsageError(
            f"recording: {len(bad)} neurons, such as {bad[0]}, differ by less than float32 keeps beside their "
            "offset, or are out of its range; subtract their means and divide by their deviations first"
        )


def _bin(edge: float) -> int:
    """The first bin at or after an edge; one that is a bin's but for rounding is that bin's."""
    nearest = round(edge)
    return nearest if abs(edge - nearest) < 1e-9 * max(1, abs(edge)) else int(np.ceil(edge))


def _trials(
    responses: np.ndarray,
    stimulus: str | Path,
    items: ImageItems,
    window: tuple[float, float] | None,
    bin: float,
    names: Sequence[Any] | None,
    blank: Sequence[Any],
) -> Recording:
    """Single trials whose images a file tells."""
    shown = plain(open_column(stimulus, "stimulus"), f"stimulus={stimulus}")
    if len(shown) != len(responses):
        raise UsageError(f"stimulus={stimulus}: has {len(shown)} values for {len(responses)} trials")
    left, blanks = unknown(shown), listed(shown, blank)
    if (left & ~blanks).any():
        notice(
            f"stimulus={stimulus}: {(left & ~blanks).sum()} of {len(shown)} trials have no value, and are left out"
        )
    kept = ~left & ~blanks
    if not kept.any():
        raise UsageError(f"stimulus={stimulus}: no trial of an image is left of {len(shown)}")
    numbers = image_numbers(shown[kept], items, names, f"stimulus={stimulus}")
    return from_trials(responses[kept], numbers, items, window, bin)


def _array(path: str | Path) -> np.ndarray:
    found = as_array(read_npy(path, "recording", mapped=False), f"recording={path}")
    return np.asarray(found, dtype=np.float64)


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
