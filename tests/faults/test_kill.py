"""Kill -9 at random points: nothing stored is lost or half written, and resuming gives the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def killed(job: str, folder: Path, kills: int, seed: int = 0) -> dict[str, int]:
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "tests.faults.kill",
        job,
        str(folder),
        "--kills",
        str(kills),
        "--seed",
        str(seed),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("job", "kills", "files"), [("fit", 4, 6), ("shards", 8, 76)])
def test_killed_and_resumed_is_as_if_nothing_had_been(job, kills, files, tmp_path):
    found = killed(job, tmp_path / job, kills)
    assert found["kills"] >= kills // 2, "hardly any kill met a running job"
    assert found["files"] >= files


@pytest.mark.slow
@pytest.mark.parametrize("job", ["fit", "shards", "learn", "sweep", "demo"])
@pytest.mark.parametrize("seed", [1, 2])
def test_many_kills(job, seed, tmp_path):
    assert killed(job, tmp_path / job, 10 if job in ("fit", "shards", "learn") else 5, seed)["kills"] >= 2
