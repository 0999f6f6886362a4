"""NWB: a file written by its schema, with spikes that are known."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from unmix.activations.command import collect_command
from unmix.activations.nwb import open_nwb
from unmix.activations.shards import ShardRows
from unmix.core.errors import Failure, Notice, UsageError
from unmix.core.items import ImageItems
from unmix.core.options import parse

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
    with pytest.raises(UsageError, match=r"numbers must be 0 \.\. 2"):
        open_nwb(path, IMAGES[:3], "image", WINDOW, blank=[-1])
    with pytest.raises(UsageError, match="must end after"):
        open_nwb(path, IMAGES, "image", (0.2, 0.2))
    with pytest.raises(UsageError, match=r"units: must be numbers 0 \.\. 2"):
        open_nwb(path, IMAGES, "image", WINDOW, blank=[-1], units=[3])
    with pytest.raises(UsageError, match="image: 3 not in names"):
        open_nwb(path, IMAGES, "image", WINDOW, names=[0, 1, 2, -1])
    with pytest.raises(UsageError, match="names: 3 for 4 images"):
        open_nwb(path, IMAGES, "image", WINDOW, names=[0, 1, 2], blank=[-1])
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


WORDS = ["owl", "cat", "dog"] * 4
TIMES = np.arange(12.0) + 0.5
RATES = {"cat": 2, "dog": 10, "owl": 18}  # spikes in each second after its onset
ITEMS = ImageItems(np.zeros((3, 4, 4), np.uint8), None, ("b/cat.png", "b/dog.png", "a/owl.png"))


def spikes(words=WORDS, times=TIMES):
    return np.concatenate([t + (np.arange(RATES[word]) + 0.5) / 40 for t, word in zip(times, words, strict=True)])


def written(path, columns, units=None, table="trials"):
    """A file of trials with columns by name, and units [(spikes, obs_intervals or None)], as pynwb lays them out."""
    h5py = pytest.importorskip("h5py", reason="h5py, which reads HDF5, is not installed")
    units = [(spikes(), None)] if units is None else units
    with h5py.File(path, "w") as file:
        group = file.create_group("units")
        group["spike_times"] = np.concatenate([np.zeros(0), *(times for times, _ in units)])
        group["spike_times_index"] = np.cumsum([len(times) for times, _ in units]).astype(np.uint16)
        if any(seen is not None for _, seen in units):
            group["obs_intervals"] = np.concatenate([np.reshape(seen, (-1, 2)) for _, seen in units])
            group["obs_intervals_index"] = np.cumsum([len(seen) for _, seen in units]).astype(np.uint8)
        trials = file.create_group(f"intervals/{table}")
        for name, values in {"id": np.arange(len(TIMES)), "start_time": TIMES, **columns}.items():
            text = h5py.string_dtype() if isinstance(values[0], str) else None
            trials.create_dataset(name, data=values, dtype=text)
    return path


def add(path, change):
    import h5py

    with h5py.File(path, "a") as file:
        change(file, file["intervals/trials"], h5py)
    return path


def test_words_come_from_categories_other_tables_and_references(tmp_path):
    elements = list(dict.fromkeys(WORDS))
    path = written(
        tmp_path / "a.nwb",
        {
            "word": WORDS,
            "file": [f"{word}.png" for word in WORDS],
            "bytes": np.array(WORDS, "S3"),
            "kind": np.array([elements.index(word) for word in WORDS], np.uint8),
            "kind_elements": elements,
            "row": np.array([elements.index(word) for word in WORDS]),
            "tags": WORDS,
            "tags_index": np.arange(1, 13),
        },
    )

    def change(file, trials, h5py):
        trials["kind"].attrs["elements"] = trials["kind_elements"].ref
        shown = file.create_group("acquisition/pictures")
        shown.create_dataset("name", data=elements, dtype=h5py.string_dtype())
        shown["size"] = np.arange(3.0)
        trials["row"].attrs["table"] = shown.ref
        for word in elements:
            file[f"stimulus/templates/{word}"] = np.zeros((4, 4))
        trials.create_dataset(
            "reference", data=[file[f"stimulus/templates/{word}"].ref for word in WORDS], dtype=h5py.ref_dtype
        )

    add(path, change)
    for column in ("word", "file", "bytes", "kind", "row", "row.name", "tags", "reference"):
        found = open_nwb(path, ITEMS, column, (0, 0.5))
        assert found.responses[:, 0].tolist() == [4, 20, 36], column  # by the names of the images' files
        assert found.repeats.shape == (3, 1, 4)
    assert open_nwb(path, ITEMS, "row.size", (0, 0.5), names=[1, 2, 0]).responses[:, 0].tolist() == [4, 20, 36]
    with pytest.raises(UsageError, match=r"holds values such as 'owl'; give names"):
        open_nwb(path, ITEMS.images, "word", (0, 0.5))
    with pytest.raises(UsageError, match="pictures has no column 'hue'; it has name, size"):
        open_nwb(path, ITEMS, "row.hue", (0, 0.5))
    add(path, lambda file, trials, _: file["acquisition/pictures"].move("name", "id"))
    with pytest.raises(UsageError, match=r"names rows of /acquisition/pictures; give one .* such as row\.size"):
        open_nwb(path, ITEMS, "row", (0, 0.5))
    add(path, lambda file, trials, _: trials["tags_index"].write_direct(np.array([2, *range(2, 13)])))
    with pytest.raises(UsageError, match="column 'tags' of trials has several values in a row, or none"):
        open_nwb(path, ITEMS, "tags", (0, 0.5))


def test_presentations_without_image_or_time_are_left_out_and_said(tmp_path):
    number = np.array([2, 0, 1] * 4, float)
    number[[0, 4]] = np.nan
    start = TIMES.copy()
    start[3] = np.nan
    path = written(tmp_path / "a.nwb", {"image": number, "word": ["", *WORDS[1:]]})
    with pytest.warns(Notice, match="2 of 12 presentations have no value of image"):
        found = open_nwb(path, ITEMS, "image", (0, 0.5))
    assert found.responses[:, 0].tolist() == [4, 20, 36]
    assert np.isfinite(found.repeats[:, 0]).sum(1).tolist() == [3, 4, 3]
    assert np.array_equal(open_nwb(path, ITEMS, "image", (0, 0.5), blank=[np.nan]).responses, found.responses)
    with pytest.warns(Notice, match="1 of 12 presentations have no value of word"):
        open_nwb(path, ITEMS, "word", (0, 0.5))
    add(path, lambda file, trials, _: trials["start_time"].write_direct(start))
    with pytest.warns(Notice, match="1 of 12 presentations have no start_time"):
        open_nwb(path, ITEMS, "word", (0, 0.5), blank=[""])
    with pytest.raises(UsageError, match="no presentation of an image is left of 12"):
        open_nwb(path, ITEMS, "word", (0, 0.5), blank=["", "cat", "dog", "owl"])


def test_what_was_not_observed_is_missing(tmp_path):
    units = [
        (spikes()[: len(spikes()) // 2], [[0, 3.0], [3.0, 6.45]]),  # meeting intervals; to the sixth of twelve onsets
        (spikes(), [[0, 6.7], [6.9, 13]]),  # a gap within one window
        (spikes(), [[0, 13]]),
    ]
    path = written(tmp_path / "a.nwb", {"word": WORDS}, units)
    with pytest.warns(Notice, match=r"2 units were not observed throughout 7 of 36 windows"):
        found = open_nwb(path, ITEMS, "word", (0, 0.45))
    assert np.isfinite(found.repeats).sum(2).T.tolist() == [[2, 2, 2], [4, 4, 3], [4, 4, 4]]
    assert np.allclose(found.responses, np.array([[2, 10, 18]] * 3).T / 0.45)
    with pytest.raises(UsageError, match="no unit was observed throughout any window"):
        open_nwb(path, ITEMS, "word", (0, 20))
    with pytest.raises(UsageError, match="responses are missing, such as that of neuron 0"), pytest.warns(Notice):
        open_nwb(path, ITEMS, "word", (6, 6.45))
    add(path, lambda file, trials, _: file["units/obs_intervals"].write_direct(np.array([[1.0, 0.0]] * 5)))
    with pytest.raises(Failure, match="ends before it begins"):
        open_nwb(path, ITEMS, "word", (0, 0.45))


def test_windows_outside_the_recording_are_refused_or_said(tmp_path):
    path = written(tmp_path / "a.nwb", {"word": WORDS})
    for window in ((50, 250), (-20, -19), (0, 60)):
        with pytest.raises(UsageError, match=r"spikes 0.5125 .. 11.7375 s; they must lie in the recording"):
            open_nwb(path, ITEMS, "word", window)
    with pytest.warns(Notice, match="1 of 12 presentations count 0 spikes in all units"):
        open_nwb(path, ITEMS, "word", (0.6, 0.7 + 1))
    add(path, lambda file, trials, _: trials["start_time"].write_direct(TIMES * 1000))  # another clock
    with pytest.raises(UsageError, match="in seconds of one clock"):
        open_nwb(path, ITEMS, "word", (0, 0.5))
    for window in ((0.5, np.nan), (1,), "ab"):
        with pytest.raises(UsageError, match="window="):
            open_nwb(path, ITEMS, "word", window)


def test_units_of_every_kind(tmp_path):
    order = np.random.default_rng(0).permutation(len(spikes()))
    path = written(tmp_path / "a.nwb", {"word": WORDS}, [(spikes()[order], None), (np.zeros(0), None)])
    with pytest.warns(Notice, match=r"1 units have no spike \(1\)"):
        found = open_nwb(path, ITEMS, "word", (0, 0.5))
    assert found.responses.T.tolist() == [[4, 20, 36], [0, 0, 0]]
    with pytest.raises(UsageError, match="no unit that is wanted has a spike"):
        open_nwb(path, ITEMS, "word", (0, 0.5), units=[1])
    with pytest.raises(UsageError, match="some are there twice"):
        open_nwb(path, ITEMS, "word", (0, 0.5), units=[0, 0])
    with pytest.raises(UsageError, match="has no units"):
        open_nwb(written(tmp_path / "b.nwb", {"word": WORDS}, []), ITEMS, "word", (0, 0.5))
    bad = written(tmp_path / "c.nwb", {"word": WORDS}, [(np.array([1.0, np.nan]), None)])
    with pytest.raises(UsageError, match="spike_times must be finite"):
        open_nwb(bad, ITEMS, "word", (0, 0.5))

    def only_series(file, trials, h5py):
        del file["units"]
        series = file.create_group("processing/ecephys/LFP/probe")
        series.attrs["neurodata_type"] = "ElectricalSeries"

    with pytest.raises(UsageError, match=r"no /units .* not ElectricalSeries /processing/ecephys/LFP/probe: save"):
        open_nwb(add(path, only_series), ITEMS, "word", (0, 0.5))
    with pytest.raises(UsageError, match="is a folder"):
        open_nwb(tmp_path, ITEMS, "word", (0, 0.5))


def test_every_option_is_reached_from_the_command_line(tmp_path):
    path = written(tmp_path / "a.nwb", {"n": [5, *[{"owl": 1, "cat": 2, "dog": 3}[w] for w in WORDS[1:]]]},
                   [(spikes(), None), (spikes() + 0.01, None)], "flashes")  # fmt: skip
    np.save(tmp_path / "images.npy", np.arange(48, dtype=np.uint8).reshape(3, 4, 4))
    options = parse(["stimulus=n", "window=[0,0.5]", "table=flashes", "names=2,3,1", "blank=5", "units=1"])
    told = collect_command(str(path), "", str(tmp_path / "images.npy"), tmp_path / "acts", options)
    assert told.startswith("responses  1 neurons to 3 images")
    assert ShardRows(tmp_path / "acts").take(np.arange(3)).tolist() == [[4], [20], [36]]
    with pytest.raises(UsageError, match="repeats, bin: are for"):
        collect_command(str(path), "", str(tmp_path / "images.npy"), tmp_path / "none", {**options, "bin": [2]})
    with pytest.raises(UsageError, match="tabel: no such option of recordings; did you mean table"):
        collect_command(str(path), "", str(tmp_path / "images.npy"), tmp_path / "none", {"tabel": ["flashes"]})
