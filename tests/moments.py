"""Calls of two threads laid over each other, and what the engine and its oracle say of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import reference_engine
from trace_language import trace_of

from replay.engine.engine import judge
from replay.engine.kernel import layout as L
from replay.engine.stream import COLUMNS
from tracekit.ftrace.columns import ARROW_SCHEMA

__all__ = ("ERRORS_AND_DOUBTS", "Call", "lay_out")

Row = dict[str, Any]

BEFORE = 10_000
"""Microseconds that what came before takes."""
GRACE_NS = 3_600_000_000_000
"""An hour: rule 4 says how long, not in which order."""
RANGE = "0x0+64K"
WRITTEN = {
    "private": f"private {RANGE}",
    "shared": f"shared {RANGE}",
    "map": f"map {RANGE}",
    "unmap": f"unmap {RANGE}",
    "punch": f"punch {RANGE}",
    "run": "run",
}
PREPARED = {
    "map 0x0+64K": ("map 0x0+64K",),
    "private 0x0+64K": ("private 0x0+64K",),
    "cover 0x0+64K": ("map 0x0+64K", "unmap 0x0+64K", "private 0x0+64K", "punch 0x0+64K", "run"),
}
FIRST_EVENT = {
    "private": "kvm.attributes_post",
    "shared": "kvm.attributes_post",
    "map": "iommu.map",
}
"""The event from which on a call can have had its effect (others: its entry), until its callee
returned."""
POINTS = ("run", "punch")
"""Calls whose entry alone counts: it ends a conversion or a request, or begins one."""


class Call(NamedTuple):
    """One call: its thread, its verb, and microseconds of its entry and its return."""

    thread: str
    verb: str
    enter: int
    leave: int


def lay_out(before: str, calls: list[Call]) -> tuple[list[Row], dict[str, list[int]]]:
    """The rows of a trace, and for each verb the moments at which it can have had its effect.

    ``over`` is the moment that ends the first thread's conversion or request.
    """
    lines = ["0us vmm create-vm", "1us vmm memory", "2us vmm set-iommu"]
    lines += [f"{100 + 100 * i}us vmm {line}" for i, line in enumerate(PREPARED[before])]
    for call in calls:
        # A nanosecond apart: at equal times of two threads nothing is before anything.
        apart = apart_of(call)
        lines.append(
            f"{BEFORE + call.enter}{apart}us {call.thread} {WRITTEN[call.verb]}"
            f" for={call.leave - call.enter}us"
        )
    lines.append("900ms vmm2 log")
    rows = trace_of("\n".join(lines))
    times: dict[str, list[int]] = {}
    for call in calls:
        tid = 100 if call.thread == "vmm" else 101
        enter, leave = ((BEFORE + t) * 1000 + bool(apart_of(call)) for t in call[2:])
        mine = [r for r in rows if r["tid"] == tid and enter <= r["ts_ns"] <= leave]
        began = [r["ts_ns"] for r in mine if r["event"] == FIRST_EVENT.get(call.verb)] or [enter]
        done = [r["ts_ns"] for r in mine if r["event"].endswith("ioctl_returned")] or [leave]
        name = (
            "over"
            if call.verb in POINTS and call is calls_of(calls, call.thread)[-1]
            else call.verb
        )
        times[name] = [enter] if call.verb in POINTS else within(began[0], done[0])
    return rows, times


def apart_of(call: Call) -> str:
    """The fraction of a microsecond that the second thread's calls are late."""
    return ".001" if call.thread == "vmm2" else ""


def within(first: int, last: int) -> list[int]:
    """Some moments of an interval, its ends among them."""
    return sorted({first + (last - first) * i // 8 for i in range(9)})


def calls_of(calls: list[Call], thread: str) -> list[Call]:
    """The thread's calls, in order."""
    return [c for c in calls if c.thread == thread]


def of_the_engine(rows: list[Row]) -> tuple[set[str], set[str]]:
    """Codes that the engine calls errors, and those that it calls possible."""
    columns = {
        name: pa.array([r[name] for r in rows], ARROW_SCHEMA.field(name).type)
        for name in COLUMNS
        if name != "seq"
    }
    columns["seq"] = pa.array([r["seq"] for r in rows], pa.int64())
    batch = pa.RecordBatch.from_pydict({name: columns[name] for name in COLUMNS})
    events: dict[str, int] = {}
    for row in rows:
        events[row["event"]] = events.get(row["event"], 0) + 1
    found = judge([batch], events=events, grace_ns=GRACE_NS, compiled=False)
    errors, doubts = set(), set()
    for record in found.records:
        code = f"TK{record[L.W_KIND]}"
        if record[L.W_SEV] == L.ERROR:
            errors.add(code)
        elif record[L.W_SEV] == L.WARNING and record[L.W_CONF] == L.POSSIBLE:
            doubts.add(code)
    return errors, doubts


def of_the_oracle(rows: list[Row]) -> tuple[set[str], set[str]]:
    """The same of the oracle."""
    found = reference_engine.replay(rows, GRACE_NS).violations
    errors = {v.code for v in found if v.severity == "error"}
    doubts = {v.code for v in found if (v.severity, v.confidence) == ("warning", "possible")}
    return errors, doubts


ERRORS_AND_DOUBTS: dict[str, Callable[[list[Row]], tuple[set[str], set[str]]]] = {
    "engine": of_the_engine,
    "oracle": of_the_oracle,
}
