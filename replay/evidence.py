"""The chain of events behind a violation, gathered afterwards and only for what is shown.

The engine remembers the calls that broke a rule, not the map or the change of attributes that
made the pages what they were: those are looked up in the trace, in one more pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from replay.checkpoint.continued import ContinuedTrace
from replay.checkpoint.pages import BEFORE, LastTouched
from replay.checkpoint.past import Asked
from replay.checks.violations import Violation, Violations, size_text
from replay.circumstances import Circumstances
from replay.engine.columns import integers, numbers
from tracekit.findings import EvidenceRow, Severity
from tracekit.store import Trace

__all__ = ("SHOWN", "by_event", "explain", "touch")

SHOWN = 3
"""Occurrences of one cause that get a chain."""

_TELLING = {
    "map": ("iommu.map", (0x3B71, 0x3B85, 0x3B8F)),
    "attr": ("kvm.attributes", (0x4020AED2,)),
}
"""By sort the kernel's own event, and the commands in which probes tell."""
_GONE = "   <-- lies before this trace"
_EVENT_COLUMNS = ("ts_ns", "tid", "comm", "event", "iova", "size")
_COLUMNS = ("seq", "event", "size")
_ADDRESS = {"map": "iova", "attr": "gpa"}
_ARGUMENTS = ("vfio.type1_ioctl", "iommufd.ioctl", "ioctl.arguments", "kvm.vm_ioctl")


@dataclass
class _Wanted:
    """The last event of a sort (``map``, ``attr``) that touches [lo, hi) before event
    ``before``."""

    sort: str
    lo: int
    hi: int
    before: int
    found: int = -1


def explain(
    violations: Violations, trace: ContinuedTrace, last_seq: int, last_ns: int
) -> dict[Asked, int]:
    """Give the first violations of each cause their chain, and all their names, in place.

    Returns what was looked up.
    """
    chosen: list[tuple[int, int]] = []
    counts: dict[tuple[Any, ...], int] = {}
    for kind, of_kind in violations.by_kind.items():
        for i, v in enumerate(of_kind):
            cause = (kind, v.severity, v.confidence, v.identity, v.errno)
            counts[cause] = counts.get(cause, 0) + 1
            if counts[cause] <= SHOWN and v.address is not None and v.size:
                chosen.append((kind, i))
    wanted: dict[tuple[int, int], dict[str, _Wanted]] = {}
    for kind, i in chosen:
        v = violations.by_kind[kind][i]
        assert v.address is not None
        assert v.size is not None
        lo, hi, before = v.address, v.address + v.size, v.seqs[0]
        of = wanted.setdefault((kind, i), {})
        if kind in (101, 102, 105, 106, 109, 111):
            of["map"] = _Wanted("map", lo, hi, before if before >= 0 else 1 << 62)
        if kind in (103, 104):
            of["attr"] = _Wanted("attr", lo, hi, before)
    asked = [w for of in wanted.values() for w in of.values()]
    _look_up(trace, asked)
    seqs = {s for key in chosen for s in violations.by_kind[key[0]][key[1]].seqs if s >= 0}
    seqs |= {w.found for of in wanted.values() for w in of.values() if w.found >= 0}
    firsts = {v.identity.vm.pid: v.seqs[0] for v in violations.all() if v.seqs[0] >= 0}
    rows = trace.rows(sorted(seqs | set(firsts.values())), _EVENT_COLUMNS)
    events = {row["seq"]: row for row in rows.to_pylist()}
    violations.name({row["tid"]: row["comm"] for row in events.values()})
    circumstances = Circumstances(trace) if chosen else None
    for key in chosen:
        kind, i = key
        v = violations.by_kind[kind][i]
        found = {sort: w.found for sort, w in wanted[key].items()}
        chain = list(_chain(v, found, events, last_seq, last_ns, trace.first))
        gone = [row for row in chain if row.text.endswith(_GONE)]  # of no time that is known
        told = replace(v, chain=tuple(row for row in chain if row not in gone))
        told = circumstances.added(told) if circumstances else told
        violations.by_kind[kind][i] = replace(told, chain=(*gone, *told.chain))
    return {(w.sort, w.lo, w.hi, w.before): w.found for w in asked}


def by_event(recorded: Mapping[str, int]) -> dict[str, bool]:
    """By sort, whether the kernel's own events tell; else probes do."""
    return {sort: bool(recorded.get(event)) for sort, (event, _) in _TELLING.items()}


def touch(touched: Sequence[tuple[str, int, LastTouched]], trace: Trace) -> None:
    """Take notice of every event of a sort before some event that a look-up could find."""
    sorts = {sort for sort, _, _ in touched}
    for batch in trace.batches(_columns(sorts, trace.manifest.events)):
        for sort, there in _sorts(batch, sorts, trace.manifest.events).items():
            rows = np.flatnonzero(there)
            if not len(rows):
                continue
            seq, address, end = _spans(batch, sort, rows)
            for of, before, last in touched:
                if of == sort and len(seq) and seq[0] < before:
                    early = seq < before
                    last.touch(address[early], end[early], seq[early])


def _look_up(trace: ContinuedTrace, wanted: list[_Wanted]) -> None:
    if not wanted:
        return
    _look_up_here(trace, wanted)
    for w in wanted:
        if w.found < 0:
            w.found = trace.past.look_up((w.sort, w.lo, w.hi, w.before))


def _look_up_here(trace: Trace, wanted: list[_Wanted]) -> None:
    limit = max(w.before for w in wanted)
    asked = {w.sort for w in wanted}
    for batch in trace.batches(_columns(asked, trace.manifest.events)):
        first = batch.column(0)[0].as_py() if batch.num_rows else 0
        if first >= limit:
            return
        sorts = _sorts(batch, asked, trace.manifest.events)
        for sort in asked:
            mine = [w for w in wanted if w.sort == sort and first < w.before]
            rows = np.flatnonzero(sorts[sort]) if mine else ()
            if not len(rows):
                continue
            seq, address, end = _spans(batch, sort, rows)
            for w in mine:
                hit = (address < w.hi) & (end > w.lo) & (seq < w.before)
                if hit.any():
                    w.found = int(seq[np.flatnonzero(hit)[-1]])


def _spans(batch: pa.RecordBatch, sort: str, rows: Any) -> tuple[Any, Any, Any]:
    """Of these rows the event numbers, the first bytes and the ends."""
    address = np.maximum(numbers(batch.column(_ADDRESS[sort]))[rows], 0)  # 0: it cannot be
    end = address + np.maximum(numbers(batch.column("size"))[rows], 0)
    return integers(batch.column("seq"))[rows], address, end


def _columns(sorts: Collection[str], recorded: Mapping[str, int]) -> list[str]:
    """What has to be read to look these up: reading is most of the work."""
    probed = any(not recorded.get(_TELLING[sort][0]) for sort in sorts)
    addresses = [column for sort, column in _ADDRESS.items() if sort in sorts]
    return [*_COLUMNS, *addresses, *(["cmd"] if probed else [])]


def _sorts(
    batch: pa.RecordBatch, sorts: Collection[str], recorded: Mapping[str, int]
) -> dict[str, Any]:
    """Which rows are maps and which are changes of attributes: the kernel's own events, else
    probes'."""
    words = batch.column("event").dictionary.to_pylist()
    indices = np.asarray(batch.column("event").indices)
    out = {}
    for sort in sorts:
        event, commands = _TELLING[sort]
        if recorded.get(event):
            out[sort] = indices == (words.index(event) if event in words else -1)
            continue
        probes = np.isin(indices, [words.index(w) for w in _ARGUMENTS if w in words])
        out[sort] = probes & np.isin(numbers(batch.column("cmd")), commands)
    return out


def _chain(
    v: Violation,
    found: dict[str, int],
    events: dict[int, Any],
    last_seq: int,
    last_ns: int,
    first: int,
) -> Iterable[EvidenceRow]:
    where = f"[{v.address:#x}, +{size_text(v.size)})"
    thread = f"tid {v.thread}"

    def row(seq: int, what: str, text: str) -> Iterable[EvidenceRow]:
        if seq >= 0 and seq in events:
            yield EvidenceRow(
                ts_ns=events[seq]["ts_ns"],
                seq=seq,
                what=what,
                text=text,
                address=v.address,
                size=v.size,
            )
        elif seq == BEFORE or 0 <= seq < first:
            known = seq if seq >= 0 else None
            yield EvidenceRow(ts_ns=None, seq=known, what=what, text=text + _GONE)

    def mapped(seq: int) -> Iterable[EvidenceRow]:
        event = events.get(seq)
        if event is None and (seq == BEFORE or 0 <= seq < first):
            yield from row(seq, "map", f"map      {where}")
        if event is not None and event["iova"] is not None and event["size"] is not None:
            text = f"map      [{event['iova']:#x}, +{size_text(event['size'])})"
            yield EvidenceRow(
                ts_ns=event["ts_ns"],
                seq=seq,
                what="map",
                text=text,
                address=event["iova"],
                size=event["size"],
            )

    def unmap_or_never(seq: int) -> Iterable[EvidenceRow]:
        if v.until_ns is not None and seq >= 0:
            text = f"unmap    {where}, {thread}"
            yield EvidenceRow(
                ts_ns=v.until_ns, seq=seq, what="unmap", text=text + "   <-- too late"
            )
        else:
            yield EvidenceRow(
                ts_ns=None,
                seq=None,
                what="unmap",
                text=f"unmap    {where}   <-- expected, never came",
            )
            yield EvidenceRow(ts_ns=last_ns, seq=last_seq, what="end", text="the trace ends")

    begin, effect, over, end = v.seqs
    ended = {
        "discard": ("discard", f"discard  the shared backing of {where}, {thread}"),
        "run": ("run", f"run      the vCPU enters the guest, {thread}"),
        "exit": ("exit", f"exit     {thread}"),
        "attributes": ("shared", f"convert  {where} again"),
        "map": ("map", f"map      {where} again"),
        "populate": ("populate", f"populate {where} again"),
    }
    if v.kind in (101, 102) or (v.kind == 111 and v.rule == "attributes"):
        yield from mapped(found.get("map", -1))
        if v.kind != 102:
            yield from row(
                effect if effect in events else begin, "private", f"private  {where}, {thread}"
            )
        else:
            yield from row(begin, "discard", f"discard  what backs {where}, {thread}")
        if v.rule in ended:
            what, text = ended[v.rule]
            yield from row(over, what, text)
        yield from unmap_or_never(end)
    elif v.kind == 104:
        yield from row(found.get("attr", -1), "private", f"private  a range that holds {where}")
        yield from row(
            effect if effect in events else begin, "shared", f"shared   {where}, {thread}"
        )
        if v.rule in ended:
            what, text = ended[v.rule]
            yield from row(over, what, text)
        if v.until_ns is not None and end in events:
            yield EvidenceRow(
                ts_ns=v.until_ns, seq=end, what="map", text=f"map      {where}   <-- too late"
            )
        else:
            yield EvidenceRow(
                ts_ns=None,
                seq=None,
                what="map",
                text=f"map      {where}   <-- expected, never came",
            )
            yield EvidenceRow(ts_ns=last_ns, seq=last_seq, what="end", text="the trace ends")
    elif v.kind == 108:
        yield from row(begin, "call", f"failed   a call of this conversion, errno {v.errno}")
        if effect in events:
            yield from row(effect, "run", f"goes on  {thread}, and leaves {where}")
        else:
            yield EvidenceRow(ts_ns=last_ns, seq=last_seq, what="end", text="the trace ends")
    elif v.kind == 110:
        yield from row(
            begin,
            "private" if v.severity is Severity.NOTE else "call",
            f"convert  a range that holds {where}",
        )
        what = "goes on " if v.severity is Severity.NOTE else "discard "
        yield from row(effect, "discard", f"{what} {where}, {thread}")
    elif v.kind == 103 or v.kind == 111:
        yield from row(found.get("attr", -1), "private", f"private  a range that holds {where}")
        yield from row(begin, "map", f"map      {where}, {thread}   <-- too early")
        if v.until_ns is not None and end in events:
            what = "unmap" if events[end]["event"].startswith("iommu") else "shared"
            yield EvidenceRow(ts_ns=v.until_ns, seq=end, what=what, text=f"{what:<8} {where}")
        elif v.until_ns is None:
            yield EvidenceRow(ts_ns=last_ns, seq=last_seq, what="end", text="the trace ends")
    elif v.kind in (105, 106, 107):
        yield from mapped(found.get("map", -1))
        call = "unmap" if v.kind == 105 else "map"
        yield from row(begin, call, f"{call:<8} {where}, {thread}")
        result = f"returned -{v.errno}" if v.errno else "returned 0"
        yield from row(effect, "call", f"{call:<8} {result}")
    elif v.kind == 109:
        yield from mapped(found.get("map", -1))
        yield EvidenceRow(
            ts_ns=v.from_ns,
            seq=begin if begin >= 0 else None,
            what="exit",
            text="the container ends",
        )
        yield from unmap_or_never(-1)
    elif v.kind == 201:
        yield from v.chain
    elif v.kind == 202:
        yield from row(begin, "call", f"convert  {where}, {thread}")
        result = f"returned -{v.errno}" if v.errno else "returned 0"
        yield from row(effect, "call", f"convert  {result}")
