"""NWB: a file written by its schema, with spikes that are known."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from unmix.activations.nwb import open_nwb
from unmix.core.errors import Failure, UsageError

IMAGES = np.zeros((4, 5, 5), np.uint8)
SHOWN = [2, 0, 1, 3, -1, 2, 1]
START = np.arange(7) * 2.0 + 0.5
WINDOW = (0.05, 0.25)


def counts():
    """Spikes of three units in the window of every presentation."""
    return np.random.default_rng(0).integers(0, 6, (7, 3))


def session(path, names=None, tables=("trials",)):
    """Spikes at known places: inside the window as many as `counts` says, at its end and outside others."""
    h5py = pytest.importorskip("h5py", reason="h5py, which reads HDF5, is not installed")
    draw, per_unit = np.random.default_rng(1), []
    for unit in range(3):
        inside = [start + draw.uniform(*WINDOW, count) for start, count in zip(START, counts()[:, unit], strict=True)]
        outside = [START + WINDOW[1], START - 0.1, START + 0.049, draw.uniform(20, 30, unit)]
        per_unit.append(np.sort(np.concatenate([*inside, *outside])))
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"], file.attrs["neurodata_type"] = "2.6.0", "NWBFile"
        units = file.create_group("units")
        units["id"] = np.arange(3)
        units["spike_times"] = np.concatenate(per_unit)
        units["spike_times_index"] = np.cumsum([len(times) for times in per_unit]).astype(np.uint32)
        for table in tables:
            trials = file.create_group(f"intervals/{table}")
            trials["id"], trials["start_time"], trials["stop_time"] = np.arange(7), START, START + 1
            if names is None:
                trials["image"] = np.array(SHOWN)
            else:
                trials.create_dataset("image", data=[names[i] for i in SHOWN], dtype=h5py.string_dtype())
    return path


def check(found):
    rates = counts() / (WINDOW[1] - WINDOW[0])
    assert found.responses.shape == (4, 3) and found.repeats.shape == (4, 3, 2)
    for image in range(4):
        single = rates[np.array(SHOWN) == image]
        assert np.allclose(found.responses[image], single.mean(0))
        assert np.allclose(found.repeats[image, :, : len(single)], single.T)
        assert np.isnan(found.repeats[image, :, len(single) :]).all()


def test_rates_in_the_window_are_the_spikes_that_were_written(tmp_path):
    path = session(tmp_path / "a.nwb")
    check(open_nwb(path, IMAGES, "image", WINDOW, blank=[-1]))
    named = session(tmp_path / "b.nwb", ["bear", "cat", "dog", "eel", "grey"], ("flashes",))
    found = open_nwb(named, IMAGES, "image", WINDOW, ["bear", "cat", "dog", "eel"], "flashes", ["grey"])
    check(found)
    some = open_nwb(path, IMAGES, "image", WINDOW, blank=[-1], units=[2, 0])
    assert np.array_equal(some.responses, found.responses[:, [2, 0]])
    shifted = open_nwb(path, IMAGES, "image", (0.25, 0.3), blank=[-1])
    assert np.allclose(shifted.responses, 20)  # one spike at the end of every window


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    path = session(tmp_path / "a.nwb")
    with pytest.raises(UsageError, match="no column 'picture'; it has id, image, start_time, stop_time"):
        open_nwb(path, IMAGES, "picture", WINDOW)
    with pytest.raises(UsageError, match=r"no /intervals/flashes \(beside it: trials\)"):
        open_nwb(path, IMAGES, "image", WINDOW, table="flashes")
    with pytest.raises(UsageError, match=r"numbers must be 0 \.\. 3"):
        open_nwb(path, IMAGES, "image", WINDOW)
    with pytest.raises(UsageError, match="must end after"):
        open_nwb(path, IMAGES, "image", (0.2, 0.2))
    with pytest.raises(UsageError, match=r"units: must be numbers 0 \.\. 2"):
        open_nwb(path, IMAGES, "image", WINDOW, blank=[-1], units=[3])
    with pytest.raises(UsageError, match="-1, 3 not in names"):
        open_nwb(path, IMAGES, "image", WINDOW, names=[0, 1, 2, 9])
    named = session(tmp_path / "b.nwb", ["bear", "cat", "dog", "eel", "grey"])
    with pytest.raises(UsageError, match="give names"):
        open_nwb(named, IMAGES, "image", WINDOW)
    with pytest.raises(UsageError, match="no such file"):
        open_nwb(tmp_path / "none.nwb", IMAGES, "image", WINDOW)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(Failure, match="not a whole HDF5 file"):
        open_nwb(path, IMAGES, "image", WINDOW)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **others):
        if name == "h5py":
            raise ModuleNotFoundError("no h5py", name="h5py")
        return real(name, *rest, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"unmix\[nwb\]"):
        open_nwb(tmp_path / "a.nwb", IMAGES, "image", WINDOW)
