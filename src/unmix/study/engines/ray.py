"""The engine on ray: a cluster of this machine, or one whose address is given."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from pydantic import Field

from unmix.core.errors import UsageError
from unmix.study.engines.base import Died, Pool, Pooled, default_workers, needs


class Ray(Pooled):
    """The workers of a ray cluster, which must see the same files.

    address: of a cluster ("auto" finds one that runs here); None starts one on this machine. workers: jobs at a time,
    without an address; None is one for every two cores, at least two. cpus: cores for each job. retries: how often a
    job whose worker died is submitted again.
    """

    name: ClassVar[str] = "ray"
    address: str | None = None
    workers: int | None = Field(default=None, ge=1)
    cpus: int = Field(default=1, ge=1)

    def _threads(self) -> int | None:
        return self.cpus

    def _open(self) -> Pool:
        needs("ray", "ray")
        return _Cluster(self.address, self.workers or default_workers(), self.cpus)


class _Cluster(Pool):
    def __init__(self, address: str | None, workers: int, cpus: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self.ours, self.cpus = not ray.is_initialized(), cpus
        if not self.ours:
            return
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            options |= {"num_cpus": workers * cpus, "include_dashboard": False}
        try:
            ray.init(address=address or "local", **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(f"Ray.address={address!r}: no cluster answers there ({error})") from None

    def submit(self, function: Callable[[Any], Any], jobs: list[Any]) -> list[Any]:
        import ray

        task = ray.remote(num_cpus=self.cpus, max_retries=0)(_call)
        return [task.remote(function, job) for job in jobs]

    def ended(self, handles: list[Any]) -> Iterable[Any]:
        import ray

        return ray.wait(handles, num_returns=1)[0]

    def result(self, handle: Any) -> Any:
        import ray
        from ray import exceptions

        try:
            return ray.get(handle)
        except exceptions.RayTaskError as error:
            raise error.cause from None
        except exceptions.RayError as error:
            raise Died(type(error).__name__) from None

    def close(self) -> None:
        import ray

        if self.ours:
            ray.shutdown()


def _call(function: Callable[[Any], Any], job: Any) -> Any:
    return function(job)
