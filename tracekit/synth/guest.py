"""A guest in one generation of QEMU: what the models do for it, as a kernel records it.

    guest = Guest("merged")
    guest.plug_device()
    guest.convert(0, 16, private=False)
    write_events(path, guest.events)

The models decide every call, with their order, pieces and rollbacks; the type1 container refuses
what Linux refuses.  After each request the vCPU enters the guest again.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from replay.models import merged, sources, v4
from replay.models.errors import DmaLimitError, FatalEnd, UpstreamError
from replay.models.flat_view import FlatView
from replay.models.kvm_memory_attributes import KvmMemoryAttributes
from replay.models.memory_region import MemoryRegion
from replay.models.ram_block import Discard, DiscardSide
from replay.models.type1_container import Type1Container
from replay.models.type1_iommu import DMA_ENTRY_LIMIT, Type1Iommu
from tracekit.events import Event
from tracekit.synth.render import Renderer

__all__ = ("BASE", "GENERATIONS", "PAGE", "Guest")

PAGE = 4096
BASE = 0x1_0000_0000
"""Where the memory begins in the guest's address space."""
GENERATIONS: dict[str, ModuleType] = {"v4": v4, "merged": merged, "11.1": sources}
"""By the names of ``tracekit replay --generation``."""


class _Kvm(KvmMemoryAttributes):
    def __init__(self, rendered: Renderer) -> None:
        super().__init__()
        self._rendered = rendered

    def _set(self, gpa: int, size: int, private: bool) -> None:
        try:
            super()._set(gpa, size, private)
        finally:
            self._rendered.attribute(gpa, size, private=private, ret=-self.calls[-1].errno)


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
            self._rendered.dma_map(self._number, iova, size, vaddr, ret=ret)

    def unmap_dma(self, iova: int, size: int) -> int:
        ret = unmapped = 0
        try:
            unmapped = super().unmap_dma(iova, size)
            return unmapped
        except UpstreamError as error:
            ret = -error.errno
            raise
        finally:
            self._rendered.dma_unmap(self._number, iova, size, unmapped=unmapped, ret=ret)


class Guest:
    """``blocks`` pages of memory at ``BASE``, all private; ``events`` is what was recorded.

    ``ended``: QEMU did not survive, and nothing more can happen.
    """

    def __init__(
        self, generation: str, *, blocks: int = 64, fd_backed: bool = False, tid: int = 100
    ) -> None:
        self.generation = generation
        self.blocks, self.ended = blocks, False
        self.rendered = Renderer(tid=tid)
        self._package: Any = GENERATIONS[generation]
        self.mr = MemoryRegion.ram(
            "ram0", blocks * PAGE, fd_backed=fd_backed, host=self.rendered.host
        )
        self.section = self.mr.section(address=BASE)
        self.view = FlatView()
        self.view.add(BASE, self.mr)
        assert self.mr.ram_block is not None
        self.mr.ram_block.on_discard = self._discarded
        name = "RamBlockAttribute" if generation == "v4" else "RamBlockAttributes"
        self.attributes: Any = getattr(self._package, name)(self.mr)
        self.kvm = _Kvm(self.rendered)
        self.containers: list[Type1Container] = []
        self.rendered.create_vm()
        self.rendered.memory(blocks * PAGE)
        if generation == "v4":
            self._package.CVMPrivateSharedListener(self.kvm).register(self.section)
        self.rendered.slot(0, BASE, blocks * PAGE)
        self.kvm.set_memory_attributes_private(BASE, blocks * PAGE)

    @property
    def events(self) -> list[Event]:
        """Everything that was recorded so far."""
        return self.rendered.events

    def plug_device(self, entries: int = DMA_ENTRY_LIMIT) -> Type1Container:
        """A device in a container of its own, with room for ``entries`` maps."""
        number = len(self.containers)
        iommu = _Iommu(self.rendered, number, entries)
        container = Type1Container(iommu=iommu, name=f"container {number}", dma_max_mappings=0)
        self.containers.append(container)
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

    def fail_attribute(self, nth: int, errno: int) -> None:
        """The ``nth`` attribute call from now on fails."""
        self.kvm.fail(nth, errno)

    def _attempt(self, call: Any) -> None:
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
        if discard.side is DiscardSide.GUEST_MEMFD:
            self.rendered.punch_private(discard.offset, discard.size)
        else:
            self.rendered.discard_shared(
                discard.offset, discard.size, fallocate=discard.fallocate, madvise=discard.madvise
            )

    def __repr__(self) -> str:
        return f"Guest({self.generation!r}, {self.attributes!r}, {len(self.events)} events)"
