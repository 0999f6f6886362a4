"""Engines: what runs the jobs of a study; one after another, or in several processes."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from pydantic import Field

from unmix.core.recipe import Recipe


class Engine(Recipe):
    """Runs a function over jobs; its one verb is `map`."""

    name: ClassVar[str]

    @abstractmethod
    def map(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """(job, function(job)) for every job, in any order, as they end."""


class Serial(Engine):
    """One job after another in this process."""

    name: ClassVar[str] = "serial"

    def map(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for job in jobs:
            yield job, function(job)


class Processes(Engine):
    """Several processes on this machine (joblib's loky); each gets its share of the cores.

    workers: number of processes; None is one for every two cores, at least two.
    """

    name: ClassVar[str] = "processes"
    workers: int | None = Field(None, ge=1)

    def map(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        from joblib import Parallel, delayed

        cores = os.cpu_count() or 1
        workers = self.workers or max(2, cores // 2)
        work = delayed(_with_threads)
        pool = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
        yield from pool(work(function, job, max(1, cores // workers)) for job in jobs)


def _with_threads(function: Callable[[Any], Any], job: Any, threads: int) -> tuple[Any, Any]:
    import torch

    torch.set_num_threads(threads)
    return job, function(job)
