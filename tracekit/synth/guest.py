"""A guest in one generation of QEMU: what the models do for it, as a kernel records it.

    guest = Guest("merged")
    guest.plug_device()
    guest.convert(0, 16, private=False)
    write_events(path, guest.events)

The models decide every call, with their order, pieces and rollbacks; the type1 container and the
IO address space refuse what Linux refuses.  After each request the vCPU enters the guest again.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from replay.models import merged, sources, v4
from replay.models.dma_entries import DmaEntries
from replay.models.errors import DmaLimitError, FatalEnd, UpstreamError
from replay.models.flat_view import FlatView
from replay.models.iommufd_container import IommufdContainer
from replay.models.iommufd_ioas import IommufdIoas
from replay.models.kvm_memory_attributes import KvmMemoryAttributes
from replay.models.memory_region import MemoryRegion
from replay.models.ram_block import Discard, DiscardSide
from replay.models.type1_container import Type1Container
from replay.models.type1_iommu import DMA_ENTRY_LIMIT, Type1Iommu
from tracekit.events import Event
from tracekit.synth.calls import PAGE, Call
from tracekit.synth.render import Renderer
from tracekit.synth.vmm import BASE, Region, Vmm

__all__ = ("BASE", "GENERATIONS", "PAGE", "Guest", "container_of")

GENERATIONS: dict[str, ModuleType] = {"v4": v4, "merged": merged, "11.1": sources}
"""By the names of ``tracekit replay --generation``."""

Container = Type1Container | IommufdContainer


class _Kvm(KvmMemoryAttributes):
    def __init__(self, rendered: Renderer, lo: int, hi: int) -> None:
        super().__init__()
        self._rendered, self._lo, self._hi = rendered, lo, hi

    def _set(self, gpa: int, size: int, private: bool) -> None:
        lo, hi = max(gpa, self._lo), min(gpa + size, self._hi)
        changes = lo < hi and not self._is_all(lo, hi, private)
        try:
            super()._set(gpa, size, private)
        finally:
            ret = -self.calls[-1].errno
            parts = ((lo, hi - lo),) if changes and not ret else ()
            self._rendered.attribute(gpa, size, private=private, parts=parts, ret=ret)

    def _is_all(self, lo: int, hi: int, private: bool) -> bool:
        """Whether a range has the attribute already, so that the kernel does nothing."""
        held = sum(max(0, min(end, hi) - max(start, lo)) for start, end in self.private.ranges())
        return held == (hi - lo if private else 0)


def _gone(entries: DmaEntries, before: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple(e for e in before if entries.starting_at(e[0]) is None)


def _there(entries: DmaEntries, iova: int, size: int) -> list[tuple[int, int]]:
    return [(e.iova, e.size) for e in entries.starting_in(iova, size)]


class _Iommu(Type1Iommu):
    def __init__(self, rendered: Renderer, number: int, entries: int) -> None:
        super().__init__(entries)
        self._rendered, self._number = rendered, number

    def map_dma(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        ret = 0
        try:
            super().map_dma(iova, size, vaddr, readonly)
        except UpstreamError as error:
            ret = -error.errno
            raise
        finally:
            self._rendered.dma_map(self._number, iova, size, ret=ret)

    def unmap_dma(self, iova: int, size: int) -> int:
        ret, before = 0, _there(self.entries, iova, size)
        try:
            return super().unmap_dma(iova, size)
        except UpstreamError as error:
            ret = -error.errno
            raise
        finally:
            parts = _gone(self.entries, before)
            self._rendered.dma_unmap(self._number, iova, size, parts, ret=ret)


class _Ioas(IommufdIoas):
    def __init__(self, rendered: Renderer, number: int) -> None:
        super().__init__()
        self._rendered, self._number = rendered, number

    def map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        ret = 0
        try:
            super().map(iova, size, vaddr, readonly)
        except UpstreamError as error:
            ret = -error.errno
            raise
        finally:
            self._rendered.dma_map(self._number, iova, size, ret=ret)

    def unmap(self, iova: int, size: int) -> int:
        ret, before = 0, _there(self.entries, iova, size)
        try:
            return super().unmap(iova, size)
        except UpstreamError as error:
            ret = -error.errno
            raise
        finally:
            parts = _gone(self.entries, before)
            self._rendered.dma_unmap(self._number, iova, size, parts, ret=ret)


def container_of(vmm: Vmm, rendered: Renderer, space: int, entries: int) -> Container:
    """A container of the process's kind, whose maps and unmaps are written down."""
    name = f"container {space}"
    if vmm.backend == "type1":
        iommu = _Iommu(rendered, space, entries)
        return Type1Container(iommu=iommu, name=name, dma_max_mappings=0)
    return IommufdContainer(name=name, ioas=_Ioas(rendered, space))


class Guest:
    """``blocks`` pages of memory at ``BASE``, all private; ``events`` is what was recorded.

    ``vmm``: the process; by default a small one of thread ``tid``.  ``booted`` False: nothing of
    how it came to be is recorded.  ``ended``: QEMU did not survive, and nothing more can happen.
    """

    def __init__(
        self,
        generation: str,
        *,
        blocks: int = 64,
        fd_backed: bool = False,
        page_size: int = PAGE,
        tid: int = 100,
        vmm: Vmm | None = None,
        booted: bool = True,
    ) -> None:
        self.generation = generation
        self.blocks, self.ended = blocks, False
        if vmm is None:
            region = Region(size=blocks * PAGE, fd=4 if fd_backed else -1)
            vmm = Vmm(tid=tid, regions=(region,))
        self.vmm = vmm
        self.rendered = Renderer(vmm, tid=vmm.tid)
        self._package: Any = GENERATIONS[generation]
        self.mr = MemoryRegion.ram(
            "ram0",
            blocks * PAGE,
            fd_backed=fd_backed,
            page_size=page_size,
            host=self.rendered.host,
        )
        self.section = self.mr.section(address=BASE)
        self.view = FlatView()
        self.view.add(BASE, self.mr)
        assert self.mr.ram_block is not None
        self.mr.ram_block.on_discard = self._discarded
        name = "RamBlockAttribute" if generation == "v4" else "RamBlockAttributes"
        self.attributes: Any = getattr(self._package, name)(self.mr)
        self.kvm = _Kvm(self.rendered, BASE, BASE + blocks * PAGE)
        self.containers: list[Container] = []
        if booted:
            self.rendered.create_vm()
            self.rendered.memory(blocks * PAGE)
        if generation == "v4":
            self._package.CVMPrivateSharedListener(self.kvm).register(self.section)
        if booted:
            self.rendered.slot(0, BASE, blocks * PAGE)
        self.kvm.set_memory_attributes_private(BASE, blocks * PAGE)
        if not booted:
            self.rendered.calls.clear()

    @property
    def events(self) -> list[Event]:
        """Everything that was recorded so far."""
        return self.rendered.events

    @property
    def shared(self) -> bytes:
        """One byte a page, 1 where it is shared."""
        return bytes(self.attributes.bitmap.bits)

    def arrange(self, shared: bytes) -> None:
        """Bring pages into a state, mapped where they are shared; nothing of it is recorded."""
        recorded = len(self.rendered.calls)
        self.attributes.bitmap.bits[:] = shared
        for page, is_shared in enumerate(shared):
            gpa = BASE + page * PAGE
            if is_shared:
                self.kvm.private.remove(gpa, PAGE)
                for container in self.containers:
                    container.dma_map(gpa, PAGE, self.rendered.host + page * PAGE)
            else:
                self.kvm.private.add(gpa, PAGE)
        del self.rendered.calls[recorded:]

    def plug_device(
        self, entries: int = DMA_ENTRY_LIMIT, *, space: int | None = None, announce: bool = True
    ) -> Container:
        """A device in a container of its own, with room for ``entries`` maps.

        ``announce`` False: the container's own beginning is not recorded.
        """
        number = len(self.containers) if space is None else space
        container = container_of(self.vmm, self.rendered, number, entries)
        self.containers.append(container)
        if announce:
            self.rendered.container(number)
        self._attempt(lambda: self._package.VfioMemoryListener(container).region_add(self.section))
        return container

    def unplug_device(self, number: int) -> None:
        """The device goes: its listener is unregistered."""
        container = self.containers[number]
        self._attempt(lambda: self._package.VfioMemoryListener(container).region_del(self.section))

    def convert(self, first: int, count: int, *, private: bool) -> None:
        """The guest asks for ``count`` blocks from ``first``, which may be negative."""
        start, size = BASE + first * PAGE, count * PAGE
        if self.generation == "v4":
            self._attempt(lambda: v4.kvm_convert_memory(self.view, start, size, private))
        else:
            self._attempt(
                lambda: merged.kvm_convert_memory(self.view, self.kvm, start, size, private)
            )

    def calls_of(self, action: Callable[[], object]) -> list[Call]:
        """The calls that ``action`` makes, without the way back into the guest."""
        first = len(self.rendered.calls)
        action()
        done = self.rendered.calls[first:]
        assert not self.ended, "a correct guest survives"
        return done[:-1]

    def fail_attribute(self, nth: int, errno: int) -> None:
        """The ``nth`` attribute call from now on fails."""
        self.kvm.fail(nth, errno)

    def _attempt(self, call: Callable[[], object]) -> None:
        """Do it; afterwards the guest runs again, unless QEMU has ended."""
        if self.ended:
            return
        try:
            call()
        except (UpstreamError, DmaLimitError):
            pass  # the guest is told, or QEMU prints it
        except FatalEnd:
            self.ended = True
            self.rendered.exit()
            return
        self.rendered.run()

    def _discarded(self, discard: Discard) -> None:
        gpa = BASE + discard.offset
        if discard.side is DiscardSide.GUEST_MEMFD:
            self.rendered.punch_private(gpa, discard.size)
        else:
            self.rendered.discard_shared(
                gpa, discard.size, fallocate=discard.fallocate, madvise=discard.madvise
            )

    def __repr__(self) -> str:
        return f"Guest({self.generation!r}, {self.attributes!r}, {len(self.events)} events)"
