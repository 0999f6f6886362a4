"""Files that lie: pickles are never loaded, archives never unpacked, text is never markup, changes are seen."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unmix.activations.data import Data
from unmix.core.errors import Failure, UnmixError, UsageError
from unmix.core.store import read_tensors
from unmix.finders.controls import RandomAtoms
from unmix.finders.features import Features
from unmix.interop.folder import read
from unmix.worlds.sparse import SparseWorld


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.fixture
def features(tmp_path: Path) -> Path:
    rows = SparseWorld(latents=12, width=6, active=2).sample(60, 0).x
    return RandomAtoms(width=12, k=2).fit(rows).save(tmp_path / "features")


def test_a_pickle_in_the_place_of_tensors_is_never_loaded(features):
    trap = pickle.dumps(Trap())
    for path in (features / "tensors.safetensors", features.parent / "weights.safetensors"):
        path.write_bytes(trap)
        with pytest.raises(Failure, match="not a whole safetensors file"):
            read_tensors(path)
    with pytest.raises(Failure, match="not a whole safetensors file"):
        Features.load(features)
    with pytest.raises(UnmixError, match="safetensors"):
        Data(path=str(features.parent / "weights.safetensors")).open()
    with pytest.raises(UnmixError):
        read(features)


def test_a_changed_byte_in_stored_features_is_seen(features):
    path = features / "tensors.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Failure, match=r"tensors.safetensors: its digest is [0-9a-f]{16}, expected [0-9a-f]{16}"):
        Features.load(features)
    path.write_bytes(whole)
    before = Features.load(features)
    facts = json.loads((features / "features.json").read_text())
    facts.pop("tensors")  # as versions before this one wrote it
    (features / "features.json").write_text(json.dumps(facts))
    assert Features.load(features).digest == before.digest


def test_data_that_changed_under_a_run_are_refused(tmp_path):
    np.save(tmp_path / "h.npy", np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32))
    known = Data(path=str(tmp_path / "h.npy")).as_dict()["content"]
    np.save(tmp_path / "h.npy", np.random.default_rng(1).standard_normal((30, 4)).astype(np.float32))
    with pytest.raises(UsageError, match="it is other data"):
        Data(path=str(tmp_path / "h.npy"), content=known).open()


def test_names_in_archives_lead_nowhere(tmp_path):
    image = pytest.importorskip("PIL.Image")
    from unmix.activations.images import open_images
    from unmix.worlds.images import Images

    picture = io.BytesIO()
    image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture, "PNG")
    folder = tmp_path / "inside" / "deep"
    folder.mkdir(parents=True)
    before = sorted(p for p in tmp_path.rglob("*"))
    for name in (
        "../../evil/0.png",
        "/tmp-unmix-evil/1.png",
        "..\\dogs\\3.png",
        "C:\\dogs\\3.png",
        "cats/../../4.png",
    ):
        with zipfile.ZipFile(folder / "a.zip", "w") as archive:
            for inside in ("cats/1.png", name, "cats/2.png"):
                archive.writestr(inside, picture.getvalue())
        with pytest.raises(UsageError, match="a name that leads out of it"):
            Images(path=str(folder / "a.zip")).sample(2, 0)
        with pytest.raises(UsageError, match="a name that leads out of it"):
            open_images(folder / "a.zip")
        (folder / "a.zip").unlink()
    assert sorted(p for p in tmp_path.rglob("*")) == before and not Path("/tmp-unmix-evil").exists()


def test_a_picture_is_read_in_the_formats_of_pictures_alone(tmp_path):
    pytest.importorskip("PIL")
    from unmix.activations.images import open_images

    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(Failure, match=r"a\.png: no picture that can be read \(in no format that is known\)"):
        list(open_images(tmp_path).blocks(2))


def test_pickled_arrays_in_archives_are_never_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.array([Trap()], dtype=object), allow_pickle=True)
    from unmix.worlds.images import Images

    for open_it in (
        lambda: Data(path=str(tmp_path / "a.npz")).open(),
        lambda: Images(path=str(tmp_path / "a.npz")).sample(1, 0),
    ):
        with pytest.raises(UnmixError):
            open_it()


def test_markup_in_labels_and_names_is_text_in_the_report(tmp_path):
    from unmix.report.run import report_run
    from unmix.study import verbs

    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    path = tmp_path / f"{hostile.replace('/', '_')}.npy"
    np.save(path, np.random.default_rng(0).standard_normal((120, 4)).astype(np.float32))
    verbs.fit(Data(path=str(path)), [RandomAtoms(width=8, k=2)], tmp_path / "run")
    text = report_run(tmp_path / "run", tmp_path / "report.html", command=f"unmix fit '{hostile}'").read_text()
    assert "<script>alert" not in text and "<img src=x" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_what_a_terminal_obeys_is_spelt(tmp_path, capsys):
    from unmix.cli import app
    from unmix.study import verbs

    np.save(tmp_path / "h.npy", np.random.default_rng(0).standard_normal((120, 4)).astype(np.float32))
    verbs.fit(Data(path=str(tmp_path / "h.npy")), [RandomAtoms(width=8, k=2)], tmp_path / "run", seeds=(0, 1))
    one, two = sorted((tmp_path / "run" / "cells").glob("*.json"))
    hostile = "\x1b]0;title\x07[/red]\u202e:smile:"
    first = json.loads(one.read_text())
    one.write_text(json.dumps({**first, "world": hostile, "encoder": hostile}))
    two.write_text(json.dumps({"cell": first["cell"], "world": hostile, "error": f"{hostile}\rall is well"}))
    with pytest.raises(Failure, match="1 cells failed"):
        app(args=["table", str(tmp_path / "run")], standalone_mode=False)
    app(args=["status", str(tmp_path / "run")], standalone_mode=False)
    said = capsys.readouterr().out
    assert not set(said) & set("\x1b\x07\r\u202e")
    assert r"\x1b]0;title\x07[/red]\u202e:smile:" in said and r"\rall is well" in said


def test_half_a_surrogate_in_a_name_is_written_out(tmp_path):
    from unmix.core.store import write_text
    from unmix.study.export import write_table

    write_text(tmp_path / "page.html", "a\udc00b")
    write_table(pd.DataFrame({"name": ["a\udc00b"]}, dtype=object), tmp_path / "t.csv")
    for name in ("page.html", "t.csv"):
        assert r"a\udc00b" in (tmp_path / name).read_text(encoding="utf-8")
