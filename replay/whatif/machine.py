"""A world made of the models: every request goes through QEMU's code as replay/models has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from errno import EBUSY, EFAULT
from typing import Any

from replay.checks.violations import size_text
from replay.models import FlatView, MemoryRegion, merged, sources, v4
from replay.models.dma_entries import DmaEntries, DmaEntry
from replay.models.errors import (
    ConvertError,
    DmaLimitError,
    EntryLimitError,
    FatalEnd,
    InvalidRangeError,
    SetAttributesError,
    UpstreamError,
)
from replay.models.iommufd_container import IommufdContainer
from replay.models.kvm_memory_attributes import KvmMemoryAttributes
from replay.models.range_set import RangeSet
from replay.models.type1_container import Type1Container
from replay.models.vfio_container import VfioContainer
from replay.whatif.counts import Counts, Failure
from replay.whatif.requests import Kind, Request, Requests
from replay.whatif.world import Granularity, Iommu, World
from tracekit.errors import TracekitError

__all__ = ("KVM_MEMSLOTS", "MOST_BYTES", "MOST_CALLS", "play")

PACKAGES: dict[str, Any] = {"v4": v4, "merged": merged, "11.1": sources}
KVM_MEMSLOTS = 32764
"""What KVM offers on x86: QEMU keeps that many DMA mappings free for other memory."""
MOST_BYTES = 64 << 30
Ranges = list[tuple[int, int]]
MOST_CALLS = 20_000_000


def play(
    requests: Requests, world: World, *, progress: Callable[[int], None] | None = None
) -> Counts:
    """All requests, one after the other; it ends early only where QEMU would.

    :raises TracekitError: more memory than a bit a page should be kept for, or endless calls
    """
    if sum(size for _, size in requests.regions) > MOST_BYTES:
        raise TracekitError(f"more than {MOST_BYTES >> 30} GiB of memory that is converted")
    machine = _Machine(requests, world)
    done = 0
    for number, request in enumerate(requests.requests):
        machine.number, machine.ts_ns = number, request.ts_ns
        for piece in request.pieces():
            if not machine.counts.ended:
                machine.ask(piece)
        machine.counts.entries = max(len(c.entries) for c in machine.containers)
        machine.counts.tick(request.ts_ns)
        if progress is not None and number >= done + 64:
            done = number
            progress(done)
    return machine.counts


class _Machine:
    """One VM and its containers."""

    def __init__(self, requests: Requests, world: World) -> None:
        self.world, self.counts = world, Counts()
        self.number, self.ts_ns = -1, requests.requests[0].ts_ns if requests.requests else 0
        self._package = PACKAGES[world.generation]
        self._view = FlatView()
        self.kvm = _Kvm(self)
        self.containers: list[VfioContainer] = [
            _iommufd(self, i) if world.iommu is Iommu.IOMMUFD else _type1(self, i)
            for i in range(requests.containers)
        ]
        self._bitmaps: list[tuple[int, int, Any]] = []
        self._doubled, self._changing = RangeSet(), RangeSet()
        for gpa, size in requests.regions:
            self._add_memory(gpa, size)

    def ask(self, request: Request) -> None:
        """One request."""
        if self.counts.maps + self.counts.unmaps > MOST_CALLS:
            raise TracekitError(f"more than {MOST_CALLS:,} calls in the world {self.world.name}")
        if request.kind.converts:
            self._convert(request)
            return
        for container in self.containers:
            try:
                if request.kind is Kind.ADD:
                    container.dma_map(request.gpa, request.size, request.gpa)
                else:
                    container.dma_unmap(request.gpa, request.size)
            except UpstreamError as error:
                call = "map" if request.kind is Kind.ADD else "unmap"
                self.failed(call, request.gpa, request.size, error)
                self._say_broken(f"{size_text(request.size)} stay as they were")

    def failed(self, call: str, address: int, size: int, error: UpstreamError) -> None:
        """A call is refused; the first one is remembered."""
        self.counts.failures += 1
        failure = Failure(
            request=self.number,
            ts_ns=self.ts_ns,
            call=call,
            address=address,
            size=size,
            errno=error.errno_name,
        )
        if self.counts.failure is None:
            self.counts.failure = failure
        if self.world.in_place and error.errno in (EBUSY, EFAULT):
            self.counts.rejected += 1
            self.counts.first_rejected = self.counts.first_rejected or failure

    def _add_memory(self, gpa: int, size: int) -> None:
        region = MemoryRegion.ram("ram", size)
        section = region.section(address=gpa)
        self._view.add(gpa, region)
        self.kvm.private.add(gpa, size)
        v4_world = self.world.generation == "v4"
        name = "RamBlockAttribute" if v4_world else "RamBlockAttributes"
        attributes = getattr(self._package, name)(region)
        assert region.ram_block is not None
        region.ram_block.on_discard = lambda d: self._doubled.remove(gpa + d.offset, d.size)
        self._bitmaps.append((gpa, size, attributes))
        if v4_world:
            v4.CVMPrivateSharedListener(self.kvm).register(section)
        for container in self.containers:
            if v4_world:
                listener = _V4Listener(container, self.world)
                listener.register(section)
                continue
            try:
                _Listener(container, self.world).register(section, max_memslots=KVM_MEMSLOTS)
            except DmaLimitError as refused:
                if self.counts.failure is None:
                    self.counts.failures += 1
                    self.counts.failure = Failure(
                        request=-1,
                        ts_ns=self.ts_ns,
                        call="device",
                        address=gpa,
                        size=size,
                        errno="",
                        broken=f"QEMU refuses the device: {str(refused).partition(': ')[2]}",
                    )

    def _convert(self, request: Request) -> None:
        private = request.kind is Kind.TO_PRIVATE
        first = self.counts.failure
        ended, refused = "", False
        self.counts.conversions += 1
        self._changing = RangeSet()
        try:
            if self.world.generation == "v4":
                v4.kvm_convert_memory(self._view, request.gpa, request.size, private)
            else:
                merged.kvm_convert_memory(
                    self._view, self.kvm, request.gpa, request.size, private
                )  # fmt: skip
        except FatalEnd as end:
            ended = f"QEMU ends in {end.function}()"
        except (ConvertError, InvalidRangeError):
            refused = True  # the request is bad in any world
        except UpstreamError:
            self.counts.refused += 1
        self.counts.refused += refused
        self.counts.ended = self.counts.ended or ended
        if not self.world.in_place:
            self.counts.doubled_left = _total(self._doubled.ranges())
        if self.counts.failure is not first:
            self._say_broken(self._left_behind(request, ended))

    def changed(self, asked: Ranges, was: Ranges, private: bool) -> None:
        """KVM's attribute changed: until the discard both backings of those pages may be there."""
        if self.world.in_place:
            return
        for start, end in _without(asked, was) if private else _overlap(asked, was):
            back = start in self._changing  # a rollback: nobody touched the other backing
            (self._doubled.remove if back else self._doubled.add)(start, end - start)
            self._changing.add(start, end - start)
        self.counts.doubled = max(self.counts.doubled, _total(self._doubled.ranges()))

    def _say_broken(self, text: str) -> None:
        if self.counts.failure is not None and not self.counts.failure.broken:
            self.counts.failure = replace(self.counts.failure, broken=text)

    def _left_behind(self, request: Request, ended: str) -> str:
        """What the first failure broke, read off the state."""
        stale = missing = 0
        mapped = [(r.iova, r.end) for r in self.containers[0].entries.ranges()]
        for gpa, size, attributes in self._bitmaps:
            asked = [(max(gpa, request.gpa), min(gpa + size, request.gpa + request.size))]
            shared = [(gpa + a, gpa + b) for a, b in attributes.shared_ranges()]
            here, there = _overlap(shared, asked), _overlap(mapped, asked)
            both = _total(_overlap(here, there))
            stale += _total(there) - both
            missing += _total(here) - both
        said = [ended] if ended else []
        if stale:
            said.append(f"{size_text(stale)} stay mapped while private (TK101)")
        if missing:
            said.append(f"{size_text(missing)} are shared and not mapped (TK104)")
        return "; ".join(said) or "the conversion is refused, and undone"


class _Kvm(KvmMemoryAttributes):
    """Attributes; with in-place memory, those of pages that are mapped stay as they are."""

    def __init__(self, machine: _Machine) -> None:
        super().__init__(keep_calls=False)
        self._machine = machine

    def _set(self, gpa: int, size: int, private: bool) -> None:
        machine = self._machine
        pinned = machine.world.in_place and any(
            c.entries.overlapping(gpa, size) is not None for c in machine.containers
        )
        if private and pinned:
            error = SetAttributesError(f"[{gpa:#x}, +{size:#x}) is pinned", EBUSY)
            machine.failed("attribute", gpa, size, error)
            raise error
        was = self.private.ranges()
        super()._set(gpa, size, private)
        machine.changed([(gpa, gpa + size)], was, private)


class _Counting:
    """What both sorts of containers have in common: counting, splitting, in-place memory."""

    machine: _Machine
    dma_entries: DmaEntries

    def count_map(self, iova: int, size: int, call: Callable[[], None]) -> None:
        machine = self.machine
        machine.counts.maps += 1
        private = machine.kvm.private.overlaps(iova, size)
        try:
            if machine.world.in_place and private:
                raise UpstreamError(f"[{iova:#x}, +{size:#x}) is private", EFAULT)
            call()
        except UpstreamError as error:
            machine.failed("map", iova, size, error)
            raise
        machine.counts.premature += private
        machine.counts.peak = max(machine.counts.peak, len(self.dma_entries))

    def count_unmap(self, iova: int, size: int, call: Callable[[], int]) -> int:
        counts = self.machine.counts
        counts.unmaps += 1
        before = len(self.dma_entries)
        try:
            if self.machine.world.granularity is Granularity.CUT:
                for edge in (iova, iova + size):
                    self._split(edge)
                before = len(self.dma_entries)
            return call()
        except UpstreamError as error:
            self.machine.failed("unmap", iova, size, error)
            raise
        finally:
            counts.flushes += before - len(self.dma_entries)

    def _split(self, edge: int) -> None:
        entry = self.dma_entries.at(edge)
        if entry is None or entry.iova == edge:
            return
        self.take_one()
        first = edge - entry.iova
        self.dma_entries.remove(entry)
        self.dma_entries.add(DmaEntry(entry.iova, first, entry.vaddr, entry.readonly))
        self.dma_entries.add(
            DmaEntry(edge, entry.size - first, entry.vaddr + first, entry.readonly)
        )  # fmt: skip
        self.machine.counts.splits += 1
        self.machine.counts.peak = max(self.machine.counts.peak, len(self.dma_entries))

    def take_one(self) -> None:
        """A split makes one entry more."""


class _Type1(_Counting, Type1Container):
    def dma_map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        self.count_map(iova, size, lambda: self.iommu.map_dma(iova, size, vaddr, readonly))

    def dma_unmap(self, iova: int, size: int) -> int:
        return self.count_unmap(iova, size, lambda: self.iommu.unmap_dma(iova, size))

    def take_one(self) -> None:
        if self.iommu.dma_avail <= 0:
            raise EntryLimitError("a split needs one more DMA entry")
        self.iommu.dma_avail -= 1


class _Iommufd(_Counting, IommufdContainer):
    def dma_map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        self.count_map(iova, size, lambda: self.ioas.map(iova, size, vaddr, readonly))

    def dma_unmap(self, iova: int, size: int) -> int:
        told = len(self.reported)
        done = self.count_unmap(iova, size, lambda: IommufdContainer.dma_unmap(self, iova, size))
        if len(self.reported) > told and self.dma_entries.overlapping(iova, size) is not None:
            self.machine.failed("unmap", iova, size, self.reported[-1])
        return done


def _type1(machine: _Machine, number: int) -> VfioContainer:
    made = _Type1(machine.world.dma_entry_limit, name=f"container{number}")
    made.machine, made.dma_entries = machine, made.iommu.entries
    return made


def _iommufd(machine: _Machine, number: int) -> VfioContainer:
    made = _Iommufd(name=f"container{number}")
    made.machine, made.dma_entries = machine, made.ioas.entries
    return made


class _Pieces:
    """The granularity of a listener is the world's, whatever the manager says."""

    world: World
    _granularity = 0

    @property
    def granularity(self) -> int:
        return self._granularity if self.world.granularity is Granularity.PAGE else 1 << 62

    @granularity.setter
    def granularity(self, value: int) -> None:
        self._granularity = value


class _Listener(_Pieces, merged.VfioListener):
    def __init__(self, container: VfioContainer, world: World) -> None:
        self.world = world
        super().__init__(container)


class _V4Listener(_Pieces, v4.VfioPrivateSharedListener):
    def __init__(self, container: VfioContainer, world: World) -> None:
        self.world = world
        super().__init__(container)
        self.priority = world.vfio_priority


def _overlap(a: Ranges, b: Ranges) -> Ranges:
    """What two ascending lists of ranges have in common."""
    out: Ranges = []
    i = j = 0
    while i < len(a) and j < len(b):
        lo, hi = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if lo < hi:
            out.append((lo, hi))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return out


def _without(a: Ranges, b: Ranges) -> Ranges:
    """What of ``a`` is not in ``b``."""
    left = RangeSet()
    for start, end in a:
        left.add(start, end - start)
    for start, end in _overlap(a, b):
        left.remove(start, end - start)
    return left.ranges()


def _total(ranges: Ranges) -> int:
    return sum(end - start for start, end in ranges)
