"""Conversions through ``replay.run``, the function behind the command: the workloads of the peers.

Usage: python -m benchmarks.conversions [--full] [--conversions N] [WORKLOAD...]

A guest of 16 GiB in a recording of a host that converts in place, with one type1 container of two
IOMMU domains.  To private: the unmap, then the attribute; to shared: the attribute, then the map.
Each is a system call with its probes, tracepoints and its return, some 14 events a conversion.

(a)   random single pages             (a')  the same, and half of the pages were shared before
(b)   random 2 MiB                    (c)   as at boot: 4 KiB to 1 GiB, each size as often
(d)   one page to and fro, all others private

Prints conversions, events and pages per second of CPU (user and system, the median of three runs in
one process, after one that pays for imports and compiled code), with TK101 to TK111 judging (a host
that converts in place discards nothing, so TK102 and TK110 find nothing to judge; nor does TK109,
because the process lives on).  In each recording one unmap comes too late: every run must find it,
and nothing else.  Beside it, as limits that no command reaches: the compiled kernel alone, over
arrays that are in memory; and the plain-Python models with two listeners that count, on the first
conversions.

(a), (a') and (d) are a tenth of what the peers were given; all of it with --full.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import numpy.typing as npt

from benchmarks.figures import say

if TYPE_CHECKING:
    import pyarrow as pa

I64 = npt.NDArray[np.int64]
PAGE = 4096
GUEST_PAGES = (16 << 30) // PAGE
DOMAINS = 2
MOST_ENTRIES = 50_000
"""Mapped at once: fewer than TK107 warns of."""
CODES = tuple(f"TK{number}" for number in range(101, 112))
RUNS = 3
BATCH_CONVERSIONS = 4096
STRIPPED_BATCHES = 32
PLANTED = {"TK101": 1, "TK111": 1}
"""A late unmap, and the same of a host that converts in place."""
EARLY = 1000
"""At most so many conversions to private come before it, so that every measurement sees it."""
MODEL_CONVERSIONS = 20_000


@dataclass(frozen=True)
class Buffers:
    """Of each conversion: its first page, its pages (a power of two), and whether to private."""

    first: I64
    pages: I64
    private: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.first)


def single_pages(count: int, chance: np.random.Generator) -> Buffers:
    """Random pages: so many as may be mapped at once, then the same back in another order."""
    first = [p for some in rounds(count // 2, chance) for p in (some, chance.permutation(some))]
    return to_and_fro(np.concatenate(first), np.ones(sum(map(len, first)), np.int64))


def half_shared(count: int, chance: np.random.Generator) -> Buffers:
    """The same, where every second of the pages was shared before."""
    first = [
        p
        for some in rounds(2 * count // 5, chance)
        for p in (some[::2], chance.permutation(some), chance.permutation(some))
    ]
    return to_and_fro(np.concatenate(first), np.ones(sum(map(len, first)), np.int64))


def rounds(count: int, chance: np.random.Generator) -> Iterator[I64]:
    """So many random pages, in parts of at most :data:`MOST_ENTRIES`."""
    for at in range(0, count, MOST_ENTRIES):
        yield chance.integers(0, GUEST_PAGES, min(MOST_ENTRIES, count - at))


def large_pages(count: int, chance: np.random.Generator) -> Buffers:
    """Random 2 MiB."""
    return to_and_fro(chance.integers(0, GUEST_PAGES // 512, count) * 512, np.full(count, 512))


def boot_like(count: int, chance: np.random.Generator) -> Buffers:
    """Buffers of each size from 4 KiB to 1 GiB, eight of each."""
    sizes = np.repeat(1 << np.arange(18, -1, -1), 8)
    firsts = np.cumsum(sizes) - sizes
    picked = chance.integers(0, len(sizes), count)
    return to_and_fro(firsts[picked], sizes[picked])


def one_page(count: int, chance: np.random.Generator) -> Buffers:
    """The same page each time."""
    return to_and_fro(np.full(count, GUEST_PAGES // 2), np.ones(count, np.int64))


def to_and_fro(first: I64, pages: I64) -> Buffers:
    """The first conversion of a buffer is to shared, its second back, and so on."""
    order = np.argsort(first, kind="stable")
    ordered = first[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    rank = np.arange(len(first)) - np.repeat(begins, np.diff(np.append(begins, len(first))))
    private = np.empty(len(first), np.bool_)
    private[order] = rank % 2 == 1
    return Buffers(first, pages, private)


@dataclass(frozen=True)
class Workload:
    """``count``: how many conversions; ``full``: as many as the peers were given.

    ``least``, ``stretch``: the targets, in millions a second of pages or of conversions.
    """

    title: str
    draw: Callable[[int, np.random.Generator], Buffers]
    count: int
    full: int
    least: float | None = None
    stretch: float | None = None
    in_pages: bool = False
    limit: float | None = None


WORKLOADS = {
    "a": Workload("random 4 KiB", single_pages, 200_000, 2_000_000, 12, None, False, 34),
    "a'": Workload("random 4 KiB, half shared before", half_shared, 200_000, 2_000_000),
    "b": Workload("random 2 MiB", large_pages, 200_000, 200_000, 3, 5),
    "c": Workload("boot-like", boot_like, 5_000, 5_000, 400, 1000, True),
    "d": Workload("one page to and fro", one_page, 200_000, 2_000_000, 12, None, False, 34),
}


def write(path: Path, buffers: Buffers) -> int:
    """Write the recording of these conversions, one unmap late; its number of events."""
    from tracekit.store import Manifest, TraceWriter

    with TraceWriter(path) as writer:
        for batch in batches(buffers):
            writer.write(batch)
        return writer.finish(Manifest(host="synthetic", kernel="7.3.4-synthetic", cpus=1)).rows


def batches(buffers: Buffers) -> Iterator[pa.RecordBatch]:
    """The events, some ten thousand at a time."""
    from tracekit.synth.calls import Call, Op
    from tracekit.synth.tape import Pieces, Tape
    from tracekit.synth.vmm import BASE, Region, Vmm

    tape, chance = Tape(guest_ns=0), np.random.default_rng(1)
    vmm = Vmm(domains=DOMAINS, regions=(Region(size=GUEST_PAGES * PAGE),))
    thread = tape.thread(vmm, vmm.tid, vmm.comm, 0)
    size = GUEST_PAGES * PAGE
    steps = [Op.CREATE_VM, Op.CREATE_GMEM, Op.MMAP, Op.SLOT, Op.OPEN, Op.ATTACH]
    boot = [Call(step, BASE, size) for step in steps]
    boot.append(Call(Op.ATTRIBUTE, BASE, size, value=8, parts=((BASE, size),)))

    def pair(pages: int, private: bool, *, late: bool = False) -> npt.NDArray[np.int32]:
        size = pages * PAGE
        attribute = Call(Op.ATTRIBUTE, BASE, size, 8 * private, parts=((BASE, size),))
        unmap = Call(Op.UNMAP, BASE, size, int(late), parts=((BASE, size),))
        calls = [unmap, attribute] if private else [attribute, Call(Op.MAP, BASE, size)]
        return tape.pieces(calls[::-1] if late else calls, thread).numbers

    sizes, of_size = np.unique(buffers.pages, return_inverse=True)
    shapes = np.array([pair(n, private) for n in sizes.tolist() for private in (False, True)])
    numbers = shapes[2 * of_size + buffers.private]
    late = int(np.flatnonzero(buffers.private)[min(EARLY, int(buffers.private.sum()) // 10)])
    numbers[late] = pair(int(buffers.pages[late]), True, late=True)
    shifts = np.repeat(BASE + buffers.first * PAGE, 2)
    now = 1_000_000_000
    every = [tape.pieces(boot, thread)]
    for at in range(0, len(numbers), BATCH_CONVERSIONS):
        some = slice(2 * at, 2 * (at + BATCH_CONVERSIONS))
        every.append(Pieces(numbers.reshape(-1)[some], shifts[some]))
    for pieces in every:
        events, moved = tape.expand(pieces)
        ts = tape.times(events, now, chance)
        now = int(ts[-1])
        yield tape.batch(ts, events, moved, np.zeros(len(ts), np.int64))


def replayed(path: Path, buffers: Buffers) -> float:
    """CPU seconds of a run; each must find what was planted, and judge every conversion."""
    from replay import run
    from tracekit.store import open_trace

    seconds = []
    for _ in range(1 + RUNS):
        trace = open_trace(path)
        start = time.process_time()
        result = run(trace, only=CODES, in_place=True, compiled=True)
        seconds.append(time.process_time() - start)
        found = {o.code: sum(f.count for f in o.findings) for o in result.outcomes if o.findings}
        assert found == PLANTED, found
        decided = next(o.judged.decided for o in result.outcomes if o.code == "TK101")
        assert decided >= int(buffers.private.sum()), "a conversion was not judged"
    return statistics.median(seconds[1:])


class InMemory:
    """A stream whose arrays were made before; the engine's own makes them batch by batch."""

    def __init__(self, made: list[pa.RecordBatch]) -> None:
        from replay.engine.stream import EventStream

        self._stream = EventStream(compiled=True)
        self._arrays = [self._stream.batch(batch).copy() for batch in made]
        self._left = iter(self._arrays)
        self.tids, self.last_ts = self._stream.tids, self._stream.last_ts

    def batch(self, batch: pa.RecordBatch) -> Any:
        """The next array."""
        return next(self._left)


def stripped(path: Path) -> tuple[int, float]:
    """Conversions, and CPU seconds of the compiled kernel for them; none is undone by reading."""
    from itertools import islice

    import pyarrow.compute as pc

    from replay.engine.engine import Engine
    from replay.engine.kernel import layout as L
    from replay.engine.stream import COLUMNS
    from tracekit.store import open_trace

    trace = open_trace(path)
    made = list(islice(trace.batches(COLUMNS), STRIPPED_BATCHES))
    count = sum(pc.sum(pc.equal(b["event"].cast("string"), "kvm.attributes")).as_py() for b in made)
    seconds = []
    for _ in range(1 + RUNS):
        engine = Engine(events=trace.manifest.events, in_place=True, compiled=True)
        engine.stream = InMemory(made)  # type: ignore[assignment]
        start = time.process_time()
        for batch in made:
            engine.feed(batch)
        seconds.append(time.process_time() - start)
        kinds = engine.finish().records[:, L.W_KIND].tolist()
        assert {101, 111} <= set(kinds), "the kernel alone did not find what was planted"
    return count - 1, statistics.median(seconds[1:])  # the slot was made private first


def modelled(buffers: Buffers, generation: str) -> tuple[int, float]:
    """Conversions, and CPU seconds of a model in plain Python for them."""
    from benchmarks.models import GENERATIONS

    change, counter = GENERATIONS[generation](GUEST_PAGES * PAGE, False)
    some = slice(0, MODEL_CONVERSIONS)
    first, pages = (buffers.first[some] * PAGE).tolist(), (buffers.pages[some] * PAGE).tolist()
    start = time.process_time()
    done = 0
    for at, size, private in zip(first, pages, buffers.private[some].tolist(), strict=True):
        change(at, size, private)
        done += 1
        if done % 16 == 0 and time.process_time() - start > 2:  # large ranges are slow
            break
    seconds = time.process_time() - start
    assert counter.count == done, "a listener was not told"
    return done, seconds


def benchmark(letter: str, conversions: int | None, folder: Path, *, full: bool) -> None:
    """One workload: print and say its figures."""
    work = WORKLOADS[letter]
    count = conversions or (work.full if full else work.count)
    buffers = work.draw(count, np.random.default_rng(7))
    if not buffers.private.any():
        raise SystemExit(f"error: ({letter}) goes to private nowhere: more --conversions")
    path = folder / "conversions.parquet"
    events = write(path, buffers)
    name = f"({letter}) {work.title}, {len(buffers):,} conversions"
    print(f"{name}, {events:,} events")
    unit = "M pages/s" if work.in_pages else "M conversions/s"

    def told(what: str, some: int, cpu: float, *, runs: int = RUNS, shown: bool = True) -> float:
        pages = int(buffers.pages[:some].sum())
        each = f"{some / cpu / 1e6:.3f} M conversions/s, {pages / cpu / 1e6:.1f} M pages/s"
        print(f"  {what:<30} {each}, of {some:,} in {cpu:.2f} s of CPU", flush=True)
        speed = (pages if work.in_pages else some) / cpu / 1e6
        least, stretch = (work.least, work.stretch) if what == "replay" else (None, None)
        stretch = work.limit if what.startswith("limit") else stretch
        said = f"{name}: {what}"
        say(said, speed, unit, runs=runs, least=least, stretch=stretch, shown=shown)
        return cpu

    cpu = told("replay", len(buffers), replayed(path, buffers))
    say(f"{name}: replay", events / cpu / 1e6, "M events/s", runs=RUNS)
    told("limit, the kernel alone", *stripped(path))
    for generation in ("v4", "merged"):
        what = f"plain-Python model, {generation}"
        told(what, *modelled(buffers, generation), runs=1, shown=generation == "merged")


def main() -> None:
    """The workloads that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=" ".join(WORKLOADS))
    parser.add_argument("--full", action="store_true", help="as many as the peers were given")
    parser.add_argument("--conversions", type=int, help="of each workload")
    options = parser.parse_args()
    for letter in options.workloads or WORKLOADS:
        if letter not in WORKLOADS:
            parser.error(f"no such workload: {letter}")
        with tempfile.TemporaryDirectory() as folder:
            benchmark(letter, options.conversions, Path(folder), full=options.full)


if __name__ == "__main__":
    main()
