"""Kill -9 at random points, look at what is stored, resume, and compare with a run that nobody disturbed.

    python -m tests.faults.kill JOB FOLDER --kills 5 --seed 0

JOB is one of `JOBS`. A point is a moment in the run's time, or the n-th rename that makes something whole, just
before or just after it. The process is killed there, again and again, and the last time it may end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMES = {"seconds", "fit_seconds", "traceback"}  # what may differ from run to run
ORPHANS_SECONDS = 10


def fit(folder: Path) -> None:
    """Two finders on digits, by the verb."""
    from unmix.activations.data import Data
    from unmix.finders.dictionary import SparseCoding
    from unmix.finders.topk_sae import TopKSAE
    from unmix.study import verbs

    sae = TopKSAE(width=96, k=8, steps=150, batch=128, aux_k=8, dead_after=1000)
    coding = SparseCoding(width=48, active=4, passes=6, batch=256)
    verbs.fit(Data(path="digits"), [sae, coding], folder)


def sweep(folder: Path) -> None:
    """A grid of cells in two processes."""
    from unmix.finders.topk_sae import TopKSAE
    from unmix.study.engines import Processes
    from unmix.study.study import Study
    from unmix.worlds.sparse import SparseWorld

    finders = tuple(TopKSAE(width=24, k=k, steps=300, batch=128) for k in (2, 3))
    world = SparseWorld(latents=24, width=12, active=2)
    fields: dict[str, Any] = {"worlds": (world,), "finders": finders, "encoders": (None, "Omp")}
    Study(**fields, samples=(1000,), l0=2, seeds=(0, 1, 2), test=200).run(folder, Processes(workers=2))


def shards(folder: Path) -> None:
    """Rows to shards, gone on with after the last whole one."""
    import numpy as np

    from unmix.activations.shards import ShardWriter

    if (folder / "manifest.json").is_file():
        return
    with ShardWriter(folder, 32, key="kill", shard_bytes=32 << 10) as writer:
        for number in range(writer.rows // 64, 300):
            writer.append(np.random.default_rng(number).standard_normal((64, 32)).astype(np.float32))
        writer.finish().verify()


def learn(folder: Path) -> None:
    """A network trained and scored, by the verb."""
    from unmix.learners.supervised import Supervised
    from unmix.networks.mlp import MLP
    from unmix.study import learning
    from unmix.worlds.cluster import ClusterWorld

    learner = Supervised(network=MLP(hidden=(32,)), width=4, steps=250, batch=64)
    learning.learn(ClusterWorld(), [learner], folder, seeds=(0, 1), test=200)


def demo(folder: Path) -> None:
    """`unmix demo --data digits --small`."""
    from unmix.demo import run_demo

    run_demo("digits", folder, small=True)


JOBS: dict[str, Callable[[Path], None]] = {f.__name__: f for f in (fit, sweep, shards, learn, demo)}


def stored(folder: Path) -> dict[str, bytes]:
    """What counts as stored, by its path: all but logs and work in progress. Raises where something is not whole."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        working = any(part.startswith(".") or part.endswith(".working") for part in parts)
        if not path.is_file() or working or path.name in ("progress.json", "log.jsonl"):
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            plain = json.loads(content)  # raises where half is written
            if isinstance(plain, dict) and "error" in plain:
                raise AssertionError(f"{path}: a failure was stored: {plain['error']}")
            content = json.dumps(_timeless(plain), sort_keys=True).encode()
        elif path.suffix == ".safetensors":
            from safetensors import numpy

            numpy.load(content)
        if path.suffix != ".html":  # pages have dates and seconds on them
            found["/".join(parts)] = content
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in TIMES}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def attempt(job: str, folder: Path, seconds: float | None = None, rename: int | None = None) -> tuple[bool, float]:
    """Run a job in a process of its own, killed after so many seconds or at its n-th rename; whether it ended."""
    begun, child = time.monotonic(), os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            _prepare(rename)
            JOBS[job](folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if seconds is not None and time.monotonic() - begun > seconds:
            os.kill(child, signal.SIGKILL)
            seconds = None
        time.sleep(0.002)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise AssertionError(f"{job}: the run ended with status {os.WEXITSTATUS(status)}")
    _no_orphans(child)
    return os.WIFEXITED(status), time.monotonic() - begun


def _prepare(rename: int | None) -> None:
    """Checkpoints all the time, and death at the n-th rename: before it where n is even, after it where odd."""
    from unmix.core import watch

    watch.Checkpoint.__init__.__defaults__ = (0.02,)
    if rename is None:
        return
    real, count = {name: getattr(os, name) for name in ("replace", "rename")}, [0]

    def counted(name: str) -> Callable[..., None]:
        def call(*arguments: Any, **options: Any) -> None:
            count[0] += 1
            if count[0] == rename // 2 and rename % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            real[name](*arguments, **options)
            if count[0] == rename // 2 and rename % 2:
                os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in real:
        setattr(os, name, counted(name))


def _no_orphans(group: int) -> None:
    """Workers of a killed run must go by themselves, or they would work on beside the next run."""
    until = time.monotonic() + ORPHANS_SECONDS
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"processes of the killed run were alive after {ORPHANS_SECONDS} s")


def kill_and_resume(job: str, folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Do what the module says; numbers of kills that met a running job, and of files stored. Raises what is wrong."""
    draw, whole = random.Random(seed), folder / "whole"
    ended, seconds = attempt(job, whole)
    assert ended
    wanted = stored(whole)
    met, cut = 0, folder / "cut"
    for number in range(kills):
        before = stored(cut) if cut.is_dir() else {}
        point = {"rename": draw.randint(2, 25)} if number % 2 else {"seconds": draw.uniform(0.1, 0.9) * seconds}
        ended, _ = attempt(job, cut, **point)
        met += not ended
        after = stored(cut)
        for path, content in before.items():
            assert after.get(path) == content, f"{path}: was stored, and was lost or changed by a kill"
        if ended:
            _same(after, wanted)
            shutil.rmtree(cut)
    ended, _ = attempt(job, cut)
    assert ended
    _same(stored(cut), wanted)
    return {"kills": met, "files": len(wanted)}


def _same(found: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    """What a resumed run stored is what a run that nobody disturbed did."""
    assert found.keys() == wanted.keys(), sorted(found.keys() ^ wanted.keys())
    for path, content in wanted.items():
        assert found[path] == content, f"{path}: other numbers than in the run that nobody disturbed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=sorted(JOBS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    import torch

    import unmix.study.verbs  # noqa: F401 (imported once, before the forks)

    torch.set_num_threads(1)
    shutil.rmtree(given.folder, ignore_errors=True)
    print(json.dumps(kill_and_resume(given.job, given.folder.resolve(), given.kills, given.seed)))


if __name__ == "__main__":
    sys.exit(main())
