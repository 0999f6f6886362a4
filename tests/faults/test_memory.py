"""The memory that shards take does not grow with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unmix.activations.shards import ShardRows, ShardWriter
from unmix.core.rows import Subset
from unmix.core.seeds import Stream

WINDOW = 16


def measured(folder: Path, megabytes: int) -> dict[str, Any]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.faults.memory", str(folder), str(megabytes), str(WINDOW)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=1500)
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_stays_flat_when_shards_grow_eightfold(tmp_path):
    few, many = (measured(tmp_path / str(size), size)["bytes"] for size in (60, 480))
    assert many < few + 60e6 and many < 200e6  # the rows grew by 420 MB


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_stays_flat_from_one_to_ten_gigabytes(tmp_path):
    if shutil.disk_usage(tmp_path).free < 12e9:
        pytest.skip("needs 12 GB of disk")
    few, many = (measured(tmp_path / str(size), size)["bytes"] for size in (1000, 10_000))
    index = 9 * (10_000 - 1000) * 1e6 / (4 * 512)  # the numbers of a subset's rows, 8 bytes each and a mark
    assert many < few + 2 * index + 48e6


@pytest.fixture
def rows(tmp_path: Path) -> ShardRows:
    array = np.zeros((40_000, 64), np.float32)
    array[:, 0] = np.arange(len(array))
    with ShardWriter(tmp_path / "a", 64, shard_bytes=9_001 * 256) as writer:
        writer.append(array)
        writer.finish()
    return ShardRows(tmp_path / "a", buffer_bytes=3 << 20)


def test_a_subset_of_rows_in_a_window_is_each_of_its_rows_once(rows):
    index = np.random.default_rng(0).permutation(40_000)[:30_001]
    subset = Subset(rows, index)
    blocks = [block[:, 0].numpy() for block in subset.blocks(512, Stream(1))]
    assert [len(block) for block in blocks[:-1]] == [512] * (len(blocks) - 1) and 0 < len(blocks[-1]) <= 512
    order = np.concatenate(blocks).astype(int)
    assert np.array_equal(np.sort(order), np.sort(index))
    assert np.array_equal(order, np.concatenate([b[:, 0].numpy() for b in subset.blocks(512, Stream(1))]).astype(int))
    assert (np.abs(np.diff(order)) <= 1).mean() < 0.01
    from unmix.activations.transforms import Affine, TransformedRows

    moved = Subset(TransformedRows(rows, Affine(torch.ones(64), scale=2.0)), index)
    assert moved.rows.streams
    assert torch.equal(torch.cat(list(moved.blocks(512, Stream(1))))[:, 0], 2 * (torch.from_numpy(order) - 1.0))
    twice = Subset(rows, np.array([5, 5, 7]))
    assert sorted(torch.cat(list(twice.blocks(2, Stream(0))))[:, 0].tolist()) == [5, 5, 7]


def test_numbers_are_those_of_the_rows_and_readers_do_not_change_the_order(rows):
    seen = []
    for numbers, block in rows.numbered(700, Stream(2)):
        assert np.array_equal(block[:, 0].numpy().astype(int), numbers)
        seen.append(numbers)
    one = ShardRows(rows.folder, buffer_bytes=3 << 20, readers=1)
    again = [numbers for numbers, _ in one.numbered(700, Stream(2))]
    assert np.array_equal(np.concatenate(seen), np.concatenate(again))
    assert torch.equal(torch.cat(list(one.blocks(999))), torch.cat(list(rows.blocks(999))))


def test_a_pass_may_be_left_in_the_middle(rows):
    passing = rows.blocks(512, Stream(0))
    next(passing)
    passing.close()
    assert len(next(rows.blocks(10))) == 10
