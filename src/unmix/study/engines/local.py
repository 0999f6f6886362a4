"""Engines on this machine: one job after another, or in several processes."""

from __future__ import annotations

import concurrent.futures
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from pydantic import Field

from unmix.study.engines.base import Died, Engine, Pool, Pooled, default_workers

IDLE_SECONDS = 300


class Serial(Engine):
    """One job after another in this process."""

    name: ClassVar[str] = "serial"

    def map(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for job in jobs:
            yield job, function(job)


class Processes(Pooled):
    """Several processes on this machine (joblib's loky); each gets its share of the cores.

    workers: number of processes; None is one for every two cores, at least two. retries: how often a job whose
    process died is begun again.
    """

    name: ClassVar[str] = "processes"
    workers: int | None = Field(default=None, ge=1)

    def _threads(self) -> int | None:
        return max(1, (os.cpu_count() or 1) // (self.workers or default_workers()))

    def _open(self) -> Pool:
        return _Workers(self.workers or default_workers())


class _Workers(Pool):
    """Executors of one process each, so that it is known which job a process died of; they are used again."""

    idle: ClassVar[list[Any]] = []

    def __init__(self, workers: int) -> None:
        from multiprocessing import resource_tracker as python_tracker

        from joblib.externals.loky.backend import resource_tracker

        # Here, because they let Ctrl-C through where they begin, as the first worker otherwise would have them do.
        for tracker in (python_tracker, resource_tracker):
            tracker.ensure_running()
        self.slots = workers
        self.busy: dict[Any, Any] = {}

    def submit(self, function: Callable[[Any], Any], jobs: list[Any]) -> list[Any]:
        from joblib.externals.loky import ProcessPoolExecutor

        handles = []
        for job in jobs:
            options = {"timeout": IDLE_SECONDS, "initializer": _leave_with, "initargs": (os.getpid(),)}
            executor = self.idle.pop() if self.idle else ProcessPoolExecutor(1, **options)
            handles.append(executor.submit(function, job))
            self.busy[handles[-1]] = executor
        return handles

    def ended(self, handles: list[Any]) -> Iterable[Any]:
        return concurrent.futures.wait(handles, return_when=concurrent.futures.FIRST_COMPLETED).done

    def result(self, handle: Any) -> Any:
        executor = self.busy.pop(handle)
        try:
            found = handle.result()
        except concurrent.futures.BrokenExecutor as error:
            executor.shutdown(wait=False, kill_workers=True)
            codes = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
            raise Died(f"exit status {codes[1]}" if codes else str(error).splitlines()[0]) from None
        except BaseException:
            self.idle.append(executor)
            raise
        self.idle.append(executor)
        return found

    def close(self) -> None:
        for executor in self.busy.values():
            executor.shutdown(wait=False, kill_workers=True)


def _leave_with(parent: int) -> None:
    """End this process when the one that started it is gone: it would work on beside the next run."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
