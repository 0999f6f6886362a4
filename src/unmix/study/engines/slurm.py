"""The engine on Slurm, through submitit: every job of a sweep is a job of the cluster."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from unmix.core.errors import UsageError
from unmix.study.engines.base import Died, Pool, Pooled, default_workers, needs


class Slurm(Pooled):
    """Jobs of a Slurm cluster (by submitit), whose nodes must see the same files.

    folder: where scripts, logs and results of the jobs are kept, of each sweep in a folder of its own. partition,
    account: of the cluster. hours, cpus, memory_gb, gpus: for each job. workers: jobs at a time; None leaves it to
    the cluster. retries: how often a job that died or ran out of time is submitted again; a fit goes on from its
    checkpoint. cluster: "local" runs the same in processes of this machine, to try it out.
    """

    name: ClassVar[str] = "slurm"
    folder: str = "slurm"
    partition: str | None = None
    account: str | None = None
    hours: float = Field(default=4.0, gt=0)
    cpus: int = Field(default=2, ge=1)
    memory_gb: float = Field(default=8.0, gt=0)
    gpus: int = Field(default=0, ge=0)
    workers: int | None = Field(default=None, ge=1)
    cluster: Literal["slurm", "local"] = "slurm"

    def _threads(self) -> int | None:
        return self.cpus

    def _open(self) -> Pool:
        needs("submitit", "slurm")
        return _Jobs(self)


@dataclass(frozen=True)
class _Raised:
    """What a job raised; submitit itself would hand back its text only."""

    error: Exception


class _Jobs(Pool):
    def __init__(self, engine: Slurm) -> None:
        import submitit

        try:
            # A new folder: results are pickles, and one that lies there already is not of these jobs.
            folder = Path(engine.folder).resolve() / uuid.uuid4().hex[:12]
            self.executor = submitit.AutoExecutor(folder, cluster=engine.cluster)
        except RuntimeError as error:
            raise UsageError(f"engine=slurm: {error}; is this machine part of a Slurm cluster?") from None
        self.local, self.open = engine.cluster == "local", set[Any]()
        self.executor.update_parameters(
            name="unmix", timeout_min=math.ceil(60 * engine.hours), cpus_per_task=engine.cpus, mem_gb=engine.memory_gb
        )
        if self.local:
            self.slots = engine.workers or default_workers()
            return
        given = {"partition": engine.partition, "account": engine.account, "array_parallelism": engine.workers}
        self.executor.update_parameters(
            gpus_per_node=engine.gpus,
            **{f"slurm_{name}": value for name, value in given.items() if value is not None},
        )

    def submit(self, function: Callable[[Any], Any], jobs: list[Any]) -> list[Any]:
        if not jobs:
            return []
        with self.executor.batch():
            handles = [self.executor.submit(_caught, function, job) for job in jobs]
        self.open.update(handles)
        return handles

    def ended(self, handles: list[Any]) -> Iterable[Any]:
        while not (found := [handle for handle in handles if handle.done()]):
            time.sleep(0.1 if self.local else 2)
        return found

    def result(self, handle: Any) -> Any:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        self.open.discard(handle)
        try:
            found = handle.result()
        except (UncompletedJobError, FailedJobError):
            raise Died(f"job {handle.job_id}, {handle.state.lower()}; its log is {handle.paths.stderr}") from None
        if isinstance(found, _Raised):
            raise found.error
        return found

    def close(self) -> None:
        for handle in self.open:
            handle.cancel()


def _caught(function: Callable[[Any], Any], job: Any) -> Any:
    try:
        return function(job)
    except Exception as error:
        return _Raised(error)
