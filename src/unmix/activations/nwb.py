"""NWB: spikes of units around the images of a trial table, read from the HDF5 file itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unmix.activations.images import as_items
from unmix.activations.nwb_columns import column, dataset, ends_of, group, opened
from unmix.activations.presentations import image_numbers, listed, unknown
from unmix.activations.recordings import Recording, from_trials
from unmix.core.errors import Failure, UsageError, notice
from unmix.core.items import ImageItems

MANY = 10  # other presentations within one window: hardly seconds
ENOUGH = 20  # spikes that show how long the recording was


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

    r[t, u] = #{spikes of u in [start_t + begin, start_t + end)} / (end - begin), then `from_trials`. A presentation
    whose window does not lie in the unit's obs_intervals, where the file has them, is missing for that unit.
    path: a file with /units (spike_times, spike_times_index) and /intervals/TABLE (start_time in seconds, one row a
    presentation). images: `ImageItems` or an array, n of them. stimulus: the column that says which image was shown:
    numbers 0 .. n - 1, or words (text, categories, names of what is referred to; COLUMN.NAME where its values are
    rows of another table). names: [n] the value of each image; None takes names of the images' files, with or
    without folder and suffix. window: (begin, end) in seconds after start_time. blank: values that are no image;
    their rows are left out, as are those without a value or a time, which is said (`Notice`). units: rows of the
    table of units, None is all.
    Raises `UsageError` for a column, value or unit that is not there, a window that is empty or lies outside the
    recording, or without h5py, and `Failure` for a file that is cut off.
    Source: the NWB 2 schema (nwb-schema.readthedocs.io): Units, TimeIntervals, VectorIndex, DynamicTableRegion.
    """
    try:
        begin, end = map(float, window)
    except (TypeError, ValueError):
        raise UsageError(f"window={window}: must be two numbers of seconds, such as [0.05,0.25]") from None
    if not begin < end or not np.isfinite([begin, end]).all():
        raise UsageError(f"window={window}: must end after it begins")
    items = images if isinstance(images, ImageItems) else as_items(images)
    with opened(path) as file:
        spikes, observed = _units(group(file, "units"), units)
        trials = group(file, f"intervals/{table}")
        starts, shown = column(trials, "start_time"), column(trials, stimulus)
    if starts.shape != shown.shape or starts.dtype.kind not in "fiu":
        raise UsageError(f"table={table}: {len(starts)} start_time of {starts.dtype}, {len(shown)} of {stimulus}")
    blanks = listed(shown, blank)
    missing = unknown(shown, names) & ~blanks
    untimed = ~np.isfinite(starts) & ~missing & ~blanks
    for what, rows in {f"value of {stimulus}": missing, "start_time": untimed}.items():
        if rows.any():
            notice(f"table={table}: {rows.sum()} of {len(rows)} presentations have no {what}, and are left out")
    kept = ~blanks & ~missing & ~untimed
    if not kept.any():
        raise UsageError(f"table={table}: no presentation of an image is left of {len(kept)}")
    starts, shown = starts[kept].astype(np.float64), shown[kept]
    numbers = image_numbers(shown, items, names, f"stimulus={stimulus}")
    edges = np.stack([starts + begin, starts + end])
    counts = np.stack([np.diff(np.searchsorted(times, edges), axis=0)[0] for times in spikes], axis=1)
    if not counts.any() or len(observed) < len(spikes):
        _within(edges, spikes, starts, counts)
    rates = counts / (end - begin)
    for place, intervals in observed.items():
        rates[~_covered(edges, intervals), place] = np.nan
    _check_observed(rates)
    return from_trials(rates, numbers, items)


def _units(table: Any, wanted: Any) -> tuple[list[np.ndarray], dict[int, np.ndarray]]:
    """Sorted spike times of every unit wanted; and for those of which it is known, when they were observed [k, 2]."""
    path = table.file.filename
    times = dataset(table, "spike_times")[:]
    ends = ends_of(table, "spike_times", len(times))
    begins = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    if not len(ends):
        raise UsageError(f"{path}: has no units")
    if times.dtype.kind not in "fiu" or not np.isfinite(times).all():
        raise UsageError(f"{path}: spike_times must be finite numbers of seconds")
    rows = np.arange(len(ends)) if wanted is None else np.asarray(wanted)
    if rows.ndim != 1 or not len(rows) or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= len(ends):
        raise UsageError(f"units: must be numbers 0 .. {len(ends) - 1}, at least one")
    if len(set(rows.tolist())) < len(rows):
        raise UsageError("units: some are there twice")
    spikes = [np.sort(times[begins[row] : ends[row]]).astype(np.float64) for row in rows]
    if not any(map(len, spikes)):
        raise UsageError(f"{path}: no unit that is wanted has a spike")
    if silent := [str(row) for row, found in zip(rows.tolist(), spikes, strict=True) if not len(found)]:
        told = ", ".join(silent[:8]) + " ..." * (len(silent) > 8)
        notice(f"{path}: {len(silent)} units have no spike ({told}); units= leaves them out")
    if "obs_intervals" not in table:
        return spikes, {}
    intervals = np.asarray(dataset(table, "obs_intervals")[:])
    if intervals.ndim != 2 or intervals.shape[1] != 2 or not np.isfinite(intervals).all():
        raise Failure(f"{path}: obs_intervals must be [k, 2] finite seconds, got {list(intervals.shape)}")
    if (intervals[:, 1] < intervals[:, 0]).any():
        raise Failure(f"{path}: an interval of obs_intervals ends before it begins")
    stops = ends_of(table, "obs_intervals", len(intervals))
    if len(stops) != len(ends):
        raise Failure(f"{path}: obs_intervals are of {len(stops)} units, spike_times of {len(ends)}")
    known = {}
    for place, row in enumerate(rows.tolist()):
        own = intervals[(stops[row - 1] if row else 0) : stops[row]]
        if len(own) or not len(spikes[place]):
            known[place] = own
    if len(known) < len(rows):
        notice(
            f"{path}: {len(rows) - len(known)} units have spikes but no obs_intervals; taken as observed throughout"
        )
    return spikes, known


def _covered(edges: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Which windows lie in the union of the intervals: edges [2, t], intervals [k, 2], result [t]."""
    merged: list[list[float]] = []
    for begin, end in intervals[np.argsort(intervals[:, 0], kind="stable")].tolist():
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    if not merged:
        return np.zeros(edges.shape[1], bool)
    begins, ends = np.array(merged).T
    # A window may stick out by the rounding of a sum of seconds.
    slack = 8 * np.finfo(np.float64).eps * np.maximum(np.abs(edges).max(0), 1)
    place = np.searchsorted(begins, edges[0] + slack, side="right") - 1
    return (place >= 0) & (edges[1] - slack <= ends[np.maximum(place, 0)])


def _within(edges: np.ndarray, spikes: list[np.ndarray], starts: np.ndarray, counts: np.ndarray) -> None:
    """Refuse windows that lie outside the recording, and say where some do; edges: [2, t]."""
    first, last = (pick(times[at] for times in spikes if len(times)) for pick, at in ((min, 0), (max, -1)))
    where = f"windows are {edges[0].min():g} .. {edges[1].max():g} s, spikes {first:g} .. {last:g} s"
    inside = np.clip(np.minimum(edges[1], last) - np.maximum(edges[0], first), 0, None) / (edges[1] - edges[0])
    enough = sum(map(len, spikes)) >= ENOUGH
    if not counts.any() or (enough and inside.mean() < 0.5):
        raise UsageError(f"window, start_time: {where}; they must lie in the recording, in seconds of one clock")
    if enough and (outside := int((inside == 0).sum())):
        notice(f"{outside} of {len(inside)} presentations count 0 spikes in all units: {where}")
    within = int(np.median(np.diff(np.searchsorted(np.sort(starts), edges), axis=0)))
    if within > MANY:
        notice(f"window: holds the starts of {within} presentations in the middle of the table; it is in seconds")


def _check_observed(rates: np.ndarray) -> None:
    """Say how much was not observed; raise `UsageError` where nothing was."""
    missing = np.isnan(rates)
    if missing.all():
        raise UsageError("window: no unit was observed throughout any window (obs_intervals); it is in seconds")
    if missing.any():
        notice(
            f"obs_intervals: {missing.any(0).sum()} units were not observed throughout {missing.sum()} of "
            f"{missing.size} windows, which are missing"
        )
