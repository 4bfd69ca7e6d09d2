"""What the HTML page shows besides verdicts: three more passes over the trace, bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tracekit.findings import ReplayResult
from tracekit.report.decidable import limits
from tracekit.report.memory_picture import Sampled, sample_memory
from tracekit.report.sockets import SocketLife, socket_lives
from tracekit.report.survey import Survey, survey
from tracekit.report.vmms import Vmm, find_vmms
from tracekit.store import Manifest, Trace

__all__ = ("Gathered", "gather")


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """A trace's facts, rates, sampled state and sockets; ``sockets_all`` counts those left out too.

    ``doubts``: what makes verdicts of this trace weaker, a sentence each.
    """

    manifest: Manifest
    survey: Survey
    sampled: Sampled
    sockets: list[SocketLife]
    sockets_all: int
    vmms: list[Vmm]
    doubts: list[str]


def gather(
    trace: Trace,
    result: ReplayResult,
    *,
    model: str | None = None,
    slack_ns: int | None = None,
    compiled: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> Gathered:
    """Read what the page needs; ``model`` and ``slack_ns`` as in ``replay.run``.

    :raises TraceFormatError: the trace breaks off or is damaged
    """
    scale = survey(trace)
    sampled = sample_memory(trace, scale, compiled=compiled, progress=progress)
    sockets, every = socket_lives(trace, result.findings, model=model, slack_ns=slack_ns)
    vmms = find_vmms(trace)
    return Gathered(
        manifest=trace.manifest,
        survey=scale,
        sampled=sampled,
        sockets=sockets,
        sockets_all=every,
        vmms=vmms,
        doubts=limits(trace.manifest, vmms),
    )
