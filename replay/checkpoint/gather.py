"""At the end of a trace: the rows of it that evidence may need when it is gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from replay.checkpoint.continued import ContinuedTrace
from replay.checkpoint.pages import LastTouched
from replay.checkpoint.past import Asked, Past, first_of
from replay.checks.violations import Violations
from replay.circumstances import faults_of, maps_of, slots_of
from replay.engine.kept import State
from replay.engine.kernel import layout as L
from replay.evidence import touch
from replay.linger.kernel import layout as S

__all__ = ("gathered",)

MOST_CIRCUMSTANCES = 4096
"""Faults, read-only slots and maps of these that are kept, of each."""
MOST_HELD = 64
"""Things in hand whose pages were touched again since, for which the trace is read once more."""

_THREADS = (
    L.T_ENTER_SEQ, L.T_COMMIT_SEQ, L.T_FIRST_MAP_SEQ, L.T_CV_SEQ, L.T_CV_FAILED_SEQ,
)  # fmt: skip
_CALLS = (L.OP_ATTR, L.OP_MAP, L.OP_MAP_FILE, L.OP_UNMAP)
_END = 1 << 62
_WATCHES = (L.W_SEQ0, L.W_SEQ1, L.W_SEQ2, L.W_SEQ3)


def gathered(
    trace: ContinuedTrace,
    parts: Mapping[str, State],
    violations: Violations,
    found: Mapping[Asked, int],
) -> Past:
    """What is kept beside the states of ``parts``; ``found``: what was looked up for evidence."""
    past = trace.past
    before = past.touched
    past.touched = {sort: last.within() for sort, last in before.items()}
    touch([(sort, _END, last) for sort, last in past.touched.items()], trace)
    past.held = _held(trace, before, _in_hand(parts["engine"]))
    needed = (
        _open(parts),
        (seq for v in violations.all() for seq in v.seqs),
        _sockets(parts.get("linger")),
        found.values(),
        _circumstances(trace),
        *(last.seqs.tolist() for last in (*past.held.values(), *past.touched.values())),
    )
    past.keep(found, trace.rows(sorted(first_of(needed))))
    return past


def _open(parts: Mapping[str, State]) -> Iterator[int]:
    """What the engine has in hand."""
    engine = parts["engine"]
    yield from _numbers(engine["W"][:, _WATCHES])
    yield from _numbers(engine["T"][:, _THREADS])
    yield from _numbers(engine["S"][: int(engine["g"][L.G_SPACES]), [L.S_HIGH_SEQ]])


def _held(
    trace: ContinuedTrace, before: Mapping[str, LastTouched], in_hand: Iterator[Asked]
) -> dict[tuple[str, int], LastTouched]:
    """What is in hand and was touched again since it began: who had touched it before."""
    past, ranges = trace.past, dict[tuple[str, int], tuple[int, int]]()
    for sort, lo, hi, seq in in_hand:
        if past.touched[sort].last_in(lo, hi) >= seq and len(ranges) < MOST_HELD:
            least, most = ranges.get((sort, seq), (lo, hi))
            ranges[sort, seq] = min(lo, least), max(hi, most)
    held = {}
    fresh = []
    for (sort, seq), (lo, hi) in ranges.items():
        known = past.held.get((sort, seq))
        if known is None:
            known = before[sort].within(lo, hi)
            fresh.append((sort, seq, known))
        held[sort, seq] = known
    if fresh:
        touch(fresh, trace)
    return held


def _in_hand(engine: State) -> Iterator[Asked]:
    """What would be looked up if what the engine has in hand became a violation."""
    T, W = engine["T"], engine["W"]
    calls = (T[:, L.T_STATE] == L.STATE_FRAME) & np.isin(T[:, L.T_OP], _CALLS)
    for start, length in ((L.T_ADDR, L.T_SIZE), (L.T_TP_ADDR, L.T_TP_SIZE)):
        rows = T[calls & (T[:, start] >= 0) & (T[:, length] > 0) & (T[:, length] <= 1 << 60)]
        for lo, size, before in rows[:, (start, length, L.T_ENTER_SEQ)].tolist():
            yield "map", lo, lo + size, before
            yield "attr", lo, lo + size, before
    active = W[: int(engine["g"][L.G_ACTIVE]), L.ACTIVE]
    for kind, lo, hi, before in W[active][:, (L.W_KIND, L.W_P0, L.W_P1, L.W_SEQ0)].tolist():
        yield "attr" if kind in (103, 104) else "map", lo << 12, hi << 12, before


def _sockets(linger: State | None) -> Iterator[int]:
    """Where closes begin: there is the name of the program."""
    if linger is not None:
        engine = linger["engine"]
        for rows in (linger["judge"]["rows"], engine["Q"], engine["E"], linger["records"]["held"]):
            yield from _numbers(rows[:, S.R_SEQ0])


def _numbers(array: Any) -> Iterator[int]:
    yield from np.unique(array[array >= 0]).tolist()


def _circumstances(trace: ContinuedTrace) -> Iterator[int]:
    """Faults of devices, read-only slots, and maps of these."""
    events = trace.manifest.events
    if events.get("iommu.fault"):
        yield from faults_of(trace).column("seq").to_pylist()[:MOST_CIRCUMSTANCES]
    if not (events.get("kvm.vm_ioctl") and events.get("vfio.type1_ioctl")):
        return
    slots = slots_of(trace).slice(0, MOST_CIRCUMSTANCES)
    yield from slots.column("seq").to_pylist()
    if not len(slots):
        return
    maps = maps_of(trace)
    lo = slots.column("gpa").to_numpy().astype(np.int64)
    hi = lo + slots.column("size").to_numpy().astype(np.int64)
    a = maps.column("iova").to_numpy().astype(np.int64)
    b = a + maps.column("size").to_numpy().astype(np.int64)
    inside = np.zeros(len(a), bool)
    for first, end in {*zip(lo.tolist(), hi.tolist(), strict=True)}:
        inside |= (a < end) & (b > first)
    yield from maps.column("seq").to_numpy()[inside][:MOST_CIRCUMSTANCES].tolist()
