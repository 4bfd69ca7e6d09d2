"""The audit on a dask cluster: the ``[fleet]`` extra."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tracekit.audit.executors import DIED
from tracekit.audit.judging import Chain, judge_chain
from tracekit.audit.results import TraceResult
from tracekit.errors import TracekitError, UsageError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ("Dask",)


class Dask:
    """Workers of a dask cluster, which have tracekit installed and reach sources and folder.

    The scheduler gives a dead worker's chains to others.  What it gives up (its setting
    ``allowed-failures``) is tried ``retries`` times more when nothing else runs.
    """

    def __init__(self, scheduler: str, *, retries: int = 2) -> None:
        self._scheduler = scheduler
        self._retries = retries

    def run(self, chains: Sequence[Chain]) -> Iterator[list[TraceResult]]:
        if not chains:
            return
        client = self._client()
        try:
            suspects: list[Chain] = []
            yield from self._all(client, chains, suspects)
            for chain in suspects:
                for _ in range(self._retries):
                    alone: list[Chain] = []
                    yield from self._all(client, [chain], alone)
                    if not alone:
                        break
                else:
                    yield chain.failed(DIED)
        finally:
            client.close()  # type: ignore[no-untyped-call]

    def _all(
        self, client: Client, chains: Sequence[Chain], suspects: list[Chain]
    ) -> Iterator[list[TraceResult]]:
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        submitted: dict[Any, Chain] = {
            client.submit(judge_chain, chain, pure=False): chain for chain in chains
        }
        for future in as_completed(submitted, loop=client.loop):  # type: ignore[no-untyped-call]
            why = future.exception()
            if why is None:
                yield future.result()
            elif isinstance(why, KilledWorker):
                suspects.append(submitted[future])
            else:
                raise TracekitError(
                    f"a worker of {self._scheduler} failed: {type(why).__name__}: {why}"[:400],
                    help="each needs this tracekit, the sources, and the folder for results",
                )
            future.release()

    def _client(self) -> Client:
        try:
            from distributed import Client
        except ImportError:
            raise UsageError(
                "executor.kind is dask, and dask.distributed is not installed",
                help="pip install 'kvm-tracekit[fleet]'",
            ) from None
        try:
            return Client(  # type: ignore[no-untyped-call]
                self._scheduler, set_as_default=False
            )
        except (OSError, TimeoutError, ValueError) as why:
            said = str(why).splitlines()[0] if str(why) else type(why).__name__
            raise UsageError(
                f"the scheduler {self._scheduler} does not answer: {said[:200]}"
            ) from None
