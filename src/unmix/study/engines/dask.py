"""The engine on a dask cluster: of this machine, or one whose scheduler's address is given."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from pydantic import Field

from unmix.core.errors import UsageError
from unmix.study.engines.base import Died, Pool, Pooled, default_workers, needs

CONNECT_SECONDS = 20


class Dask(Pooled):
    """The workers of a dask cluster, which must see the same files.

    address: of a scheduler (tcp://HOST:8786); None starts a cluster of this machine's processes. workers: their
    number, without an address; None is one for every two cores, at least two. retries: how often a job whose worker
    died is submitted again, on top of what a given scheduler's own settings allow.
    """

    name: ClassVar[str] = "dask"
    address: str | None = None
    workers: int | None = Field(default=None, ge=1)

    def _threads(self) -> int | None:
        if self.address is not None:
            return None
        return max(1, (os.cpu_count() or 1) // (self.workers or default_workers()))

    def _open(self) -> Pool:
        needs("distributed", "dask")
        return _Cluster(self.address, self.workers or default_workers())


class _Cluster(Pool):
    def __init__(self, address: str | None, workers: int) -> None:
        import dask
        from distributed import Client, LocalCluster

        # One job at a time on each worker and none ahead of it, so that a death is counted against one job alone.
        alone = {"distributed.scheduler.allowed-failures": 0, "distributed.scheduler.worker-saturation": 1.0}
        self.cluster = None
        if address is None:
            with dask.config.set(alone):
                self.cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                )
        try:
            self.client = Client(self.cluster or address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"Dask.address={address!r}: no scheduler answers there ({error})") from None

    def submit(self, function: Callable[[Any], Any], jobs: list[Any]) -> list[Any]:
        return [self.client.submit(function, job, pure=False) for job in jobs]

    def ended(self, handles: list[Any]) -> Iterable[Any]:
        from distributed import wait

        with self.client.as_current():
            return wait(handles, return_when="FIRST_COMPLETED").done

    def result(self, handle: Any) -> Any:
        from distributed import KilledWorker

        if handle.cancelled() or handle.status == "lost":
            raise Died("the scheduler lost it")
        try:
            return handle.result()
        except KilledWorker as error:
            raise Died(f"worker {error.last_worker.address}") from None

    def close(self) -> None:
        self.client.close()
        if self.cluster is not None:
            self.cluster.close()
