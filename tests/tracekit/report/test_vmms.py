"""Who acts as a virtual machine monitor: counted by batches, as one would row by row."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.events import Event
from tracekit.events.syscall import IoctlEntered, IoctlReturned
from tracekit.events.vfio import VfioType1Ioctl
from tracekit.report.vmms import Vmm, find_vmms
from tracekit.store import open_trace, write_events

ACTS = {0xAE01: "KVM_CREATE_VM", 0xAE80: "KVM_RUN", 0x3B71: "DMA maps"}
COMMANDS = st.sampled_from([None, 0, 1, *ACTS])
CALLERS = {
    "pid": st.sampled_from([None, 0, 7, (1 << 31) - 1]),
    "tid": st.sampled_from([None, 0, 7, 8]),
    "comm": st.sampled_from([None, "qemu", "vcpu 0"]),
}


def of(
    kind: Callable[..., Event], **more: st.SearchStrategy[int | None]
) -> st.SearchStrategy[Event]:
    return st.builds(kind, ts_ns=st.just(0), **CALLERS, **more)


CALLS = st.one_of(
    of(IoctlEntered, cmd=COMMANDS, fd=st.just(3)),
    of(VfioType1Ioctl, cmd=COMMANDS),
    of(IoctlReturned, ret=st.just(0)),
)


def one_by_one(events: list[Event]) -> list[Vmm]:
    """What is to be found, in no order."""
    found: dict[tuple[int | None, int | None], Vmm] = {}
    seen: Counter[object] = Counter()
    for event in events:
        command = getattr(event, "cmd", None)
        if command not in ACTS:
            continue
        who = (event.pid, event.tid if event.pid is None else None)
        vmm = found.setdefault(who, Vmm(pid=who[0], tid=who[1], name=event.comm))
        seen[who, command, event.name_] += 1
        act = ACTS[command]
        vmm.acts[act] = max(vmm.acts.get(act, 0), seen[who, command, event.name_])
    return list(found.values())


def in_order(vmms: list[Vmm]) -> list[object]:
    return sorted((repr(v.pid), repr(v.tid), repr(v.name), sorted(v.acts.items())) for v in vmms)


@settings(deadline=None)
@given(st.lists(CALLS, max_size=40))
def test_callers_and_what_they_did_are_those_of_a_loop_over_all_rows(events: list[Event]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        write_events(path, events)
        found = find_vmms(open_trace(path))
    assert in_order(found) == in_order(one_by_one(events))
    busy = [sum(v.acts.values()) for v in found]
    assert busy == sorted(busy, reverse=True)
