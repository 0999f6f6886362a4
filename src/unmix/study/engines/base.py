"""What all engines share: one verb, and what becomes of a job whose worker died."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from unmix.core.errors import Failure, UsageError
from unmix.core.recipe import Recipe
from unmix.core.watch import say, show_notices


@dataclass(frozen=True)
class Lost:
    """In place of a result: every worker that took the job died; `reason` is a sentence."""

    reason: str


class Engine(Recipe):
    """Runs a function over jobs; its one verb is `map`."""

    name: ClassVar[str]

    @abstractmethod
    def map(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """(job, function(job)) for every job, in any order, as they end; `Lost` where no worker survived the job.

        What the function raises is raised here.
        """


class Died(Exception):
    """The worker that had a job is gone; how, in a few words."""


class Pool(ABC):
    """Workers that are open for jobs; `slots` is how many jobs they hold at a time."""

    slots: float = math.inf

    @abstractmethod
    def submit(self, function: Callable[[Any], Any], jobs: list[Any]) -> list[Any]:
        """A handle for every job, hashable."""

    @abstractmethod
    def ended(self, handles: list[Any]) -> Iterable[Any]:
        """Wait until some of the jobs have ended; their handles."""

    @abstractmethod
    def result(self, handle: Any) -> Any:
        """The result of a job that has ended; raises what the function raised, or `Died`."""

    @abstractmethod
    def close(self) -> None:
        """Let the workers go; jobs that have not ended are given up."""


class Pooled(Engine):
    """An engine with workers. A job whose worker dies is submitted again `retries` times, then it is lost.

    retries: of one job; other jobs go on meanwhile.
    """

    retries: int = Field(default=2, ge=0)

    @abstractmethod
    def _open(self) -> Pool:
        """The workers; raises `UsageError` where what runs them is not installed or not there."""

    def _threads(self) -> int | None:
        """Threads that torch may use for a job; None leaves them as they are."""
        return None

    def map(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise UsageError(f"engine={self.kind}: under torchrun all processes share one fit at a time; use serial")
        waiting = [(job, 1) for job in jobs]
        if not waiting:
            return
        work = functools.partial(_as_here, os.getcwd(), self._threads(), function)
        from unmix.core.seeds import untouched

        with untouched():  # what runs the workers draws ports and names, in threads of its own too
            yield from self._run(work, waiting)

    def _run(self, work: Callable[[Any], Any], waiting: list[tuple[Any, int]]) -> Iterator[tuple[Any, Any]]:
        """Submit the jobs that are waiting, each with the number of this attempt, until none is left."""
        running: dict[Any, tuple[Any, int]] = {}
        with _undisturbed():
            pool = self._open()
        try:
            while waiting or running:
                room = int(min(len(waiting), pool.slots - len(running)))
                batch, waiting = waiting[:room], waiting[room:]
                with _undisturbed():
                    handles = pool.submit(work, [job for job, _ in batch])
                running.update(zip(handles, batch, strict=True))
                for handle in pool.ended(list(running)):
                    job, times = running.pop(handle)
                    try:
                        result = pool.result(handle)
                    except Died as death:
                        if times <= self.retries:
                            say(f"{_label(job)}: its worker died ({death}); again, {times} of {self.retries}\n")
                            waiting.append((job, times + 1))
                            continue
                        result = Lost(f"every worker that took it died, {times} in all; the last: {death}")
                        say(f"{_label(job)}: {result.reason}\n")
                    yield job, result
        finally:
            pool.close()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Processes begun in the block never see Ctrl-C, which a terminal sends to all: this one ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def default_workers() -> int:
    """One worker for every two cores of this machine, at least two."""
    return max(2, (os.cpu_count() or 1) // 2)


def needs(package: str, engine: str) -> None:
    """Import what an extra brings; raises `UsageError` with the command that installs it."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError:
        raise UsageError(f'engine={engine}: needs {package}; pip install "unmix[{engine}]"') from None


def _as_here(folder: str, threads: int | None, function: Callable[[Any], Any], job: Any) -> Any:
    """function(job) on a worker, in the folder where the sweep was begun: paths of data may be relative to it."""
    show_notices()
    try:
        os.chdir(folder)
    except OSError as error:
        raise Failure(
            f"{folder}: not to be reached by a worker ({error.strerror}); workers need the same files"
        ) from None
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return function(job)


def _label(job: Any) -> str:
    """A job's name in messages; a list of cells goes by its first."""
    return str(getattr(job[0] if isinstance(job, list) else job, "label", job))
