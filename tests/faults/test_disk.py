"""A disk that is full or refuses: a sentence, nothing half written, and the same numbers once there is room."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unmix.activations.shards import ShardRows, ShardWriter
from unmix.core.errors import Failure, UnmixError
from unmix.core.store import replacing, write_tensors, write_text
from unmix.finders import FINDERS
from unmix.finders.controls import RandomAtoms
from unmix.study.engines import Serial
from unmix.study.study import Study
from unmix.worlds.sparse import SparseWorld

WIDE = Study(
    worlds=(SparseWorld(latents=64, width=64, active=2),),
    finders=(RandomAtoms(width=1500, k=2),),
    samples=(200,),
    test=50,
    seeds=(0, 1, 2),
)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: what the system refuses is a real write."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_refused_write_leaves_what_was_there_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.json", "{}")
    write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(3)})
    before = files(tmp_path)
    with largest_file(20_000):
        with pytest.raises(Failure, match=r"cannot write .*a.json: File too large; nothing stored before"):
            write_text(tmp_path / "a.json", "x" * 100_000)
        with pytest.raises(Failure, match=r"cannot write .*a.safetensors"):
            write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(30_000)})
    assert files(tmp_path) == before


def test_shards_go_on_after_a_refused_write(tmp_path):
    array = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    with ShardWriter(tmp_path / "whole", 8, key="k", shard_bytes=4096) as writer:
        writer.append(array)
        whole = writer.finish()
    with ShardWriter(tmp_path / "a", 8, key="k", shard_bytes=4096) as writer:
        writer.append(array[:200])
    refused = pytest.raises(Failure, match=r"cannot write .* File too large; whole shards stay as they are")
    with largest_file(2000), refused, ShardWriter(tmp_path / "a", 8, key="k", shard_bytes=4096) as writer:
        writer.append(array[writer.rows :])
    with ShardWriter(tmp_path / "a", 8, key="k", shard_bytes=4096) as writer:
        assert writer.rows == 128  # one whole shard; the rest of the 200 was in an open one
        writer.append(array[writer.rows :])
        rows = writer.finish()
    rows.verify()
    assert rows.digest == whole.digest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Any]:
    """A file system of one megabyte in memory, and what gives it more; skipped where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: str, *how: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", ",".join((*how, f"size={size}")), "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True).returncode == 0

    if os.geteuid() or not mount("1m"):
        pytest.skip("a small file system cannot be mounted here")
    yield folder, lambda: mount("64m", "remount")
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_cells_for_which_the_disk_is_full_say_so_and_are_done_when_there_is_room(small_disk, tmp_path):
    folder, enlarge = small_disk
    results = WIDE.run(folder / "run")
    assert 1 <= len(results.failures) < 3
    assert all("cannot write" in told and "No space left" in told for told in results.failures)
    assert not [p for p in (folder / "run").rglob("*") if p.name.endswith((".part", ".old"))]
    done = files(folder / "run")
    assert enlarge()
    table = WIDE.run(folder / "run").table()
    kept = {name: content for name, content in done.items() if name.startswith("fits") and "working" not in name}
    assert kept and kept.items() <= files(folder / "run").items()
    whole = WIDE.run(tmp_path / "whole", Serial()).table()
    timeless = [column for column in whole if column != "fit_seconds"]
    assert table[timeless].equals(whole[timeless]) and len(table) == 3


def test_a_folder_that_cannot_be_made_is_told_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("unmix.study.study.run_cells", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(Failure, match=r"cannot write .*run.json: Not a directory"):
        WIDE.run(tmp_path / "file" / "run")
    with pytest.raises(Failure, match=r"cannot write in .*Not a directory"):
        ShardWriter(tmp_path / "file" / "acts", 4)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told_before_any_work(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(Failure, match=r"cannot write .*Permission denied"):
        WIDE.run(tmp_path / "closed" / "run")


def test_a_folder_is_replaced_in_one_step_and_stays_where_the_new_one_fails(tmp_path, monkeypatch):
    def make(text: str, fail: bool = False) -> None:
        with replacing(tmp_path / "a") as part:
            part.mkdir()
            (part / "text").write_text(text)
            if fail:
                raise KeyboardInterrupt

    make("first")
    make("second")
    with pytest.raises(KeyboardInterrupt):
        make("third", fail=True)
    assert files(tmp_path) == {"a/text": b"second"}
    monkeypatch.setattr("sys.platform", "other")  # where folders cannot be exchanged
    make("fourth")
    assert files(tmp_path) == {"a/text": b"fourth"}


def test_rows_that_are_not_finite_are_refused_with_their_number(tmp_path):
    array = np.zeros((9, 3), np.float32)
    array[7, 1] = np.inf
    with ShardWriter(tmp_path / "a", 3) as writer:
        writer.append(array[:5])
        with pytest.raises(Failure, match="row 7 holds NaN or infinity"):
            writer.append(array[5:])
    with ShardWriter(tmp_path / "b", 3, shard_bytes=24) as writer:
        writer.append(array[:7])
        rows = writer.finish()
    (tmp_path / "b" / "rows-00001.bin").write_bytes(np.full((2, 3), np.nan, np.float32).tobytes())
    for finder in ("PCA", "TopKSAE", "SparseCoding"):
        fields = {"PCA": {"width": 2}, "TopKSAE": {"width": 4, "k": 1}, "SparseCoding": {"width": 4, "active": 1}}
        with pytest.raises(UnmixError, match=r"row 2, column 0 is nan"):
            FINDERS[finder](**fields[finder]).fit(ShardRows(tmp_path / "b"), 0)
    with pytest.raises(Failure, match="sha256"):
        rows.verify()
