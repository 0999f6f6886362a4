from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from unmix.activations.shards import ShardRows, ShardWriter, clear_folder
from unmix.core.errors import Failure, UsageError
from unmix.core.items import VectorItems
from unmix.core.rows import Rows
from unmix.core.seeds import Stream


def write(folder: Path, array: np.ndarray, shard_rows: int = 10, dtype: str = "float32", piece: int = 7) -> ShardRows:
    size = shard_rows * array.shape[1] * np.dtype(dtype).itemsize
    with ShardWriter(folder, array.shape[1], dtype, "key", {"layer": "l"}, size) as writer:
        for start in range(0, len(array), piece):
            writer.append(torch.from_numpy(array[start : start + piece]))
        return writer.finish(VectorItems(np.arange(len(array)) * 2))


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((47, 5)).astype(np.float32)


def test_one_writer_at_a_time(tmp_path: Path, array: np.ndarray) -> None:
    with ShardWriter(tmp_path / "a", 5, key="k") as first:
        first.append(array)
        with pytest.raises(UsageError, match="activations: another process is at it; wait for it to end"):
            ShardWriter(tmp_path / "a", 5, key="k")
        with pytest.raises(UsageError, match="another process is writing activations there"):
            clear_folder(tmp_path / "a")
        assert first.finish().shape == (47, 5)
    assert ShardRows(tmp_path / "a").shape == (47, 5)


@pytest.mark.parametrize("content", ["", "[]", '{"plan": {}}', '{"pla'])
def test_progress_that_is_not_whole_says_what_helps(tmp_path: Path, array: np.ndarray, content: str) -> None:
    with ShardWriter(tmp_path / "a", 5, key="k", shard_bytes=200) as writer:
        writer.append(array)
    (tmp_path / "a" / "progress.json").write_text(content)
    with pytest.raises((Failure, UsageError), match="--overwrite"):
        ShardWriter(tmp_path / "a", 5, key="k")
    clear_folder(tmp_path / "a")  # as --overwrite does
    with ShardWriter(tmp_path / "a", 5, key="k") as writer:
        writer.append(array)
        assert writer.finish().shape == (47, 5)


def test_rows_come_back_in_order_and_by_number(tmp_path: Path, array: np.ndarray) -> None:
    rows = write(tmp_path / "a", array)
    assert isinstance(rows, Rows)
    assert rows.shape == (47, 5) and rows.dtype == np.float32 and rows.about == {"layer": "l"}
    assert sorted(p.name for p in (tmp_path / "a").glob("[!.]*")) == [
        "items",
        "manifest.json",
        *(f"rows-{i:05d}.bin" for i in range(5)),
    ]
    for size in (1, 7, 10, 23, 100):
        blocks = list(rows.blocks(size))
        assert all(len(block) == size for block in blocks[:-1])
        assert np.array_equal(torch.cat(blocks).numpy(), array)
    chosen = np.array([46, 0, 9, 10, 9, -1])
    assert np.array_equal(rows.take(chosen).numpy(), array[chosen])
    assert np.array_equal(rows.take(array[:, 0] > 0).numpy(), array[array[:, 0] > 0])
    assert rows.items.numbers[3] == 6
    with pytest.raises(UsageError, match="out of range"):
        rows.take(np.array([47]))


def test_digest_is_of_content_and_not_of_path(tmp_path: Path, array: np.ndarray) -> None:
    first, second = write(tmp_path / "a", array), write(tmp_path / "b", array, piece=13)
    other = write(tmp_path / "c", array + 1)
    assert first.digest == second.digest != other.digest
    first.verify()


def test_float16_is_read_as_float32_and_overflow_fails(tmp_path: Path, array: np.ndarray) -> None:
    rows = write(tmp_path / "a", array, dtype="float16")
    block = next(rows.blocks(100))
    assert block.dtype == torch.float32
    assert np.array_equal(block.numpy(), array.astype(np.float16).astype(np.float32))
    with pytest.raises(Failure, match="does not fit float16"):
        write(tmp_path / "b", array * 1e6, dtype="float16")


@pytest.mark.parametrize("buffer_bytes", [1 << 30, 3 << 20])
def test_shuffled_pass_gives_each_row_once(tmp_path: Path, buffer_bytes: int) -> None:
    n, d = 40_000, 64
    array = np.zeros((n, d), np.float32)
    array[:, 0] = np.arange(n)
    rows = write(tmp_path / "a", array, shard_rows=9_001, piece=n)
    rows = ShardRows(tmp_path / "a", buffer_bytes=buffer_bytes)
    blocks = [block[:, 0].numpy() for block in rows.blocks(512, Stream(3))]
    assert all(len(block) == 512 for block in blocks[:-1])
    order = np.concatenate(blocks).astype(int)
    assert np.array_equal(np.sort(order), np.arange(n))
    again = np.concatenate([block[:, 0].numpy() for block in rows.blocks(512, Stream(3))])
    other = np.concatenate([block[:, 0].numpy() for block in rows.blocks(512, Stream(4))])
    assert np.array_equal(order, again) and not np.array_equal(order, other)
    # Neighbours in the file must not be neighbours in the pass, nor may its parts come in order.
    assert (np.abs(np.diff(order)) <= 1).mean() < 0.01
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < (0.02 if buffer_bytes > n * d * 4 else 0.9)


def test_mixed_pass_holds_only_its_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a", np.ones((60_000, 64), np.float32), shard_rows=20_000, piece=60_000)
    rows, asked, real = ShardRows(tmp_path / "a", buffer_bytes=3 << 20), [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **k: asked.append(shape) or real(*shape, **k))
    assert sum(len(block) for block in rows.blocks(256, Stream(0))) == 60_000
    assert len(asked) == 1 and asked[0][0] * asked[0][1] * 4 < 5 << 20


def test_cut_off_missing_and_changed_shards(tmp_path: Path, array: np.ndarray) -> None:
    rows = write(tmp_path / "a", array)
    shard = tmp_path / "a" / "rows-00001.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-4])
    with pytest.raises(Failure, match=r"rows-00001.bin: 196 bytes, expected 200 bytes; make") as caught:
        ShardRows(tmp_path / "a")
    assert "\n" not in str(caught.value)
    shard.write_bytes(bytes(200))
    ShardRows(tmp_path / "a")
    with pytest.raises(Failure, match=r"rows-00001.bin: sha256"):
        rows.verify()
    shard.unlink()
    with pytest.raises(Failure, match=r"rows-00001.bin: missing, expected 200 bytes"):
        ShardRows(tmp_path / "a")


def test_manifests_that_are_not_right(tmp_path: Path, array: np.ndarray) -> None:
    write(tmp_path / "a", array)
    path = tmp_path / "a" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "schema": 99}))
    with pytest.raises(UsageError, match="schema version 99, this unmix reads 1"):
        ShardRows(tmp_path / "a")
    path.write_text(json.dumps({**manifest, "shards": manifest["shards"][:-1]}))
    with pytest.raises(Failure, match="shards hold 40 rows, expected 47"):
        ShardRows(tmp_path / "a")
    path.write_text(json.dumps({k: v for k, v in manifest.items() if k != "dtype"}))
    with pytest.raises(Failure, match="not a whole manifest"):
        ShardRows(tmp_path / "a")
    path.write_text(path.read_text()[:30])
    with pytest.raises(Failure, match="not whole"):
        ShardRows(tmp_path / "a")
    with pytest.raises(UsageError, match="holds no activations"):
        ShardRows(tmp_path / "nothing")


def test_writer_goes_on_after_the_last_whole_shard(tmp_path: Path, array: np.ndarray) -> None:
    whole = write(tmp_path / "whole", array)
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "a", 5, key="key", shard_bytes=200) as writer:
        writer.state = {"note": 1}
        writer.append(array[:25])
        raise KeyboardInterrupt
    assert sorted(p.name for p in (tmp_path / "a").glob("[!.]*")) == [
        "progress.json",
        "rows-00000.bin",
        "rows-00001.bin",
    ]
    with pytest.raises(UsageError, match="unfinished"):
        ShardRows(tmp_path / "a")
    with pytest.raises(UsageError, match="something else"):
        ShardWriter(tmp_path / "a", 5, key="other", shard_bytes=200)
    with pytest.raises(UsageError, match="other settings"):
        ShardWriter(tmp_path / "a", 5, key="key", shard_bytes=400)
    with ShardWriter(tmp_path / "a", 5, key="key", shard_bytes=200) as writer:
        assert writer.rows == 20 and writer.state == {"note": 1}
        writer.append(array[20:])
        rows = writer.finish()
    assert rows.digest == whole.digest
    assert np.array_equal(rows.items.numbers, np.arange(47))


def test_writer_refuses_what_it_should(tmp_path: Path, array: np.ndarray) -> None:
    write(tmp_path / "a", array)
    with pytest.raises(UsageError, match="finished already"):
        ShardWriter(tmp_path / "a", 5, key="key")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        ShardWriter(tmp_path / "b", 5)
    clear_folder(tmp_path / "b")
    assert (tmp_path / "b" / "thesis.tex").exists()
    (tmp_path / "a" / "note.txt").write_text("mine")
    clear_folder(tmp_path / "a")
    assert [p.name for p in (tmp_path / "a").glob("[!.]*")] == ["note.txt"]
    with ShardWriter(tmp_path / "c", 5) as writer:
        with pytest.raises(UsageError, match=r"must be \[b, 5\]"):
            writer.append(array[:, :4])
        with pytest.raises(UsageError, match="no rows"):
            writer.finish()
        writer.append(array)
        with pytest.raises(UsageError, match="2 items for 47 rows"):
            writer.finish(VectorItems(np.arange(2)))


def test_complex_rows_are_refused(tmp_path):
    with ShardWriter(tmp_path / "rows", 2) as writer, pytest.raises(UsageError, match="block: must be real numbers"):
        writer.append(np.ones((3, 2)) * 1j)
