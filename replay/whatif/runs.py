"""A world by arithmetic: runs of equal entries in place of entries, for guests of any size.

What the models count page by page is counted here a run at a time, for conversions of one region
through one container.  It ends at the first failure: what a generation does about it is the models'
business.  tests/replay/whatif compares both on random requests in every world.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from replay.whatif.counts import Counts, Failure
from replay.whatif.machine import KVM_MEMSLOTS
from replay.whatif.requests import Kind, Request
from replay.whatif.world import UNLIMITED, Granularity, Iommu, World

__all__ = ("count", "device_check")

PAGE = 4096


class _Run(NamedTuple):
    """Entries of ``each`` bytes, one behind the other, in [start, end); the last may be shorter."""

    start: int
    end: int
    each: int

    @property
    def entries(self) -> int:
        return -(-(self.end - self.start) // self.each)


def device_check(size: int, world: World) -> int:
    """How many DMA mappings QEMU 10.1 and later wants to have free before it takes a device, for a
    region of ``size`` bytes; 0: it does not look (v4, iommufd)."""
    if world.generation == "v4" or world.iommu is Iommu.IOMMUFD:
        return 0
    pages = size // PAGE if world.granularity is Granularity.PAGE else 1
    return pages + KVM_MEMSLOTS - 1


def count(size: int, requests: Sequence[Request], world: World) -> Counts:
    """Count conversions in a region of ``size`` bytes at address 0, all private at first."""
    arithmetic = _Arithmetic(world)
    needed = device_check(size, world)
    if needed > arithmetic.limit:
        arithmetic.counts.failures += 1
        arithmetic.counts.failure = Failure(
            request=-1,
            ts_ns=requests[0].ts_ns if requests else 0,
            call="device",
            address=0,
            size=size,
            errno="",
            broken=f"QEMU refuses the device: {needed} DMA mappings might be needed,"
            f" {arithmetic.limit} are available",
        )
        return arithmetic.counts
    for number, request in enumerate(requests):
        arithmetic.number, arithmetic.ts_ns = number, request.ts_ns
        if not arithmetic.ask(request):
            break
        arithmetic.counts.tick(request.ts_ns)
    return arithmetic.counts


class _Arithmetic:
    """The runs of entries; while nothing fails, what they cover is what is shared."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.limit = UNLIMITED if world.iommu is Iommu.IOMMUFD else world.dma_entry_limit
        self.counts = Counts()
        self.number = self.ts_ns = 0
        self._runs: list[_Run] = []

    def ask(self, request: Request) -> bool:
        """One request, or a series of adjacent ones; False: something failed."""
        lo, hi = request.gpa, request.gpa + request.size
        each = request.each or request.size
        parts = self._parts(lo, hi)
        covered = sum(b - a for a, b in parts)
        private = request.kind is Kind.TO_PRIVATE
        if request.each and not self._is_plain(request, covered):
            return all(self.ask(piece) for piece in request.pieces())
        self.counts.conversions += -(-request.size // each)
        if private and covered and self._world.in_place and self._world.generation != "v4":
            self._fail("attribute", lo, min(each, hi - lo), "EBUSY")  # the attribute comes first
            return False
        changed = covered if private else request.size - covered
        if not self._world.in_place:
            self.counts.doubled = max(self.counts.doubled, min(each, changed))
        if private:
            if covered == hi - lo:
                done = self._unmap(lo, hi)
                self.counts.unmaps += -(-request.size // each) - 1
                return done
            return all(self._unmap_blocks(a, b) for a, b in parts)
        if not covered:
            return self._map(lo, hi, each)
        if covered == hi - lo:
            return True
        at = lo
        for a, b in [*parts, (hi, hi)]:
            if at < a and not self._map(at, a, PAGE):
                return False
            at = b
        return True

    def _is_plain(self, request: Request, covered: int) -> bool:
        """Whether the requests of a series are all alike, so that one answer serves for all."""
        if covered == 0 or (request.kind is Kind.TO_SHARED and covered == request.size):
            return True
        if covered < request.size or request.kind is Kind.TO_SHARED:
            return False
        if self._world.granularity is Granularity.PAGE:
            return True
        lo, hi = request.gpa, request.gpa + request.size
        return all(
            r.each == request.each
            and (lo - r.start) % r.each == 0
            and (r.end == hi or (min(r.end, hi) - r.start) % r.each == 0)
            for r in self._meeting(lo, hi)
        )

    def _parts(self, lo: int, hi: int) -> list[tuple[int, int]]:
        """What of [lo, hi) is shared: what runs of entries cover, as ranges."""
        out: list[tuple[int, int]] = []
        for run in self._meeting(lo, hi):
            a, b = max(lo, run.start), min(hi, run.end)
            if out and out[-1][1] == a:
                out[-1] = (out[-1][0], b)
            else:
                out.append((a, b))
        return out

    def _meeting(self, lo: int, hi: int) -> list[_Run]:
        first = max(bisect_right(self._runs, _Run(lo, 0, 0)) - 1, 0)
        if self._runs and self._runs[first].end <= lo:
            first += 1
        last = first
        while last < len(self._runs) and self._runs[last].start < hi:
            last += 1
        return self._runs[first:last]

    def _map(self, lo: int, hi: int, each: int) -> bool:
        """Map a private range; ``each``: what one notification covers."""
        piece = PAGE if self._world.granularity is Granularity.PAGE else each
        run = _Run(lo, hi, piece)
        counts = self.counts
        room = self.limit - counts.entries
        if run.entries > room:
            counts.maps += room + 1
            counts.peak = max(counts.peak, self.limit)
            self._fail("map", lo + room * piece, min(piece, hi - lo - room * piece), "ENOSPC")
            return False
        counts.maps += run.entries
        counts.entries += run.entries
        counts.peak = max(counts.peak, counts.entries)
        self._insert(run)
        return True

    def _insert(self, run: _Run) -> None:
        """Runs that continue each other are one."""
        at = bisect_right(self._runs, run)
        if at and _continue(self._runs[at - 1], run):
            at -= 1
            self._runs[at] = run = _Run(self._runs[at].start, run.end, run.each)
        else:
            self._runs.insert(at, run)
        if at + 1 < len(self._runs) and _continue(run, self._runs[at + 1]):
            self._runs[at : at + 2] = [_Run(run.start, self._runs[at + 1].end, run.each)]

    def _unmap(self, lo: int, hi: int) -> bool:
        """Unmap a shared range with one call."""
        counts = self.counts
        counts.unmaps += 1
        runs = self._meeting(lo, hi)
        cuts = sum((edge - r.start) % r.each != 0 for r in runs for edge in _inside(r, lo, hi))
        if cuts and not self._split(cuts, lo, hi):
            return False
        gone = 0
        for run in runs:
            first, last = max(lo, run.start), min(hi, run.end)
            gone += -(-(last - run.start) // run.each) - (first - run.start) // run.each
        counts.entries -= gone
        counts.flushes += gone
        self._replace(runs, lo, hi)
        return True

    def _unmap_blocks(self, lo: int, hi: int) -> bool:
        """Unmap a shared range with a call for each page, as a mixed conversion does."""
        counts = self.counts
        runs = self._meeting(lo, hi)
        for run in runs:
            first, last = max(lo, run.start), min(hi, run.end)
            pages = (last - first) // PAGE
            if run.each == PAGE:
                counts.entries -= pages
                counts.unmaps += pages
                counts.flushes += pages
                continue
            at = run.start + (first - run.start) // run.each * run.each
            while at < last:
                end = min(at + run.each, run.end)
                if not self._unmap_in_entry(at, end, max(first, at), min(last, end)):
                    return False
                at = end
        self._replace(runs, lo, hi)
        return True

    def _unmap_in_entry(self, start: int, end: int, lo: int, hi: int) -> bool:
        """The same for the pages [lo, hi) of one entry [start, end)."""
        counts = self.counts
        pages = (hi - lo) // PAGE
        counts.unmaps += 1
        first = (lo > start) + (lo + PAGE < end)
        if first and not self._split(first, lo, lo + PAGE):
            return False
        counts.unmaps += pages - 1
        counts.splits += pages - 1 - (pages > 1 and hi == end)
        counts.entries += (hi < end) - (lo + PAGE < end) - 1
        counts.flushes += pages
        return True

    def _split(self, cuts: int, lo: int, hi: int) -> bool:
        """Split so many entries for the unmap of [lo, hi), or fail it."""
        counts = self.counts
        if self._world.granularity is not Granularity.CUT:
            type1 = self._world.iommu is Iommu.TYPE1
            self._fail("unmap", lo, hi - lo, "EINVAL" if type1 else "ENOENT")
            return False
        if counts.entries + cuts > self.limit:
            self._fail("unmap", lo, hi - lo, "ENOSPC")
            return False
        counts.entries += cuts
        counts.splits += cuts
        counts.peak = max(counts.peak, counts.entries)
        return True

    def _replace(self, runs: list[_Run], lo: int, hi: int) -> None:
        """Take [lo, hi) out of these runs; what is left of them stays, cut where it must be."""
        if not runs:
            return
        at = bisect_right(self._runs, runs[0]) - 1
        left: list[_Run] = []
        for start, end, each in (runs[0], runs[-1]) if len(runs) > 1 else (runs[0],):
            if start < lo:
                whole = start + (lo - start) // each * each
                left += [_Run(start, whole, each), _Run(whole, lo, lo - whole)]
            if end > hi:
                whole = min(start - (start - hi) // each * each, end)
                left += [_Run(hi, whole, whole - hi), _Run(whole, end, each)]
        self._runs[at : at + len(runs)] = [r for r in left if r.start < r.end]

    def _fail(self, call: str, address: int, size: int, errno: str) -> None:
        self.counts.failures += 1
        self.counts.failure = Failure(
            request=self.number,
            ts_ns=self.ts_ns,
            call=call,
            address=address,
            size=size,
            errno=errno,
        )


def _continue(a: _Run, b: _Run) -> bool:
    """Whether ``b`` goes on where ``a`` ends, with entries of the same size from there."""
    return a.end == b.start and a.each == b.each and (a.end - a.start) % a.each == 0


def _inside(run: _Run, lo: int, hi: int) -> list[int]:
    """Which of the two ends of [lo, hi) are within a run, and not at one of its ends."""
    return [edge for edge in (lo, hi) if run.start < edge < run.end]
