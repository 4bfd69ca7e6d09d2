"""When what happens happens: threads of a phase side by side, their events merged into batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from tracekit.synth.tape import I64, Thread
from tracekit.synth.truth import Violation
from tracekit.synth.world import BATCH_EVENTS, Block, Phase, World

__all__ = ("play",)


@dataclass
class _Running:
    """A thread in a phase: what it still does, its clock, and its events that wait.

    While it has a block whose requests are still to be placed, ``ts`` are the block's times without
    waiting for QEMU's lock, and ``waits`` is how long each request placed so far waited, in all.
    """

    thread: Thread
    blocks: Iterator[Block]
    clock: int
    chance: np.random.Generator
    locks: bool = False
    waiting: list[tuple[I64, I64, I64]] = field(default_factory=list)
    done: bool = False
    block: Block | None = None
    ts: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    events: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    shifts: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    begins: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    spans: list[tuple[int, int]] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)

    @property
    def earliest(self) -> int:
        """No event comes from it any more that is earlier."""
        if self.done:
            return 1 << 62
        return self.clock if self.block is None else int(self.ts[0])


def play(
    world: World, phases: Iterator[Phase], start_ns: int = 1_000_000_000
) -> Iterator[pa.RecordBatch]:
    """Place what happens in time: batches for the trace's writer, in time order.

    Each thread has its own random numbers, so that what one does changes no other's times.
    Conversions of one process wait for each other, as QEMU's big lock makes them; that a vCPU comes
    back from its guest, and how long it is there, does not.
    """
    now = start_ns
    chances: dict[int, np.random.Generator] = {}
    for phase in phases:
        running = []
        for thread, blocks in phase.items():
            if thread.index not in chances:
                seeds = np.random.SeedSequence((world.seed, thread.index))
                chances[thread.index] = np.random.Generator(np.random.PCG64(seeds))
            locks = sum(t.vmm is thread.vmm for t in phase) > 1
            running.append(_Running(thread, blocks, now, chances[thread.index], locks))
        yield from _phase(world, running)
        now = max((r.clock for r in running), default=now)


def _phase(world: World, running: list[_Running]) -> Iterator[pa.RecordBatch]:
    held = 0
    free: dict[int, int] = {}  # by process: when its lock is
    while any(not r.done for r in running):
        behind = min((r for r in running if not r.done), key=lambda r: r.clock)
        if behind.block is None:
            _load(world, behind)
        elif len(behind.waits) < len(behind.spans):
            _wait(behind, free)
        if behind.block is None or len(behind.waits) < len(behind.spans):
            continue
        held += _finish(world, behind)
        if held >= BATCH_EVENTS:
            for batch in _until(world, running, min(r.earliest for r in running)):
                held -= batch.num_rows
                yield batch
    yield from _until(world, running, 1 << 62)


def _load(world: World, one: _Running) -> None:
    """Take the thread's next block."""
    one.block = next(one.blocks, None)
    if one.block is None:
        one.done = True
        return
    pieces = one.block.pieces
    one.events, one.shifts = world.tape.expand(pieces)
    one.ts = world.tape.times(one.events, one.clock, one.chance)
    one.spans, one.waits = [], []
    if not one.locks:
        return
    # A request: from the return out of the guest to the last event before going back.
    left, entered = world.tape.crossings(one.events)
    assert len(left) <= len(entered)
    one.begins = left + 1
    ends = entered[np.searchsorted(entered, left)] - 1
    one.spans = list(zip(one.ts[left].tolist(), one.ts[ends].tolist(), strict=True))
    if one.spans:
        one.clock = one.spans[0][0]


def _wait(one: _Running, free: dict[int, int]) -> None:
    """The next request waits until the lock is free, and holds it."""
    process = one.thread.vmm.tid
    waited = one.waits[-1] if one.waits else 0
    begin, end = one.spans[len(one.waits)]
    waited += max(0, free.get(process, 0) - (begin + waited))
    one.waits.append(waited)
    free[process] = end + waited + 1
    if len(one.waits) < len(one.spans):
        one.clock = one.spans[len(one.waits)][0] + waited


def _finish(world: World, one: _Running) -> int:
    """The block's times are known: its events wait to be merged; how many they are."""
    block = one.block
    assert block is not None
    if one.waits:
        counts = np.diff(np.concatenate([one.begins, [len(one.ts)]]))
        one.ts[one.begins[0] :] += np.repeat(np.array(one.waits, np.int64), counts)
    if block.planted:
        assert block.machine is not None
        world.violations += _placed(world, block, one.ts)
    one.clock = int(one.ts[-1])
    one.waiting.append((one.ts, one.events, one.shifts))
    one.block = None
    world.made += len(one.ts)
    return len(one.ts)


def _placed(world: World, block: Block, ts: I64) -> Iterator[Violation]:
    ends = np.cumsum(world.tape.lengths(block.pieces.numbers))
    begins = np.concatenate([[0], block.pieces.calls[1:], [len(block.pieces)]])

    def bracket(call: int) -> tuple[int, int]:
        first, last = int(begins[call]), int(begins[call + 1]) - 1
        start = int(ends[first - 1]) if first else 0
        return int(ts[start]), int(ts[ends[last] - 1])

    assert block.machine is not None
    assert world.struck is not None
    for one in block.planted:
        yield Violation(
            code=one.code,
            severity=one.severity,
            kind=world.struck.name,
            vm=block.machine.vmm.tid,
            space=one.space,
            gpa=one.gpa,
            iova=one.gpa,
            size=one.size,
            from_ns=bracket(one.since),
            until_ns=None if one.until is None else bracket(one.until),
        )


def _until(world: World, running: list[_Running], horizon: int) -> Iterator[pa.RecordBatch]:
    """All waiting events before ``horizon``, merged."""
    taken: list[tuple[I64, I64, I64, int]] = []
    for one in running:
        kept = []
        for ts, events, shifts in one.waiting:
            cut = int(np.searchsorted(ts, horizon))
            if cut:
                taken.append((ts[:cut], events[:cut], shifts[:cut], one.thread.index))
            if cut < len(ts):
                kept.append((ts[cut:], events[cut:], shifts[cut:]))
        one.waiting = kept
    if not taken:
        return
    ts = np.concatenate([t[0] for t in taken])
    events = np.concatenate([t[1] for t in taken])
    shifts = np.concatenate([t[2] for t in taken])
    threads = np.repeat([t[3] for t in taken], [len(t[0]) for t in taken])
    if len(running) > 1:
        order = np.argsort(ts, kind="stable")
        ts, events, shifts, threads = ts[order], events[order], shifts[order], threads[order]
    for at in range(0, len(ts), BATCH_EVENTS):
        part = slice(at, at + BATCH_EVENTS)
        yield world.tape.batch(ts[part], events[part], shifts[part], threads[part])
