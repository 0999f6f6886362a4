"""Write shards, read them in order, in a shuffled window and through a subset; print the memory that took.

    python -m tests.faults.memory FOLDER MEGABYTES [WINDOW_MEGABYTES]

Prints JSON: peak resident bytes beyond what the interpreter and torch held before, rows, seconds of each pass.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from unmix.activations.shards import ShardRows, ShardWriter
from unmix.core.rows import Rows, Subset
from unmix.core.seeds import Stream

WIDTH = 512
BATCH = 4096


def resident(peak: bool = False) -> int:
    """Resident bytes of this process, now or at their highest."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    with open("/proc/self/status", encoding="ascii") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(wanted))


def written(folder: Path, rows: int) -> None:
    """Rows that are all different: their number, and noise that repeats."""
    noise = np.random.default_rng(0).standard_normal((BATCH, WIDTH)).astype(np.float32)
    with ShardWriter(folder, WIDTH, key="memory") as writer:
        for start in range(0, rows, BATCH):
            block = noise[: min(BATCH, rows - start)].copy()
            block[:, 0] = (np.arange(start, start + len(block)) % (1 << 20)).astype(np.float32)
            writer.append(block)
        writer.finish()


def passed(rows: Rows, rng: Stream | None) -> tuple[int, float]:
    """Rows and sum of the first column of one pass."""
    count, total = 0, 0.0
    for block in rows.blocks(BATCH, rng):
        count, total = count + len(block), total + float(block[:, 0].double().sum())
    return count, total


def main(folder: Path, megabytes: int, window: int) -> None:
    torch.set_num_threads(1)
    n = megabytes * 1_000_000 // (4 * WIDTH)
    torch.randn(1000, 1000) @ torch.randn(1000, 1000, generator=Stream(0).torch())
    before, laps = resident(), [time.perf_counter()]
    written(folder, n)
    laps.append(time.perf_counter())
    rows = ShardRows(folder, buffer_bytes=window << 20)
    in_order = passed(rows, None)
    laps.append(time.perf_counter())
    assert passed(rows, Stream(0)) == in_order and in_order[0] == n
    laps.append(time.perf_counter())
    train = np.flatnonzero(np.arange(n) % 10 != 0)
    count, _ = passed(Subset(rows, train), Stream(0))
    assert count == len(train)
    laps.append(time.perf_counter())
    names = ("write", "in order", "shuffled", "subset shuffled")
    seconds = {name: round(end - begun, 2) for name, (begun, end) in zip(names, pairwise(laps), strict=True)}
    print(json.dumps({"bytes": resident(peak=True) - before, "rows": n, "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 64)
