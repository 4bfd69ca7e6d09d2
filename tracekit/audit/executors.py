"""Who judges: this process, processes of this machine, or (``fleet.py``) a dask cluster.

An executor gets chains and gives back each one's results, in whatever order they are ready.  A
worker that dies takes nothing with it but what it was doing, which is done again; a chain that
kills whoever takes it is given up alone.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Protocol

from tracekit.audit.config import Execution, ExecutorKind
from tracekit.audit.judging import Chain, judge_chain
from tracekit.audit.results import TraceResult

__all__ = ("DIED", "ENVIRONMENT", "Executor", "InProcess", "Processes", "executor_of")

DIED = "its worker died again and again: killed, perhaps for want of memory"
ENVIRONMENT = {
    "TRACEKIT_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
"""Of a worker process: one thread, as there are as many processes as CPUs, and less memory kept.
What is set already stays."""
if sys.platform == "linux":  # where Arrow is always built with it; elsewhere it would warn
    ENVIRONMENT["ARROW_DEFAULT_MEMORY_POOL"] = "jemalloc"
_CHAINS_A_PROCESS = 200
"""After so many a process is replaced, which gives back what libraries keep."""


class Executor(Protocol):
    """Judges chains somewhere."""

    def run(self, chains: Sequence[Chain]) -> Iterator[list[TraceResult]]:
        """Each chain's results, as they are ready."""


class InProcess:
    """One after the other, here: for small audits, and for debugging."""

    def run(self, chains: Sequence[Chain]) -> Iterator[list[TraceResult]]:
        for chain in chains:
            yield judge_chain(chain)


class Processes:
    """A pool of processes.  ``workers`` 0: as many as this process has CPUs."""

    def __init__(self, workers: int = 0, *, retries: int = 2) -> None:
        self._workers = workers or len(os.sched_getaffinity(0))
        self._retries = retries

    def run(self, chains: Sequence[Chain]) -> Iterator[list[TraceResult]]:
        suspects: list[Chain] = []
        waiting = deque(chains)
        with _environment():
            while waiting:
                yield from self._all(waiting, suspects, self._workers)
            # One at a time: whose worker dies now, dies of it.
            for chain in suspects:
                for _ in range(self._retries):
                    alone: list[Chain] = []
                    yield from self._all(deque([chain]), alone, 1)
                    if not alone:
                        break
                else:
                    yield chain.failed(DIED)

    def _all(
        self, waiting: deque[Chain], suspects: list[Chain], workers: int
    ) -> Iterator[list[TraceResult]]:
        """Until nothing waits, or a worker dies: then what was being judged is suspect."""
        running: dict[Future[list[TraceResult]], Chain] = {}
        pool = ProcessPoolExecutor(
            min(workers, len(waiting)),
            mp_context=get_context("spawn"),
            max_tasks_per_child=_CHAINS_A_PROCESS,
        )
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    chain = waiting.popleft()
                    running[pool.submit(judge_chain, chain)] = chain
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    results = future.result()
                    del running[future]
                    yield results
        except BrokenProcessPool:
            suspects.extend(running.values())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def executor_of(execution: Execution) -> Executor:
    """The one that the configuration names.

    :raises UsageError: dask is not installed, or its scheduler does not answer
    """
    if execution.kind is ExecutorKind.IN_PROCESS:
        return InProcess()
    if execution.kind is ExecutorKind.PROCESSES:
        return Processes(execution.workers, retries=execution.retries)
    from tracekit.audit.fleet import Dask

    assert execution.scheduler is not None
    return Dask(execution.scheduler, retries=execution.retries)


@contextmanager
def _environment() -> Iterator[None]:
    """For processes that are started meanwhile; libraries read it when they are loaded."""
    missing = {k: v for k, v in ENVIRONMENT.items() if k not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
