"""NWB: spikes of units around the images of a trial table, read from the HDF5 file itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unmix.activations.recordings import Recording, from_trials
from unmix.core.errors import Failure, UsageError


def open_nwb(
    path: str | Path,
    images: Any,
    stimulus: str,
    window: tuple[float, float],
    names: Sequence[Any] | None = None,
    table: str = "trials",
    blank: Sequence[Any] = (),
    units: Any = None,
) -> Recording:
    """A recording from an NWB file: rate of every unit (spikes per second) in a window after each presentation.

    r[t, u] = #{spikes of u in [start_t + begin, start_t + end)} / (end - begin), then `from_trials`.
    path: a file with /units (spike_times, spike_times_index) and /intervals/TABLE (start_time in seconds, one row a
    presentation). images: `ImageItems` or an array, n of them. stimulus: the column that says which image was shown:
    numbers 0 .. n - 1, or what `names` lists, [n] in the order of the images. window: (begin, end) in seconds after
    start_time. blank: values of the column that are no image; their rows are left out. units: numbers of the units to
    take, None is all. Raises `UsageError` for a column, value or unit that is not there, an empty window, or without
    h5py, and `Failure` for a file that is cut off.
    Source: the NWB 2 schema (nwb-schema.readthedocs.io): Units, TimeIntervals, VectorIndex.
    """
    begin, end = window
    if not begin < end:
        raise UsageError(f"window={window}: must end after it begins")
    with _opened(path) as file:
        spikes = _spikes(file, path, units)
        rows = _group(file, f"intervals/{table}", path)
        starts, shown = (_column(rows, name, table, path) for name in ("start_time", stimulus))
    if starts.shape != shown.shape or starts.dtype.kind not in "fiu":
        raise UsageError(f"table={table}: {len(starts)} start_time of {starts.dtype}, {len(shown)} of {stimulus}")
    kept = np.array([value not in blank for value in shown.tolist()], bool)
    starts, shown = starts[kept].astype(np.float64), shown[kept]
    if not len(starts) or not np.isfinite(starts).all():
        raise UsageError(f"table={table}: start_time must be known for every presentation, and one be left")
    numbers = _numbers(shown, stimulus, names)
    edges = np.stack([starts + begin, starts + end])
    counts = np.stack([np.diff(np.searchsorted(times, edges), axis=0)[0] for times in spikes], axis=1)
    return from_trials(counts / (end - begin), numbers, images)


def _numbers(shown: np.ndarray, stimulus: str, names: Sequence[Any] | None) -> np.ndarray:
    """The number of the image of every presentation."""
    if names is None:
        if shown.dtype.kind in "iu":
            return shown.astype(np.int64)
        if shown.dtype.kind == "f" and (shown == np.floor(shown)).all():
            return shown.astype(np.int64)
        raise UsageError(f"stimulus={stimulus}: holds values such as {shown[0]!r}; give names, one for each image")
    place = {name: number for number, name in enumerate(names)}
    if len(place) != len(names):
        raise UsageError(f"names: {len(names) - len(place)} of them are there twice")
    values = shown.tolist()
    unknown = sorted({str(value) for value in values if value not in place})
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise UsageError(
            f"stimulus={stimulus}: {', '.join(unknown[:3])}{more} not in names; add them, or list them as blank"
        )
    return np.array([place[value] for value in values], np.int64)


def _spikes(file: Any, path: Any, units: Any) -> list[np.ndarray]:
    """Sorted spike times of every unit wanted."""
    group = _group(file, "units", path)
    times, ends = (_column(group, name, "units", path) for name in ("spike_times", "spike_times_index"))
    ends = ends.astype(np.int64)
    begins = np.concatenate([[0], ends[:-1]])
    if (ends < begins).any() or (len(ends) and ends[-1] > len(times)):
        raise Failure(f"{path}: spike_times_index does not fit the {len(times)} spike times")
    wanted = np.arange(len(ends)) if units is None else np.asarray(units)
    if not len(wanted) or wanted.dtype.kind not in "iu" or wanted.min() < 0 or wanted.max() >= len(ends):
        raise UsageError(f"units: must be numbers 0 .. {len(ends) - 1}, at least one")
    return [np.sort(times[begins[unit] : ends[unit]]) for unit in wanted]


def _group(file: Any, name: str, path: Any) -> Any:
    if name in file:
        return file[name]
    above = file.get(name.rpartition("/")[0] or "/")
    there = ", ".join(above) if above is not None else "none"
    raise UsageError(f"{path}: has no /{name} (beside it: {there or 'none'})")


def _column(group: Any, name: str, table: str, path: Any) -> np.ndarray:
    if name not in group:
        raise UsageError(f"{path}: {table} has no column {name!r}; it has {', '.join(group) or 'none'}")
    found = group[name]
    if found.ndim != 1:
        raise UsageError(f"{path}: column {name!r} of {table} is {list(found.shape)}, not one value a row")
    return np.asarray(found.asstr()[:]) if found.dtype.kind in "OS" else np.asarray(found[:])


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    try:
        import h5py
    except ModuleNotFoundError:
        raise UsageError('nwb: reading NWB files needs h5py; pip install "unmix[nwb]"') from None
    if not Path(path).is_file():
        raise UsageError(f"recording={path}: no such file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise Failure(f"{path}: not a whole HDF5 file ({' '.join(str(error).split())[:100]})") from None
    with file:
        yield file
