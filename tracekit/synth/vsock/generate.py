"""A made recording of vsock sockets, from a seed: events, what was recorded, what was planted.

made = generate("bulk", seed=1, model="merged", fault="early-return")
write_events(path, made.events, Manifest(kernel=made.kernel, hz=made.hz))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tracekit.errors import UnknownNameError, UsageError
from tracekit.events import Event
from tracekit.synth.vsock.faults import ALL_SIDES, FAULTS, Fault, plant
from tracekit.synth.vsock.host import Host
from tracekit.synth.vsock.kernel import HZ, LINGER_MODELS
from tracekit.synth.vsock.truth import Planted
from tracekit.synth.vsock.workloads import WORKLOADS

__all__ = ("Made", "applicable", "generate")

_CALLS = ("socket", "accept", "connect", "send", "recv", "setsockopt", "shutdown", "close")
_PROBES = (
    "setsockopt.called", "process.fork", "process.exit", "process.exit_called", "signal.generated",
    "signal.delivered", "vsock.packet_allocated", "vsock.packet_received", "vsock.release",
    "vsock.released", "vsock.transport_release", "vsock.transport_released", "vsock.shutdown",
    "vsock.shutdown_returned", "vsock.sent", "vsock.done", "vsock.hyperv_release",
    "vsock.hyperv_released", "vsock.vmci_release", "vsock.vmci_released", "vsock.credit",
    "vsock.credit_taken", "vsock.unsent_asked", "vsock.unsent_told",
)  # fmt: skip
_KERNELS = {"legacy": "6.12.95", "v1": "6.14.0-v1", "merged": "7.3.4"}


@dataclass(frozen=True, kw_only=True)
class Made:
    """``recorded``: event types that a recorder would have asked for, happened or not.

    ``planted`` is empty for a correct trace, and where no socket suited the fault.
    """

    events: list[Event]
    planted: list[Planted]
    recorded: frozenset[str]
    kernel: str
    hz: int
    model: str


def applicable(fault: Fault, workload: str) -> bool:
    """Whether a fault can mean anything in a workload; some sockets of it may still not suit."""
    return workload not in fault.not_in


def generate(
    workload: str,
    *,
    seed: int,
    model: str = "merged",
    side: str = "loopback",
    fault: str | None = None,
    parameters: Mapping[str, str] | None = None,
) -> Made:
    """Make a recording.

    ``model``: legacy, v1 or merged.  ``side``: loopback, guest or host.

    :raises UnknownNameError: no such workload, model, side, fault or parameter
    :raises UsageError: a parameter's value is none, or the fault is none of this model or side
    """
    for kind, name, known in (
        ("vsock scenario", workload, tuple(WORKLOADS)),
        ("model of lingering", model, tuple(LINGER_MODELS)),
        ("side", side, ALL_SIDES),
    ):
        if name not in known:
            raise UnknownNameError(kind, name, known)
    chosen = WORKLOADS[workload]
    values = chosen.values(parameters or {})
    host = Host(model, side, seed)
    if fault is not None:
        if fault not in FAULTS:
            raise UnknownNameError("fault", fault, FAULTS)
        wanted = FAULTS[fault]
        if model not in wanted.models or side not in wanted.sides:
            raise UsageError(f"{fault} does not happen in the {model} model's {side} recording")
        if not applicable(wanted, workload):
            raise UsageError(f"{fault} means nothing in {workload}")
        plant(host, wanted)
    chosen.run(host, **values)
    host.finish()
    calls = {f"{call}.{end}" for call in _CALLS for end in ("entered", "returned")}
    lingers = () if model == "legacy" else ("vsock.linger", "vsock.lingered")
    return Made(
        events=host.events,
        planted=host.planted,
        recorded=frozenset({*calls, *_PROBES, *lingers}),
        kernel=_KERNELS[model],
        hz=HZ,
        model=model,
    )
